//! A request that is larger than all that the broker has for requests.

use std::net::SocketAddr;

use highwater_engine::{Broker, BrokerConfig};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceTopic};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::native::{Body as _, MessageKind, StatsReply};

use crate::client::{Kafka, request};
use crate::common::{Client, batch, stop};

/// More than one shard has for requests if the broker has this little memory.
const LARGE_BYTES: usize = 60 << 20;
const MEMORY_BYTES: u64 = 96 << 20;

/// What requests and answers hold now.
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

#[test]
fn a_request_over_the_budget_is_taken_although_silent_connections_have_buffers() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(BrokerConfig {
        data_dir: dir.path().to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        kafka_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        cores: Some(1),
        stop_on_signals: false,
        memory_bytes: Some(MEMORY_BYTES),
        ..BrokerConfig::default()
    })
    .expect("the broker starts");
    let address = broker.kafka_addr().expect("it has a Kafka listener");
    let mut native = Client::connect(broker.native_addr());
    native.created("t", 2, &[]);
    let mut silent = Kafka::connect(address);
    ask_in_pieces(&mut silent, &mut native);

    let mut kafka = Kafka::connect(address);
    // Too large for any topic, so nothing of it is written.
    let large = vec![0; LARGE_BYTES];
    let small = batch(&["v"], BatchProducer::NONE);
    kafka.send_batches(11, -1, "t", &[(0, &large), (1, &small)]);
    assert_eq!(kafka.produced(11), [(KafkaError::MESSAGE_TOO_LARGE, -1), (KafkaError::NONE, 0)]);
    drop((silent, kafka, native));
    stop(broker);
}
