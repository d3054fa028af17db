//! A request larger than the broker's memory for requests, and the largest batches that a broker can be configured for.

use std::net::SocketAddr;
use std::path::Path;

use highwater_engine::{Broker, BrokerConfig};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceTopic};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT};
use highwater_protocol::native::{Acks, Body as _, MessageKind, ProduceReply, Start, StatsReply};

use crate::client::{Fetch, Kafka, request};
use crate::common::{Client, batch, partition, stop};

/// More than a shard's memory for requests with this little memory.
const LARGE_BYTES: usize = 60 << 20;
const MEMORY_BYTES: u64 = 96 << 20;

/// Returns the memory of requests and responses.
fn request_memory(stats: &mut Client) -> u64 {
    stats.send_empty(MessageKind::Stats, 0);
    let reply = StatsReply::decode(&stats.reply_to(0).ok()).expect("statistics");
    reply.total("memory.requests.now").expect("it is counted")
}

/// Sends a request in two pieces, so that the connection keeps a buffer.
fn ask_in_pieces(kafka: &mut Kafka, stats: &mut Client) {
    let records = batch(&["in pieces"], BatchProducer::NONE);
    let partition_data = vec![ProducePartition { index: 0, records: Some(&records) }];
    let topic_data = vec![ProduceTopic { name: "t", topic_id: [0; 16], partition_data }];
    let body = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 1000, topic_data };
    let bytes = request(ApiKey::Produce, 11, 1, &body);
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    kafka.send_raw(first);
    let read = (0..100_000).any(|_| request_memory(stats) > 0);
    assert!(read, "the first piece was not read");
    kafka.send_raw(rest);
    assert_eq!(kafka.produced(11)[0].0, KafkaError::NONE);
}

fn start(dir: &Path, config: &BrokerConfig) -> Broker {
    let broker = Broker::start(BrokerConfig {
        data_dir: dir.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        kafka_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        cores: Some(1),
        stop_on_signals: false,
        ..config.clone()
    });
    broker.expect("the broker starts")
}

#[test]
fn a_request_larger_than_the_budget_is_handled_beside_silent_connections() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = BrokerConfig { memory_bytes: Some(MEMORY_BYTES), ..BrokerConfig::default() };
    let broker = start(dir.path(), &config);
    let address = broker.kafka_addr().expect("it has a Kafka listener");
    let mut native = Client::connect(broker.native_addr());
    native.created("t", 2, &[]);
    let mut silent = Kafka::connect(address);
    ask_in_pieces(&mut silent, &mut native);

    let mut kafka = Kafka::connect(address);
    // Too large for any topic, so it is not appended.
    let large = vec![0; LARGE_BYTES];
    let small = batch(&["v"], BatchProducer::NONE);
    kafka.send_batches(11, -1, "t", &[(0, &large), (1, &small)]);
    assert_eq!(kafka.produced(11), [(KafkaError::MESSAGE_TOO_LARGE, -1), (KafkaError::NONE, 0)]);
    drop((silent, kafka, native));
    stop(broker);
}

/// Creates a batch of exactly the largest size, whose value repeats `byte`.
fn largest(byte: &str) -> Vec<u8> {
    let around =
        batch(&[&byte.repeat(BATCH_BYTES_MAX - 200)], BatchProducer::NONE).len() - (BATCH_BYTES_MAX - 200);
    let batch = batch(&[&byte.repeat(BATCH_BYTES_MAX - around)], BatchProducer::NONE);
    assert_eq!(batch.len(), BATCH_BYTES_MAX);
    batch
}

/// Checks that both protocols read the three batches.
fn check_batches(kafka: &mut Kafka, native: &mut Client, tp: TopicPartition) {
    let is_whole =
        |value: &str, byte: u8| value.len() > BATCH_BYTES_MAX - 200 && value.bytes().all(|at| at == byte);
    for (at, byte) in (0..).zip([b'k', b's', b'n']) {
        // With a smaller limit than the batch: one is returned whole.
        let got = kafka.fetch(11, &Fetch::of("t", &[(0, at)]));
        let (offset, value) = &got[0].records[0];
        assert_eq!(*offset, at);
        assert!(if byte == b's' { value == "small" } else { is_whole(value, byte) }, "{} bytes", value.len());
    }
    let read = native.read_all(tp, 0);
    assert_eq!(read.len(), 3);
    assert!(is_whole(&read[0].1, b'k') && read[1].1 == "small" && is_whole(&read[2].1, b'n'));
    let (number, _) = native.subscribe(tp, Start::Earliest, 1 << 20);
    let pushed = native.pushed_records(number, 3);
    assert!(pushed.iter().map(|(_, value)| value.len()).eq(read.iter().map(|(_, value)| value.len())));
}

#[test]
fn the_largest_batches_are_written_and_read_by_both_protocols_and_kept_when_the_limit_is_lowered() {
    let dir = tempfile::tempdir().expect("a directory");
    let raised = BrokerConfig {
        memory_bytes: Some(432 << 20),
        batch_bytes_max: BATCH_BYTES_MAX,
        ..BrokerConfig::default()
    };
    let broker = start(dir.path(), &raised);
    let mut native = Client::connect(broker.native_addr());
    let tp = partition(native.created("t", 1, &[("max.message.bytes", "104857600")]), 0);
    let mut kafka = Kafka::connect(broker.kafka_addr().expect("it has a Kafka listener"));
    assert_eq!(kafka.produce("t", &[(0, &largest("k"))]), [(KafkaError::NONE, 0)]);
    assert_eq!(native.produced(tp, &["small"]), 1);
    let id = native.send_batch(tp, Acks::All, &largest("n"));
    let reply = ProduceReply::decode(&native.reply_to(id).ok()).expect("a reply");
    assert_eq!(reply.base_offset.get(), 2);
    check_batches(&mut kafka, &mut native, tp);
    kafka.send_batches(11, -1, "t", &[(0, &vec![0; BATCH_BYTES_MAX + 1])]);
    assert_eq!(kafka.produced(11), [(KafkaError::MESSAGE_TOO_LARGE, -1)]);
    drop((kafka, native));
    stop(broker);

    let broker =
        start(dir.path(), &BrokerConfig { memory_bytes: Some(MEMORY_BYTES), ..BrokerConfig::default() });
    let mut native = Client::connect(broker.native_addr());
    let mut kafka = Kafka::connect(broker.kafka_addr().expect("it has a Kafka listener"));
    check_batches(&mut kafka, &mut native, tp);
    let id = native.send_batch(tp, Acks::All, &vec![0; BATCH_BYTES_MAX_DEFAULT + 1]);
    let (code, text) = native.reply_to(id).err();
    assert_eq!(code, ErrorCode::TooLarge);
    assert!(
        text.starts_with("t/0: a batch of 16777217 bytes is over this broker's limit of 16777216"),
        "{text}"
    );
    assert!(text.contains("--batch-bytes-max") && text.contains("max.message.bytes"), "{text}");
    assert_eq!(native.produced(tp, &["goes on"]), 3);
    drop((kafka, native));
    stop(broker);
}
