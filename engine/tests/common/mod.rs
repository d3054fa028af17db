//! A small blocking client, so that the broker's tests do not depend on the real one.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod sim_node;
pub mod simulated;
pub mod stream;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;

use highwater_engine::{Broker, BrokerConfig, HostKind};
use highwater_protocol::batch::{
    BatchBuilder, BatchHeader, BatchProducer, BatchView, Compression, NewRecord, seal,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use highwater_protocol::ids::{Offset, PartitionIndex, ShardId, Timestamp, TopicId, TopicPartition};
use highwater_protocol::native::{
    Acks, Body, CreateTopicReply, CreateTopicRequest, Credit, DataPrefix, DeleteTopicRequest,
    DescribeTopicReply, DescribeTopicRequest, FetchRequest, Hello, HelloReply, MessageKind, MetadataReply,
    MetadataRequest, PROTOCOL_VERSION, ProduceReply, Start, SubscribeReply, SubscribeRequest,
    WIRE_HEADER_BYTES, WireHeader, empty_message, error_text, message, produce_head,
};

use zerocopy::FromBytes;

pub use stream::Stream;

/// Starts a broker on a directory, with this many cores.
pub fn start(data_dir: &std::path::Path, cores: u16, host: HostKind) -> Broker {
    try_start(data_dir, cores, host).expect("the broker starts")
}

/// Returns the configuration of a broker on free ports.
pub fn config(data_dir: &std::path::Path, cores: u16, host: HostKind) -> BrokerConfig {
    BrokerConfig {
        data_dir: data_dir.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        kafka_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        cores: Some(cores),
        host,
        stop_on_signals: false,
        memory_bytes: Some(256 << 20),
        ..BrokerConfig::default()
    }
}

pub fn try_start(
    data_dir: &std::path::Path,
    cores: u16,
    host: HostKind,
) -> Result<Broker, highwater_engine::StartError> {
    Broker::start(config(data_dir, cores, host))
}

/// Stops a broker gracefully.
pub fn stop(broker: Broker) {
    broker.shutdown();
    assert_eq!(broker.wait(), 0);
}

/// A message from the broker.
#[derive(Debug)]
pub struct Answer {
    pub kind: u16,
    pub id: u64,
    pub error: Option<ErrorCode>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.error, None, "{}", error_text(&self.body));
        self.body
    }

    pub fn err(self) -> (ErrorCode, String) {
        (self.error.expect("an error"), error_text(&self.body))
    }
}

pub struct Client {
    stream: Stream,
    next_id: u64,
    /// Data messages that arrived while waiting for a reply.
    pub pushed: VecDeque<Answer>,
    pub hello: HelloReply,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, None)
    }

    pub fn connect_to(address: SocketAddr, shard: Option<u16>) -> Self {
        Self::on(raw(address), shard)
    }

    /// Sends the hello on a new connection.
    pub fn on(mut stream: Stream, shard: Option<u16>) -> Self {
        stream.write_all(&message(0, &hello(shard))).expect("sent");
        let answer = read_answer(&mut stream).expect("a reply");
        let hello = HelloReply::decode(&answer.ok()).expect("a hello reply");
        Self { stream, next_id: 0, pushed: VecDeque::new(), hello }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub fn send(&mut self, body: &impl Body) -> u64 {
        self.next_id += 1;
        let bytes = message(self.next_id, body);
        self.send_raw(&bytes);
        self.next_id
    }

    /// Returns the next message, or `None` if the connection was closed.
    pub fn read(&mut self) -> Option<Answer> {
        read_answer(&mut self.stream)
    }

    /// Returns the reply to this request. Data messages before it are stored.
    pub fn reply_to(&mut self, id: u64) -> Answer {
        loop {
            let answer = self.read().expect("the connection stays");
            if answer.kind == MessageKind::Data as u16 {
                self.pushed.push_back(answer);
                continue;
            }
            assert_eq!(answer.id, id, "replies come in order: {answer:?}");
            return answer;
        }
    }

    pub fn call(&mut self, body: &impl Body) -> Answer {
        let id = self.send(body);
        self.reply_to(id)
    }

    pub fn create_topic(&mut self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Answer {
        self.call(&CreateTopicRequest {
            name: name.into(),
            partitions,
            configs: configs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            validate_only: false,
            replicas: None,
        })
    }

    pub fn created(&mut self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> TopicId {
        let body = self.create_topic(name, partitions, configs).ok();
        CreateTopicReply::decode(&body).expect("a reply").id
    }

    pub fn delete_topic(&mut self, name: &str) -> Answer {
        self.call(&DeleteTopicRequest { name: name.into() })
    }

    pub fn describe(&mut self, name: &str) -> DescribeTopicReply {
        let body = self.call(&DescribeTopicRequest { name: name.into() }).ok();
        DescribeTopicReply::decode(&body).expect("a reply")
    }

    pub fn metadata(&mut self) -> MetadataReply {
        let body = self.call(&MetadataRequest { topics: None }).ok();
        MetadataReply::decode(&body).expect("a reply")
    }

    /// Sends a batch without waiting.
    pub fn send_batch(&mut self, to: TopicPartition, acks: Acks, batch: &[u8]) -> u64 {
        self.next_id += 1;
        let head = produce_head(self.next_id, to, acks, batch.len());
        self.send_raw(&head);
        self.send_raw(batch);
        self.next_id
    }

    pub fn produce(&mut self, to: TopicPartition, values: &[&str]) -> Answer {
        let id = self.send_batch(to, Acks::All, &batch(values, BatchProducer::NONE));
        self.reply_to(id)
    }

    pub fn produced(&mut self, to: TopicPartition, values: &[&str]) -> i64 {
        let body = self.produce(to, values).ok();
        ProduceReply::decode(&body).expect("a reply").base_offset.get()
    }

    pub fn fetch(&mut self, from: TopicPartition, start: Start, wait_ms: u32) -> Answer {
        self.call(&FetchRequest {
            topic: from.topic,
            partition: from.partition,
            start,
            max_bytes: 1 << 20,
            min_bytes: 1,
            wait_ms,
        })
    }

    /// Reads all acknowledged records from an offset on.
    pub fn read_all(&mut self, from: TopicPartition, start: i64) -> Vec<(i64, String)> {
        let mut at = start;
        let mut records = Vec::new();
        loop {
            let body = self.fetch(from, Start::Offset(Offset(at)), 0).ok();
            let (prefix, frames) = DataPrefix::split(&body).expect("a prefix");
            records.extend(records_of(frames).into_iter().filter(|(offset, _)| *offset >= at));
            at = prefix.next_offset.get();
            if at >= prefix.high_watermark.get() {
                return records;
            }
        }
    }

    pub fn subscribe(
        &mut self,
        from: TopicPartition,
        start: Start,
        credit_bytes: u64,
    ) -> (u64, SubscribeReply) {
        let request = SubscribeRequest { topic: from.topic, partition: from.partition, start, credit_bytes };
        let number = self.send(&request);
        let body = self.reply_to(number).ok();
        (number, SubscribeReply::decode(&body).expect("a reply"))
    }

    /// Returns the next data message.
    pub fn data(&mut self) -> Answer {
        if let Some(answer) = self.pushed.pop_front() {
            return answer;
        }
        let answer = self.read().expect("the connection stays");
        assert_eq!(answer.kind, MessageKind::Data as u16, "{answer:?}");
        answer
    }

    /// Returns this many records from data messages, and grants their credit again.
    pub fn pushed_records(&mut self, number: u64, count: usize) -> Vec<(i64, String)> {
        let mut records = Vec::new();
        while records.len() < count {
            let answer = self.data();
            assert_eq!(answer.id, number);
            let body = answer.ok();
            let (_, frames) = DataPrefix::split(&body).expect("a prefix");
            records.extend(records_of(frames));
            let credit = message(number, &Credit { bytes: (frames.len() as u64).into() });
            self.send_raw(&credit);
        }
        records
    }

    pub fn send_empty(&mut self, kind: MessageKind, id: u64) {
        self.send_raw(&empty_message(kind, id));
    }
}

pub fn raw(address: SocketAddr) -> Stream {
    Stream::connect(address)
}

pub fn hello(shard: Option<u16>) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        shard: shard.map(ShardId),
        cluster: None,
        client_name: "engine-test".into(),
    }
}

/// Reads the next message; `None` at the end of the stream.
pub fn read_answer(stream: &mut Stream) -> Option<Answer> {
    let mut head = [0; WIRE_HEADER_BYTES];
    let first = loop {
        match stream.read(&mut head) {
            // Signals for shards may interrupt this thread.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            first => break first.expect("readable"),
        }
    };
    if first == 0 {
        return None;
    }
    stream.read_exact(&mut head[first..]).expect("a whole header");
    let header = WireHeader::parse(&head).expect("a header");
    let mut body = vec![0; header.body_bytes.get() as usize];
    stream.read_exact(&mut body).expect("a whole body");
    Some(Answer { kind: header.kind.get(), id: header.request_id.get(), error: header.error(), body })
}

/// Creates a batch of these values.
pub fn batch(values: &[&str], producer: BatchProducer) -> Vec<u8> {
    batch_at(values, producer, now_ms())
}

pub fn batch_at(values: &[&str], producer: BatchProducer, at_ms: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for value in values {
        builder.append(&NewRecord::new(Timestamp(at_ms), None, Some(value.as_bytes()))).expect("it fits");
    }
    builder.finish(producer).expect("there are records").to_vec()
}

/// Creates a compressed batch of these timestamps and values.
pub fn timed(codec: Compression, records: &[(i64, &str)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    for (at_ms, value) in records {
        builder.append(&NewRecord::new(Timestamp(*at_ms), None, Some(value.as_bytes()))).expect("it fits");
    }
    builder.finish(BatchProducer::NONE).expect("there are records").to_vec()
}

/// Returns the batch with a changed header and a valid length and checksum.
pub fn with_header(mut bytes: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let length = (bytes.len() - 12) as i32;
    let (header, _) = BatchHeader::mut_from_prefix(&mut bytes).expect("a header");
    header.length.set(length);
    change(header);
    seal(&mut bytes);
    bytes
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as i64
}

/// Returns the offsets and values in frames.
pub fn records_of(mut frames: &[u8]) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    while !frames.is_empty() {
        let (header, kind) = FrameHeader::parse(frames).expect("a frame");
        let bytes = header.frame_bytes();
        if kind == FrameKind::Batch {
            let payload =
                &frames[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes.get() as usize];
            let view = BatchView::parse(payload).expect("a batch");
            view.check_checksum().expect("as it was sent");
            let mut scratch = Vec::new();
            for record in view.records(&mut scratch).expect("records") {
                let record = record.expect("a record");
                let value = record.value.unwrap_or_default();
                records.push((record.offset.0, String::from_utf8_lossy(value).into_owned()));
            }
        }
        frames = &frames[bytes.min(frames.len())..];
    }
    records
}

pub fn partition(topic: TopicId, number: u32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex(number) }
}
