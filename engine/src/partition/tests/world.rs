//! The nodes, the network between them, and the producers.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::Offset;
use highwater_replication::raft::{Config, Message, Replica, RoleKind};
use highwater_runtime::sim::{CrashPolicy, SimRng, stream};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::node::{Node, Output, TP, replica};
use super::reader::Records;
use crate::api::{ApiError, RequiredAcks};
use crate::partition::{PartitionEvent, PeerChange, PeerMessage};

/// Nodes.
pub(crate) const NODES: usize = 3;
/// Producers, each with one batch at a time.
const PRODUCERS: usize = 3;
/// Steps of a run before everything works again.
const STEPS: usize = 4_000;
/// Records of a batch.
pub(crate) const RECORDS: i32 = 2;

/// What runs have done.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) leaders: u64,
    pub(crate) crashes: u64,
    pub(crate) rejections: u64,
    pub(crate) restarts_of_logs: u64,
    pub(crate) changes: u64,
    pub(crate) wipes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.leaders += other.leaders;
        self.crashes += other.crashes;
        self.rejections += other.rejections;
        self.restarts_of_logs += other.restarts_of_logs;
        self.changes += other.changes;
        self.wipes += other.wipes;
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer {
    sequence: i32,
    /// The request that waits for an outcome, and its node.
    pub(crate) waits: Option<(u32, usize)>,
}

pub(crate) struct World {
    rng: SimRng,
    pub(crate) nodes: Vec<Node>,
    /// Messages under way, by sender and receiver, in order.
    pub(crate) network: BTreeMap<(usize, usize), VecDeque<PeerMessage>>,
    /// Pairs of nodes that cannot reach each other.
    pub(crate) cut: Vec<(usize, usize)>,
    pub(crate) producers: [Producer; PRODUCERS],
    last_request: u32,
    /// Records that some replica could read.
    pub(crate) committed: Records,
    /// Acknowledged batches: producer, sequence, offset.
    pub(crate) acknowledged: Vec<(usize, i32, Offset)>,
    /// The leader of each term, and the end of what was acknowledged before it was elected.
    leaders: BTreeMap<i32, (usize, Offset)>,
    /// The end of what was acknowledged.
    acknowledged_end: Offset,
    /// Outcomes of requests.
    pub(crate) outcomes: BTreeMap<u32, Result<Offset, ApiError>>,
    /// What else has happened, by node.
    pub(crate) events: Vec<(usize, PartitionEvent)>,
    /// What was said to readers that have ended.
    pub(crate) ended: Vec<ApiError>,
    totals: Totals,
}

impl World {
    pub(crate) fn new(seed: u64, created_with: &Config, min_insync: usize) -> Self {
        let mut nodes: Vec<Node> =
            (0..NODES).map(|number| Node::new(number, seed, created_with, min_insync)).collect();
        for node in &mut nodes {
            node.reached.extend((0..NODES).map(replica));
        }
        Self {
            rng: stream(seed, "cluster", 0),
            nodes,
            network: BTreeMap::new(),
            cut: Vec::new(),
            producers: [Producer { sequence: 0, waits: None }; PRODUCERS],
            last_request: 0,
            committed: Records::new(),
            acknowledged: Vec::new(),
            leaders: BTreeMap::new(),
            acknowledged_end: Offset(0),
            outcomes: BTreeMap::new(),
            events: Vec::new(),
            ended: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Runs until all is well after random events.
    pub(crate) fn run(seed: u64) -> Totals {
        // Every third partition begins with one replica.
        let created_with = voters(if seed.is_multiple_of(3) { 0..1 } else { 0..NODES });
        let mut world = Self::new(seed, &created_with, 1 + (seed % 2) as usize);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        world.check_end();
        world.totals
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1000) {
            0..320 => self.step_a_disk(),
            320..480 => self.produce(),
            480..520 => self.time_out(),
            520..522 => self.crash(),
            522..542 => self.restart_one(),
            542..545 => self.cut_a_link(),
            545..560 => self.restore_a_link(),
            560..564 => {
                let node = self.any_node();
                self.nodes[node].is_slow = !self.nodes[node].is_slow;
            }
            564..568 => self.delete_records(),
            568..572 => self.change_replicas(),
            572..574 => self.give_up_waiting(),
            574..576 => self.wipe(),
            _ => self.deliver(),
        }
    }

    pub(crate) fn any_node(&mut self) -> usize {
        self.rng.random_range(0..NODES)
    }

    /// Takes what a node has done.
    pub(crate) fn take(&mut self, node: usize, output: Output) {
        for (offset, value) in output.records {
            let known = self.committed.entry(offset).or_insert_with(|| value.clone());
            assert_eq!(*known, value, "node {node} has another record at offset {offset}");
        }
        for (request, outcome) in output.outcomes {
            self.finish(request, outcome.clone().ok());
            self.outcomes.insert(request, outcome);
        }
        self.events.extend(output.events.into_iter().map(|event| (node, event)));
        self.ended.extend(output.ended.into_iter().map(|(.., error)| error));
        for message in output.messages {
            self.send(node, message);
        }
        if let Some(replica) = self.nodes[node].replica()
            && replica.role() == RoleKind::Leader
        {
            let first = (node, self.acknowledged_end);
            let (leader, _) = *self.leaders.entry(replica.term().0).or_insert(first);
            assert_eq!(leader, node, "term {} has two leaders", replica.term());
        }
        self.check_answers(node);
    }

    /// Checks that a node that answers for the partition knows everything that was acknowledged before its term, unless it has the only replica.
    fn check_answers(&self, node: usize) {
        let partition = self.nodes[node].partition().filter(|partition| partition.consensus.has_others());
        let Some(partition) = partition else { return };
        let Some((_, before)) = self.leaders.get(&partition.epoch().0) else { return };
        let end = partition.high_watermark();
        assert!(
            partition.check_answers(None).is_err() || end >= *before,
            "node {node} answers with the end {end}, and what was acknowledged before its term ended at {before}"
        );
    }

    fn send(&mut self, from: usize, message: PeerMessage) {
        let to = message.envelope.to.node.0 as usize;
        match message.envelope.message {
            Message::StartAt { .. } => self.totals.restarts_of_logs += 1,
            Message::Rejected { .. } => self.totals.rejections += 1,
            _ => {}
        }
        if self.reaches(from, to) {
            self.network.entry((from, to)).or_default().push_back(message);
        }
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b), a.max(b));
        self.nodes[a].runs() && self.nodes[b].runs() && !self.cut.contains(&pair)
    }

    fn finish(&mut self, request: u32, outcome: Option<Offset>) {
        let waits = |producer: &Producer| producer.waits.is_some_and(|(number, _)| number == request);
        let Some(number) = self.producers.iter().position(waits) else { return };
        let producer = &mut self.producers[number];
        producer.waits = None;
        match outcome {
            Some(offset) => {
                self.acknowledged.push((number, producer.sequence, offset));
                self.acknowledged_end = self.acknowledged_end.max(Offset(offset.0 + i64::from(RECORDS)));
                producer.sequence += RECORDS;
                self.totals.acknowledged += 1;
            }
            None => self.totals.refused += 1,
        }
    }

    pub(crate) fn deliver(&mut self) {
        let ready: Vec<(usize, usize)> =
            self.network.iter().filter(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair).collect();
        if let Some(pair) = ready.choose(&mut self.rng) {
            self.deliver_one(*pair);
        }
    }

    pub(crate) fn deliver_one(&mut self, (from, to): (usize, usize)) {
        let Some(message) = self.network.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
        let output = self.nodes[to].act(|process, disk, wall_ms| {
            process.handle_message(disk, message.into(), wall_ms).expect("a peer that follows the protocol");
        });
        self.take(to, output);
    }

    pub(crate) fn step_a_disk(&mut self) {
        let node = self.any_node();
        if self.nodes[node].is_slow && !self.rng.random_bool(0.03) {
            return;
        }
        if let Some(output) = self.nodes[node].step_disk() {
            self.take(node, output);
        }
    }

    fn produce(&mut self) {
        let number = self.rng.random_range(0..PRODUCERS);
        let leader = (0..NODES).find(|node| self.nodes[*node].serves());
        let node = leader.filter(|_| self.rng.random_bool(0.8)).unwrap_or_else(|| self.any_node());
        self.produce_on(node, number);
    }

    fn produce_on(&mut self, node: usize, number: usize) {
        let producer = &mut self.producers[number];
        if producer.waits.is_some() || !self.nodes[node].runs() {
            return;
        }
        self.last_request += 1;
        let request = self.last_request;
        producer.waits = Some((request, node));
        let output = self.nodes[node].produce(request, number, producer.sequence, RequiredAcks::All);
        self.take(node, output);
    }

    /// A client waits no longer, and sends the batch to another node.
    fn give_up_waiting(&mut self) {
        let number = self.rng.random_range(0..PRODUCERS);
        self.producers[number].waits = None;
    }

    /// A node has heard of no leader for too long: the channel to its leader was silent, if there is one. Now and then that is so although a
    /// leader serves.
    pub(crate) fn time_out(&mut self) {
        let node = self.any_node();
        if self.nodes.iter().any(Node::serves) && !self.rng.random_bool(0.1) {
            return;
        }
        let leader = self.nodes[node].replica().and_then(Replica::leader).map(|id| id.node.0 as usize);
        let silent = leader.filter(|leader| *leader != node);
        if let Some(leader) = silent {
            self.lose(node, leader);
        }
        let output = self.nodes[node].time_out();
        self.take(node, output);
        if let Some(leader) = silent.filter(|leader| self.reaches(node, *leader)) {
            self.connect(node, leader);
        }
        self.totals.leaders = self.leaders.len() as u64;
    }

    pub(crate) fn crash(&mut self) {
        let node = self.any_node();
        let policies =
            [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED];
        let policy = policies[self.rng.random_range(0..policies.len())];
        self.crash_with(node, policy);
    }

    pub(crate) fn crash_with(&mut self, node: usize, policy: CrashPolicy) {
        if !self.nodes[node].runs() {
            return;
        }
        self.totals.crashes += 1;
        self.nodes[node].crash(policy);
        for producer in &mut self.producers {
            producer.waits = producer.waits.filter(|(_, at)| *at != node);
        }
        for other in (0..NODES).filter(|other| *other != node) {
            self.lose(node, other);
        }
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.crash_with(node, CrashPolicy::LOSE_ALL);
        self.start(node);
    }

    /// Replaces the disk of a node, if the others have what was acknowledged: all nodes vote, and have that on their disks.
    pub(crate) fn wipe(&mut self) {
        let all = self.all_voters();
        let votes = |node: &Node| {
            let replica = node.replica();
            replica.is_some_and(|replica| replica.is_config_committed() && *replica.config() == all)
        };
        if !self.nodes.iter().all(votes) {
            return;
        }
        let node = self.any_node();
        self.crash_with(node, CrashPolicy::LOSE_ALL);
        self.nodes[node].wipe();
        self.totals.wipes += 1;
    }

    /// The configuration in which the replicas on the disks of all nodes vote.
    pub(crate) fn all_voters(&self) -> Config {
        Config::new(self.nodes.iter().map(Node::id), []).expect("valid")
    }

    pub(crate) fn restart_one(&mut self) {
        let node = self.any_node();
        self.start(node);
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].runs() {
            return;
        }
        self.nodes[node].start();
        let output = self.nodes[node].act(|_, _, _| {});
        self.take(node, output);
        for other in (0..NODES).filter(|other| *other != node) {
            if self.reaches(node, other) {
                self.connect(node, other);
            } else {
                self.lose(node, other);
            }
        }
    }

    pub(crate) fn cut_a_link(&mut self) {
        let (a, b) = (self.any_node(), self.any_node());
        let pair = (a.min(b), a.max(b));
        if a != b && !self.cut.contains(&pair) {
            self.cut.push(pair);
            self.lose(a, b);
        }
    }

    pub(crate) fn restore_a_link(&mut self) {
        if let Some((a, b)) = self.cut.pop()
            && self.reaches(a, b)
        {
            self.connect(a, b);
        }
    }

    /// The channel between two nodes is lost, with everything under way.
    pub(crate) fn lose(&mut self, a: usize, b: usize) {
        self.network.remove(&(a, b));
        self.network.remove(&(b, a));
        self.notice(a, b, false);
        self.notice(b, a, false);
    }

    /// There is a new channel between two nodes.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        self.lose(a, b);
        self.notice(a, b, true);
        self.notice(b, a, true);
    }

    fn notice(&mut self, node: usize, peer: usize, is_alive: bool) {
        let change = if is_alive { PeerChange::Reachable } else { PeerChange::Lost };
        let replica = self.nodes[peer].id();
        if is_alive {
            self.nodes[node].reached.insert(replica);
        } else {
            self.nodes[node].reached.remove(&replica);
        }
        let peer = (replica, change);
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            process.visit_peer(disk, peer, (0, usize::MAX), |_| true, wall_ms);
        });
        self.take(node, output);
    }

    /// Deletes most of the records on the leader.
    fn delete_records(&mut self) {
        let node = self.any_node();
        if self.nodes[node].serves() {
            let to = Offset(self.nodes[node].reader.high_watermark.0 * 9 / 10);
            let output = self.nodes[node].delete_records(to);
            self.take(node, output);
        }
    }

    /// Changes the replicas to some of the nodes, as voters or learners.
    fn change_replicas(&mut self) {
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for node in 0..NODES {
            let replica = self.nodes[node].id();
            match self.rng.random_range(0..4) {
                0 => learners.push(replica),
                1 => {}
                _ => voters.push(replica),
            }
        }
        if let Some(config) = Config::new(voters, learners) {
            self.change_to(&config);
        }
    }

    pub(crate) fn change_to(&mut self, config: &Config) {
        let Some(node) = (0..NODES).find(|node| self.nodes[*node].serves()) else { return };
        let mut is_taken = false;
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            is_taken = process.change_replicas(disk, TP, config, wall_ms).is_ok();
        });
        self.take(node, output);
        self.totals.changes += u64::from(is_taken);
    }

    /// Produces batches on a node, each until it is acknowledged.
    pub(crate) fn produce_until_acknowledged(&mut self, node: usize, batches: usize) {
        for _ in 0..batches {
            let before = self.totals.acknowledged;
            self.produce_on(node, 0);
            while self.totals.acknowledged == before {
                let output = self.nodes[node].step_disk().expect("the disk has something to do");
                self.take(node, output);
            }
        }
    }
}

/// The configuration with these nodes as voters.
pub(crate) fn voters(nodes: std::ops::Range<usize>) -> Config {
    Config::new(nodes.map(replica), []).expect("valid")
}
