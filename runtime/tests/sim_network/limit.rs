//! The limit of outgoing connections.

use std::net::SocketAddr;
use std::time::Duration;

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ConnectFailure, ListenerId, OUTGOING_CONNECTIONS_MAX,
    Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::sim::{NodeConfig, SimWorld, WorldConfig};

const SECOND: Duration = Duration::from_secs(1);

/// Connects many times at once, and once more when all of these have an outcome.
struct Dialer {
    to: SocketAddr,
    outcomes: Vec<Result<(), ConnectError>>,
}

/// More connects than a shard may have, by this number.
const TOO_MANY: usize = 3;

impl ShardApp for Dialer {
    type Message = ();

    fn on_timer(&mut self, plane: &mut dyn Plane<()>, token: Token) {
        for _ in 0..OUTGOING_CONNECTIONS_MAX + TOO_MANY {
            plane.connect(self.to, SECOND, token);
        }
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<()>,
        _: ConnId,
        token: Token,
        outcome: Result<(), ConnectError>,
    ) {
        self.outcomes.push(outcome);
        if self.outcomes.len() == OUTGOING_CONNECTIONS_MAX + TOO_MANY {
            plane.connect(self.to, SECOND, token);
        }
    }

    fn on_accept(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr) {}
    fn on_recv(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: &[u8]) {}
    fn on_closed(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: CloseReason) {}
    fn on_bulk(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: AlignedBuf) {}
    fn on_sent(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: usize) {}
    fn on_disk(&mut self, _: &mut dyn Plane<()>, _: Token, _: Completion) {}
    fn on_message(&mut self, _: &mut dyn Plane<()>, _: ShardIndex, (): ()) {}
    fn on_migrated(&mut self, _: &mut dyn Plane<()>, _: ConnId, _: ListenerId, _: SocketAddr, (): ()) {}
    fn on_turn_end(&mut self, _: &mut dyn Plane<()>) {}
    fn on_shutdown(&mut self, _: &mut dyn Plane<()>) {}
}

#[test]
fn a_shard_that_opens_too_many_connections_gets_an_error_for_those_above_the_limit() {
    let mut world = SimWorld::new(WorldConfig::new(1));
    let to = SocketAddr::from(([10, 0, 0, 2], 9000));
    let make = move |_, plane: &mut dyn Plane<()>| {
        plane.set_timer(plane.now(), Token(1));
        Ok(Dialer { to, outcomes: Vec::new() })
    };
    let node = world.add_node(NodeConfig::new(1, 1), make);
    let silent = world.add_node(NodeConfig::new(1, 1), make);
    assert_eq!(world.address(silent, 0), to);
    world.isolate(silent);
    world.start(node).unwrap();
    world.run_for(5 * SECOND);
    let outcomes = &world.app(node, 0).expect("it runs").outcomes;
    let failed = |why: &ConnectFailure| {
        outcomes.iter().filter(|outcome| matches!(outcome, Err(error) if error.why == *why)).count()
    };
    assert_eq!(failed(&ConnectFailure::LimitReached), TOO_MANY);
    assert_eq!(failed(&ConnectFailure::TimedOut(SECOND)), OUTGOING_CONNECTIONS_MAX + 1);
}
