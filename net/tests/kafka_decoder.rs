//! Whatever the pieces in which a Kafka client's bytes arrive, the same requests come out; and whatever the bytes, nothing worse than
//! a violation.

mod common;

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use highwater_net::kafka::api::{ApiKey, State};
use highwater_net::kafka::messages::{
    ApiVersionsRequest, MetadataRequest, MetadataRequestTopic, OffsetFetchGroup, OffsetFetchGroupTopic,
    OffsetFetchRequest, ProducePartition, ProduceRequest, ProduceTopic,
};
use highwater_net::kafka::produce::Records;
use highwater_net::kafka::schema::Message;
use highwater_net::kafka::{Gate, KafkaDecoder, KafkaProtocolViolation, KafkaStep, Request};
use highwater_net::limits::{
    KAFKA_PRODUCE_BYTES_MAX, KAFKA_PRODUCE_PARTITIONS_MAX, KAFKA_REQUEST_BYTES_MAX, REQUEST_ENTRIES_MAX,
};
use highwater_net::{Batch, Lent};
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::limits::{BATCH_BYTES_MAX_DEFAULT, BULK_BYTES_MIN};
use highwater_runtime::buf::AlignedBuf;
use proptest::prelude::*;

use crate::common::Decodes;

fn shown(request: &Request<'_>) -> String {
    let Request::Produce(produce) = request else { return format!("{request:?}") };
    let mut text = format!("{:?} {} {}", produce.transactional_id, produce.acks, produce.timeout_ms);
    for to in &produce.partitions {
        let records = match &to.records {
            Records::Null => "nothing".to_owned(),
            Records::Batch(Batch::TooLarge { bytes }) => format!("too large: {bytes}"),
            Records::Batch(batch) => {
                let (bytes, bulk) = match batch {
                    Batch::Small(bytes) => (*bytes, false),
                    Batch::Bulk { pages, batch_bytes } => {
                        (&pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes], true)
                    }
                    Batch::TooLarge { .. } => unreachable!("matched above"),
                };
                assert_eq!(bulk, bytes.len() >= BULK_BYTES_MIN);
                let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
                format!("{} bytes {sum:x}", bytes.len())
            }
        };
        write!(text, " | {} {:02x?} {} {records}", to.topic, &to.topic_id[..2], to.index).expect("a text");
    }
    text
}

impl Decodes for KafkaDecoder {
    type Violation = KafkaProtocolViolation;

    fn lend(&mut self) -> Option<Lent> {
        self.lend_bulk()
    }

    fn give_back(&mut self, pages: AlignedBuf) {
        self.return_bulk(pages);
    }

    fn is_inside(&self) -> bool {
        self.is_inside_request()
    }

    fn next_in_words(&mut self, data: &mut &[u8]) -> Result<Option<String>, KafkaProtocolViolation> {
        loop {
            match self.next(data)? {
                KafkaStep::More => return Ok(None),
                KafkaStep::WantsRoom(bytes) => {
                    assert!(bytes <= KAFKA_PRODUCE_BYTES_MAX);
                    self.admit();
                }
                KafkaStep::WantsTurn => self.grant_turn(),
                KafkaStep::Request(received) => {
                    return Ok(Some(format!(
                        "{:?} {} {}",
                        received.header,
                        received.bytes,
                        shown(&received.request)
                    )));
                }
            }
        }
    }
}

fn decode(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Result<(), KafkaProtocolViolation>) {
    common::decode(&mut KafkaDecoder::new(Gate::Declared), bytes, pieces)
}

fn request<'a>(api: ApiKey, version: i16, correlation_id: i32, body: &impl Message<'a>) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(api as i16);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_slice(&[0, 4]);
    out.put_slice(b"test");
    if api.api().request_header_is_flexible(version) {
        // One tagged field that nobody knows.
        out.put_slice(&[1, 5, 2, 8, 8]);
    }
    body.encode(version, &mut out);
    framed(&out)
}

fn framed(request: &[u8]) -> Vec<u8> {
    [&(request.len() as u32).to_be_bytes()[..], request].concat()
}

/// A Produce with batches of these lengths, some of them on one topic.
fn produce(version: i16, id: i32, batches: &[Option<usize>]) -> Vec<u8> {
    let batches: Vec<Option<Vec<u8>>> = batches
        .iter()
        .enumerate()
        .map(|(at, len)| len.map(|len| (0..len).map(|i| (i * (at + 3)) as u8).collect()))
        .collect();
    let topic_data = batches
        .chunks(2)
        .enumerate()
        .map(|(at, batches)| ProduceTopic {
            name: if at == 0 { "orders" } else { "täglich" },
            topic_id: [at as u8; 16],
            partition_data: batches
                .iter()
                .enumerate()
                .map(|(index, batch)| ProducePartition { index: index as i32, records: batch.as_deref() })
                .collect(),
        })
        .collect();
    let body = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 1500, topic_data };
    request(ApiKey::Produce, version, id, &body)
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let batch = prop_oneof![
        1 => Just(None),
        6 => (0_usize..2000).prop_map(Some),
        2 => ((BULK_BYTES_MIN - 2)..(BULK_BYTES_MIN + 2)).prop_map(Some),
        2 => (BULK_BYTES_MIN..(3 * BULK_BYTES_MIN)).prop_map(Some),
    ];
    prop_oneof![
        3 => (3_i16..=11, any::<i32>(), proptest::collection::vec(batch, 0..6))
            .prop_map(|(version, id, batches)| produce(version, id, &batches)),
        2 => (0_i16..=13, any::<i32>(), 0_usize..2000).prop_map(|(version, id, topics)| {
            let name = Some("a topic's name, which is quite long in this test");
            let topics = Some(vec![MetadataRequestTopic { name, ..Default::default() }; topics]);
            request(ApiKey::Metadata, version, id, &MetadataRequest { topics, ..Default::default() })
        }),
        1 => (0_i16..=4, any::<i32>()).prop_map(|(version, id)| {
            request(ApiKey::ApiVersions, version, id, &ApiVersionsRequest::default())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_same_requests_come_out_however_the_bytes_arrive(
        requests in proptest::collection::vec(any_request(), 1..8),
        pieces in proptest::collection::vec(prop_oneof![1_usize..40, 1_usize..20_000, Just(1 << 20)], 1..6),
    ) {
        let bytes = requests.concat();
        let (whole, result) = decode(&bytes, &[usize::MAX]);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(whole.len(), requests.len());
        let (in_pieces, result) = decode(&bytes, &pieces);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(in_pieces, whole);
    }

    #[test]
    fn garbage_is_refused_and_nothing_else_happens(
        key in prop_oneof![Just(0_i16), Just(18), 0_i16..80],
        version in 0_i16..14,
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        large in any::<bool>(),
        pieces in proptest::collection::vec(1_usize..100, 1..4),
    ) {
        let mut request = [key.to_be_bytes(), version.to_be_bytes()].concat();
        request.extend(&garbage);
        let mut bytes = framed(&request);
        if large {
            // As if the request were one that is received into pages.
            bytes[..4].copy_from_slice(&(BULK_BYTES_MIN as u32 * 2).to_be_bytes());
        }
        let (first, violation) = decode(&bytes, &pieces);
        let (second, again) = decode(&bytes, &[usize::MAX]);
        prop_assert_eq!(first, second);
        prop_assert_eq!(violation, again, "a violation does not depend on the pieces");
    }

    #[test]
    fn a_request_with_flipped_bits_is_another_request_or_refused(
        requests in proptest::collection::vec(any_request(), 1..4),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..5),
        pieces in proptest::collection::vec(1_usize..5000, 1..4),
    ) {
        let mut bytes = requests.concat();
        for (at, bit) in flips {
            let at = at.index(bytes.len().min(4096));
            bytes[at] ^= 1 << bit;
        }
        let (first, _) = decode(&bytes, &pieces);
        prop_assert!(first.len() <= bytes.len() / 12 + 1);
    }
}

#[test]
fn a_large_produce_comes_out_byte_by_byte_too() {
    let bytes = produce(9, 5, &[Some(100), Some(BULK_BYTES_MIN), None, Some(0), Some(BULK_BYTES_MIN - 1)]);
    let (whole, result) = decode(&bytes, &[usize::MAX]);
    assert_eq!((whole.len(), result), (1, Ok(())));
    assert_eq!(decode(&bytes, &[1]), (whole, Ok(())));
}

#[test]
fn a_batch_over_the_limit_is_not_kept_and_the_rest_of_the_request_is_read() {
    let bytes = produce(7, 5, &[Some(BATCH_BYTES_MAX_DEFAULT + 1), Some(9)]);
    let (told, result) = decode(&bytes, &[1 << 20]);
    assert_eq!(result, Ok(()));
    assert!(told[0].contains(&format!("too large: {}", BATCH_BYTES_MAX_DEFAULT + 1)), "{}", told[0]);
    assert!(told[0].contains("| orders [00, 00] 1 9 bytes"), "{}", told[0]);
}

#[track_caller]
fn check_refused(bytes: &[u8], says: &str) {
    let (_, result) = decode(bytes, &[7]);
    let violation = result.expect_err("it violates the protocol");
    assert!(violation.text.contains(says), "{violation:?}");
}

fn front(length: i32, key: i16, version: i16) -> Vec<u8> {
    [&length.to_be_bytes()[..], &key.to_be_bytes(), &version.to_be_bytes(), &[0, 0, 0, 9]].concat()
}

#[test]
fn more_partitions_than_are_served_in_one_produce_are_refused_though_each_topic_has_few() {
    let (told, result) = decode(&produce(9, 1, &vec![Some(20); KAFKA_PRODUCE_PARTITIONS_MAX]), &[1 << 20]);
    assert_eq!((told.len(), result), (1, Ok(())));
    check_refused(
        &produce(9, 1, &vec![Some(20); KAFKA_PRODUCE_PARTITIONS_MAX + 1]),
        "exceed the limit of 100000 per request",
    );
}

#[test]
fn lengths_that_cannot_be_are_refused_at_once() {
    check_refused(b"GET / HTTP/1.1\r\n\r\n", "another protocol");
    check_refused(&(-1_i32).to_be_bytes(), "-1 bytes");
    check_refused(&7_i32.to_be_bytes(), "7 bytes");
    check_refused(
        &(KAFKA_PRODUCE_BYTES_MAX as i32 + 1).to_be_bytes(),
        &format!("{} bytes", KAFKA_PRODUCE_BYTES_MAX + 1),
    );
    check_refused(&front(KAFKA_REQUEST_BYTES_MAX as i32 + 1, 3, 9), "limit of 8388608");
}

#[test]
fn unknown_requests_and_versions_are_refused() {
    check_refused(&front(100, 4, 0), "API key 4 is not served");
    check_refused(&front(100, -1, 0), "API key -1");
    check_refused(&front(100, 0, 2), "Produce 2: versions 3 to 11");
    check_refused(&front(100, 0, 12), "Produce 12");
    check_refused(&front(100, 3, -1), "Metadata -1");
}

#[test]
fn what_has_no_handler_is_not_let_in() {
    let mut decoder = KafkaDecoder::default();
    for key in 0..100 {
        let served = ApiKey::from_i16(key).is_some_and(|key| key.api().state != State::Declared);
        if !served {
            let bytes = front(10, key, 0);
            let violation = decoder.next(&mut &bytes[..]).expect_err("it has no handler");
            assert_eq!(violation.key, Some(key));
        }
    }
}

#[test]
fn api_versions_of_any_version_is_a_request() {
    let mut bytes = front(12, 18, 99);
    bytes.extend([1, 2, 3, 4]);
    let mut decoder = KafkaDecoder::new(Gate::Declared);
    let mut data = &bytes[..];
    let Ok(KafkaStep::Request(received)) = decoder.next(&mut data) else { panic!("it is one") };
    assert!(matches!(received.request, Request::UnknownApiVersions));
    assert_eq!((received.header.version, received.header.correlation_id), (99, 9));
}

#[test]
fn a_large_request_that_is_not_let_in_stays_with_whoever_received_it() {
    let bytes = produce(9, 5, &[Some(BULK_BYTES_MIN)]);
    let mut decoder = KafkaDecoder::new(Gate::Declared);
    let mut data = &bytes[..];
    for _ in 0..3 {
        assert!(matches!(decoder.next(&mut data), Ok(KafkaStep::WantsRoom(n)) if n == bytes.len() - 4));
        assert_eq!(data.len(), bytes.len() - 12, "all but the front");
        assert_eq!(decoder.held_bytes(), 0);
    }
    decoder.admit();
    assert!(matches!(decoder.next(&mut data), Ok(KafkaStep::Request(_))));
    assert_eq!(decoder.requests(), 1);
    assert!(matches!(decoder.next(&mut data), Ok(KafkaStep::More)));
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn a_large_request_that_is_whole_is_read_when_its_turn_comes() {
    let groups = vec![OffsetFetchGroup { group_id: "group", ..Default::default() }; 10_000];
    let body = OffsetFetchRequest { groups, ..Default::default() };
    let many = vec![Some(70); 1000];
    for bytes in [request(ApiKey::OffsetFetch, 8, 7, &body), produce(9, 7, &many)] {
        for piece in [bytes.len(), 10_000] {
            let mut decoder = KafkaDecoder::new(Gate::Declared);
            let mut waited = 0;
            let mut entries = 0;
            for mut data in bytes.chunks(piece) {
                loop {
                    match decoder.next(&mut data).expect("it is a request") {
                        KafkaStep::More => break,
                        KafkaStep::WantsRoom(_) => decoder.admit(),
                        KafkaStep::WantsTurn if waited < 3 => waited += 1,
                        KafkaStep::WantsTurn => decoder.grant_turn(),
                        KafkaStep::Request(received) => entries = received.entries,
                    }
                }
            }
            assert_eq!((waited, decoder.requests()), (3, 1));
            assert!((1000..=10_100).contains(&entries), "{entries}");
        }
    }
}

#[test]
fn a_request_whose_lists_have_too_many_entries_together_is_refused_when_their_number_is_read() {
    let count = |partitions: usize| OffsetFetchRequest {
        groups: (0..2)
            .map(|_| OffsetFetchGroup {
                group_id: "g",
                topics: Some(vec![OffsetFetchGroupTopic {
                    name: "t",
                    topic_id: [0; 16],
                    partition_indexes: vec![7; partitions],
                }]),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    // Two groups, a topic in each, and a tag in front.
    let most = REQUEST_ENTRIES_MAX / 2 - 3;
    let (told, result) = decode(&request(ApiKey::OffsetFetch, 8, 1, &count(most)), &[1 << 16]);
    assert_eq!((told.len(), result), (1, Ok(())));
    check_refused(
        &request(ApiKey::OffsetFetch, 8, 1, &count(most + 2)),
        "entries so far exceed the limit of 250000 per request",
    );
    // Topics without partitions count too.
    let before_topics = [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    let topics = [&front(400_000, 0, 9)[..], &before_topics, &[0xc1, 0xa9, 0x07], &[0; 8]].concat();
    let (_, result) = decode(&topics, &[1 << 16]);
    let text = result.expect_err("so many topics have more than so many partitions").text;
    assert!(text.contains("topics: 120000 entries"), "{text}");
}

/// The request with a byte behind its last field, which belongs to it.
fn lengthened(mut request: Vec<u8>) -> Vec<u8> {
    request.push(0);
    let length = (request.len() - 4) as u32;
    request[..4].copy_from_slice(&length.to_be_bytes());
    request
}

/// The request, said to end a byte before it does.
fn shortened(mut request: Vec<u8>) -> Vec<u8> {
    let length = (request.len() - 5) as u32;
    request[..4].copy_from_slice(&length.to_be_bytes());
    request
}

#[test]
fn bodies_that_end_early_are_refused() {
    check_refused(&shortened(produce(8, 1, &[Some(10)])), "records: 10 bytes needed, 9 remain");
    // The same of a request that is received into pages.
    for batches in [&[Some(BULK_BYTES_MIN)][..], &[Some(BULK_BYTES_MIN), Some(5)]] {
        check_refused(&shortened(produce(8, 1, batches)), "remain");
    }
}

#[test]
fn bytes_behind_the_last_field_are_passed_over() {
    let metadata = MetadataRequest { topics: None, ..Default::default() };
    let longer = [
        request(ApiKey::Metadata, 13, 1, &metadata),
        produce(8, 2, &[Some(10)]),
        produce(8, 3, &[Some(BULK_BYTES_MIN)]),
        request(ApiKey::Metadata, 4, 4, &metadata),
    ]
    .map(lengthened)
    .concat();
    let (told, result) = decode(&longer, &[7]);
    assert_eq!(result, Ok(()));
    let ids = [1, 2, 3, 4].map(|id| format!("correlation_id: {id}, "));
    assert!(told.len() == 4 && told.iter().zip(&ids).all(|(told, id)| told.contains(id)), "{told:?}");
}
