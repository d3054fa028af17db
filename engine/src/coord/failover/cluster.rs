//! The nodes, with the coordinator of each.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicId;
use highwater_runtime::sim::CrashPolicy;

use crate::api::{ApiError, Ticket};
use crate::coord::coordinators::Coordinators;
use crate::coord::groups::{GroupConfig, GroupReply, GroupRequest, Now};
use crate::coord::loader::{GroupLoader, own_partition};
use crate::counters::GroupUsage;
use crate::partition::PartitionEvent;
use crate::partition::tests::node::TP;
use crate::partition::tests::world::{NODES, World};
use crate::reply_to::ReplyTo;

/// The topic whose offsets are committed.
pub(super) const TOPIC: TopicId = TopicId([3; 16]);
/// Maximum bytes of a batch of groups.
const BATCH_BYTES_MAX: usize = 2 << 10;

/// The number of a request.
pub(super) type Call = u64;

struct Process {
    coordinators: Coordinators,
    loader: GroupLoader,
}

pub(super) struct Cluster {
    pub(super) world: World,
    processes: Vec<Option<Process>>,
    now: Now,
    last_call: Call,
    replies: BTreeMap<Call, Result<GroupReply, ApiError>>,
    /// How often the process of each node has started.
    pub(super) starts: [u64; NODES],
    /// How often a node has begun to coordinate.
    pub(super) moves: u64,
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        let mut cluster = Self {
            world: World::of_three(1 + (seed % 2) as usize),
            processes: (0..NODES).map(|_| None).collect(),
            now: Now { ms: 1_000, wall_ms: 1_000_000 },
            last_call: 0,
            replies: BTreeMap::new(),
            starts: [0; NODES],
            moves: 0,
        };
        cluster.settle();
        cluster
    }

    /// Lets the coordinators handle everything that has happened to their partitions.
    pub(super) fn settle(&mut self) {
        loop {
            let mut any = false;
            for at in 0..NODES {
                self.start_or_end(at);
                while let Some(place) = self.world.events.iter().position(|(node, _)| *node == at) {
                    let (_, event) = self.world.events.remove(place);
                    self.handle(at, event);
                }
                any |= self.run(at);
            }
            if !any && self.world.events.is_empty() {
                return;
            }
        }
    }

    /// A process of the node begins or ends with that of its partition.
    fn start_or_end(&mut self, at: usize) {
        let runs = self.world.nodes[at].runs();
        if !runs {
            self.processes[at] = None;
            self.world.events.retain(|(node, _)| *node != at);
            return;
        }
        if self.processes[at].is_some() {
            return;
        }
        self.starts[at] += 1;
        let config = GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() };
        let mut coordinators = Coordinators::new(config, self.now);
        coordinators.add_topic(TOPIC, "t", 4);
        let partitions = self.world.nodes[at].process.as_ref().expect("it runs");
        let own = own_partition(partitions, partitions.of(TP).expect("it has it"), BATCH_BYTES_MAX);
        coordinators.open(1, vec![own]);
        self.processes[at] = Some(Process { coordinators, loader: GroupLoader::default() });
    }

    fn handle(&mut self, at: usize, event: PartitionEvent) {
        let Some(Process { coordinators, loader }) = &mut self.processes[at] else { return };
        let Some(partitions) = &mut self.world.nodes[at].process else { return };
        match event {
            PartitionEvent::Appended { reply_to: ReplyTo::Coordinators, tp, outcome } => {
                coordinators.handle_appended(tp.partition, outcome);
            }
            PartitionEvent::HighWatermarkMoved(id) => {
                let partition = partitions.get(id).expect("it is there");
                coordinators.handle_high_watermark(TP.partition, partition.high_watermark());
            }
            PartitionEvent::Answering(id) => {
                self.moves += 1;
                let partition = partitions.get(id).expect("it is there");
                let own = own_partition(partitions, partition, BATCH_BYTES_MAX);
                coordinators.handle_leading(own);
            }
            PartitionEvent::NotAnswering { .. } => coordinators.handle_not_leading(TP.partition),
            PartitionEvent::Read { store, id, result } if loader.is_reading(store, id) => {
                loader.handle_read(partitions, coordinators, result);
            }
            _ => {}
        }
    }

    /// Runs a turn of a coordinator. Returns whether there is more to do.
    fn run(&mut self, at: usize) -> bool {
        let Some(Process { coordinators, loader }) = &mut self.processes[at] else { return false };
        let (now, mut more) = (self.now, false);
        let output = self.world.nodes[at].act(|partitions, disk, wall_ms| {
            more = loader.load(disk, partitions, coordinators);
            if coordinators.try_serve(now) {
                more |= coordinators.run(now);
            } else {
                more |= coordinators.can_restore();
            }
            while let Some((tp, batch)) = coordinators.poll_append(now) {
                partitions.append_own(disk, tp, ReplyTo::Coordinators, &batch, wall_ms);
            }
        });
        while let Some(((_, ticket), reply)) = coordinators.poll() {
            assert!(self.replies.insert(ticket.call, reply).is_none(), "{ticket:?} got two replies");
        }
        self.world.take(at, output);
        more
    }

    // Requests.

    /// Sends a request to a node.
    pub(super) fn send(&mut self, at: usize, request: GroupRequest) -> Call {
        self.last_call += 1;
        let call = self.last_call;
        let mut random = [7; 16];
        random[..8].copy_from_slice(&call.to_le_bytes());
        if let Some(process) = &mut self.processes[at] {
            process.coordinators.handle(self.now, (0, Ticket { call, number: 0 }), request, random);
        }
        self.settle();
        call
    }

    /// Takes the reply to a request.
    pub(super) fn reply(&mut self, call: Call) -> Option<Result<GroupReply, ApiError>> {
        self.replies.remove(&call)
    }

    /// Returns the reply to a request, after everything has happened that follows.
    pub(super) fn call(&mut self, at: usize, request: GroupRequest) -> Option<Result<GroupReply, ApiError>> {
        let call = self.send(at, request);
        if !self.replies.contains_key(&call) {
            self.run_until_quiet();
        }
        self.reply(call)
    }

    pub(super) fn usage_on(&self, at: usize) -> GroupUsage {
        self.processes[at].as_ref().expect("it runs").coordinators.usage()
    }

    pub(super) fn groups_on(&self, at: usize) -> usize {
        self.usage_on(at).groups
    }

    // What happens to the nodes.

    pub(super) fn tick(&mut self) {
        self.now = Now { ms: self.now.ms + 1, wall_ms: self.now.wall_ms + 1 };
        for process in self.processes.iter_mut().flatten() {
            if process.coordinators.next_deadline().is_some_and(|at| at <= self.now.ms) {
                process.coordinators.handle_time(self.now);
            }
        }
        self.settle();
    }

    /// Lets one thing happen. Returns false if nothing can.
    pub(super) fn step_once(&mut self) -> bool {
        let any = self.world.step_once();
        self.settle();
        any
    }

    pub(super) fn run_until_quiet(&mut self) {
        while self.step_once() {}
    }

    pub(super) fn crash(&mut self, at: usize, policy: CrashPolicy) {
        self.world.crash_with(at, policy);
        self.settle();
    }

    /// Ends the process of a node, and starts it again.
    pub(super) fn restart(&mut self, at: usize) {
        self.crash(at, CrashPolicy::KEEP_ALL);
        self.start(at);
    }

    pub(super) fn start(&mut self, at: usize) {
        self.world.start(at);
        self.settle();
        self.run_until_quiet();
    }

    pub(super) fn cut_off(&mut self, at: usize, is_cut: bool) {
        self.world.cut_off(at, is_cut);
        self.settle();
    }

    /// Makes a node the leader of the partition.
    pub(super) fn elect(&mut self, at: usize) {
        self.world.time_out_on(at);
        self.settle();
        self.run_until_quiet();
        assert!(self.world.nodes[at].serves(), "node {at} was elected");
    }

    /// Makes a node the leader in place of the one that leads.
    pub(super) fn elect_instead(&mut self, at: usize) {
        let leader = (0..NODES).find(|node| self.world.nodes[*node].serves()).expect("one leads");
        self.cut_off(leader, true);
        self.elect(at);
        self.cut_off(leader, false);
        self.run_until_quiet();
    }
}
