//! A shard has tens of thousands of replicas, most of them idle.

use highwater_replication::raft::{Action, Replica};

use crate::world::{Event, World};

/// Three nodes after an election and some entries, with nothing left to do.
fn idle() -> World {
    let mut world = World::new(3, 3, 1);
    let apply = |world: &mut World, event| world.apply(&event).expect("no violation");
    apply(&mut world, Event::Campaign(0));
    for round in 0..40 {
        if round < 20 {
            apply(&mut world, Event::Propose(0));
        }
        for at in 0..3 {
            apply(&mut world, Event::Persisted(at));
            let end = world.nodes[at].log.end();
            apply(&mut world, Event::Flushed(at, end));
        }
        for _ in 0..world.network.len() {
            apply(&mut world, Event::Deliver { packet: 0, doubled: false });
        }
    }
    assert!(world.network.is_empty() && world.nodes[0].replica.commit_end().0 > 10);
    world
}

#[test]
fn an_idle_replica_takes_less_than_a_kilobyte() {
    let world = idle();
    let bytes = |at: usize| size_of::<Replica>() + world.nodes[at].replica.heap_bytes();
    println!("leader {} bytes, follower {}, action {}", bytes(0), bytes(1), size_of::<Action>());
    assert!(bytes(0) < 1024 && bytes(1) < 1024, "leader {}, follower {}", bytes(0), bytes(1));
}
