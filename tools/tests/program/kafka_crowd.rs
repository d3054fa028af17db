//! Many Kafka clients at once, most of them idle.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kill_kafka::config;
use crate::support::{Broker, Place};

const IDLE: usize = 1000;
const PRODUCERS: usize = 50;
const CONSUMERS: usize = 50;
const RECORDS_PER_PRODUCER: usize = 100;
const PARTITIONS: i32 = 4;

/// Maximum memory of an idle connection that made one request. Generous, because it includes the allocator's overhead and the shards'
/// background work.
const IDLE_CONNECTION_BYTES_MAX: usize = 32 << 10;

/// Maximum growth of the broker's memory with all connections, a tenth of them busy. Includes buffers of data in flight.
const CROWD_BYTES_MAX: usize = 256 << 20;

/// Timeout of any single operation.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Number of descriptors that this test and the broker need, each.
const DESCRIPTORS: u64 = 4096;

/// An ApiVersions request of version 0, the first request of every Kafka client.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

/// Range of the correlation id in [`API_VERSIONS`].
const CORRELATION_ID: std::ops::Range<usize> = 8..12;

fn request_api_versions(stream: &mut TcpStream) {
    stream.write_all(&API_VERSIONS).expect("the broker reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the broker replies");
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut response).expect("the broker replies");
    assert_eq!(response[..4], API_VERSIONS[CORRELATION_ID]);
    assert_eq!(response[4..6], [0, 0], "no error");
}

fn resident_bytes(broker: &Broker) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// Raises the soft limit of descriptors, which the broker inherits.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.current.is_none_or(|current| current >= DESCRIPTORS);
    let allowed = limit.maximum.is_none_or(|maximum| maximum >= DESCRIPTORS);
    assert!(enough || allowed, "this test opens {DESCRIPTORS} descriptors; raise the limit (ulimit -Hn)");
    if !enough {
        let raised = Rlimit { current: Some(DESCRIPTORS), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("below the maximum");
    }
}

fn produce(address: &str, producer: usize) {
    let client: BaseProducer = config(address).create().expect("settings that librdkafka knows");
    for number in 0..RECORDS_PER_PRODUCER {
        let (key, value) = (format!("{producer} {number}"), vec![b'x'; 100 + number]);
        client
            .send(BaseRecord::to("t").key(&key).payload(&value))
            .map_err(|(e, _)| e)
            .expect("there is room");
        // Spread the load, so that each producer is busy for a while.
        client.poll(Duration::from_millis(1));
    }
    client.flush(TIMEOUT).expect("all are acknowledged");
    assert_eq!(client.in_flight_count(), 0);
}

fn consume(address: &str) {
    let mut config = config(address);
    config.set("group.id", "none").set("enable.auto.commit", "false");
    let client: BaseConsumer = config.create().expect("settings that librdkafka knows");
    let mut all = rdkafka::TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("t", partition, Offset::Beginning).expect("an offset");
    }
    client.assign(&all).expect("assigned");
    for _ in 0..PRODUCERS * RECORDS_PER_PRODUCER {
        let message = client.poll(TIMEOUT).expect("there are more").expect("no error");
        assert!(message.payload_len() >= 100);
    }
}

#[test]
fn a_thousand_idle_connections_use_little_memory_and_a_hundred_busy_clients_are_served() {
    raise_descriptors();
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--partitions", &PARTITIONS.to_string()], b"");
    let address = broker.kafka_address();
    // The first connection causes one-time allocations.
    request_api_versions(&mut TcpStream::connect(&address).expect("the broker listens"));
    let before = resident_bytes(&broker);
    let mut idle: Vec<TcpStream> =
        (0..IDLE).map(|_| TcpStream::connect(&address).expect("the broker listens")).collect();
    for stream in &mut idle {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        request_api_versions(stream);
    }
    let each = resident_bytes(&broker).saturating_sub(before) / IDLE;
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let address = &address;
            scope.spawn(move || produce(address, producer));
        }
        for _ in 0..CONSUMERS {
            scope.spawn(|| consume(&address));
        }
    });
    let busy = resident_bytes(&broker).saturating_sub(before);
    for stream in &mut idle {
        request_api_versions(stream);
    }
    println!(
        "{each} bytes for each of {IDLE} idle connections; {busy} bytes for all, including the busy ones"
    );
    assert!(each <= IDLE_CONNECTION_BYTES_MAX, "{each} bytes for each idle connection");
    assert!(busy <= CROWD_BYTES_MAX, "{busy} bytes for all");
    broker.stop();
}
