//! Whatever the pieces in which bytes arrive, the same requests come out; and whatever the bytes, nothing worse than a violation.

mod common;

use highwater_net::{Batch, Decoder, Lent, ProtocolViolation, Request, Step};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use highwater_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT, BULK_BYTES_MIN};
use highwater_protocol::native::{
    Acks, Body, CreateTopicRequest, Credit, FetchRequest, Hello, MessageKind, MetadataRequest,
    PROTOCOL_VERSION, Start, WIRE_HEADER_BYTES, WireHeader, empty_message, message, produce_head,
};
use highwater_runtime::buf::AlignedBuf;
use proptest::prelude::*;

use crate::common::Decodes;

fn shown(request: &Request<'_>) -> String {
    match request {
        Request::Produce(produce) => {
            let (batch, bulk) = match &produce.batch {
                Batch::Small(batch) => (*batch, false),
                Batch::Bulk { pages, batch_bytes } => {
                    (&pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes], true)
                }
                Batch::TooLarge { bytes } => {
                    return format!("{} {:?} too large: {bytes}", produce.to, produce.acks);
                }
            };
            assert_eq!(bulk, batch.len() >= BULK_BYTES_MIN);
            let sum: u64 = batch.iter().map(|b| u64::from(*b)).sum();
            format!("{} {:?} {} {sum}", produce.to, produce.acks, batch.len())
        }
        other => format!("{other:?}"),
    }
}

impl Decodes for Decoder {
    type Violation = ProtocolViolation;

    fn lend(&mut self) -> Option<Lent> {
        self.lend_bulk()
    }

    fn give_back(&mut self, pages: AlignedBuf) {
        self.return_bulk(pages);
    }

    fn is_inside(&self) -> bool {
        self.is_inside_message()
    }

    fn next_in_words(&mut self, data: &mut &[u8]) -> Result<Option<String>, ProtocolViolation> {
        loop {
            match self.next(data)? {
                Step::More => return Ok(None),
                Step::WantsRoom(bytes) => {
                    assert!(bytes <= FRAME_HEADER_BYTES + BATCH_BYTES_MAX_DEFAULT);
                    self.admit();
                }
                Step::WantsTurn => self.grant_turn(),
                Step::Request(received) => {
                    return Ok(Some(format!(
                        "{} {:?} {}",
                        received.id,
                        received.kind,
                        shown(&received.request)
                    )));
                }
            }
        }
    }
}

fn decode(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Result<(), ProtocolViolation>) {
    common::decode(&mut Decoder::default(), bytes, pieces)
}

fn hello() -> Vec<u8> {
    let hello = Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        shard: None,
        cluster: None,
        client_name: "test".into(),
    };
    message(0, &hello).to_vec()
}

fn produce(id: u64, batch: &[u8]) -> Vec<u8> {
    let to = TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(id as u32) };
    [&produce_head(id, to, Acks::All, batch.len())[..], batch].concat()
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let batch = prop_oneof![
        4 => 0_usize..2000,
        1 => (BULK_BYTES_MIN - 2)..(BULK_BYTES_MIN + 2),
        1 => BULK_BYTES_MIN..(3 * BULK_BYTES_MIN),
    ];
    prop_oneof![
        3 => (any::<u64>(), batch, any::<u8>()).prop_map(|(id, len, seed)| {
            let batch: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(seed)).collect();
            produce(id, &batch)
        }),
        1 => any::<u64>().prop_map(|id| message(id, &Credit { bytes: id.into() }).to_vec()),
        1 => any::<u64>().prop_map(|id| empty_message(MessageKind::InitProducer, id).to_vec()),
        1 => (any::<u64>(), "[a-z]{0,40}").prop_map(|(id, name)| {
            message(id, &MetadataRequest { topics: Some(vec![name]) }).to_vec()
        }),
        1 => (any::<u64>(), 0_usize..2000).prop_map(|(id, topics)| {
            message(id, &MetadataRequest { topics: Some(vec!["x".repeat(100); topics]) }).to_vec()
        }),
        1 => any::<u64>().prop_map(|id| {
            let fetch = FetchRequest {
                topic: TopicId([1; 16]),
                partition: PartitionIndex(0),
                start: Start::Offset(Offset(5)),
                max_bytes: 1,
                min_bytes: 2,
                wait_ms: 3,
            };
            message(id, &fetch).to_vec()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_same_requests_come_out_however_the_bytes_arrive(
        messages in proptest::collection::vec(any_message(), 1..12),
        pieces in proptest::collection::vec(prop_oneof![1_usize..40, 1_usize..20_000, Just(1 << 20)], 1..6),
    ) {
        let bytes = [hello(), messages.concat()].concat();
        let (whole, result) = decode(&bytes, &[usize::MAX]);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(whole.len(), messages.len() + 1);
        let (in_pieces, result) = decode(&bytes, &pieces);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(in_pieces, whole);
    }

    #[test]
    fn garbage_is_refused_and_nothing_else_happens(
        greeted in any::<bool>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in proptest::collection::vec(1_usize..100, 1..4),
    ) {
        let start = if greeted { hello() } else { Vec::new() };
        let (_, first) = decode(&[start.clone(), garbage.clone()].concat(), &pieces);
        let (_, second) = decode(&[start, garbage].concat(), &[usize::MAX]);
        prop_assert_eq!(first, second, "a violation does not depend on the pieces");
    }

    #[test]
    fn a_message_with_flipped_bits_is_another_message_or_refused(
        messages in proptest::collection::vec(any_message(), 1..6),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..5),
        pieces in proptest::collection::vec(1_usize..5000, 1..4),
    ) {
        let mut bytes = [hello(), messages.concat()].concat();
        for (at, bit) in flips {
            let at = at.index(bytes.len().min(4096));
            bytes[at] ^= 1 << bit;
        }
        let (first, _) = decode(&bytes, &pieces);
        prop_assert!(first.len() <= bytes.len() / WIRE_HEADER_BYTES + 1);
    }
}

#[track_caller]
fn check_refused(bytes: &[u8], greeted: bool, code: ErrorCode, says: &str) {
    let start = if greeted { hello() } else { Vec::new() };
    let (_, result) = decode(&[start, bytes.to_vec()].concat(), &[7]);
    let violation = result.expect_err("it violates the protocol");
    assert_eq!(violation.code, code, "{violation:?}");
    assert!(violation.text.contains(says), "{violation:?}");
}

/// A message header with anything in it.
fn header(kind: u16, status: u16, body_bytes: u32) -> Vec<u8> {
    let mut bytes = empty_message(MessageKind::Metadata, 77).to_vec();
    bytes[..4].copy_from_slice(&body_bytes.to_le_bytes());
    bytes[4..6].copy_from_slice(&kind.to_le_bytes());
    bytes[6..8].copy_from_slice(&status.to_le_bytes());
    assert_eq!(WireHeader::parse(&bytes).map(|h| h.request_id.get()), Some(77));
    bytes
}

#[test]
fn what_is_not_a_hello_is_refused_before_the_hello() {
    check_refused(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, ErrorCode::BadHello, "another protocol");
    check_refused(&header(MessageKind::Metadata as u16, 0, 0), false, ErrorCode::BadHello, "hello");
}

#[test]
fn a_hello_is_small_whatever_it_claims() {
    check_refused(&header(MessageKind::Hello as u16, 0, (64 << 10) + 1), false, ErrorCode::TooLarge, "65536");
}

#[test]
fn a_second_hello_is_refused() {
    check_refused(&hello(), true, ErrorCode::BadHello, "already sent a hello");
}

#[test]
fn unknown_kinds_and_kinds_that_only_the_broker_sends_are_refused() {
    check_refused(&header(999, 0, 0), true, ErrorCode::UnsupportedVersion, "999");
    check_refused(&header(0, 0, 0), true, ErrorCode::UnsupportedVersion, "0");
    check_refused(
        &header(MessageKind::Data as u16, 0, 0),
        true,
        ErrorCode::Malformed,
        "only the broker sends",
    );
}

#[test]
fn lengths_over_the_limit_are_refused_by_the_header_alone() {
    check_refused(&header(MessageKind::Produce as u16, 0, u32::MAX), true, ErrorCode::TooLarge, "limit");
    check_refused(
        &header(MessageKind::Metadata as u16, 0, (8 << 20) + 1),
        true,
        ErrorCode::TooLarge,
        "limit",
    );
}

#[test]
fn a_request_has_no_status() {
    check_refused(&header(MessageKind::Metadata as u16, 3, 1), true, ErrorCode::Malformed, "status");
}

#[test]
fn bodies_that_end_early_or_late_are_refused() {
    let mut long = Vec::new();
    MetadataRequest { topics: None }.encode(&mut long);
    long.push(0);
    let bytes = [header(MessageKind::Metadata as u16, 0, long.len() as u32), long].concat();
    check_refused(&bytes, true, ErrorCode::Malformed, "after the last field");
    let bytes = [header(MessageKind::CreateTopic as u16, 0, 3), vec![1, 0, 0]].concat();
    check_refused(&bytes, true, ErrorCode::Malformed, "remain");
    let bytes = [header(MessageKind::InitProducer as u16, 0, 1), vec![1]].concat();
    check_refused(&bytes, true, ErrorCode::Malformed, "after the last field");
    let mut large = produce(1, &vec![0; BULK_BYTES_MIN]);
    large[WIRE_HEADER_BYTES + 20] = 9;
    check_refused(&large, true, ErrorCode::Malformed, "acks");
}

#[test]
fn a_large_batch_that_is_not_given_pages_keeps_what_came_of_it_unused() {
    let mut decoder = Decoder::default();
    let start = [hello(), produce(5, &vec![1; BULK_BYTES_MIN])].concat();
    let mut data = &start[..];
    assert!(matches!(decoder.next(&mut data), Ok(Step::Request(_))));
    for _ in 0..3 {
        assert!(
            matches!(decoder.next(&mut data), Ok(Step::WantsRoom(n)) if n == BULK_BYTES_MIN + FRAME_HEADER_BYTES)
        );
        assert_eq!(data.len(), BULK_BYTES_MIN, "the batch stays with whoever received it");
    }
    decoder.admit();
    assert!(matches!(decoder.next(&mut data), Ok(Step::Request(r)) if r.id == 5));
}

#[test]
fn creating_a_topic_comes_out_as_it_went_in() {
    let create = CreateTopicRequest {
        name: "orders".into(),
        partitions: 3,
        configs: vec![("retention.ms".into(), "5".into())],
        validate_only: false,
        replicas: None,
    };
    let (told, result) = decode(&[hello(), message(8, &create).to_vec()].concat(), &[3]);
    assert_eq!(result, Ok(()));
    assert_eq!(told[1], format!("8 CreateTopic CreateTopic({create:?})"));
}

#[test]
fn a_batch_over_the_limit_is_not_kept_and_what_follows_is_read() {
    let max = BULK_BYTES_MIN + 10;
    let bytes = [
        hello(),
        produce(1, &vec![1; max]),
        produce(2, &vec![1; max + 1]),
        produce(3, &vec![1; 3 * max]),
        produce(4, &[1; 20]),
    ]
    .concat();
    for pieces in [&[usize::MAX][..], &[1], &[1000], &[30_000, 7]] {
        let mut decoder = Decoder::default().with_batch_bytes_max(max);
        let (told, result) = common::decode(&mut decoder, &bytes, pieces);
        assert_eq!((told.len(), result), (5, Ok(())));
        assert!(told[1].ends_with(&format!("{max} {max}")), "{}", told[1]);
        assert!(told[2].ends_with(&format!("too large: {}", max + 1)), "{}", told[2]);
        assert!(told[3].ends_with(&format!("too large: {}", 3 * max)), "{}", told[3]);
        assert!(told[4].ends_with("20 20"), "{}", told[4]);
        assert!(decoder.held_bytes() < 4096, "nothing of them was kept");
    }
    // No broker can be set to take more than this, so it is no batch.
    let head = header(MessageKind::Produce as u16, 0, BATCH_BYTES_MAX as u32 + 100);
    check_refused(&head, true, ErrorCode::TooLarge, "exceeds the limit");
}

#[test]
fn a_large_request_that_is_whole_is_read_when_its_turn_comes_and_a_produce_at_once() {
    let topics = Some((0..10_000).map(|n| format!("topic-{n}")).collect());
    let large = message(7, &MetadataRequest { topics });
    let batch = produce(8, &vec![1; BULK_BYTES_MIN - 1]);
    let all = [hello(), large.to_vec(), batch].concat();
    for piece in [all.len(), 10_000] {
        let mut decoder = Decoder::default();
        let mut waited = 0;
        let mut ids = Vec::new();
        for mut data in all.chunks(piece) {
            loop {
                match decoder.next(&mut data).expect("they are messages") {
                    Step::More => break,
                    Step::WantsRoom(_) => decoder.admit(),
                    Step::WantsTurn if waited < 3 => waited += 1,
                    Step::WantsTurn => decoder.grant_turn(),
                    Step::Request(received) => ids.push(received.id),
                }
            }
        }
        assert_eq!((waited, decoder.messages()), (3, 3));
        assert_eq!(ids[1..], [7, 8]);
    }
}
