//! What the Kafka listener costs beside the native one: a client that does next to nothing sends the same batches to one broker on
//! one core by both protocols. Requests were encoded before, answers are counted; every batch rests on the disk before it is.
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

/// Bytes of a record's value.
const VALUE_BYTES: usize = 1000;

/// The version of Produce.
const VERSION: i16 = 8;

/// Answers are read in pieces of this size.
const READ_BYTES: usize = 64 << 10;

/// What is sent, and how much of it may be under way.
struct Load {
    name: &'static str,
    partitions: u32,
    /// Records of a batch.
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
        builder.append(&NewRecord::new(at, None, Some(&value))).expect("far below the limit");
    }
    builder.finish(BatchProducer::NONE).expect("there are records").freeze()
}

/// A protocol, as far as this client knows it.
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

    /// The length of the first answer, once so much of it is there.
    fn answer_bytes(self, received: &[u8]) -> Option<usize> {
        match self {
            Self::Native => {
                let header = WireHeader::parse(received)?;
                assert_eq!(header.error(), None, "it was appended");
                Some(WIRE_HEADER_BYTES + header.body_bytes.get() as usize)
            }
            Self::Kafka => {
                let length = received.first_chunk()?;
                Some(4 + u32::from_be_bytes(*length) as usize)
            }
        }
    }

    /// Whether an answer says that the batch was appended.
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

/// A connection that has requests under way.
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

    /// The next answer.
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
        assert_ne!(read, 0, "the connection stays");
        self.received.truncate(filled + read);
    }

    /// Answers that are whole; waits for one.
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

    /// Time of so many requests, as many at once as may be.
    fn run(&mut self, requests: &[Vec<u8>], iterations: u64, in_flight: usize) -> Duration {
        let mut next = requests.iter().cycle();
        let mut under_way = 0;
        let mut left = iterations;
        let mut together = Vec::new();
        let began = Instant::now();
        while left > 0 || under_way > 0 {
            // Small ones go together; large ones are not copied.
            while left > 0 && under_way < in_flight {
                let request = next.next().expect("it begins again");
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
        &CreateTopicRequest { name: topic.into(), partitions, configs: Vec::new(), validate_only: false },
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
