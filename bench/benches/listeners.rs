//! Cost of the Kafka listener compared with the native one: a minimal client sends the same batches by both protocols to a broker on one core.
//! Requests are encoded in advance, replies are counted, and every batch is on the disk before its reply.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_engine::TestBroker;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use highwater_net::kafka::schema::Message;
use highwater_net::kafka::wire::Reader;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{PartitionIndex, Timestamp, TopicId, TopicPartition};
use highwater_protocol::native::{
    Acks, Body, CreateTopicReply, CreateTopicRequest, Hello, PROTOCOL_VERSION, WIRE_HEADER_BYTES, WireHeader,
    message, produce_head,
};

/// Size of a record's value in bytes.
const VALUE_BYTES: usize = 1000;

/// Version of the Produce request.
const VERSION: i16 = 8;

/// Size of a read of replies, in bytes.
const READ_BYTES: usize = 64 << 10;

/// A load: the requests, and the maximum number in flight.
struct Load {
    name: &'static str,
    partitions: u32,
    /// Number of records per batch.
    records: usize,
    in_flight: usize,
}

const LOADS: [Load; 2] = [
    Load { name: "1 MiB, 1 partition", partitions: 1, records: 1000, in_flight: 8 },
    Load { name: "1 KB, 100 partitions", partitions: 100, records: 1, in_flight: 500 },
];

fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let value = [0x5a; VALUE_BYTES];
    for n in 0..records {
        let at = Timestamp(1_700_000_000_000 + n as i64);
        builder.append(&NewRecord::new(at, None, Some(&value))).expect("below the limit");
    }
    builder.finish(BatchProducer::NONE).expect("not empty").freeze()
}

/// A protocol of the client.
#[derive(Clone, Copy)]
enum Protocol {
    Native,
    Kafka,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Kafka => "kafka",
        }
    }

    fn request(self, to: TopicPartition, topic: &str, batch: &[u8]) -> Vec<u8> {
        match self {
            Self::Native => [&produce_head(1, to, Acks::All, batch.len())[..], batch].concat(),
            Self::Kafka => kafka_request(to, topic, batch),
        }
    }

    /// Returns the length of the first reply, once its header is received.
    fn answer_bytes(self, received: &[u8]) -> Option<usize> {
        match self {
            Self::Native => {
                let header = WireHeader::parse(received)?;
                assert_eq!(header.error(), None, "the batch was appended");
                Some(WIRE_HEADER_BYTES + header.body_bytes.get() as usize)
            }
            Self::Kafka => {
                let length = received.first_chunk()?;
                Some(4 + u32::from_be_bytes(*length) as usize)
            }
        }
    }

    /// Asserts that a reply reports success.
    fn check(self, answer: &[u8]) {
        if let Self::Kafka = self {
            let body: ProduceResponse<'_> =
                Message::decode(VERSION, &mut Reader::new(&answer[8..])).expect("an answer");
            assert_eq!(body.responses[0].partition_responses[0].error_code, KafkaError::NONE);
        }
    }
}

fn kafka_request(to: TopicPartition, topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i16(ApiKey::Produce as i16);
    out.put_i16(VERSION);
    out.put_i32(1);
    // No client id.
    out.put_i16(-1);
    let partition_data = vec![ProducePartition { index: to.partition.0 as i32, records: Some(batch) }];
    let topic_data = vec![ProduceTopic { name: topic, topic_id: [0; 16], partition_data }];
    let body = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data };
    body.encode(VERSION, &mut out);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.to_vec()
}

/// A connection with requests in flight.
struct Client {
    protocol: Protocol,
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(broker: &TestBroker, protocol: Protocol) -> Self {
        let address = match protocol {
            Protocol::Native => broker.address(),
            Protocol::Kafka => broker.kafka_address(),
        };
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("set");
        let mut client = Self { protocol, stream, received: Vec::new() };
        if let Protocol::Native = protocol {
            let hello = Hello {
                version_min: PROTOCOL_VERSION,
                version_max: PROTOCOL_VERSION,
                features: 0,
                shard: None,
                cluster: None,
                client_name: "bench".into(),
            };
            client.send(&message(0, &hello));
            client.receive();
        }
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Returns the next reply.
    fn receive(&mut self) -> Vec<u8> {
        loop {
            match self.protocol.answer_bytes(&self.received) {
                Some(bytes) if bytes <= self.received.len() => return self.received.drain(..bytes).collect(),
                _ => self.read(),
            }
        }
    }

    fn read(&mut self) {
        let filled = self.received.len();
        self.received.resize(filled + READ_BYTES, 0);
        let read = self.stream.read(&mut self.received[filled..]).expect("readable");
        assert_ne!(read, 0, "the connection stays open");
        self.received.truncate(filled + read);
    }

    /// Waits for at least one complete reply. Returns the number of complete replies.
    fn answers(&mut self) -> usize {
        let (mut at, mut count) = (0, 0);
        loop {
            while let Some(bytes) = self.protocol.answer_bytes(&self.received[at..])
                && at + bytes <= self.received.len()
            {
                at += bytes;
                count += 1;
            }
            if count > 0 {
                self.received.drain(..at);
                return count;
            }
            self.read();
        }
    }

    /// Measures the time of `iterations` requests, with at most `in_flight` in flight.
    fn run(&mut self, requests: &[Vec<u8>], iterations: u64, in_flight: usize) -> Duration {
        let mut next = requests.iter().cycle();
        let mut under_way = 0;
        let mut left = iterations;
        let mut together = Vec::new();
        let began = Instant::now();
        while left > 0 || under_way > 0 {
            // Send small requests together, and large ones without copying.
            while left > 0 && under_way < in_flight {
                let request = next.next().expect("an endless iterator");
                if request.len() < READ_BYTES {
                    together.extend_from_slice(request);
                } else {
                    self.send(request);
                }
                left -= 1;
                under_way += 1;
            }
            self.send(&together);
            together.clear();
            under_way -= self.answers();
        }
        began.elapsed()
    }
}

fn create(broker: &TestBroker, topic: &str, partitions: u32) -> TopicId {
    let mut client = Client::connect(broker, Protocol::Native);
    client.send(&message(
        1,
        &CreateTopicRequest {
            name: topic.into(),
            partitions,
            configs: Vec::new(),
            validate_only: false,
            replicas: None,
        },
    ));
    let answer = client.receive();
    CreateTopicReply::decode(&answer[WIRE_HEADER_BYTES..]).expect("a reply").id
}

fn produce(c: &mut Criterion) {
    for load in LOADS {
        let mut group = c.benchmark_group(format!("produce, {}", load.name));
        let batch = batch(load.records);
        group.throughput(Throughput::Bytes((load.records * VALUE_BYTES) as u64));
        for protocol in [Protocol::Native, Protocol::Kafka] {
            let broker = TestBroker::start();
            let topic = create(&broker, "bench", load.partitions);
            let requests: Vec<_> = (0..load.partitions)
                .map(|partition| {
                    let to = TopicPartition { topic, partition: PartitionIndex(partition) };
                    protocol.request(to, "bench", &batch)
                })
                .collect();
            let mut client = Client::connect(&broker, protocol);
            client.send(&requests[0]);
            let answer = client.receive();
            protocol.check(&answer);
            group.bench_function(BenchmarkId::from_parameter(protocol.name()), |b| {
                b.iter_custom(|iterations| client.run(&requests, iterations, load.in_flight));
            });
        }
        group.finish();
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
}

criterion_group! { name = benches; config = config(); targets = produce }
criterion_main!(benches);
