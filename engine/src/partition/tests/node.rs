//! A node: a disk, and the process that runs on it or does not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{
    ClusterId, NodeId, Offset, PartitionIndex, ProducerId, StoreId, Timestamp, TopicId, TopicPartition,
};
use highwater_replication::raft::{Config, Replica, ReplicaId};
use highwater_runtime::sim::{CrashPolicy, DiskHarness};
use highwater_storage::{DurableForm, MacKey, PartitionFinding, Store, StoreConfig, StoreLimits};

use super::reader::{Reader, Records};
use crate::api::{ApiError, RequiredAcks};
use crate::meta::configs::TopicConfig;
use crate::meta::{Assignment, Topic};
use crate::partition::PeerMessage;
use crate::partition::append::{AppendFailure, AppendRequest, ValidBatch};
use crate::partition::log_start::LogStartMove;
use crate::partition::replica::Partition;
use crate::partition::stores::StoreEntry;
use crate::partition::{
    BatchBytes, Grant, OwnedBatch, ParsedBatch, PartitionEvent, Partitions, PeerChange, ReaderId, Waiter,
};
use crate::reply_to::{ReplyTo, RequestBatch, RequestId};

pub(crate) const TP: TopicPartition =
    TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };

/// Bytes of frames in a message to another node.
const SEND_BYTES: usize = 1 << 20;

pub(crate) fn replica(node: usize) -> ReplicaId {
    ReplicaId { node: NodeId(node as u32), incarnation: 0 }
}

/// The batch of a producer with this sequence: two records that name both.
pub(crate) fn batch(producer: usize, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for record in 0..2 {
        // Large enough that extents are filled and removed.
        let value = format!("{:>300}", format!("{producer}:{}", sequence + record));
        builder.append(&NewRecord::new(Timestamp(0), None, Some(value.as_bytes()))).expect("it fits");
    }
    let producer = BatchProducer { id: ProducerId(producer as i64), epoch: 0, sequence };
    builder.finish(producer).expect("there are records").to_vec()
}

/// What a turn has brought.
#[derive(Default)]
pub(crate) struct Output {
    /// Outcomes of requests by number: where the batch is, or why not.
    pub(crate) outcomes: Vec<(u32, Result<Offset, ApiError>)>,
    /// Readers that have ended, with those of them that waited, and why.
    pub(crate) ended: Vec<(BTreeSet<Waiter>, BTreeSet<ReaderId>, ApiError)>,
    pub(crate) messages: Vec<PeerMessage>,
    /// Records that have become readable.
    pub(crate) records: Records,
    /// What else has happened.
    pub(crate) events: Vec<PartitionEvent>,
}

pub(crate) struct Node {
    pub(crate) number: usize,
    /// Which disk of the node this is.
    pub(crate) incarnation: u32,
    disk: DiskHarness,
    config: StoreConfig,
    topic: Arc<Topic>,
    created_with: Config,
    pub(crate) process: Option<Partitions>,
    pub(crate) is_slow: bool,
    /// The replicas to which there is a channel.
    pub(crate) reached: BTreeSet<ReplicaId>,
    wall_ms: i64,
    pub(crate) reader: Reader,
}

impl Node {
    pub(crate) fn new(number: usize, seed: u64, created_with: &Config, min_insync: usize) -> Self {
        let limits =
            if seed.is_multiple_of(2) { StoreLimits::tiny() } else { StoreLimits::tiny_with_journal() };
        let settings = [("min.insync.replicas".to_owned(), min_insync.to_string())];
        let topic = Topic {
            id: TP.topic,
            name: "t".into(),
            assignment: Assignment::local(NodeId(number as u32), [StoreId(0)]),
            configs: BTreeMap::new(),
            config: TopicConfig::resolve(&BTreeMap::from(settings)).expect("valid"),
        };
        let mut node = Self {
            number,
            incarnation: 0,
            disk: DiskHarness::new(seed ^ (number as u64) << 32),
            config: StoreConfig {
                dir: PathBuf::from("/data/store-000"),
                cluster: ClusterId([5; 16]),
                store: StoreId(0),
                token_space: 8,
                new_mac_key: MacKey([number as u8; 16]),
                limits,
                durable_form: DurableForm::Dsync,
            },
            topic: Arc::new(topic),
            created_with: created_with.clone(),
            process: None,
            is_slow: false,
            reached: BTreeSet::new(),
            wall_ms: 1_000_000,
            reader: Reader::new(Offset(0)),
        };
        node.start();
        node
    }

    pub(crate) fn start(&mut self) {
        let (store, report) = Store::open(self.config.clone(), &mut self.disk).expect("the store opens");
        let is_faulty = |(_, finding): &(TopicPartition, PartitionFinding)| {
            matches!(finding, PartitionFinding::Faulty { .. })
        };
        assert!(!report.findings.iter().any(is_faulty), "{report:?}");
        let entry = StoreEntry::new(StoreId(0), store);
        let mut process = Partitions::new(0, self.id(), vec![entry], 1 << 20, |_, _| true);
        process.create_replica(&mut self.disk, &self.topic, TP, 0, &self.created_with, self.wall_ms);
        self.process = Some(process);
        // What was read before is compared again.
        self.reader = Reader::new(self.partition().expect("it runs").high_watermark());
    }

    pub(crate) fn crash(&mut self, policy: CrashPolicy) {
        self.process = None;
        self.disk.crash(policy);
    }

    /// Replaces the disk of a node that does not run with an empty one.
    pub(crate) fn wipe(&mut self) {
        assert!(!self.runs(), "the process would go on with the old disk");
        self.incarnation += 1;
        self.disk = DiskHarness::new(u64::from(self.incarnation) << 40 ^ self.number as u64);
    }

    /// Returns the identity of the replicas on the node's disk.
    pub(crate) fn id(&self) -> ReplicaId {
        ReplicaId { incarnation: self.incarnation, ..replica(self.number) }
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.process.as_ref()?.of(TP)
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.partition().map(|partition| partition.consensus.replica())
    }

    pub(crate) fn serves(&self) -> bool {
        self.partition().is_some_and(|partition| partition.consensus.is_serving())
    }

    /// Does something to the process, if it runs, and ends the turn.
    pub(crate) fn act(&mut self, act: impl FnOnce(&mut Partitions, &mut DiskHarness, i64)) -> Output {
        self.wall_ms += 1;
        let mut output = Output::default();
        let Some(process) = &mut self.process else { return output };
        act(process, &mut self.disk, self.wall_ms);
        self.end_turn(&mut output);
        output
    }

    /// Lets the disk complete an operation. Returns nothing if none is in flight.
    pub(crate) fn step_disk(&mut self) -> Option<Output> {
        let (token, completion) = self.disk.step()?;
        Some(self.act(|process, disk, _| process.handle_disk(disk, token, completion)))
    }

    pub(crate) fn produce(
        &mut self,
        request: u32,
        producer: usize,
        sequence: i32,
        acks: RequiredAcks,
    ) -> Output {
        let bytes = BatchBytes::Owned(OwnedBatch::Small(batch(producer, sequence)));
        let batch = ParsedBatch::parse(bytes).expect("a batch");
        let to = RequestBatch { shard: 0, request: RequestId(0), number: request };
        let batch = ValidBatch { batch, max_timestamp: Timestamp(0) };
        let request = AppendRequest { tp: TP, acks, reply_to: ReplyTo::Kafka(to), batch };
        self.act(|process, disk, wall_ms| process.append(disk, request, wall_ms))
    }

    /// There was no leader for an election timeout.
    pub(crate) fn time_out(&mut self) -> Output {
        self.act(|process, disk, wall_ms| {
            if let Some(id) = process.find(TP) {
                process.handle_election_timeout(disk, id, wall_ms);
            }
        })
    }

    /// Deletes the records before an offset, on a leader.
    pub(crate) fn delete_records(&mut self, to: Offset) -> Output {
        let id = LogStartMove { query: 0, number: 0 };
        self.act(|process, disk, _| process.move_log_start(disk, TP, Some(to), id))
    }

    fn end_turn(&mut self, output: &mut Output) {
        let Some(mut process) = self.process.take() else { return };
        while process.flush(&mut self.disk) {}
        process.poll_stores(&mut self.disk, self.wall_ms);
        while let Some(event) = process.poll_event() {
            match event {
                PartitionEvent::Appended { reply_to: ReplyTo::Kafka(to), outcome, .. } => {
                    let outcome = match outcome {
                        Ok(at) => Ok(at.base_offset),
                        Err(AppendFailure::Api(error)) => Err(error),
                        Err(failure) => panic!("node {}: {failure}", self.number),
                    };
                    output.outcomes.push((to.number, outcome));
                }
                PartitionEvent::NotAnswering { id, waiters, readers, error } => {
                    output.ended.push((waiters, readers, error.clone()));
                    let (waiters, readers) = (BTreeSet::new(), BTreeSet::new());
                    output.events.push(PartitionEvent::NotAnswering { id, waiters, readers, error });
                }
                PartitionEvent::Read { store, id, result } => {
                    let mut result = Some(result);
                    output.records.extend(self.reader.finish(id, &mut result));
                    let others = result.map(|result| PartitionEvent::Read { store, id, result });
                    output.events.extend(others);
                }
                PartitionEvent::Fatal(why) => panic!("node {}: {why}", self.number),
                event => output.events.push(event),
            }
        }
        self.send(&mut process, output);
        let id = process.find(TP).expect("it is there");
        output.records.extend(self.reader.read_on(&mut self.disk, &mut process, id));
        // Sending may have changed something too.
        process.flush(&mut self.disk);
        self.process = Some(process);
    }

    /// Sends everything to everybody.
    fn send(&mut self, process: &mut Partitions, output: &mut Output) {
        let grant = Grant { bytes: SEND_BYTES, session: 0, is_reserved: false };
        while let Some(read) = process.poll_read() {
            process.finish_read(&mut self.disk, read, true, self.wall_ms);
        }
        while let Some(due) = process.poll_due() {
            if !self.reached.contains(&due.to) {
                // As for a new leader, which takes all others for reachable.
                process.handle_peer(&mut self.disk, due.id, due.to, PeerChange::Lost, self.wall_ms);
            } else if due.entries.is_some() {
                process.send_entries(&mut self.disk, (due.tp, due.to), grant, self.wall_ms);
            } else {
                process.send_news(&due);
            }
        }
        output.messages.extend(std::iter::from_fn(|| process.poll_message()));
    }
}
