//! Nodes that tell each other what they lead, over channels that end at any time.

use std::collections::BTreeMap;

use highwater_protocol::ids::{LeaderEpoch, ShardId};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use super::*;

const NODES: u32 = 3;
const PARTITIONS: u32 = 40;
const SEEDS: u64 = 200;
const STEPS: usize = 400;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(partition) }
}

fn says(partition: u32, epoch: i32, leads: bool, node: u32) -> LeaderStatement {
    let in_sync = [NodeId(node)].into();
    LeaderStatement { partition: tp(partition), epoch: LeaderEpoch(epoch), leads, shard: ShardId(0), in_sync }
}

/// A session, with the messages to each of the two nodes.
type TestChannel = (SessionNumber, [Vec<LeaderNews>; 2]);

/// Nodes with their tables, and what is under way between them.
struct World {
    rng: SimRng,
    now: Instant,
    tables: Vec<LeaderTable>,
    /// By (smaller, larger) node.
    channels: BTreeMap<(u32, u32), TestChannel>,
    last_session: u64,
    /// The leader and epoch of each partition: what is true.
    truth: BTreeMap<u32, (Option<u32>, i32)>,
    /// Leaders that were replaced and do not know it yet: partition, epoch and node.
    replaced: Vec<(u32, i32, u32)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant(1);
        let mut tables: Vec<_> = (0..NODES).map(|node| LeaderTable::new(NodeId(node))).collect();
        for table in &mut tables {
            table.handle_nodes(now, (0..NODES).map(NodeId));
        }
        let rng = stream(seed, "leaders", 0);
        let (channels, truth, replaced) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { rng, now, tables, channels, last_session: 0, truth, replaced }
    }

    fn pairs() -> impl Iterator<Item = (u32, u32)> {
        (0..NODES).flat_map(|one| (one + 1..NODES).map(move |other| (one, other)))
    }

    fn table(&mut self, node: u32) -> &mut LeaderTable {
        &mut self.tables[node as usize]
    }

    fn up(&mut self, (one, other): (u32, u32)) {
        if self.channels.contains_key(&(one, other)) {
            return;
        }
        self.last_session += 1;
        let session = SessionNumber(self.last_session);
        self.channels.insert((one, other), (session, [Vec::new(), Vec::new()]));
        let now = self.now;
        self.table(one).handle_event(now, NodeId(other), NodeEvent::Up(session));
        self.table(other).handle_event(now, NodeId(one), NodeEvent::Up(session));
    }

    /// Ends a session. What is under way is lost.
    fn down(&mut self, (one, other): (u32, u32)) {
        if self.channels.remove(&(one, other)).is_some() {
            let now = self.now;
            self.table(one).handle_event(now, NodeId(other), NodeEvent::Down);
            self.table(other).handle_event(now, NodeId(one), NodeEvent::Down);
        }
    }

    /// Ends a turn of a node: what it has to say is under way.
    fn turn(&mut self, node: u32) {
        for (to, session, news) in self.table(node).poll_news() {
            let pair = (node.min(to.0), node.max(to.0));
            let (current, messages) = self.channels.get_mut(&pair).expect("it has a session");
            assert_eq!(*current, session);
            messages[usize::from(to.0 == pair.1)].push(news);
        }
    }

    /// Delivers what is under way to one node of a channel.
    fn deliver(&mut self, pair: (u32, u32), side: usize) {
        let Some((session, messages)) = self.channels.get_mut(&pair) else { return };
        let (session, messages) = (*session, std::mem::take(&mut messages[side]));
        let (to, from) = if side == 0 { pair } else { (pair.1, pair.0) };
        let now = self.now;
        for news in messages {
            self.table(to).handle_event(now, NodeId(from), NodeEvent::Said(session, news));
        }
    }

    fn elect(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let (leader, epoch) = self.truth.get(&partition).copied().unwrap_or((None, 0));
        if let Some(leader) = leader.filter(|_| self.rng.random_bool(0.5)) {
            self.truth.insert(partition, (None, epoch));
            return self.table(leader).handle_local(vec![says(partition, epoch, false, leader)]);
        }
        let next = self.rng.random_range(0..NODES);
        self.replaced.extend(leader.map(|leader| (partition, epoch, leader)));
        self.truth.insert(partition, (Some(next), epoch + 1));
        self.table(next).handle_local(vec![says(partition, epoch + 1, true, next)]);
    }

    /// Lets a leader know that it was replaced.
    fn depose(&mut self) {
        let Some((partition, epoch, leader)) = self.replaced.pop() else { return };
        self.table(leader).handle_local(vec![says(partition, epoch, false, leader)]);
    }

    /// Replaces a node by one that leads nothing and remembers nothing, as after its disk was wiped.
    fn wipe(&mut self) {
        let node = self.rng.random_range(0..NODES);
        for pair in Self::pairs().filter(|pair| pair.0 == node || pair.1 == node) {
            self.down(pair);
        }
        let now = self.now;
        self.replaced.retain(|(_, _, leader)| *leader != node);
        *self.table(node) = LeaderTable::new(NodeId(node));
        self.table(node).handle_nodes(now, (0..NODES).map(NodeId));
        for (leader, _) in self.truth.values_mut().filter(|(leader, _)| *leader == Some(node)) {
            *leader = None;
        }
    }

    fn step(&mut self) {
        let (one, other) = (self.rng.random_range(0..NODES), self.rng.random_range(1..NODES));
        let other = (one + other) % NODES;
        let pair = (one.min(other), one.max(other));
        match self.rng.random_range(0..100) {
            0..36 => self.elect(),
            36..40 => self.depose(),
            40..60 => self.turn(one),
            60..80 => self.deliver(pair, usize::from(one == pair.1)),
            80..88 => self.down(pair),
            88..98 => self.up(pair),
            98 => self.wipe(),
            _ => {
                self.now = self.now.after(NODE_OFFLINE_AFTER);
                let now = self.now;
                self.tables.iter_mut().for_each(|table| table.handle_time(now));
            }
        }
    }

    fn settle(&mut self) {
        Self::pairs().for_each(|pair| self.up(pair));
        while !self.replaced.is_empty() {
            self.depose();
        }
        loop {
            (0..NODES).for_each(|node| self.turn(node));
            // What was under way before is delivered too.
            for pair in Self::pairs() {
                self.deliver(pair, 0);
                self.deliver(pair, 1);
            }
            if !self.tables.iter().any(LeaderTable::has_news) {
                return;
            }
        }
    }

    fn check(&self) {
        for table in &self.tables {
            for (partition, (leader, epoch)) in &self.truth {
                let known = table.leaders.get(tp(*partition)).filter(|led| led.leader.is_some());
                let known = known.and_then(|led| Some((led.leader?.node.0, led.epoch.0)));
                let expected = leader.map(|leader| (leader, *epoch));
                assert_eq!(known, expected, "partition {partition} on node {}", table.me.0);
            }
        }
    }
}

pub(super) fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check();
}

#[test]
fn whatever_happens_to_their_channels_all_nodes_end_up_with_the_leaders_of_all_partitions() {
    (0..SEEDS).for_each(run);
}

#[test]
#[cfg(feature = "mutants")]
fn planted_bugs_of_the_leader_table_are_found() {
    for mutant in [Mutant::LowerEpochHolds, Mutant::LeadersNotToldAgain, Mutant::OldStatementsHold] {
        crate::mutants::assert_found(mutant, SEEDS, run);
    }
}

#[test]
fn ten_thousand_partitions_are_told_in_turns_of_a_limited_size_and_changes_do_not_wait_for_them() {
    const COUNT: u32 = 10_000;
    let mut world = World::new(1);
    world.table(0).handle_local((0..COUNT).map(|partition| says(partition, 1, true, 0)).collect());
    world.turn(0);
    world.up((0, 1));
    let mut turns = 0;
    while world.table(0).has_news() {
        turns += 1;
        if turns == 2 {
            // It comes before most of the others.
            world.table(0).handle_local(vec![says(COUNT - 1, 2, true, 0)]);
        }
        world.turn(0);
        let (_, messages) = &world.channels[&(0, 1)];
        let told: usize = messages[1].iter().map(|news| news.statements.len()).sum();
        assert!(told <= LEADERS_TOLD_PER_TURN_MAX + 1, "{told} in one turn");
        world.deliver((0, 1), 1);
        if turns == 2 {
            let led = world.tables[1].leaders.get(tp(COUNT - 1)).expect("it was told");
            assert_eq!(led.epoch, LeaderEpoch(2));
        }
    }
    assert_eq!(turns, COUNT as usize / LEADERS_TOLD_PER_TURN_MAX + 1);
    let known = |partition| world.tables[1].leaders.get(tp(partition)).and_then(|led| led.leader);
    assert!((0..COUNT).all(|partition| known(partition).is_some()));
}

#[test]
fn a_node_is_offline_when_it_was_out_of_reach_for_a_while_and_not_before() {
    let mut world = World::new(1);
    let start = world.now;
    let due = start.after(NODE_OFFLINE_AFTER);
    let is_offline = |table: &LeaderTable| table.leaders.is_offline(NodeId(1));
    assert_eq!(world.table(0).next_deadline(), Some(due));
    world.up((0, 1));
    world.up((0, 2));
    assert_eq!(world.table(0).next_deadline(), None);
    world.table(0).handle_time(due);
    assert!(!is_offline(world.table(0)));
    world.now = due;
    world.down((0, 1));
    let due = due.after(NODE_OFFLINE_AFTER);
    world.table(0).handle_time(Instant(due.0 - 1));
    assert!(!is_offline(world.table(0)));
    assert_eq!(world.table(0).next_deadline(), Some(due));
    world.table(0).handle_time(due);
    assert!(is_offline(world.table(0)) && world.table(0).next_deadline().is_none());
    world.up((0, 1));
    assert!(!is_offline(world.table(0)));
}
