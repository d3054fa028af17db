//! Invalid input from the network gets an error or closes its connection, and does not affect other clients.

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

/// A connection that sends arbitrary bytes.
struct Raw(TcpStream);

/// An undecoded reply.
struct Reply {
    header: WireHeader,
    body: Vec<u8>,
}

impl Raw {
    fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(broker.address()).expect("the broker listens");
        // Fails the test if the broker neither replies nor closes the connection.
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a socket option");
        Self(stream)
    }

    fn greeted(broker: &Broker) -> Self {
        let mut raw = Self::connect(broker);
        raw.send(&message(1, &hello()));
        let reply = raw.reply().expect("a reply to the hello");
        assert_eq!(reply.header.kind(), Some(MessageKind::Hello));
        assert!(reply.header.error().is_none(), "{}", error_text(&reply.body));
        raw
    }

    /// Sends bytes. Ignores errors, because the broker may close the connection meanwhile.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Reads the next message. Returns `None` if the connection is closed.
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
                panic!("the broker neither replies nor closes the connection")
            }
            Err(_) => None,
        }
    }

    /// Reads the remaining replies, until the connection is closed.
    fn remaining_replies(&mut self) -> Vec<Reply> {
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

/// Asserts that the broker still serves a well-behaved client.
fn assert_serving(broker: &Broker) {
    let mut raw = Raw::greeted(broker);
    raw.send(&message(2, &MetadataRequest { topics: None }));
    let reply = raw.reply().expect("a reply");
    assert_eq!(reply.header.kind(), Some(MessageKind::Metadata));
    assert!(reply.header.error().is_none());
}

#[test]
fn bytes_of_other_protocols_close_only_their_own_connection() {
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
    for garbage in [http, tls, vec![0; 4096], vec![0xff; 4096], noise] {
        let mut raw = Raw::connect(&broker);
        raw.send(&garbage);
        assert!(raw.remaining_replies().iter().all(|reply| reply.header.error().is_some()));
        assert_serving(&broker);
    }
    broker.stop();
}

#[test]
fn a_truncated_message_is_discarded_with_its_connection() {
    let place = Place::new();
    let broker = place.start();
    let whole = message(1, &hello());
    for cut in [1, WIRE_HEADER_BYTES - 1, WIRE_HEADER_BYTES, whole.len() - 1] {
        let mut raw = Raw::connect(&broker);
        raw.send(&whole[..cut]);
        raw.0.shutdown(Shutdown::Write).expect("an open socket");
        assert!(raw.remaining_replies().iter().all(|reply| reply.header.error().is_some()), "cut at {cut}");
    }
    assert_serving(&broker);
    broker.stop();
}

#[test]
fn a_length_above_its_limit_is_rejected_before_the_body_arrives() {
    let place = Place::new();
    let broker = place.start();
    let memory_before = resident_kib(&broker);

    let mut raw = Raw::connect(&broker);
    raw.send(&header(MessageKind::Hello as u16, HELLO_BODY_BYTES_MAX + 1));
    closed_with(&mut raw, ErrorCode::TooLarge);

    for (kind, bytes) in [
        (MessageKind::Metadata, CONTROL_BODY_BYTES_MAX + 1),
        (MessageKind::Produce, BATCH_BYTES_MAX + (1 << 20)),
        (MessageKind::Fetch, u32::MAX as usize),
    ] {
        let mut raw = Raw::greeted(&broker);
        raw.send(&header(kind as u16, bytes));
        closed_with(&mut raw, ErrorCode::TooLarge);
    }
    assert_serving(&broker);
    assert!(resident_kib(&broker) < memory_before + (16 << 10), "announced lengths must not be allocated");
    broker.stop();
}

#[test]
fn unknown_malformed_and_premature_messages_are_rejected() {
    let place = Place::new();
    let broker = place.start();

    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &MetadataRequest { topics: None }));
    closed_with(&mut raw, ErrorCode::BadHello);

    let mut raw = Raw::greeted(&broker);
    raw.send(&header(9999, 0));
    let reply = raw.reply().expect("an error reply");
    assert_eq!(reply.header.error(), Some(ErrorCode::UnsupportedVersion));

    let mut raw = Raw::greeted(&broker);
    let mut truncated = header(MessageKind::CreateTopic as u16, 2);
    truncated.extend([0xff, 0xff]);
    raw.send(&truncated);
    let reply = raw.reply().expect("an error reply");
    assert_eq!(reply.header.error(), Some(ErrorCode::Malformed));

    assert_serving(&broker);
    broker.stop();
}

#[test]
fn a_client_without_a_common_version_gets_an_error_with_the_supported_versions() {
    let place = Place::new();
    let broker = place.start();
    let newer = Hello { version_min: PROTOCOL_VERSION + 1, version_max: PROTOCOL_VERSION + 5, ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &newer));
    let said = closed_with(&mut raw, ErrorCode::UnsupportedVersion);
    assert!(said.contains(&PROTOCOL_VERSION.to_string()), "{said}");

    let wide = Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION + 5, ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &wide));
    let reply = raw.reply().expect("a reply");
    assert!(reply.header.error().is_none(), "a client that also supports this version is accepted");
    let reply: HelloReply = highwater_protocol::native::Body::decode(&reply.body).expect("a hello reply");
    assert_eq!(reply.version, PROTOCOL_VERSION);
    broker.stop();
}

#[test]
fn a_hello_with_an_unknown_shard_or_another_cluster_is_rejected() {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    let far = Hello { shard: Some(highwater_protocol::ids::ShardId(500)), ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &far));
    closed_with(&mut raw, ErrorCode::BadHello);

    let foreign = Hello { cluster: Some(highwater_protocol::ids::ClusterId([7; 16])), ..hello() };
    let mut raw = Raw::connect(&broker);
    raw.send(&message(1, &foreign));
    closed_with(&mut raw, ErrorCode::BadHello);
    assert_serving(&broker);
    broker.stop();
}

/// Sends a batch as the body of a produce request and returns the reply.
fn produce(raw: &mut Raw, topic: TopicId, batch: &[u8]) -> Reply {
    let to = TopicPartition { topic, partition: PartitionIndex(0) };
    raw.send(&produce_head(9, to, Acks::All, batch.len()));
    raw.send(batch);
    raw.reply().expect("a reply")
}

fn batch_of(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(value))).expect("a small record");
    builder.finish(BatchProducer::NONE).expect("a record").to_vec()
}

#[test]
fn small_and_large_batches_corrupted_in_transit_are_rejected() {
    let place = Place::new();
    let broker = place.start_with(&["--cores", "1"]);
    broker.run(&["topic", "create", "t", "--partitions", "1"], b"");
    let listed: serde_json::Value =
        serde_json::from_slice(&broker.run(&["topic", "list", "--json"], b"")).expect("JSON");
    let topic: TopicId = listed["id"].as_str().expect("an id").parse().expect("an id");
    let mut raw = Raw::greeted(&broker);
    // The second batch is received into its own pages.
    for bytes in [10, 300 << 10] {
        let good = batch_of(&vec![b'v'; bytes]);
        for at in [17, 21, 40, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let reply = produce(&mut raw, topic, &bad);
            let code = reply.header.error();
            let is_rejected = matches!(code, Some(ErrorCode::CorruptBatch | ErrorCode::InvalidBatch));
            assert!(is_rejected, "byte {at} of {}: {code:?} {}", good.len(), error_text(&reply.body));
        }
        assert_eq!(produce(&mut raw, topic, &good).header.error(), None, "the connection stays open");
    }
    let whole = batch_of(b"cut");
    assert!(produce(&mut raw, topic, &whole[..40]).header.error().is_some());
    assert_eq!(
        broker.run(&["consume", "t", "--format", "%o "], b""),
        b"0 1 ",
        "no rejected batch was written"
    );
    broker.stop();
}

#[test]
fn a_record_above_the_topics_size_limit_is_rejected_with_its_line_number() {
    let place = Place::new();
    let broker = place.start();
    broker.run(&["topic", "create", "t", "--config", "max.message.bytes=100KiB"], b"");
    let lines = [b"small\n", &vec![b'x'; 200 << 10][..]].concat();
    let rejected = output(broker.command(&["produce", "t"]), &lines);
    let said = String::from_utf8_lossy(&rejected.stderr).into_owned();
    assert_eq!(rejected.status.code(), Some(1), "{said}");
    assert!(said.contains("line 2") && said.contains("max.message.bytes"), "{said}");
    assert_eq!(broker.run(&["consume", "t"], b""), b"small\n");
    broker.stop();
}

/// Asserts that the connection is closed after this error. Returns the error's text.
fn closed_with(raw: &mut Raw, code: ErrorCode) -> String {
    let replies = raw.remaining_replies();
    let last = replies.last().expect("an error before the connection is closed");
    let text = error_text(&last.body);
    assert_eq!(last.header.error(), Some(code), "{text}");
    assert!(!text.is_empty(), "an error has a text");
    text
}

/// Returns the broker's resident memory in KiB.
fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}
