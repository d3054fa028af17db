//! The nodes in their world, the producers, and what happens to them.

mod leaders;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use highwater_protocol::ids::Offset;
use highwater_replication::raft::{Config, Replica, ReplicaId};
use highwater_runtime::sim::{
    CrashPolicy, Latency, NetworkConfig, NodeConfig, SimNode, SimRng, SimWorld, WorldConfig, stream,
};
use rand::RngExt as _;

use super::node::{Command, NODES, PARTITIONS, SHARDS, Shared, TestShard, replica, shard_of, value};

/// Producers of each partition, each with one batch at a time.
const PRODUCERS: usize = 3;
/// Steps of a run before everything works again.
const STEPS: usize = 900;
/// Maximum time until all is well after that.
const HEALING_TIME_MAX: Duration = Duration::from_mins(1);
/// Maximum time until a cluster without faults is complete.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// Time in which nothing may happen when all is well.
const CALM_TIME: Duration = Duration::from_secs(3);
/// Records of a batch.
const RECORDS: i32 = 2;

/// What runs have done.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Totals {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) leaders: u64,
    pub(super) sessions: u64,
    pub(super) crashes: u64,
    pub(super) blocked: u64,
    pub(super) resets: u64,
    pub(super) changes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.leaders += other.leaders;
        self.sessions += other.sessions;
        self.crashes += other.crashes;
        self.blocked += other.blocked;
        self.resets += other.resets;
        self.changes += other.changes;
    }
}

#[derive(Clone, Copy, Debug)]
struct Producer {
    partition: u32,
    /// Its number among those of the partition.
    number: usize,
    sequence: i32,
    /// The request that waits for an outcome, and its node.
    waits: Option<(u32, usize)>,
}

pub(super) struct Cluster {
    seed: u64,
    rng: SimRng,
    world: SimWorld<TestShard>,
    nodes: Vec<SimNode>,
    shared: Rc<RefCell<Shared>>,
    producers: Vec<Producer>,
    last_request: u32,
    /// Acknowledged batches: partition, producer, sequence, offset.
    acknowledged: Vec<(u32, usize, i32, Offset)>,
    totals: Totals,
}

fn millis(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_millis(*range.start())..=Duration::from_millis(*range.end())
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        let network = NetworkConfig { give_up: millis(1500..=4000), ..NetworkConfig::default() };
        let mut world = SimWorld::new(WorldConfig { network, ..WorldConfig::new(seed) });
        let shared = Rc::new(RefCell::new(Shared::default()));
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let shared = Rc::clone(&shared);
            nodes.push(world.add_node(NodeConfig::new(SHARDS, 1), move |_, plane| {
                Ok(TestShard::open(plane, (number, seed), &shared))
            }));
        }
        shared.borrow_mut().addresses = nodes.iter().map(|node| world.address(*node, 0)).collect();
        for node in &nodes {
            world.start(*node).expect("it starts");
        }
        let producers = (0..PARTITIONS).flat_map(|partition| {
            (0..PRODUCERS).map(move |number| Producer { partition, number, sequence: 0, waits: None })
        });
        Self {
            seed,
            rng: stream(seed, "peers", 0),
            world,
            nodes,
            shared,
            producers: producers.collect(),
            last_request: 0,
            acknowledged: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Runs until all is well after random events.
    pub(super) fn run(seed: u64) -> Totals {
        let mut cluster = Self::new(seed);
        for _ in 0..STEPS {
            cluster.step();
            let ms = cluster.rng.random_range(0..20);
            cluster.run_for(Duration::from_millis(ms));
        }
        cluster.heal();
        cluster.check_end();
        cluster.totals.leaders = cluster.shared.borrow().leaders.len() as u64;
        cluster.totals.changes = cluster.shared.borrow().changes;
        cluster.totals
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.world.run_for(time);
        let outcomes = std::mem::take(&mut self.shared.borrow_mut().outcomes);
        for (request, outcome) in outcomes {
            self.finish(request, outcome);
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1000) {
            0..700 => self.produce(),
            700..712 => self.crash(),
            712..760 => {
                let node = self.any_node();
                self.start(node);
            }
            760..790 => self.block(),
            790..840 => {
                let (from, to) = self.any_path();
                self.world.unblock(from, to);
                self.world.rejoin(from);
            }
            840..860 => {
                let (one, other) = self.any_path();
                self.world.reset_connections(one, other);
                self.totals.resets += 1;
            }
            860..880 => self.change_latency(),
            880..895 => {
                let (from, to) = self.any_path();
                let delay = self.rng.random_bool(0.5).then(|| millis(5..=120));
                self.world.set_path_delay(from, to, delay);
            }
            895..910 => {
                let node = self.any_node();
                if self.rng.random_bool(0.4) { self.world.pause(node) } else { self.world.resume(node) }
            }
            910..930 => self.change_replicas(),
            930..940 => self.trim(),
            940..960 => {
                // A client waits no longer, and sends the batch to another node.
                let at = self.rng.random_range(0..self.producers.len());
                self.producers[at].waits = None;
            }
            _ => {}
        }
    }

    fn any_node(&mut self) -> SimNode {
        self.nodes[self.rng.random_range(0..NODES)]
    }

    fn any_path(&mut self) -> (SimNode, SimNode) {
        let from = self.rng.random_range(0..NODES);
        let to = (from + self.rng.random_range(1..NODES)) % NODES;
        (self.nodes[from], self.nodes[to])
    }

    fn block(&mut self) {
        let (from, to) = self.any_path();
        self.totals.blocked += 1;
        match self.rng.random_range(0..4) {
            0 => self.world.clog(from, to),
            1 => self.world.cut_path(from, to),
            2 => self.world.cut(from, to),
            _ => self.world.isolate(from),
        }
    }

    fn change_latency(&mut self) {
        let node = self.any_node();
        let latency = if self.rng.random_bool(0.5) {
            Latency { sync: millis(20..=400), write: millis(5..=50), ..Latency::default() }
        } else {
            Latency::default()
        };
        self.world.disk(node).set_latency(latency);
    }

    fn crash(&mut self) {
        let node = self.any_node();
        let policies =
            [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED];
        let policy = policies[self.rng.random_range(0..policies.len())];
        if self.world.end(node).is_some() {
            return;
        }
        self.totals.crashes += 1;
        self.count_sessions(node);
        self.world.crash(node, policy);
        self.forget_requests(node.0);
    }

    /// Kills the process of a node.
    pub(super) fn kill(&mut self, node: usize) {
        self.world.kill(self.nodes[node]);
        self.forget_requests(node);
    }

    fn forget_requests(&mut self, node: usize) {
        self.shared.borrow_mut().commands.retain(|(of, _), _| *of != node);
        for producer in &mut self.producers {
            producer.waits = producer.waits.filter(|(_, at)| *at != node);
        }
    }

    fn start(&mut self, node: SimNode) {
        if self.world.end(node).is_some() {
            self.world.start(node).expect("it starts");
        }
    }

    fn apps(&self) -> impl Iterator<Item = &TestShard> {
        self.nodes.iter().flat_map(|node| (0..SHARDS).filter_map(|shard| self.world.app(*node, shard)))
    }

    fn replica(&self, node: usize, partition: u32) -> Option<&Replica> {
        self.world.app(self.nodes[node], shard_of(node, partition))?.replica(partition)
    }

    /// Returns the node whose replica leads a partition and serves. Of two of them, the one in the later term.
    pub(super) fn leader(&self, partition: u32) -> Option<usize> {
        let serving = |node: &usize| self.replica(*node, partition).is_some_and(Replica::is_serving);
        (0..NODES).filter(serving).max_by_key(|node| self.replica(*node, partition).map(Replica::term))
    }

    fn command(&mut self, node: usize, partition: u32, command: Command) {
        let to = (node, shard_of(node, partition));
        self.shared.borrow_mut().commands.entry(to).or_default().push_back(command);
    }

    fn produce(&mut self) {
        let at = self.rng.random_range(0..self.producers.len());
        let leader = self.leader(self.producers[at].partition).filter(|_| self.rng.random_bool(0.9));
        let node = leader.unwrap_or_else(|| self.rng.random_range(0..NODES));
        self.produce_on(node, at);
    }

    fn produce_on(&mut self, node: usize, at: usize) {
        let Producer { partition, number, sequence, waits } = self.producers[at];
        if waits.is_some() || self.world.end(self.nodes[node]).is_some() {
            return;
        }
        self.last_request += 1;
        let request = self.last_request;
        self.producers[at].waits = Some((request, node));
        self.command(node, partition, Command::Produce { partition, request, producer: number, sequence });
    }

    /// Produces batches of a partition on its leader until something holds. Returns how long it took.
    pub(super) fn produce_until(&mut self, partition: u32, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = self.world.now();
        while !holds(self) {
            let at = partition as usize * PRODUCERS;
            if let Some(leader) = self.leader(partition) {
                self.produce_on(leader, at);
            }
            self.run_for(Duration::from_millis(5));
            assert!(self.world.now().since(start) < HEALING_TIME_MAX, "{}", self.describe());
        }
        self.world.now().since(start)
    }

    /// Returns the number of acknowledged batches of a partition.
    pub(super) fn acknowledged(&self, partition: u32) -> usize {
        self.acknowledged.iter().filter(|(of, ..)| *of == partition).count()
    }

    fn finish(&mut self, request: u32, outcome: Option<Offset>) {
        let waits = |producer: &Producer| producer.waits.is_some_and(|(number, _)| number == request);
        let Some(at) = self.producers.iter().position(waits) else { return };
        let producer = &mut self.producers[at];
        producer.waits = None;
        match outcome {
            Some(offset) => {
                self.acknowledged.push((producer.partition, producer.number, producer.sequence, offset));
                producer.sequence += RECORDS;
                self.totals.acknowledged += 1;
            }
            None => self.totals.refused += 1,
        }
    }

    /// Deletes most of the records of a partition that its leader's reader has read.
    fn trim(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let Some(leader) = self.leader(partition) else { return };
        let app = self.world.app(self.nodes[leader], shard_of(leader, partition));
        let read =
            app.and_then(|app| app.readers.get(&partition)).map_or(Offset(0), |reader| reader.read_end);
        self.command(leader, partition, Command::Trim { partition, to: Offset(read.0 * 9 / 10) });
    }

    /// Changes the replicas of a partition to some of the nodes, as voters or learners.
    fn change_replicas(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for node in 0..NODES {
            match self.rng.random_range(0..4) {
                0 => learners.push(replica(node)),
                1 => {}
                _ => voters.push(replica(node)),
            }
        }
        if let (Some(config), Some(leader)) = (Config::new(voters, learners), self.leader(partition)) {
            self.command(leader, partition, Command::Configure { partition, config });
        }
    }

    /// Makes all nodes voters of all partitions, step by step.
    fn restore_replicas(&mut self) {
        for partition in 0..PARTITIONS {
            let Some(leader) = self.leader(partition) else { continue };
            let Some(config) = self.replica(leader, partition).map(|replica| replica.config().clone()) else {
                continue;
            };
            let all: Vec<ReplicaId> = (0..NODES).map(replica).collect();
            let missing: Vec<ReplicaId> = all.iter().copied().filter(|id| !config.is_voter(*id)).collect();
            if config == all_voters() {
                continue;
            }
            let config = if missing.iter().all(|id| config.part(*id).is_some()) {
                all_voters()
            } else {
                let voters = all.iter().copied().filter(|id| config.is_voter(*id));
                Config::new(voters, missing).expect("valid")
            };
            self.command(leader, partition, Command::Configure { partition, config });
        }
    }

    /// Waits until a cluster without faults is complete.
    pub(super) fn converge(&mut self) {
        self.wait_for_convergence(START_TIME_MAX);
    }

    fn wait_for_convergence(&mut self, limit: Duration) {
        let start = self.world.now();
        while !self.has_converged() {
            assert!(self.world.now().since(start) < limit, "no convergence: {}", self.describe());
            self.run_for(Duration::from_millis(250));
            self.restore_replicas();
        }
    }

    /// Lets everything work again, until all nodes have everything and no producer waits.
    fn heal(&mut self) {
        self.world.heal_network();
        for node in self.nodes.clone() {
            self.world.resume(node);
            self.world.disk(node).set_latency(Latency::default());
            self.start(node);
            for other in self.nodes.clone().into_iter().filter(|other| *other != node) {
                self.world.set_path_delay(node, other, None);
            }
        }
        self.wait_for_convergence(HEALING_TIME_MAX);
        // Now nothing more happens.
        let (elections, leaders) = (self.elections(), self.shared.borrow().leaders.len());
        self.run_for(CALM_TIME);
        assert_eq!((self.elections(), self.shared.borrow().leaders.len()), (elections, leaders));
        for node in self.nodes.clone() {
            self.count_sessions(node);
        }
        self.check_known_leaders();
        for app in self.apps() {
            assert_eq!((app.exchange.held(), app.exchange.peers.held_bytes()), (0, 0), "frames are held");
        }
    }

    fn has_converged(&self) -> bool {
        let all = NODES * (NODES - 1) * usize::from(SHARDS * SHARDS);
        self.channels() == all
            && (0..PARTITIONS).all(|partition| self.has_partition_converged(partition))
            && self.producers.iter().all(|producer| producer.waits.is_none())
    }

    fn has_partition_converged(&self, partition: u32) -> bool {
        let Some(leader) = self.leader(partition).and_then(|node| self.replica(node, partition)) else {
            return false;
        };
        let settled = leader.is_config_committed() && *leader.config() == all_voters();
        let high_watermark = |node: usize| {
            let app = self.world.app(self.nodes[node], shard_of(node, partition))?;
            let reader = app.readers.get(&partition)?;
            (reader.read_end >= reader.high_watermark).then_some(reader.high_watermark)
        };
        let first = high_watermark(0);
        let is_complete = |node: usize| {
            let replica = self.replica(node, partition);
            let has_all = |replica: &Replica| {
                replica.commit_end() == leader.log_end().end && replica.log_end() == leader.log_end()
            };
            replica.is_some_and(has_all) && high_watermark(node) == first && first.is_some()
        };
        settled && (0..NODES).all(is_complete)
    }

    fn describe(&self) -> String {
        let mut text = format!("{} channels; ", self.channels());
        for partition in (0..PARTITIONS).filter(|partition| !self.has_partition_converged(*partition)) {
            for node in 0..NODES {
                let replica = self.replica(node, partition);
                writeln!(text, "{partition} on {node}: {replica:?}").expect("a string");
            }
        }
        let waits = self.producers.iter().filter(|producer| producer.waits.is_some());
        text + &format!("\n{:?}", waits.collect::<Vec<_>>())
    }

    /// Returns the number of ends of established channels.
    pub(super) fn channels(&self) -> usize {
        self.apps().map(|app| app.exchange.peers.established()).sum()
    }

    pub(super) fn elections(&self) -> u64 {
        self.apps().map(|app| app.exchange.elections_begun()).sum()
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.apps().map(|app| app.exchange.peers.counted().sent).sum()
    }

    /// Returns how many partitions were found on another shard than the one that was tried first.
    pub(super) fn learned(&self) -> usize {
        self.apps().map(|app| app.exchange.peers.learned()).sum()
    }

    fn count_sessions(&mut self, node: SimNode) {
        let apps = (0..SHARDS).filter_map(|shard| self.world.app(node, shard));
        self.totals.sessions += apps.map(|app| app.exchange.peers.counted().sessions).sum::<u64>();
    }

    /// Checks that everything acknowledged is in the log at its offset, and every batch once.
    fn check_end(&self) {
        let shared = self.shared.borrow();
        for (partition, records) in &shared.committed {
            let mut places = std::collections::BTreeMap::new();
            for (offset, value) in records {
                if let Some(other) = places.insert(value, offset) {
                    panic!("a record is in {partition} twice, at {other} and at {offset}");
                }
            }
        }
        for (partition, producer, sequence, offset) in &self.acknowledged {
            for record in 0..RECORDS {
                let found = shared.committed[partition].get(&(offset.0 + i64::from(record)));
                let expected = value(self.seed, *producer, sequence + record);
                assert_eq!(
                    found,
                    Some(&expected),
                    "{producer}:{sequence} was acknowledged at {partition}/{offset}"
                );
            }
        }
    }
}

/// The configuration with all nodes as voters.
fn all_voters() -> Config {
    Config::new((0..NODES).map(replica), []).expect("valid")
}
