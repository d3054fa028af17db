//! A minimal broker on a real socket, with scripted faults.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::BatchView;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, ShardId, TopicId,
};
use highwater_protocol::native::{
    Body, CommitOffsetsRequest, CommittedOffset, Credit, DATA_PREFIX_BYTES, DescribeTopicReply,
    FEATURE_GROUPS, Hello, HelloReply, InitProducerReply, MessageKind, MetadataReply, MetadataRequest,
    NodeInfo, PROTOCOL_VERSION, PartitionInfo, ProducePrefix, ProduceReply, ReadOffsetsReply, Start,
    SubscribeReply, SubscribeRequest, TopicInfo, WIRE_HEADER_BYTES, WireHeader, empty_message, error_message,
    message,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::fake_group::{FakeGroup, TOPIC};
use crate::core::test_frames::Log;

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// What the broker does with the next request of a kind instead of handling it.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Closes the connection without handling the request.
    HangUp,
    /// Handles the request and closes the connection without an answer.
    LoseReply,
    /// Answers with this error.
    Refuse(ErrorCode),
    /// Does not answer.
    Ignore,
    /// Stops reading from this connection.
    Stall,
}

#[derive(Default)]
pub(crate) struct BrokerState {
    pub(crate) log: Log,
    pub(crate) partitions: u32,
    pub(crate) shards: u16,
    /// The shard that owns the partitions.
    pub(crate) shard: u16,
    pub(crate) address: String,
    pub(crate) script: VecDeque<(MessageKind, Fault)>,
    /// Kinds of the requests received, except pings.
    pub(crate) seen: Vec<MessageKind>,
    pub(crate) pings: u32,
    pub(crate) connections: u32,
    pub(crate) committed: Vec<CommittedOffset>,
    /// The starts of all subscriptions.
    pub(crate) starts: Vec<Start>,
    /// Open subscriptions.
    subscriptions: Vec<Subscription>,
    /// The next sequence, and the base offsets of the last batches by first sequence.
    producer: (i32, VecDeque<(i32, i64)>),
    pub(crate) duplicates: u32,
    pub(crate) producers: i64,
    /// The first available offset.
    pub(crate) log_start: i64,
    pub(crate) group: FakeGroup,
    /// Connections that are not read any more.
    stalled: Vec<u32>,
    /// The error to end all subscriptions with, once.
    ended: Option<ErrorCode>,
    /// Number of data messages in which to flip a bit.
    pub(crate) damage: u32,
    /// Frames that cannot be read any more, by index in the log.
    pub(crate) lost_frames: BTreeSet<usize>,
}

struct Subscription {
    connection: u32,
    id: u64,
    credit: i64,
    next: usize,
}

pub(crate) struct FakeBroker {
    pub(crate) inner: Arc<Mutex<BrokerState>>,
    changed: Arc<Notify>,
    hang_up: Arc<Notify>,
    /// Notified when a request was received.
    request_received: Arc<Notify>,
    listener: Option<AbortHandle>,
    address: String,
}

impl FakeBroker {
    pub(crate) async fn start(partitions: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = BrokerState { partitions, shards: 1, address: address.clone(), ..BrokerState::default() };
        let mut broker = Self {
            inner: Arc::new(Mutex::new(inner)),
            changed: Arc::default(),
            hang_up: Arc::default(),
            request_received: Arc::default(),
            listener: None,
            address,
        };
        let (inner, changed, hang_up, request_received) = (
            broker.inner.clone(),
            broker.changed.clone(),
            broker.hang_up.clone(),
            broker.request_received.clone(),
        );
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (inner, changed, hang_up, request_received) =
                    (inner.clone(), changed.clone(), hang_up.clone(), request_received.clone());
                tokio::spawn(async move {
                    let connection = {
                        let mut inner = inner.lock().unwrap();
                        inner.connections += 1;
                        inner.connections
                    };
                    tokio::select! {
                        () = serve(stream, connection, inner, changed, &request_received) => {}
                        () = hang_up.notified() => {}
                    }
                });
            }
        });
        broker.listener = Some(listening.abort_handle());
        broker
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BrokerState> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn script(&self, steps: impl IntoIterator<Item = (MessageKind, Fault)>) {
        self.lock().script.extend(steps);
    }

    /// Closes every connection.
    pub(crate) fn hang_up(&self) {
        self.hang_up.notify_waiters();
    }

    /// Stops listening and closes every connection.
    pub(crate) fn go_away(&self) {
        self.listener.as_ref().unwrap().abort();
        self.hang_up();
    }

    /// Ends every subscription with this error.
    pub(crate) fn end_subscriptions(&self, code: ErrorCode) {
        self.lock().ended = Some(code);
        self.changed.notify_waiters();
    }

    /// Appends batches to the log and pushes them to subscriptions.
    pub(crate) fn append(&self, batches: &[usize]) {
        for records in batches {
            self.lock().log.batch(*records, highwater_protocol::batch::Compression::None);
        }
        self.changed.notify_waiters();
    }

    /// Waits until requests have brought the broker into this state.
    pub(crate) async fn until(&self, is_so: impl Fn(&BrokerState) -> bool) {
        loop {
            let mut request_received = std::pin::pin!(self.request_received.notified());
            request_received.as_mut().enable();
            if is_so(&self.lock()) {
                return;
            }
            request_received.await;
        }
    }

    pub(crate) fn requests(&self, kind: MessageKind) -> usize {
        self.lock().seen.iter().filter(|seen| **seen == kind).count()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: u32,
    inner: Arc<Mutex<BrokerState>>,
    changed: Arc<Notify>,
    request_received: &Notify,
) {
    let mut buf = BytesMut::new();
    loop {
        let woken = changed.notified();
        let pushes = inner.lock().unwrap().pushes(connection);
        for push in pushes {
            if stream.write_all(&push).await.is_err() {
                return;
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut buf) => if !matches!(read, Ok(1..)) { return },
            () = woken => {}
        }
        while let Some(header) = WireHeader::parse(&buf) {
            let bytes = WIRE_HEADER_BYTES + header.body_bytes.get() as usize;
            if buf.len() < bytes {
                break;
            }
            let body = buf.split_to(bytes).freeze().slice(WIRE_HEADER_BYTES..);
            let kind = header.kind().unwrap();
            let id = header.request_id.get();
            let answer = inner.lock().unwrap().answer(connection, kind, id, &body);
            request_received.notify_waiters();
            match answer {
                Some(answer) if stream.write_all(&answer).await.is_ok() => {}
                Some(_) | None => return,
            }
            if inner.lock().unwrap().stalled.contains(&connection) {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl BrokerState {
    /// Returns the answer, empty for none. None: close the connection.
    fn answer(&mut self, connection: u32, kind: MessageKind, id: u64, body: &Bytes) -> Option<Bytes> {
        let is_ping = kind == MessageKind::Metadata
            && MetadataRequest::decode(body).unwrap().topics.is_some_and(|topics| topics.is_empty());
        if is_ping {
            self.pings += 1;
        } else {
            self.seen.push(kind);
        }
        let scripted = self.script.front().is_some_and(|(at, _)| *at == kind && !is_ping);
        let fault = if scripted { self.script.pop_front().map(|(_, fault)| fault) } else { None };
        match fault {
            Some(Fault::HangUp) => return None,
            Some(Fault::Refuse(code)) => return Some(error_message(kind as u16, id, code, "as told")),
            Some(Fault::Ignore) => return Some(Bytes::new()),
            Some(Fault::Stall) => {
                self.stalled.push(connection);
                return Some(Bytes::new());
            }
            Some(Fault::LoseReply) => {
                self.handle(connection, kind, id, body);
                return None;
            }
            None => {}
        }
        Some(self.handle(connection, kind, id, body))
    }

    fn handle(&mut self, connection: u32, kind: MessageKind, id: u64, body: &Bytes) -> Bytes {
        match kind {
            MessageKind::Hello => self.hello(id, &Hello::decode(body).unwrap()),
            MessageKind::Metadata => message(id, &self.metadata(&MetadataRequest::decode(body).unwrap())),
            MessageKind::DescribeTopic => message(
                id,
                &DescribeTopicReply {
                    id: TOPIC,
                    configs: vec![("max.message.bytes".into(), "100000".into(), false)],
                    partitions: Vec::new(),
                },
            ),
            MessageKind::InitProducer => {
                self.producers += 1;
                self.producer = (0, VecDeque::new());
                message(id, &InitProducerReply { producer: ProducerId(self.producers), epoch: 0 })
            }
            MessageKind::Produce => match self.produce(ProducePrefix::split(body).unwrap().1) {
                Ok(base) => message(
                    id,
                    &ProduceReply {
                        base_offset: base.into(),
                        log_append_time: (-1).into(),
                        log_start: 0.into(),
                    },
                ),
                Err(code) => error_message(kind as u16, id, code, "the sequence"),
            },
            MessageKind::Subscribe => {
                self.subscribe(connection, id, &SubscribeRequest::decode(body).unwrap())
            }
            MessageKind::Credit => {
                let bytes = Credit::decode(body).unwrap().bytes.get() as i64;
                for subscription in &mut self.subscriptions {
                    if (subscription.connection, subscription.id) == (connection, id) {
                        subscription.credit += bytes;
                    }
                }
                Bytes::new()
            }
            MessageKind::Unsubscribe => {
                self.subscriptions.retain(|at| (at.connection, at.id) != (connection, id));
                empty_message(kind, id)
            }
            MessageKind::CommitOffsets => {
                for position in CommitOffsetsRequest::decode(body).unwrap().positions {
                    self.committed.retain(|known| known.partition != position.partition);
                    self.committed.push(position);
                }
                empty_message(kind, id)
            }
            MessageKind::ReadOffsets => message(id, &ReadOffsetsReply { positions: self.committed.clone() }),
            other => self.group.answer(other, id, body),
        }
    }

    fn hello(&self, id: u64, hello: &Hello) -> Bytes {
        let shard = hello.shard.unwrap_or(ShardId(0));
        if shard.0 >= self.shards {
            return error_message(MessageKind::Hello as u16, id, ErrorCode::BadHello, "no such shard");
        }
        let reply = HelloReply {
            version: PROTOCOL_VERSION,
            features: FEATURE_GROUPS,
            node: NodeId(1),
            shard,
            shards: self.shards,
            cluster: CLUSTER,
            broker_version: "fake".into(),
        };
        message(id, &reply)
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataReply {
        let topic = |name: &String| {
            let known = name == "orders";
            let partition = |index| PartitionInfo {
                index: PartitionIndex(index),
                leader: Some(NodeId(1)),
                shard: ShardId(self.shard),
                leader_epoch: LeaderEpoch(0),
            };
            TopicInfo {
                name: name.clone(),
                error: (!known).then_some(ErrorCode::UnknownTopic),
                id: if known { TOPIC } else { TopicId([0; 16]) },
                partitions: if known { (0..self.partitions).map(partition).collect() } else { Vec::new() },
            }
        };
        MetadataReply {
            cluster: CLUSTER,
            nodes: vec![NodeInfo { node: NodeId(1), address: self.address.clone(), shards: self.shards }],
            topics: request.topics.iter().flatten().map(topic).collect(),
        }
    }

    /// Kafka's rule, for one producer and one partition.
    fn produce(&mut self, batch: &[u8]) -> Result<i64, ErrorCode> {
        let header = *BatchView::parse(batch).unwrap().header();
        if let Some(producer) = header.producer() {
            let (expected, window) = &mut self.producer;
            if let Some((_, base)) = window.iter().find(|(first, _)| *first == producer.sequence) {
                self.duplicates += 1;
                return Ok(*base);
            }
            if !window.is_empty() && *expected != producer.sequence {
                return Err(ErrorCode::OutOfOrderSequence);
            }
            *expected = producer.sequence_after(header.count());
            window.push_back((producer.sequence, self.log.next_offset()));
        }
        Ok(self.log.append(batch))
    }

    fn subscribe(&mut self, connection: u32, id: u64, request: &SubscribeRequest) -> Bytes {
        self.starts.push(request.start);
        let end = self.log.next_offset();
        let start = match request.start {
            Start::Earliest | Start::Timestamp(_) => self.log_start,
            Start::Latest => end,
            Start::Offset(Offset(offset)) => offset,
        };
        if start < self.log_start || start > end {
            let kind = MessageKind::Subscribe as u16;
            return error_message(kind, id, ErrorCode::OffsetOutOfRange, "no such offset");
        }
        let next = self.log.frame_of(start);
        let credit = request.credit_bytes as i64;
        self.subscriptions.push(Subscription { connection, id, credit, next });
        let reply = SubscribeReply {
            start: start.into(),
            log_start: self.log_start.into(),
            high_watermark: end.into(),
        };
        message(id, &reply)
    }

    /// Returns the data messages that credit allows, with one frame each.
    fn pushes(&mut self, connection: u32) -> Vec<Bytes> {
        let mut pushes = Vec::new();
        if let Some(code) = self.ended {
            let is_of_it = |at: &mut Subscription| at.connection == connection;
            for at in self.subscriptions.extract_if(.., is_of_it) {
                pushes.push(error_message(MessageKind::Data as u16, at.id, code, "as told"));
            }
            self.ended = self.ended.filter(|_| !self.subscriptions.is_empty());
        }
        for at in self.subscriptions.iter_mut().filter(|at| at.connection == connection) {
            while at.credit > 0 && at.next < self.log.frames() {
                let mut body = BytesMut::from(self.log.data(at.next..at.next + 1));
                if self.lost_frames.contains(&at.next) {
                    body.truncate(DATA_PREFIX_BYTES);
                }
                at.next += 1;
                at.credit -= (body.len() - DATA_PREFIX_BYTES) as i64;
                if self.damage > 0 {
                    self.damage -= 1;
                    *body.last_mut().unwrap() ^= 1;
                }
                let header = WireHeader::new(MessageKind::Data, at.id, body.len());
                let mut push = BytesMut::from(&empty_message(MessageKind::Data, at.id)[..]);
                push[0..4].copy_from_slice(&header.body_bytes.get().to_le_bytes());
                push.extend_from_slice(&body);
                pushes.push(push.freeze());
            }
        }
        pushes
    }
}
