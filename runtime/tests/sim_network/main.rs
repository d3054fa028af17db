//! The network between simulated nodes: delays, clogged and cut paths, isolation, resets, and how connections end and come back.

mod limit;
mod talker;

use std::net::SocketAddr;
use std::time::Duration;

use highwater_runtime::plane::{CloseReason, ConnectFailure};
use highwater_runtime::sim::{
    CrashPolicy, NetworkConfig, NodeConfig, NodeEnd, SimNode, SimWorld, WorldConfig,
};
use rand::RngExt as _;
use talker::{CONNECT_WITHIN, MESSAGE_BYTES, Talker};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

fn talkers(seed: u64, network: NetworkConfig, count: usize) -> (SimWorld<Talker>, Vec<SimNode>) {
    let mut world = SimWorld::new(WorldConfig { network, ..WorldConfig::new(seed) });
    let addresses: Vec<SocketAddr> =
        (0..count).map(|node| SocketAddr::from(([10, 0, 0, node as u8 + 1], 9000))).collect();
    let nodes: Vec<_> = (0..count)
        .map(|node| {
            let others = addresses.iter().copied().enumerate().filter(|(other, _)| *other != node);
            let others: Vec<_> = others.collect();
            world.add_node(NodeConfig::new(1, 1), move |_, plane| Ok(Talker::new(plane, node, &others)))
        })
        .collect();
    for node in &nodes {
        world.start(*node).unwrap();
    }
    world.run_for(SECOND);
    (world, nodes)
}

fn talker(world: &SimWorld<Talker>, node: SimNode) -> &Talker {
    world.app(node, 0).expect("it runs")
}

/// Returns how many messages of `from` have arrived at `at`.
fn count(world: &SimWorld<Talker>, from: SimNode, at: SimNode) -> u64 {
    talker(world, at).received_from(from).messages
}

/// Runs for this time. Returns how many messages of `from` have arrived at `at` in it.
fn arrives(world: &mut SimWorld<Talker>, time: Duration, from: SimNode, at: SimNode) -> u64 {
    let before = count(world, from, at);
    world.run_for(time);
    count(world, from, at) - before
}

/// Runs until messages have arrived over every path again, and checks that they go on.
fn recover(world: &mut SimWorld<Talker>, nodes: &[SimNode]) {
    world.run_for(2 * CONNECT_WITHIN + SECOND);
    let pairs: Vec<_> = nodes
        .iter()
        .flat_map(|from| nodes.iter().map(move |at| (*from, *at)))
        .filter(|(a, b)| a != b)
        .collect();
    let before: Vec<_> = pairs.iter().map(|(from, at)| count(world, *from, *at)).collect();
    world.run_for(SECOND);
    for ((from, at), before) in pairs.into_iter().zip(before) {
        let arrived = count(world, from, at) - before;
        assert!(arrived > 80, "{arrived} messages of {from:?} arrive at {at:?} in a second");
    }
}

fn is_error(reason: &CloseReason, text: &str) -> bool {
    matches!(reason, CloseReason::Error(why) if why.contains(text))
}

#[test]
fn nodes_exchange_messages_over_connections_that_they_open() {
    for seed in 0..5 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 3);
        recover(&mut world, &nodes);
        for node in nodes {
            let talker = talker(&world, node);
            assert_eq!((&talker.ends, &talker.failures), (&vec![], &vec![]));
            assert_eq!(talker.accepted.len(), 2);
        }
    }
}

#[test]
fn a_slow_path_delays_one_direction_only() {
    let (mut world, nodes) = talkers(1, NetworkConfig::default(), 2);
    let (a, b) = (nodes[0], nodes[1]);
    world.set_path_delay(a, b, Some(Duration::from_millis(300)..=Duration::from_millis(340)));
    world.run_for(10 * SECOND);
    let there = talker(&world, b).received_from(a).slowest;
    assert!((300..400).contains(&there.as_millis()), "{there:?}");
    let back = talker(&world, a).received_from(b).slowest;
    assert!(back < Duration::from_millis(20), "{back:?}");
    world.set_path_delay(a, b, None);
    recover(&mut world, &nodes);
    assert!(talker(&world, a).ends.is_empty() && talker(&world, b).ends.is_empty());
}

#[test]
fn a_clogged_path_ends_no_connection_and_delivers_everything_once_when_it_is_unblocked() {
    for seed in 0..2 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 2);
        let (a, b) = (nodes[0], nodes[1]);
        world.clog(a, b);
        // What had arrived before may not have been read yet.
        world.run_for(SECOND / 10);
        assert_eq!(arrives(&mut world, MINUTE, a, b), 0);
        assert!(arrives(&mut world, MINUTE, b, a) > 5000, "the other direction is open");
        assert_eq!(arrives(&mut world, 5 * MINUTE, a, b), 0);
        world.unblock(a, b);
        world.run_for(SECOND);
        let unread = talker(&world, a).links[&b.0].sent - count(&world, a, b);
        assert!(unread < 10, "{unread} messages did not arrive");
        recover(&mut world, &nodes);
        assert!(talker(&world, a).ends.is_empty() && talker(&world, b).ends.is_empty());
    }
}

#[test]
fn a_sender_whose_acknowledgements_are_clogged_stops_when_the_window_is_full() {
    let network = NetworkConfig { window_bytes: 1000, ..NetworkConfig::default() };
    let (mut world, nodes) = talkers(1, network, 2);
    let (a, b) = (nodes[0], nodes[1]);
    world.clog(a, b);
    let arrived = arrives(&mut world, MINUTE, b, a);
    assert!(arrived > 0 && arrived <= 1000 / MESSAGE_BYTES as u64, "{arrived}");
    assert_eq!(arrives(&mut world, MINUTE, b, a), 0);
    world.unblock(a, b);
    recover(&mut world, &nodes);
    assert!(talker(&world, a).ends.is_empty() && talker(&world, b).ends.is_empty());
}

#[test]
fn a_cut_ends_connections_with_an_error_and_others_are_not_affected() {
    for seed in 0..5 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 3);
        let (a, b, c) = (nodes[0], nodes[1], nodes[2]);
        world.cut(a, b);
        world.run_for(SECOND / 10);
        assert_eq!(arrives(&mut world, 20 * SECOND, a, b), 0);
        assert!(talker(&world, a).ends.is_empty(), "nobody has given up yet");
        assert_eq!(arrives(&mut world, 3 * MINUTE, a, b), 0);
        for (node, other) in [(a, b), (b, a)] {
            let talker = talker(&world, node);
            assert_eq!(talker.ends.len(), 2, "{:?}", talker.ends);
            assert!(talker.ends.iter().all(|end| is_error(end, "timed out")), "{:?}", talker.ends);
            assert!(!talker.links[&other.0].is_open);
            assert!(!talker.failures.is_empty());
            let timed_out = ConnectFailure::TimedOut(CONNECT_WITHIN);
            assert!(talker.failures.iter().all(|why| *why == timed_out), "{:?}", talker.failures);
        }
        assert!(talker(&world, c).ends.is_empty());
        assert!(arrives(&mut world, SECOND, a, c) > 80);
        world.heal_network();
        recover(&mut world, &nodes);
    }
}

#[test]
fn a_cut_that_heals_in_time_ends_nothing() {
    let (mut world, nodes) = talkers(1, NetworkConfig::default(), 2);
    for _ in 0..10 {
        world.cut(nodes[0], nodes[1]);
        world.run_for(29 * SECOND);
        world.unblock(nodes[0], nodes[1]);
        world.unblock(nodes[1], nodes[0]);
        recover(&mut world, &nodes);
    }
    assert!(nodes.iter().all(|node| talker(&world, *node).ends.is_empty()));
}

#[test]
fn a_cut_in_one_direction_ends_connections_on_both_sides() {
    for seed in 0..5 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 2);
        let (a, b) = (nodes[0], nodes[1]);
        world.cut_path(a, b);
        world.run_for(SECOND / 10);
        assert!(arrives(&mut world, 20 * SECOND, b, a) > 1500, "the other direction is open");
        assert_eq!(arrives(&mut world, 3 * MINUTE, a, b), 0);
        // B can reset its connections at A, and A cannot reset those at B.
        for node in [a, b] {
            let talker = talker(&world, node);
            assert!(talker.links.values().all(|link| !link.is_open));
            assert!(talker.ends.iter().all(|end| matches!(end, CloseReason::Error(_))), "{:?}", talker.ends);
            assert!(talker.failures.iter().all(|why| *why == ConnectFailure::TimedOut(CONNECT_WITHIN)));
        }
        assert_eq!(arrives(&mut world, MINUTE, b, a), 0, "no connection is established without answers");
        world.heal_network();
        recover(&mut world, &nodes);
    }
}

#[test]
fn an_isolated_node_is_cut_off_from_all_others_until_it_rejoins() {
    for seed in 0..5 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 3);
        let (a, b, c) = (nodes[0], nodes[1], nodes[2]);
        world.isolate(c);
        world.run_for(SECOND / 10);
        assert_eq!(arrives(&mut world, 2 * MINUTE, c, a), 0);
        assert!(arrives(&mut world, MINUTE, a, b) > 5000);
        assert_eq!(talker(&world, c).ends.len(), 4, "both connections with both others");
        assert_eq!(talker(&world, a).ends.len(), 2);
        world.rejoin(c);
        recover(&mut world, &nodes);
    }
}

#[test]
fn reset_connections_end_on_both_sides_and_are_opened_again() {
    for seed in 0..20 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 3);
        let (a, b, c) = (nodes[0], nodes[1], nodes[2]);
        for n in 1..=5 {
            world.reset_connections(a, b);
            world.run_for(SECOND);
            for node in [a, b] {
                let ends = &talker(&world, node).ends;
                assert_eq!(ends.len(), 2 * n, "{ends:?}");
                assert!(ends.iter().all(|end| is_error(end, "reset")), "{ends:?}");
            }
        }
        assert!(talker(&world, c).ends.is_empty());
        recover(&mut world, &nodes);
    }
}

#[test]
fn the_crash_of_a_node_resets_its_connections_and_it_is_found_again_after_a_restart() {
    for seed in 0..5 {
        let (mut world, nodes) = talkers(seed, NetworkConfig::default(), 3);
        let (a, b) = (nodes[0], nodes[1]);
        world.crash(b, CrashPolicy::MIXED);
        world.run_for(SECOND);
        let ends = &talker(&world, a).ends;
        assert!(ends.len() == 2 && ends.iter().all(|end| is_error(end, "reset")), "{ends:?}");
        let failures = &talker(&world, a).failures;
        assert!(!failures.is_empty() && failures.iter().all(|why| *why == ConnectFailure::Refused));
        world.start(b).unwrap();
        recover(&mut world, &nodes);
    }
}

#[test]
fn the_connections_of_a_node_that_crashes_while_it_is_isolated_are_reset_when_it_rejoins() {
    let (mut world, nodes) = talkers(1, NetworkConfig::default(), 2);
    let (a, b) = (nodes[0], nodes[1]);
    world.isolate(b);
    world.crash(b, CrashPolicy::MIXED);
    world.start(b).unwrap();
    world.run_for(20 * SECOND);
    assert!(talker(&world, a).ends.is_empty(), "the machine is silent");
    world.rejoin(b);
    world.run_for(SECOND);
    let ends = &talker(&world, a).ends;
    assert!(ends.len() == 2 && ends.iter().all(|end| is_error(end, "reset")), "{ends:?}");
    recover(&mut world, &nodes);
}

#[test]
fn a_paused_node_keeps_its_connections_and_answers_nothing() {
    let (mut world, nodes) = talkers(1, NetworkConfig::default(), 2);
    let (a, b) = (nodes[0], nodes[1]);
    world.pause(b);
    assert_eq!(arrives(&mut world, 5 * MINUTE, b, a), 0);
    // A new connection is made by the kernel of the paused node.
    world.reset_connections(a, b);
    world.run_for(SECOND);
    let talker_a = talker(&world, a);
    assert!(talker_a.links[&b.0].is_open && talker_a.failures.is_empty());
    assert_eq!(talker_a.ends.len(), 2);
    world.resume(b);
    recover(&mut world, &nodes);
}

#[test]
fn a_node_that_exits_closes_the_connections_that_it_has_opened() {
    let (mut world, nodes) = talkers(1, NetworkConfig::default(), 2);
    let (a, b) = (nodes[0], nodes[1]);
    world.shutdown(b);
    assert!(world.run_until(SECOND, |world| world.end(b).is_some()));
    assert_eq!(world.end(b), Some(&NodeEnd::Exited));
    world.run_for(SECOND);
    assert_eq!(talker(&world, a).ends.len(), 2, "{:?}", talker(&world, a).ends);
    world.start(b).unwrap();
    recover(&mut world, &nodes);
}

/// Runs three nodes under random faults of the network. Returns the trace's hash and its number of events.
fn stormy(seed: u64) -> (u64, u64) {
    let network =
        NetworkConfig { give_up: SECOND..=5 * SECOND, window_bytes: 2000, ..NetworkConfig::default() };
    let (mut world, nodes) = talkers(seed, network, 3);
    for _ in 0..40 {
        let mut pick = || nodes[world.workload().random_range(0..nodes.len())];
        let (one, other) = (pick(), pick());
        let fault = world.workload().random_range(0..9);
        match fault {
            _ if one == other && world.end(one).is_some() => world.start(one).unwrap(),
            0 if one == other => world.crash(one, CrashPolicy::MIXED),
            1 if one == other => world.pause(one),
            2 if one == other => world.isolate(one),
            3 if one == other => world.rejoin(one),
            _ if one == other => world.resume(one),
            0 => world.clog(one, other),
            1 => world.cut_path(one, other),
            2 => world.cut(one, other),
            3 | 4 => world.unblock(one, other),
            5 => world.reset_connections(one, other),
            6 => {
                let delay = Duration::from_millis(world.workload().random_range(1..300));
                world.set_path_delay(one, other, Some(delay / 2..=delay));
            }
            7 => world.set_path_delay(one, other, None),
            _ => world.heal_network(),
        }
        let time = Duration::from_millis(world.workload().random_range(0..3000));
        world.run_for(time);
    }
    for node in &nodes {
        world.resume(*node);
        if world.end(*node).is_some() {
            world.start(*node).unwrap();
        }
        for other in &nodes {
            world.set_path_delay(*node, *other, None);
        }
    }
    world.heal_network();
    world.run_for(10 * SECOND);
    recover(&mut world, &nodes);
    (world.trace_hash(), world.trace_events())
}

#[test]
fn whatever_happens_to_the_network_nodes_find_each_other_again_and_the_seed_determines_it() {
    let mut hashes = Vec::new();
    for seed in 0..6 {
        let (hash, events) = stormy(seed);
        assert_eq!((hash, events), stormy(seed), "seed {seed}");
        assert!(events > 1000, "{events}");
        assert!(!hashes.contains(&hash));
        hashes.push(hash);
    }
}
