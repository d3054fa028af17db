//! Many of Kafka's clients at once, most of which say nothing.

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

/// Memory that a connection may cost which is open, was asked once, and is silent. Generous: what the allocator keeps for itself and
/// what the shards do meanwhile is in it.
const IDLE_CONNECTION_BYTES_MAX: usize = 32 << 10;

/// Memory by which the broker may grow while all of them are there and a tenth is busy: buffers for what is on its way.
const CROWD_BYTES_MAX: usize = 256 << 20;

/// As long as anything may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Descriptors that this test and the broker want, each for itself.
const DESCRIPTORS: u64 = 4096;

/// An ApiVersions request of version 0, which every client of Kafka begins with, and where its number stands.
const ASK: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
const NUMBER: std::ops::Range<usize> = 8..12;

fn ask(stream: &mut TcpStream) {
    stream.write_all(&ASK).expect("the broker reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the broker answers");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("the broker answers");
    assert_eq!(answer[..4], ASK[NUMBER]);
    assert_eq!(answer[4..6], [0, 0], "no error");
}

fn resident_bytes(broker: &Broker) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is told");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// The limit of descriptors is inherited by the broker. Raised only as far as anybody may.
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
        // Not all at once: each is busy for a while.
        client.poll(Duration::from_millis(1));
    }
    client.flush(PATIENCE).expect("all are acknowledged");
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
        let message = client.poll(PATIENCE).expect("there are more").expect("no error");
        assert!(message.payload_len() >= 100);
    }
}

#[test]
fn a_thousand_silent_connections_cost_little_and_a_hundred_busy_ones_work_beside_them() {
    raise_descriptors();
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--partitions", &PARTITIONS.to_string()], b"");
    let address = broker.kafka_address();
    // What the broker keeps from then on is not a connection's.
    ask(&mut TcpStream::connect(&address).expect("the broker listens"));
    let before = resident_bytes(&broker);
    let mut idle: Vec<TcpStream> =
        (0..IDLE).map(|_| TcpStream::connect(&address).expect("the broker listens")).collect();
    for stream in &mut idle {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        ask(stream);
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
        ask(stream);
    }
    println!("{each} bytes for each of {IDLE} silent connections; {busy} bytes for all, with the busy ones");
    assert!(each <= IDLE_CONNECTION_BYTES_MAX, "{each} bytes for each silent connection");
    assert!(busy <= CROWD_BYTES_MAX, "{busy} bytes for all");
    broker.stop();
}
