//! Batches round-trip through their bytes, every rule is enforced, and invalid bytes do no harm.

use highwater_protocol::batch::{
    AppendError, BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, BatchProducer, BatchView,
    Compression, ControlKind, Header, NewRecord, Records, TimestampType, Unpacker, seal, stamp,
    stamp_log_append_time, stamp_producer, validate,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use highwater_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT, DECOMPRESSED_BYTES_MAX_DEFAULT, HEADERS_PER_RECORD_MAX,
    RECORDS_PER_BATCH_MAX,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zerocopy::FromBytes;

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Debug)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

/// Some bytes that compress, some that do not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..80), "[ab]{0,300}".prop_map(String::into_bytes)]
}

fn record() -> impl Strategy<Value = Owned> {
    let headers = vec((bytes(), option::of(bytes())), 0..3);
    (any::<i64>(), any::<bool>(), option::of(bytes()), option::of(bytes()), headers).prop_map(
        |(at, wild, key, value, headers)| {
            let timestamp = if wild { at } else { at.rem_euclid(1 << 41) };
            Owned { timestamp, key, value, headers }
        },
    )
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL)
}

fn fill(builder: &mut BatchBuilder, records: &[Owned]) {
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let new = NewRecord {
            timestamp: Timestamp(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        let expected = builder.bytes_with(&new);
        builder.append(&new).unwrap();
        assert_eq!(builder.bytes(), expected);
    }
}

fn one_record() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(5), Some(b"key"), Some(b"value"))).unwrap();
    builder.finish(BatchProducer { id: ProducerId(1), epoch: 0, sequence: 0 }).unwrap().to_vec()
}

/// Returns the batch of [`one_record`] with a changed header and a valid checksum.
fn changed(change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut bytes = one_record();
    change(BatchHeader::mut_from_prefix(&mut bytes).unwrap().0);
    seal(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn records_round_trip(
        rounds in vec(vec(record(), 1..20), 1..4), codec in codec(), prefix in 0_usize..100, base in 0..i64::MAX / 2, epoch: i32,
        sequence in 0..i32::MAX,
    ) {
        let mut builder = BatchBuilder::new(codec, prefix);
        let producer = BatchProducer { id: ProducerId(9), epoch: 2, sequence };
        for records in &rounds {
            prop_assert!(builder.is_empty() && builder.finish(producer).is_none());
            fill(&mut builder, records);
            let upper_bound = builder.bytes();
            let mut out = builder.finish(producer).unwrap();
            prop_assert!(out[..prefix].iter().all(|b| *b == 0));
            prop_assert!(out.len() - prefix <= upper_bound);

            let header = *validate(&out[prefix..]).unwrap().header();
            prop_assert_eq!(header.count() as usize, records.len());
            let max = records.iter().map(|r| r.timestamp).max().unwrap();
            prop_assert_eq!(header.max_timestamp(), Timestamp(max));
            prop_assert_eq!(header.producer(), Some(producer));
            if max >= -1 {
                validate(&out[prefix..]).unwrap().verify_records(&mut Vec::new()).unwrap();
            }

            stamp(&mut out[prefix..], Offset(base), LeaderEpoch(epoch));
            let batch = BatchView::parse(&out[prefix..]).unwrap();
            batch.check_checksum().unwrap();
            prop_assert_eq!(batch.header().leader_epoch(), LeaderEpoch(epoch));
            prop_assert_eq!(batch.header().next_offset(), Offset(base).plus(records.len() as i64));
            let mut scratch = vec![7; 100];
            let mut seen = batch.records(&mut scratch).unwrap();
            for (number, record) in records.iter().enumerate() {
                let read = seen.next().unwrap().unwrap();
                prop_assert_eq!(read.offset, Offset(base).plus(number as i64));
                prop_assert_eq!(read.timestamp, Timestamp(record.timestamp));
                prop_assert_eq!(read.key, record.key.as_deref());
                prop_assert_eq!(read.value, record.value.as_deref());
                let headers: Vec<OwnedHeader> =
                    read.headers.map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
                prop_assert_eq!(&headers, &record.headers);
            }
            prop_assert!(seen.next().is_none());
            builder.recycle(out);
        }
    }

    #[test]
    fn damaged_records_cause_an_error_or_other_records_but_never_a_panic(
        records in vec(record(), 1..10), codec in codec(), at: prop::sample::Index, byte: u8,
    ) {
        let mut builder = BatchBuilder::new(codec, 0);
        fill(&mut builder, &records);
        let mut bytes = builder.finish(BatchProducer::NONE).unwrap().to_vec();
        let at = BATCH_HEADER_BYTES + at.index(bytes.len() - BATCH_HEADER_BYTES);
        bytes[at] = byte;
        seal(&mut bytes);
        let mut scratch = Vec::new();
        if let Ok(batch) = validate(&bytes) && let Ok(read) = batch.records(&mut scratch) {
            prop_assert!(read.count() <= records.len() + 1);
        }
    }

    #[test]
    fn random_bytes_are_never_a_batch(garbage in vec(any::<u8>(), 0..200), codec in codec()) {
        prop_assert!(validate(&garbage).is_err());
        let mut out = Vec::new();
        if codec != Compression::None && codec.decompress(&garbage, &mut out).is_ok() {
            prop_assert!(out.len() <= garbage.len() * 300);
        }
    }

    #[test]
    fn any_header_before_any_records_is_read_without_a_panic(
        header in vec(any::<u8>(), BATCH_HEADER_BYTES), records in vec(any::<u8>(), 0..100), count in 0..20_i32,
    ) {
        let mut header = *BatchHeader::ref_from_bytes(&header).unwrap();
        header.count.set(count);
        let _ = (header.next_offset(), header.last_sequence(), header.batch_bytes());
        let mut seen = 0;
        for record in Records::new(&header, &records) {
            let Ok(record) = record else { break };
            seen += 1;
            prop_assert_eq!(record.headers.len(), record.headers.count());
        }
        prop_assert!(seen <= count);
    }
}

#[test]
fn each_rule_for_producers_has_its_own_error() {
    assert!(validate(&one_record()).is_ok());
    let error = |change: fn(&mut BatchHeader)| validate(&changed(change)).unwrap_err();
    assert_eq!(error(|h| h.magic = 1), BatchError::Magic(1));
    assert_eq!(error(|h| h.length.set(48)), BatchError::Length(48));
    assert_eq!(error(|h| h.length.set(-1)), BatchError::Length(-1));
    assert!(matches!(error(|h| h.length.set(i32::MAX)), BatchError::TooLarge { .. }));
    assert!(matches!(error(|h| h.length.set(1000)), BatchError::Truncated { .. }));
    assert!(matches!(error(|h| h.length.set(49)), BatchError::Trailing { .. }));
    assert_eq!(error(|h| h.base_offset.set(1)), BatchError::BaseOffset(1));
    assert_eq!(error(|h| h.attributes.set(5)), BatchError::Codec(5));
    for bit in [32, 64] {
        let bytes = changed(|h| h.attributes.set(bit));
        assert_eq!(validate(&bytes).unwrap_err(), BatchError::Attributes(bit));
    }
    assert!(matches!(error(|h| h.count.set(0)), BatchError::Count { .. }));
    assert!(matches!(error(|h| h.count.set(-5)), BatchError::Count { .. }));
    assert!(matches!(error(|h| h.count.set(2)), BatchError::Count { .. }));
    assert!(matches!(error(|h| h.last_offset_delta.set(1)), BatchError::Count { .. }));
    assert!(matches!(error(|h| h.producer_id.set(-2)), BatchError::Producer { .. }));
    assert!(matches!(error(|h| h.producer_epoch.set(-1)), BatchError::Producer { .. }));
    assert!(matches!(error(|h| h.base_sequence.set(-1)), BatchError::Producer { .. }));
    let bytes = changed(|h| {
        h.attributes.set(16);
        h.producer_id.set(-1);
    });
    assert!(matches!(validate(&bytes), Err(BatchError::Producer { .. })), "a transaction needs a producer");
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_rejected() {
    let many = |codec: i16, count: i32| {
        changed(|h| {
            h.attributes.set(codec);
            h.count.set(count);
            h.last_offset_delta.set(count - 1);
        })
    };
    assert!(matches!(validate(&many(0, 3)), Err(BatchError::Count { count: 3, .. })));
    let compressed = many(3, RECORDS_PER_BATCH_MAX as i32);
    assert!(validate(&compressed).is_ok());
    assert!(matches!(validate(&many(3, RECORDS_PER_BATCH_MAX as i32 + 1)), Err(BatchError::Count { .. })));
}

#[test]
fn a_checksum_error_contains_both_checksums() {
    let mut bytes = one_record();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = validate(&bytes).unwrap_err();
    assert!(matches!(error, BatchError::Checksum { stored, computed } if stored != computed));
    assert_eq!(error.code(), ErrorCode::CorruptBatch);
}

#[test]
fn fields_stamped_by_the_broker_leave_the_rest_unchanged() {
    let mut bytes = one_record();
    stamp(&mut bytes, Offset(77), LeaderEpoch(3));
    assert_eq!(bytes[16..], one_record()[16..]);

    stamp_log_append_time(&mut bytes, Timestamp(1234));
    let batch = BatchView::parse(&bytes).unwrap();
    batch.check_checksum().unwrap();
    batch.verify_records(&mut Vec::new()).unwrap();
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    let mut scratch = Vec::new();
    let record = batch.records(&mut scratch).unwrap().next().unwrap().unwrap();
    assert_eq!((record.offset, record.timestamp), (Offset(77), Timestamp(1234)));

    let producer = BatchProducer { id: ProducerId(5), epoch: 6, sequence: i32::MAX };
    stamp_producer(&mut bytes, producer);
    let batch = BatchView::parse(&bytes).unwrap();
    batch.check_checksum().unwrap();
    assert_eq!(batch.header().producer(), Some(producer));
    assert_eq!(producer.sequence_after(1), 0, "sequences wrap after the largest");
    assert_eq!(producer.sequence_after(3), 2);
}

#[test]
fn the_headers_claims_about_the_records_are_verified_on_demand() {
    let bytes = changed(|h| h.max_timestamp.set(6));
    let batch = validate(&bytes).unwrap();
    assert_eq!(
        batch.verify_records(&mut Vec::new()),
        Err(BatchError::MaxTimestamp { header: 6, records: 5 })
    );

    // An offset delta that does not match the record's position: the byte after length, attributes and timestamp.
    let mut bytes = changed(|h| {
        h.last_offset_delta.set(1);
    });
    bytes[BATCH_HEADER_BYTES + 3] = 2;
    seal(&mut bytes);
    let batch = BatchView::parse(&bytes).unwrap();
    assert_eq!(batch.records(&mut Vec::new()).unwrap().next().unwrap().unwrap().offset, Offset(1));
    assert_eq!(batch.verify_records(&mut Vec::new()), Err(BatchError::Record { number: 0, field: "offset" }));
}

#[test]
fn malformed_records_are_rejected_with_number_and_field() {
    let good = one_record()[BATCH_HEADER_BYTES..].to_vec();
    let header = *BatchHeader::parse(&one_record()).unwrap();
    let outcome = |bytes: &[u8]| {
        let mut records = Records::new(&header, bytes);
        let first = records.next().unwrap();
        match first {
            Ok(_) => records.next().map(Result::unwrap_err),
            Err(error) => {
                assert!(records.next().is_none(), "ends after an error");
                Some(error)
            }
        }
    };
    assert_eq!(outcome(&good), None);
    assert_eq!(outcome(&[&good[..], &[0]].concat()), Some(BatchError::TrailingRecords { bytes: 1 }));
    // length, attributes, timestamp, offset, key length, key (3), value length, value (5), header count
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        outcome(&bytes)
    };
    let bad = |field| Some(BatchError::Record { number: 0, field });
    assert_eq!(with(0, 1), bad("length"), "negative");
    assert_eq!(with(0, 127), bad("length"), "odd zigzag of -64");
    assert_eq!(with(0, 126), bad("length"), "longer than the remaining bytes");
    assert_eq!(with(0, 0), bad("attributes"));
    assert_eq!(with(3, 1), bad("offset"), "negative");
    assert_eq!(with(3, 2), bad("offset"), "beyond the last offset delta");
    assert_eq!(with(4, 3), bad("key"), "length -2");
    assert_eq!(with(4, 100), bad("key"), "longer than the record");
    assert_eq!(with(8, 100), bad("value"));
    assert_eq!(with(14, 1), bad("header count"), "-1");
    assert_eq!(with(14, 2), bad("headers"));
    let mut longer = [&good[..], &[0]].concat();
    longer[0] += 2;
    assert_eq!(outcome(&longer), bad("length"), "a byte after the last field");
    assert_eq!(outcome(&[]), bad("length"));
}

#[test]
fn a_record_is_rejected_if_no_batch_or_not_this_one_can_hold_it() {
    let mut builder = BatchBuilder::new(Compression::None, 40);
    let big = vec![0; BATCH_BYTES_MAX];
    let at = Timestamp(0);
    assert!(matches!(
        builder.append(&NewRecord::new(at, None, Some(&big))),
        Err(AppendError::TooLarge { max: BATCH_BYTES_MAX, .. })
    ));
    let headers = vec![Header { key: b"", value: None }; HEADERS_PER_RECORD_MAX + 1];
    let record = NewRecord::new(at, None, None);
    assert_eq!(
        builder.append(&NewRecord { headers: &headers, ..record }),
        Err(AppendError::Headers(HEADERS_PER_RECORD_MAX + 1))
    );
    builder.append(&NewRecord { headers: &headers[1..], ..record }).unwrap();
    let fits = &big[..BATCH_BYTES_MAX - 5000];
    builder.append(&NewRecord::new(at, None, Some(fits))).unwrap();
    assert_eq!(builder.append(&NewRecord::new(at, None, Some(fits))), Err(AppendError::Full));
    let out = builder.finish(BatchProducer::NONE).unwrap();
    assert_eq!(validate(&out[40..]).unwrap().header().count(), 2);
}

#[test]
fn records_that_compression_does_not_make_smaller_stay_uncompressed() {
    let noise: Vec<u8> = (0..2000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ n.rotate_left(13)).to_le_bytes())
        .collect();
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(*codec, 0);
        builder.append(&NewRecord::new(Timestamp(0), None, Some(b"tiny"))).unwrap();
        let out = builder.finish(BatchProducer::NONE).unwrap();
        assert_eq!(validate(&out).unwrap().header().compression(), Some(Compression::None), "{codec}");

        builder.append(&NewRecord::new(Timestamp(0), None, Some(&noise.repeat(3)))).unwrap();
        let out = builder.finish(BatchProducer::NONE).unwrap();
        let batch = validate(&out).unwrap();
        assert_eq!(batch.header().compression(), Some(*codec), "{codec}");
        batch.verify_records(&mut Vec::new()).unwrap();
    }
}

/// Decompresses chunk by chunk, up to `max` bytes. Returns the decompressed size.
fn unpack(codec: Compression, stored: &[u8], max: usize) -> Result<usize, BatchError> {
    let mut unpacker = Unpacker::default();
    unpacker.start(codec, max)?;
    let mut bytes = 0;
    while !unpacker.is_done() {
        unpacker.fill(stored)?;
        let chunk = unpacker.unread().len();
        unpacker.consume(chunk);
        bytes += chunk;
    }
    Ok(bytes)
}

#[test]
fn a_decompression_bomb_is_stopped_at_the_limit() {
    let zeros = vec![0; BATCH_BYTES_MAX_DEFAULT - 1000];
    let max = DECOMPRESSED_BYTES_MAX_DEFAULT;
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec, 0);
        builder.append(&NewRecord::new(Timestamp(0), None, Some(&zeros))).unwrap();
        let out = builder.finish(BatchProducer::NONE).unwrap();
        let stored = validate(&out).unwrap().stored_records().to_vec();
        // Concatenated streams are one stream, except that LZ4 ends with its first frame.
        let mut bomb = stored.clone();
        for _ in 0..5 {
            bomb.extend(match codec {
                Compression::Snappy => &stored[16..],
                _ => &stored[..],
            });
        }
        let result = unpack(codec, &bomb, max);
        if codec == Compression::Lz4 {
            assert!(result.is_ok_and(|bytes| bytes > zeros.len()));
        } else {
            assert_eq!(result, Err(BatchError::DecompressedTooLarge { max }), "{codec}");
        }
    }
}

#[test]
fn sizes_claimed_by_compressed_data_are_not_trusted() {
    let snappy = |bytes: &[u8]| Compression::Snappy.decompress(bytes, &mut Vec::new());
    let corrupt = Err(BatchError::Compressed(Compression::Snappy));
    assert_eq!(snappy(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), corrupt, "4 GiB from one byte");
    assert_eq!(snappy(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff"), corrupt, "a block of 4 GiB");
    assert_eq!(snappy(b"\x82SNAPPY\0\0\0"), corrupt, "truncated in the header");
    assert_eq!(snappy(b""), corrupt);
    assert_eq!(
        Compression::Lz4.decompress(&0x184C_2102_u32.to_le_bytes(), &mut Vec::new()),
        Err(BatchError::Compressed(Compression::Lz4)),
        "the legacy frame"
    );
}

#[test]
fn control_batches_and_their_records_are_recognised() {
    let bytes = changed(|h| h.attributes.set(32 | 16));
    let batch = BatchView::parse(&bytes).unwrap();
    assert!(batch.header().is_control() && batch.header().is_transactional());
    assert!(!batch.header().has_delete_horizon());
    assert_eq!(ControlKind::of_key(&[0, 0, 0, 0]), Some(ControlKind::Abort));
    assert_eq!(ControlKind::of_key(&[0, 0, 0, 1]), Some(ControlKind::Commit));
    assert_eq!(ControlKind::of_key(&[0, 0, 0, 2]), Some(ControlKind::Other(2)));
    assert_eq!(ControlKind::of_key(&[0xff, 0xff, 0, 1]), None);
    assert_eq!(ControlKind::of_key(&[0, 0, 0]), None);
}

#[test]
fn codecs_have_kafkas_names() {
    for codec in Compression::ALL {
        assert_eq!(codec.name().parse(), Ok(*codec));
        assert_eq!(Compression::from_u8(*codec as u8), Some(*codec));
    }
    assert!("brotli".parse::<Compression>().is_err());
    assert_eq!(Compression::from_u8(5), None);
}
