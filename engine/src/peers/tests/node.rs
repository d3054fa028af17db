//! A shard of a node with nothing but its partitions and its channels. It takes commands from the test, and reports what it sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{
    ClusterId, NodeId, Offset, PartitionIndex, ProducerId, ShardId, StoreId, Timestamp, TopicId,
    TopicPartition,
};
use highwater_protocol::limits::BULK_BYTES_MIN;
use highwater_replication::peer::{Hello, LeaderStatement, Local, PeerShard, Settings};
use highwater_replication::raft::{Config, Replica, ReplicaId, RoleKind};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_storage::{DurableForm, MacKey, Store, StoreConfig, StoreLimits};

use crate::address::IpAddresses;
use crate::api::RequiredAcks;
use crate::leaders::Leaders;
use crate::meta::configs::TopicConfig;
use crate::meta::{Assignment, Topic};
use crate::partition::tests::reader::{Reader, Records};
use crate::partition::{
    BatchBytes, LogStartMove, OwnedBatch, ParsedBatch, Partition, PartitionEvent, PartitionId, Partitions,
    StoreEntry,
};
use crate::peers::{Arrival, Exchange, LeaderTable, PeerNode};
use crate::reply_to::{ReplyTo, RequestBatch, RequestId};

pub(super) const NODES: usize = 3;
pub(super) const SHARDS: u16 = 2;
pub(super) const PARTITIONS: u32 = 5;
/// How often a shard looks for commands.
const TICK: Duration = Duration::from_millis(2);
const TICK_TOKEN: Token = Token(1);
const DEADLINE_TOKEN: Token = Token(2);
/// Credit of each channel: a few batches.
const CREDIT_BYTES: u64 = 12 << 10;

pub(super) fn tp(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(partition) }
}

pub(super) fn replica(node: usize) -> ReplicaId {
    ReplicaId { node: NodeId(node as u32), incarnation: 0 }
}

/// The shard of a node that has a partition. Nobody else knows this rule.
pub(super) fn shard_of(node: usize, partition: u32) -> ShardIndex {
    ((node as u32 * 7 + partition * (partition + 1) / 2) % u32::from(SHARDS)) as ShardIndex
}

/// Returns whether some batches are so large that they are received into pages of their own.
fn has_large_batches(seed: u64) -> bool {
    seed % 3 == 2
}

fn store_limits(seed: u64) -> StoreLimits {
    let limits = if seed.is_multiple_of(2) { StoreLimits::tiny() } else { StoreLimits::tiny_with_journal() };
    if !has_large_batches(seed) {
        return limits;
    }
    StoreLimits {
        extent_bytes_max: 256 << 10,
        payload_bytes_max: 128 << 10,
        cache_bytes_max: 512 << 10,
        unacked_bytes_max: 384 << 10,
        store_unacked_bytes_max: 1 << 20,
        ..limits
    }
}

/// The batch of a producer with this sequence: two records that name both.
fn batch(seed: u64, producer: usize, sequence: i32) -> OwnedBatch {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for record in 0..2 {
        let value = value(seed, producer, sequence + record);
        builder.append(&NewRecord::new(Timestamp(0), None, Some(&value))).expect("it fits");
    }
    let producer = BatchProducer { id: ProducerId(producer as i64), epoch: 0, sequence };
    let bytes = builder.finish(producer).expect("there are records").to_vec();
    if bytes.len() < BULK_BYTES_MIN {
        return OwnedBatch::Small(bytes);
    }
    let mut pages = AlignedBuf::new(FRAME_HEADER_BYTES + bytes.len());
    pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + bytes.len()].copy_from_slice(&bytes);
    OwnedBatch::Bulk { pages, batch_bytes: bytes.len() }
}

pub(super) fn value(seed: u64, producer: usize, sequence: i32) -> Vec<u8> {
    // Large enough that extents are filled and the credit is used up.
    let width = if has_large_batches(seed) && sequence % 16 < 2 { 40_000 } else { 300 };
    format!("{:>width$}", format!("{producer}:{sequence}")).into_bytes()
}

#[derive(Debug)]
pub(super) enum Command {
    Produce {
        partition: u32,
        request: u32,
        producer: usize,
        sequence: i32,
    },
    Configure {
        partition: u32,
        config: Config,
    },
    /// Deletes the records before an offset.
    Trim {
        partition: u32,
        to: Offset,
    },
}

/// What the test and the nodes share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) commands: BTreeMap<(usize, ShardIndex), VecDeque<Command>>,
    /// Outcomes of requests: where the batch is, or nothing.
    pub(super) outcomes: Vec<(u32, Option<Offset>)>,
    /// Records that some replica could read, by partition.
    pub(super) committed: BTreeMap<u32, Records>,
    /// The leader of each term of a partition.
    pub(super) leaders: BTreeMap<(u32, i32), usize>,
    /// Changes of replicas that were taken.
    pub(super) changes: u64,
}

#[derive(Debug)]
pub(super) enum TestMessage {
    Greeted(Box<Hello>),
    /// To shard 0.
    Led(Vec<LeaderStatement>),
    Continue,
}

pub(super) struct TestShard {
    node: usize,
    me: ShardIndex,
    pub(super) partitions: Partitions,
    pub(super) exchange: Exchange,
    /// The leader table, on shard 0.
    table: Option<LeaderTable>,
    leaders: Leaders,
    pub(super) readers: BTreeMap<u32, Reader>,
    shared: Rc<RefCell<Shared>>,
    seed: u64,
}

impl TestShard {
    pub(super) fn open(
        plane: &mut dyn Plane<TestMessage>,
        (node, seed): (usize, u64),
        shared: &Rc<RefCell<Shared>>,
    ) -> Self {
        let me = plane.shard();
        let config = StoreConfig {
            dir: PathBuf::from(format!("/data/store-00{me}")),
            cluster: ClusterId([5; 16]),
            store: StoreId(me),
            token_space: 8,
            new_mac_key: MacKey([node as u8; 16]),
            limits: store_limits(seed),
            durable_form: DurableForm::Dsync,
        };
        let (store, _) = Store::open(config, plane).expect("the store opens");
        let entry = StoreEntry::new(StoreId(me), store);
        let mut partitions = Partitions::new(me, replica(node), vec![entry], 1 << 20, |_, _| true);
        let settings = [("min.insync.replicas".to_owned(), (1 + seed % 2).to_string())];
        let topic = Arc::new(Topic {
            id: tp(0).topic,
            name: "t".into(),
            assignment: Assignment::local(
                NodeId(node as u32),
                (0..PARTITIONS).map(|partition| StoreId(shard_of(node, partition))),
            ),
            configs: BTreeMap::new(),
            config: TopicConfig::resolve(&BTreeMap::from(settings)).expect("valid"),
        });
        let all = Config::new((0..NODES).map(replica), []).expect("valid");
        let wall_ms = plane.wall_clock_ms();
        partitions.want_reports();
        let mine: Vec<u32> = (0..PARTITIONS).filter(|partition| shard_of(node, *partition) == me).collect();
        for partition in &mine {
            partitions.create_replica(plane, &topic, tp(*partition), 0, &all, wall_ms);
        }
        let readers = mine.iter().map(|partition| {
            let of = partitions.of(tp(*partition)).expect("it was created");
            (*partition, Reader::new(of.high_watermark()))
        });
        let readers = readers.collect();
        let local = Local {
            cluster: ClusterId([5; 16]),
            me: PeerShard { node: NodeId(node as u32), shard: ShardId(me) },
            incarnation: 0,
            shards: SHARDS,
            process: plane.random_u64(),
        };
        let settings = Settings { credit_bytes: CREDIT_BYTES, ..Settings::default() };
        let mut exchange = Exchange::new(local, settings, Arc::new(IpAddresses));
        let mut table = (me == 0).then(|| LeaderTable::new(NodeId(node as u32)));
        if let Some(table) = &mut table {
            table.handle_nodes(plane.now(), (0..NODES as u32).map(NodeId));
        }
        let addresses = shared.borrow().addresses.clone();
        let nodes = (0..).zip(addresses).map(|(id, address)| PeerNode {
            id: NodeId(id),
            address: address.into(),
            shards: SHARDS,
        });
        exchange.peers.set_nodes(plane, nodes.collect());
        plane.set_timer(plane.now().after(TICK), TICK_TOKEN);
        let (leaders, shared) = (Leaders::default(), Rc::clone(shared));
        Self { node, me, partitions, exchange, table, leaders, readers, shared, seed }
    }

    /// Returns what shard 0 knows of leaders.
    pub(super) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    /// Says what this shard's partitions lead, and on shard 0 to the other nodes.
    fn run_leaders(&mut self, plane: &mut dyn Plane<TestMessage>) -> bool {
        let reports = self.partitions.poll_reports(2);
        let more = self.partitions.has_reports();
        let Some(table) = &mut self.table else {
            if !reports.is_empty() {
                plane.post(0, TestMessage::Led(reports));
            }
            return more;
        };
        table.handle_local(reports);
        while let Some((node, event)) = self.exchange.poll_node_event() {
            table.handle_event(plane.now(), node, event);
        }
        table.handle_time(plane.now());
        for (node, session, news) in table.poll_news() {
            self.exchange.peers.send_leaders(node, session, &news);
        }
        if let Some(leaders) = table.poll_leaders() {
            self.leaders = leaders;
        }
        more || table.has_news()
    }

    pub(super) fn replica(&self, partition: u32) -> Option<&Replica> {
        self.partitions.of(tp(partition)).map(Partition::replica)
    }

    fn command(&mut self, plane: &mut dyn Plane<TestMessage>, command: Command) {
        let wall_ms = plane.wall_clock_ms();
        match command {
            Command::Produce { partition, request, producer, sequence } => {
                let bytes = BatchBytes::Owned(batch(self.seed, producer, sequence));
                let batch = ParsedBatch::parse(bytes).expect("a batch");
                let to = RequestBatch { shard: 0, request: RequestId(0), number: request };
                let to = ReplyTo::Kafka(to);
                self.partitions.append_checked(plane, (tp(partition), RequiredAcks::All, to), batch, wall_ms);
            }
            Command::Configure { partition, config } => {
                let taken = self.partitions.change_replicas(plane, tp(partition), &config, wall_ms);
                self.shared.borrow_mut().changes += u64::from(taken.is_ok());
            }
            Command::Trim { partition, to } => {
                let id = LogStartMove { query: 0, number: 0 };
                self.partitions.move_log_start(plane, tp(partition), Some(to), id);
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.partitions.poll_event() {
            match event {
                PartitionEvent::Appended { reply_to: ReplyTo::Kafka(to), outcome, .. } => {
                    let at = outcome.ok().map(|at| at.base_offset);
                    self.shared.borrow_mut().outcomes.push((to.number, at));
                }
                PartitionEvent::Read { id, result, .. } => {
                    let mut result = Some(result);
                    let mut found = Vec::new();
                    for (partition, reader) in &mut self.readers {
                        found.push((*partition, reader.finish(id, &mut result)));
                    }
                    for (partition, records) in found {
                        self.note(partition, records);
                    }
                }
                PartitionEvent::Fatal(why) => panic!("node {}: {why}", self.node),
                _ => {}
            }
        }
    }

    fn note(&self, partition: u32, records: Records) {
        let mut shared = self.shared.borrow_mut();
        let committed = shared.committed.entry(partition).or_default();
        for (offset, value) in records {
            let known = committed.entry(offset).or_insert_with(|| value.clone());
            assert_eq!(*known, value, "node {} has another record at {partition}/{offset}", self.node);
        }
    }

    /// Reads on, and checks that no other node leads a term that this one leads.
    fn check(&mut self, plane: &mut dyn Plane<TestMessage>) {
        let numbers: Vec<u32> = self.readers.keys().copied().collect();
        for number in numbers {
            let id: PartitionId = self.partitions.find(tp(number)).expect("it is here");
            let reader = self.readers.get_mut(&number).expect("it has a reader");
            let records = reader.read_on(plane, &mut self.partitions, id);
            self.note(number, records);
            let replica = self.replica(number).expect("it is here");
            if replica.role() == RoleKind::Leader {
                let term = replica.term().0;
                let leader = *self.shared.borrow_mut().leaders.entry((number, term)).or_insert(self.node);
                assert_eq!(leader, self.node, "term {term} of {number} has two leaders");
            }
        }
    }
}

impl ShardApp for TestShard {
    type Message = TestMessage;

    fn on_accept(&mut self, plane: &mut dyn Plane<TestMessage>, conn: ConnId, _: ListenerId, _: SocketAddr) {
        self.exchange.peers.handle_accepted(plane, conn);
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<TestMessage>,
        conn: ConnId,
        _: Token,
        outcome: Result<(), ConnectError>,
    ) {
        self.exchange.peers.handle_connected(plane, conn, outcome);
    }

    fn on_recv(&mut self, plane: &mut dyn Plane<TestMessage>, conn: ConnId, data: &[u8]) {
        if let Some(Arrival::Elsewhere(greeted)) = self.exchange.peers.handle_received(plane, conn, data) {
            let message = TestMessage::Greeted(Box::new(greeted.hello));
            plane.migrate(conn, greeted.shard.0, message, greeted.unread);
        }
    }

    fn on_bulk(&mut self, plane: &mut dyn Plane<TestMessage>, conn: ConnId, buf: AlignedBuf) {
        self.exchange.peers.handle_bulk(plane, conn, buf);
    }

    fn on_sent(&mut self, _: &mut dyn Plane<TestMessage>, conn: ConnId, bytes: usize) {
        self.exchange.peers.handle_sent(conn, bytes);
    }

    fn on_closed(&mut self, plane: &mut dyn Plane<TestMessage>, conn: ConnId, _: CloseReason) {
        self.exchange.peers.handle_closed(plane, conn);
    }

    fn on_disk(&mut self, plane: &mut dyn Plane<TestMessage>, token: Token, completion: Completion) {
        self.partitions.handle_disk(plane, token, completion);
    }

    fn on_message(&mut self, _: &mut dyn Plane<TestMessage>, _: ShardIndex, message: TestMessage) {
        match message {
            TestMessage::Led(statements) => self.table.as_mut().expect("shard 0").handle_local(statements),
            TestMessage::Continue => {}
            TestMessage::Greeted(_) => panic!("a hello comes with a connection"),
        }
    }

    fn on_migrated(
        &mut self,
        plane: &mut dyn Plane<TestMessage>,
        conn: ConnId,
        _: ListenerId,
        _: SocketAddr,
        message: TestMessage,
    ) {
        let TestMessage::Greeted(hello) = message else { panic!("{message:?} came with a connection") };
        self.exchange.peers.handle_migrated(plane, conn, &hello);
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<TestMessage>, token: Token) {
        if token == DEADLINE_TOKEN {
            return self.exchange.handle_deadline(plane);
        }
        let commands = self.shared.borrow_mut().commands.remove(&(self.node, self.me));
        for command in commands.unwrap_or_default() {
            self.command(plane, command);
        }
        plane.set_timer(plane.now().after(TICK), TICK_TOKEN);
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<TestMessage>) {
        self.exchange.peers.stop(plane);
        plane.exit();
    }

    fn on_turn_end(&mut self, plane: &mut dyn Plane<TestMessage>) {
        let wall_ms = plane.wall_clock_ms();
        let node = self.node;
        let owner_of = |tp: TopicPartition| Some(ShardId(shard_of(node, tp.partition.0)));
        let mut more = self.exchange.receive(plane, &mut self.partitions, &owner_of);
        for _ in 0..2 {
            self.partitions.flush(plane);
            let any = self.partitions.poll_stores(plane, wall_ms);
            self.take_events();
            more |= self.run_leaders(plane);
            more |= any | self.exchange.send(plane, &mut self.partitions);
        }
        self.partitions.flush(plane);
        self.check(plane);
        if more {
            plane.post(self.me, TestMessage::Continue);
        }
        if let Some(at) = self.exchange.poll_deadline() {
            plane.set_timer(at, DEADLINE_TOKEN);
        }
    }
}
