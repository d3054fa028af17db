//! Requests of every kind, and of unknown kinds, truncated, with wrong lengths and corrupted, over real connections. Each is answered or its
//! connection is closed, and the broker serves the next client.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

use highwater_engine::HostKind;
use highwater_engine::limits::LONG_ANSWER_QUEUE_BYTES_MAX;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::{APIS, Api, ApiKey};
use highwater_net::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, MetadataRequest,
    MetadataResponse,
};
use highwater_net::kafka::samples::{self, Shape};
use highwater_net::limits::{KAFKA_PRODUCE_BYTES_MAX, KAFKA_REQUEST_BYTES_MAX};
use highwater_protocol::batch::BatchProducer;
use highwater_protocol::native::{Body as _, MessageKind, StatsReply};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::{Fetch, Kafka, RealBroker};
use crate::common::stream::tcp;
use crate::common::{Client, batch, start, stop};
use crate::wire;

/// Memory by which this process, with all tests that run in parallel, may grow. A single length that is trusted can be 2 GiB.
const GROWTH_BYTES_MAX: usize = 1 << 30;

/// The correlation id of all requests.
const CORRELATION_ID: i32 = 77;

/// The start of a request header: API key and version.
fn framed(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut rest = [key.to_be_bytes(), version.to_be_bytes()].concat();
    rest.extend(CORRELATION_ID.to_be_bytes());
    // No client id, no tagged fields.
    rest.extend((-1_i16).to_be_bytes());
    rest.extend(flexible.then_some(0));
    rest.extend(body);
    [&(rest.len() as u32).to_be_bytes()[..], &rest].concat()
}

/// A valid request, and its version.
fn request(api: &Api, version: i16, shape: Shape) -> Vec<u8> {
    let body = samples::request(api.key, version, shape);
    framed(api.key as i16, version, api.request_header_is_flexible(version), &body)
}

/// Returns the versions at which the schema of a request changes.
fn versions(api: &Api) -> Vec<i16> {
    let last_old = (api.accepted_min..=api.max).contains(&api.flexible_from).then(|| api.flexible_from - 1);
    let mut versions = vec![api.accepted_min, api.flexible_from.min(api.max), api.max];
    versions.extend(last_old.filter(|version| *version >= api.accepted_min));
    versions.sort_unstable();
    versions.dedup();
    versions
}

/// The expected reaction to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The broker closes the connection without a response.
    Closed,
    /// The client half-closes the connection; the broker may answer, and closes it.
    Left,
}

/// A broker that receives garbage, and a well-behaved client that it has to keep serving.
struct Target {
    broker: RealBroker,
    witness: Kafka,
    stats: Client,
    memory_before: usize,
    produced: i64,
}

impl Target {
    fn new() -> Self {
        let broker = RealBroker::new();
        broker.native().created("t", 1, &[]);
        let (witness, stats) = (broker.kafka(), broker.native());
        Self { broker, witness, stats, memory_before: resident_bytes(), produced: 0 }
    }

    /// Sends these bytes on a new connection.
    #[track_caller]
    fn check(&self, what: &str, bytes: &[u8], end: End) {
        let mut stream = tcp(self.broker.address());
        // The broker may close the connection while the bytes are being sent.
        let _ = stream.write_all(bytes);
        if end == End::Left {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{what}: neither answered nor closed: {e}"),
        }
        let mut rest = &said[..];
        while let [a, b, c, d, answer @ ..] = rest {
            assert_eq!(end, End::Left, "{what}: answered with {said:?}");
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            assert!(len <= answer.len(), "{what}: an answer that is cut off");
            assert_eq!(answer[..4], CORRELATION_ID.to_be_bytes(), "{what}: an answer to nothing");
            rest = &answer[len..];
        }
        assert_eq!(rest, [], "{what}: bytes that are no answer");
    }

    /// Checks that it serves a new client and the earlier one.
    fn serves(&mut self) {
        let mut newcomer = self.broker.kafka();
        for kafka in [&mut newcomer, &mut self.witness] {
            let sent = kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))]);
            assert_eq!(sent, [(KafkaError::NONE, self.produced)]);
            let got = kafka.fetch(12, &Fetch::of("t", &[(0, self.produced)]));
            assert_eq!(got[0].records, [(self.produced, "v".to_owned())]);
            self.produced += 1;
        }
    }

    /// Checks that closed connections hold no memory.
    fn check_unharmed(mut self) {
        self.serves();
        for attempt in 0.. {
            self.stats.send_empty(MessageKind::Stats, attempt);
            let stats = StatsReply::decode(&self.stats.reply_to(attempt).ok()).expect("statistics");
            let now = |name| stats.total(name).expect("it is counted");
            // The connection that asks, and the well-behaved client's.
            if now("connections.now") == 2 && now("memory.requests.now") == 0 {
                break;
            }
            assert!(attempt < 100_000, "connections or their memory are kept: {stats:?}");
        }
        let grown = resident_bytes().saturating_sub(self.memory_before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    }
}

/// Returns the memory of this process.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the status has it");
    let kib: usize = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// Returns requests of every kind, in every version with a schema of its own.
fn requests_of_every_schema() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| versions(api).into_iter().map(|version| (*api, version)))
}

#[test]
fn a_truncated_request_closes_its_connection_wherever_it_is_truncated() {
    let mut target = Target::new();
    for (api, version) in requests_of_every_schema() {
        let whole = request(api, version, Shape::One);
        for end in 0..whole.len() {
            let what = format!("{} {version}: {end} of {} bytes", api.name, whole.len());
            // The request ends here.
            target.check(&what, &whole[..end], End::Left);
            // Its length says so too.
            if end >= 4 {
                let length = (end as u32 - 4).to_be_bytes();
                target.check(&what, &[&length[..], &whole[4..end]].concat(), End::Closed);
            }
        }
        target.serves();
    }
    target.check_unharmed();
}

#[test]
fn a_request_with_an_invalid_length_closes_its_connection_before_it_is_received() {
    let mut target = Target::new();
    for api in APIS {
        let front = &request(api, api.max, Shape::One)[4..12];
        let too_long = match api.key {
            ApiKey::Produce => KAFKA_PRODUCE_BYTES_MAX + 1,
            _ => KAFKA_REQUEST_BYTES_MAX + 1,
        };
        for length in [i32::MIN, -1, 0, 7, too_long as i32, i32::MAX] {
            let bytes = [&length.to_be_bytes()[..], front].concat();
            target.check(&format!("{}: a length of {length}", api.name), &bytes, End::Closed);
        }
        target.serves();
    }
    target.check_unharmed();
}

#[test]
fn unsupported_requests_and_versions_close_the_connection() {
    let target = Target::new();
    for api in APIS.iter().filter(|api| api.key != ApiKey::ApiVersions) {
        for version in [i16::MIN, -1, api.accepted_min - 1, api.max + 1, i16::MAX] {
            let flexible = api.request_header_is_flexible(version);
            let bytes =
                framed(api.key as i16, version, flexible, &samples::request(api.key, api.max, Shape::One));
            target.check(&format!("{} {version}", api.name), &bytes, End::Closed);
        }
    }
    let strangers = (-2..200).chain([i16::MIN, 999, i16::MAX]);
    for key in strangers.filter(|key| ApiKey::from_i16(*key).is_none()) {
        for version in [0, 1, 3] {
            target.check(
                &format!("kind {key} {version}"),
                &framed(key, version, false, &[0; 40]),
                End::Closed,
            );
        }
    }
    for other in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", &[0xff; 64]]
    {
        target.check("another protocol", other, End::Closed);
    }
    target.check_unharmed();
}

#[test]
fn lengths_and_counts_inside_a_request_are_checked() {
    // A negative number, the largest ones, the same as varints of flexible versions, and zero, which means null there.
    const LIES: [&[u8]; 5] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x7f, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0],
    ];
    let mut target = Target::new();
    for (api, version) in requests_of_every_schema() {
        let whole = request(api, version, Shape::One);
        for at in 12..whole.len() {
            for lie in LIES {
                let mut bytes = whole.clone();
                let end = whole.len().min(at + lie.len());
                bytes[at..end].copy_from_slice(&lie[..end - at]);
                target.check(&format!("{} {version}: {lie:x?} at {at}", api.name), &bytes, End::Left);
            }
        }
        target.serves();
    }
    target.check_unharmed();
}

#[test]
fn garbage_after_a_request_header_is_answered_or_closes_the_connection() {
    let mut random = StdRng::seed_from_u64(9092);
    let mut target = Target::new();
    for (api, version) in requests_of_every_schema() {
        for _ in 0..20 {
            let noise: Vec<u8> = (0..random.random_range(0..2000)).map(|_| random.random()).collect();
            let bytes = framed(api.key as i16, version, api.request_header_is_flexible(version), &noise);
            target.check(&format!("{} {version} and noise", api.name), &bytes, End::Left);
        }
        // Bytes after the last field of a request are ignored, as in Kafka.
        let body = [&samples::request(api.key, version, Shape::One)[..], &[0xff; 9]].concat();
        let bytes = framed(api.key as i16, version, api.request_header_is_flexible(version), &body);
        target.check(&format!("{} {version} and more", api.name), &bytes, End::Left);
        target.serves();
    }
    target.check_unharmed();
}

#[test]
fn an_incomplete_large_request_does_not_block_other_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    // One shard with less request memory than one of these requests needs.
    let broker = start(dir.path(), 1, HostKind::Thread);
    let address = broker.kafka_addr().expect("it has a Kafka listener");
    Client::connect(broker.native_addr()).created("t", 1, &[]);
    let mut front = request(ApiKey::Produce.api(), ApiKey::Produce.api().max, Shape::One);
    front[..4].copy_from_slice(&(KAFKA_PRODUCE_BYTES_MAX as u32).to_be_bytes());
    let promises: Vec<Kafka> = (0..5)
        .map(|_| {
            let mut kafka = Kafka::connect(address);
            kafka.send_raw(&front);
            kafka
        })
        .collect();
    for offset in 0..20 {
        let mut kafka = Kafka::connect(address);
        assert_eq!(
            kafka.produce("t", &[(0, &batch(&["v"], BatchProducer::NONE))]),
            [(KafkaError::NONE, offset)]
        );
    }
    drop(promises);
    stop(broker);
}

#[test]
fn pipelined_requests_for_all_topics_are_answered_in_order_with_few_responses_in_memory() {
    const PARTITIONS: usize = 2000;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), 1, HostKind::Thread);
    let mut native = Client::connect(broker.native_addr());
    native.created("t", PARTITIONS as u32, &[]);
    let mut kafka = Kafka::connect(broker.kafka_addr().expect("it has a Kafka listener"));
    let all = MetadataRequest { topics: None, ..Default::default() };
    let packet: Vec<_> = (0..512).flat_map(|id| wire::request(ApiKey::Metadata, 8, id, &all)).collect();
    kafka.send_raw(&packet);
    // A response is encoded while it is sent, and the next request is handled after that. So a client that does not receive holds little memory.
    let most = 2 * LONG_ANSWER_QUEUE_BYTES_MAX;
    let mut held = 0;
    for id in 0.. {
        native.send_empty(MessageKind::Stats, id);
        let stats = StatsReply::decode(&native.reply_to(id).ok()).expect("statistics");
        let now = stats.total("memory.requests.now").expect("it is counted");
        assert!(now <= most as u64, "{now} bytes");
        held += u64::from(now >= LONG_ANSWER_QUEUE_BYTES_MAX as u64);
        if held == 100 {
            break;
        }
        assert!(id < 100_000, "nothing is answered: {stats:?}");
    }
    for id in 0..512 {
        let answer = kafka.read(ApiKey::Metadata, 8).expect("the connection stays");
        assert_eq!(answer.correlation_id, id);
        let response: MetadataResponse<'_> = answer.body();
        assert_eq!((response.topics.len(), response.topics[0].partitions.len()), (1, PARTITIONS));
    }
    stop(broker);
}

#[test]
fn a_resource_that_is_listed_a_hundred_thousand_times_is_described_once() {
    let broker = RealBroker::new();
    broker.native().created("orders", 1, &[]);
    let named = |resource_type, resource_name| DescribeConfigsResource {
        resource_type,
        resource_name,
        configuration_keys: None,
    };
    let mut resources = vec![named(2, "orders"); 100_000];
    resources.extend([named(2, "nowhere"), named(4, "0"), named(4, "0")]);
    let request = DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
    let answer = broker.kafka().call(ApiKey::DescribeConfigs, 4, &request);
    let response: DescribeConfigsResponse<'_> = answer.body();
    assert_eq!(response.results.len(), 3);
    let reported: Vec<_> = response.results.iter().map(|r| (r.resource_type, &*r.resource_name)).collect();
    assert_eq!(reported, [(2, "orders"), (2, "nowhere"), (4, "0")]);
    assert_eq!(response.results[0].configs.len(), 38, "all of them");
}
