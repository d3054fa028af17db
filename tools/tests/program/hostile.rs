//! Nonsense from the network: it ends its own connection or is answered with an error, and harms nobody else.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{PartitionIndex, Timestamp, TopicId, TopicPartition};
use highwater_protocol::limits::{BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX, HELLO_BODY_BYTES_MAX};
use highwater_protocol::native::{
    Acks, Hello, HelloReply, MessageKind, MetadataRequest, PROTOCOL_VERSION, WIRE_HEADER_BYTES, WireHeader,
    error_text, message, produce_head,
};
use zerocopy::IntoBytes as _;

use crate::support::{Broker, Place, output};

/// A connection that says what it likes.
struct Raw(TcpStream);

/// A reply as it came.
struct Reply {
    header: WireHeader,
    body: Vec<u8>,
}

impl Raw {
    fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.address()).expect("the broker listens");
        // Patience, not timing: a broker that neither answers nor closes fails the test.
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a socket option");
        Self(stream)
    }

    fn greeted(broker: &Broker) -> Self {
        let mut raw = Self::connect(broker);
        raw.send(&message(1, &hello()));
        let reply = raw.reply().expect("an answer to the hello");
        assert_eq!(reply.header.kind(), Some(MessageKind::Hello));
        assert!(reply.header.error().is_none(), "{}", error_text(&reply.body));
        raw
    }

    /// Whoever talks nonsense may find the door closed while still talking.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next message, or none if the connection has ended.
    fn reply(&mut self) -> Option<Reply> {
        let mut head = [0; WIRE_HEADER_BYTES];
        self.fill(&mut head)?;
        let header = WireHeader::parse(&head)?;
        let mut body = vec![0; header.body_bytes.get() as usize];
        self.fill(&mut body)?;
        Some(Reply { header, body })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the broker neither answers nor closes the connection")
            }
            Err(_) => None,
        }
    }

    /// What it answers before it ends the connection.
    fn last_words(&mut self) -> Vec<Reply> {
        std::iter::from_fn(|| self.reply()).collect()
    }
}

fn hello() -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        shard: None,
        cluster: None,
        client_name: "test".into(),
    }
}

fn header(kind: u16, body_bytes: usize) -> Vec<u8> {
    let mut header = WireHeader::new(MessageKind::Metadata, 7, body_bytes);
    header.kind = kind.into();
    header.as_bytes().to_vec()
}

/// The broker still serves somebody who behaves.
fn serves(broker: &Broker) {
    let mut raw = Raw::greeted(broker);
    raw.send(&message(2, &MetadataRequest { topics: None }));
    let reply = raw.reply().expect("an answer");
    assert_eq!(reply.header.kind(), Some(MessageKind::Metadata));
    assert!(reply.header.error().is_none());
}

#[test]
fn bytes_that_are_no_protocol_end_the_connection_and_nothing_else() {
    let place = Place::new();
    let broker = place.start();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(8);
    let mut noise = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..(100 << 10) / 8 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend(state.to_le_bytes());
    }
    for nonsense in [http, tls, vec![0; 4096], vec![0xff; 4096], noise] {
        let mut raw = Raw::connect(&broker);
        raw.send(&nonsense);
        assert!(raw.last_words().iter().all(|reply| reply.header.error().is_some()));
        serves(&broker);
    }
    broker.stop();
}

#[test]
fn a_message_cut_short_is_forgotten_with_its_connection() {
    let place = Place::new();
    let broker = place.start();
    let whole = message(1, &hello());
    for cut in [1, WIRE_HEADER_BYTES - 1, WIRE_HEADER_BYTES, whole.len() - 1] {
        let mut raw = Raw::connect(&broker);
        raw.send(&whole[..cut]);
        raw.0.shutdown(Shutdown::Write).expect("an open socket");
        assert!(raw.last_words().iter().all(|reply| reply.header.error().is_some()), "cut at {cut}");
    }
    serves(&broker);
    broker.stop();
}

#[test]
fn a_length_beyond_its_limit_is_refused_before_a_byte_of_it_comes() {
    let place = Place::new();
    let broker = place.start();
    let memory_before = resident_kib(&broker);

    let mut raw = Raw::connect(&broker);
    raw.send(&header(MessageKind::Hello as u16, HELLO_BODY_BYTES_MAX + 1));
    refused_with(&mut raw, ErrorCode::TooLarge);

    for (kind, bytes) in [
        (MessageKind::Metadata, CONTROL_BODY_BYTES_MAX + 1),
        (MessageKind::Produce, BATCH_BYTES_MAX + (1 << 20)),
        (MessageKind::Fetch, u32::MAX as usize),
    ] {
        let mut raw = Raw::greeted(&broker);
        raw.send(&header(kind as u16, bytes));
        refused_with(&mut raw, ErrorCode::TooLarge);
    }
    serves(&broker);
    assert!(resident_kib(&broker) < memory_before + (16 << 10), "announced lengths must not be allocated");
    broker.stop();
}

#[test]
fn a_message_that_nobody_knows_and_one_before_the_hello_are_refused() {
    let place = Place::new();
    let broker = place.start();

    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &MetadataRequest { topics: None }));
    refused_with(&mut raw, ErrorCode::BadHello);

    let mut raw = Raw::greeted(&broker);
    raw.send(&header(9999, 0));
    let reply = raw.reply().expect("an answer that says so");
    assert_eq!(reply.header.error(), Some(ErrorCode::UnsupportedVersion));

    let mut raw = Raw::greeted(&broker);
    let mut truncated = header(MessageKind::CreateTopic as u16, 2);
    truncated.extend([0xff, 0xff]);
    raw.send(&truncated);
    let reply = raw.reply().expect("an answer that says so");
    assert_eq!(reply.header.error(), Some(ErrorCode::Malformed));

    serves(&broker);
    broker.stop();
}

#[test]
fn a_client_of_another_version_is_told_which_versions_there_are() {
    let place = Place::new();
    let broker = place.start();
    let newer = Hello { version_min: PROTOCOL_VERSION + 1, version_max: PROTOCOL_VERSION + 5, ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &newer));
    let said = refused_with(&mut raw, ErrorCode::UnsupportedVersion);
    assert!(said.contains(&PROTOCOL_VERSION.to_string()), "{said}");

    let wide = Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION + 5, ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &wide));
    let reply = raw.reply().expect("an answer");
    assert!(reply.header.error().is_none(), "a client that speaks this version too is welcome");
    let reply: HelloReply = highwater_protocol::native::Body::decode(&reply.body).expect("a hello reply");
    assert_eq!(reply.version, PROTOCOL_VERSION);
    broker.stop();
}

#[test]
fn a_shard_that_is_not_there_and_another_cluster_are_refused() {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    let far = Hello { shard: Some(highwater_protocol::ids::ShardId(500)), ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &far));
    refused_with(&mut raw, ErrorCode::BadHello);

    let foreign = Hello { cluster: Some(highwater_protocol::ids::ClusterId([7; 16])), ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &foreign));
    refused_with(&mut raw, ErrorCode::BadHello);
    serves(&broker);
    broker.stop();
}

/// What the broker makes of a batch that is sent as the body of a produce request.
fn produce(raw: &mut Raw, topic: TopicId, batch: &[u8]) -> Reply {
    let to = TopicPartition { topic, partition: PartitionIndex(0) };
    raw.send(&produce_head(9, to, Acks::All, batch.len()));
    raw.send(batch);
    raw.reply().expect("an answer")
}

fn batch_of(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(value))).expect("a small record");
    builder.finish(BatchProducer::NONE).expect("a record").to_vec()
}

#[test]
fn a_batch_whose_bytes_changed_on_the_way_is_refused_small_or_large() {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    broker.run(&["topic", "create", "t", "--partitions", "1"], b"");
    let listed: serde_json::Value =
        serde_json::from_slice(&broker.run(&["topic", "list", "--json"], b"")).expect("JSON");
    let topic: TopicId = listed["id"].as_str().expect("an id").parse().expect("an id");
    let mut raw = Raw::greeted(&broker);
    // The second one comes in pages of its own.
    for bytes in [10, 300 << 10] {
        let good = batch_of(&vec![b'v'; bytes]);
        for at in [17, 21, 40, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let reply = produce(&mut raw, topic, &bad);
            let code = reply.header.error();
            let refused = matches!(code, Some(ErrorCode::CorruptBatch | ErrorCode::InvalidBatch));
            assert!(refused, "byte {at} of {}: {code:?} {}", good.len(), error_text(&reply.body));
        }
        assert_eq!(produce(&mut raw, topic, &good).header.error(), None, "the connection goes on");
    }
    let whole = batch_of(b"cut");
    assert!(produce(&mut raw, topic, &whole[..40]).header.error().is_some());
    assert_eq!(broker.run(&["consume", "t", "--format", "%o "], b""), b"0 1 ", "nothing refused was written");
    broker.stop();
}

#[test]
fn a_record_larger_than_its_topic_takes_is_refused_with_its_line() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--config", "max.message.bytes=100KiB"], b"");
    let lines = [b"small\n", &vec![b'x'; 200 << 10][..]].concat();
    let refused = output(broker.command(&["produce", "t"]), &lines);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("line 2") && said.contains("max.message.bytes"), "{said}");
    assert_eq!(broker.run(&["consume", "t"], b""), b"small\n");
    broker.stop();
}

/// The connection ends, and its last message is this error.
fn refused_with(raw: &mut Raw, code: ErrorCode) -> String {
    let words = raw.last_words();
    let last = words.last().expect("it says why before it closes");
    let text = error_text(&last.body);
    assert_eq!(last.header.error(), Some(code), "{text}");
    assert!(!text.is_empty(), "an error has words for people");
    text
}

/// Resident memory of the broker.
fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel tells");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}
