//! Logs of more terms than a replica remembers.

use std::ops::Range;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::raft::{HardState, RUNS_MAX, ReplicaId};

use crate::disk::{Disk, Entry, Value};
use crate::world::{Event, Node, Packet, World};

/// Terms of the leader's log, with one entry each.
const TERMS: u64 = RUNS_MAX as u64 + 400;

/// Entries with these indexes. Below `until` the epoch of each is its index plus one; from there on it is that of the last of these, and only this
/// log has them.
fn entries(indexes: Range<u64>, until: u64) -> impl Iterator<Item = Entry> {
    indexes.map(move |index| {
        let epoch = index.min(until.saturating_sub(1)) + 1;
        let value = if index < until { index } else { 1_000_000 + index };
        Entry { epoch: LeaderEpoch(epoch as i32), value: Value::Data(value as u32) }
    })
}

/// The log of a replica that was away: the same as the leader's up to `same`, then entries up to `end` that only it has. It knows what is committed
/// up to `commit`.
#[derive(Clone, Copy, Debug)]
struct Away {
    same: u64,
    end: u64,
    commit: u64,
}

/// A world of five nodes, in which three have a log of many terms, and the others were away.
fn world(away: [Away; 2], entries_max: u64) -> World {
    let mut world = World::new(5, 5, 1);
    world.entries_max = entries_max;
    let there = [Away { same: TERMS, end: TERMS, commit: TERMS }; 3];
    for (at, Away { same, end, commit }) in there.into_iter().chain(away).enumerate() {
        let id = world.nodes[at].replica.id();
        let mut disk: Disk = world.nodes[at].disk.clone();
        disk.log.entries = entries(0..end, same).collect();
        let term = disk.log.entries.last().map_or(LeaderEpoch(0), |last| last.epoch);
        disk.hard = HardState { term, ..HardState::NEW };
        disk.commit_hint = LogIndex(commit);
        world.nodes[at] = Node::new(id, disk, 1);
        world.ghost.handle_restart(&world.nodes[at]);
    }
    let known = world.nodes[0].log.entries.iter();
    world.ghost.committed = known.map(|entry| (entry.clone(), entry.epoch)).collect();
    world
}

/// Delivers everything between these nodes, until nothing happens any more.
fn run(world: &mut World, there: [u32; 3]) {
    for round in 0..3 * TERMS {
        for at in there.map(|node| node as usize) {
            world.apply(&Event::Persisted(at)).expect("no violation");
            let end = world.nodes[at].log.end();
            if world.nodes[at].flushed < end {
                world.apply(&Event::Flushed(at, end)).expect("no violation");
            }
        }
        let is_there = |id: ReplicaId| there.contains(&id.node.0);
        world.network.retain(|Packet { envelope, .. }| is_there(envelope.from) && is_there(envelope.to));
        if world.network.is_empty() && round > 2 {
            return;
        }
        for _ in 0..world.network.len() {
            world.apply(&Event::Deliver { packet: 0, doubled: false }).expect("no violation");
        }
    }
}

/// Node 3 comes back and gets the log from node 0. Then it leads, with what it has learnt of the epochs, and node 4 gets the log from it.
fn check(away: [Away; 2], entries_max: u64) {
    let mut world = world(away, entries_max);
    for (leader, there, follower) in [(0, [0, 1, 3], 3), (3, [1, 3, 4], 4)] {
        if leader == 3 {
            world.apply(&Event::Cut(0, 1)).expect("no violation");
        }
        world.apply(&Event::Campaign(leader)).expect("no violation");
        run(&mut world, there);
        let [leader, follower] = [leader, follower].map(|at: usize| &world.nodes[at]);
        let case = format!(
            "{away:?}, {entries_max} at a time, {} from {}",
            follower.replica.id(),
            leader.replica.id()
        );
        assert!(leader.replica.is_serving(), "{case}");
        assert!(follower.log == leader.log, "{case}");
        assert_eq!(follower.replica.commit_end(), leader.replica.commit_end(), "{case}");
    }
}

#[test]
fn a_replica_that_was_away_for_more_terms_than_are_remembered_gets_the_log() {
    let forgotten = TERMS - RUNS_MAX as u64;
    let mut cases = Vec::new();
    for same in [0, 1, 300, forgotten - 1, forgotten + 5, TERMS] {
        for commit in [same / 2, same] {
            // A leader without a term has no entries.
            let more = if same == 0 || same == TERMS { &[0][..] } else { &[0, 3, 700] };
            cases.extend(more.iter().map(|more| Away { same, end: same + more, commit }));
        }
    }
    for (n, one) in cases.iter().enumerate() {
        let other = cases[(5 * n + 7) % cases.len()];
        check([*one, other], [40, 300, u64::MAX][n % 3]);
    }
}
