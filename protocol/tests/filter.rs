//! Removing records from stored batches: what stays is what was there, for every codec.

use highwater_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchFilter, BatchHeader, BatchProducer, BatchView,
    Compression, Header, NewRecord, StreamFilter, StreamLimits, TimestampType, seal, stamp,
    stamp_log_append_time, validate,
};
use highwater_protocol::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use highwater_protocol::limits::DECOMPRESSED_BYTES_MAX;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zerocopy::FromBytes;

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, PartialEq, Debug)]
struct Owned {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), "[ab]{0,300}".prop_map(String::into_bytes)]
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let timestamp = prop_oneof![Just(-1), 0..1_i64 << 41, any::<i64>()];
    let headers = vec((text(), option::of(text())), 0..3);
    let record = (timestamp, option::of(text()), option::of(text()), headers);
    vec(
        record.prop_map(|(timestamp, key, value, headers)| Owned {
            offset: 0,
            timestamp,
            key,
            value,
            headers,
        }),
        1..40,
    )
}

const PRODUCER: BatchProducer = BatchProducer { id: ProducerId(4000), epoch: 3, sequence: 17 };

fn build(codec: Compression, records: &[Owned]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let new = NewRecord::new(Timestamp(record.timestamp), record.key.as_deref(), record.value.as_deref());
        builder.append(&NewRecord { headers: &headers, ..new }).unwrap();
    }
    let mut batch = builder.finish(PRODUCER).unwrap().to_vec();
    stamp(&mut batch, Offset(1000), LeaderEpoch(5));
    batch
}

fn read(batch: &[u8]) -> Vec<Owned> {
    let batch = BatchView::parse(batch).unwrap();
    batch.check_checksum().unwrap();
    let own = |bytes: &[u8]| bytes.to_vec();
    let mut scratch = Vec::new();
    let records = batch.records(&mut scratch).unwrap().map(Result::unwrap);
    records
        .map(|record| Owned {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: record.key.map(own),
            value: record.value.map(own),
            headers: record.headers.map(|h| (h.key.to_vec(), h.value.map(own))).collect(),
        })
        .collect()
}

fn header(batch: &[u8]) -> BatchHeader {
    *BatchHeader::parse(batch).unwrap()
}

/// Keeps the records for which `keeps` is true, by number.
fn filtered(batch: &[u8], keeps: impl Fn(i64) -> bool, horizon: Option<i64>) -> Vec<u8> {
    let mut filter = BatchFilter::default();
    let view = BatchView::parse(batch).unwrap();
    let base = view.header().base_offset.get();
    let mut selection =
        filter.select(view, DECOMPRESSED_BYTES_MAX, |record| keeps(record.offset.0 - base)).unwrap();
    let mut out = b"before".to_vec();
    assert!(selection.write(horizon.map(Timestamp), usize::MAX, &mut out));
    assert!(out.starts_with(b"before"));
    out[6..].to_vec()
}

/// The same in steps of so much work.
fn filtered_in_steps(
    batch: &[u8],
    keeps: impl Fn(i64) -> bool,
    horizon: Option<i64>,
    work: usize,
) -> Result<Vec<u8>, BatchError> {
    let view = BatchView::parse(batch).unwrap();
    let (header, stored) = (view.header(), view.stored_records());
    let base = header.base_offset.get();
    let limits = StreamLimits { decompressed_max: DECOMPRESSED_BYTES_MAX, memory_max: usize::MAX };
    let mut filter = StreamFilter::new(header, limits)?;
    while !filter.step(stored, &mut work.clone(), |record| keeps(record.offset.0 - base))? {}
    let (count, is_all) = (filter.count(), filter.is_all());
    filter.begin_write(horizon.map(Timestamp), usize::MAX)?;
    while !filter.step(stored, &mut work.clone(), |record| keeps(record.offset.0 - base))? {}
    assert_eq!((filter.count(), filter.is_all()), (count, is_all));
    let mut out = b"before".to_vec();
    assert!(filter.finish(&mut out));
    Ok(out.split_off(6))
}

/// The fields that no filter changes.
fn unchanged(batch: &[u8]) -> impl PartialEq + std::fmt::Debug {
    let h = header(batch);
    (h.base_offset(), h.last_offset(), h.leader_epoch(), h.producer(), h.timestamp_type())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_records_that_stay_are_the_same_after_any_number_of_filters(
        records in records(),
        codec in proptest::sample::select(Compression::ALL),
        first: u64,
        second: u64,
        horizon in option::of(any::<i64>()),
        appended_at in option::of(any::<i64>()),
    ) {
        let mut batch = build(codec, &records);
        if let Some(at) = appended_at {
            stamp_log_append_time(&mut batch, Timestamp(at));
        }
        let stays = |mask: u64, n: i64| mask >> (n % 64) & 1 == 1;
        let once = filtered(&batch, |n| stays(first, n), horizon);
        let twice = filtered(&once, |n| stays(second, n), None);
        let all = read(&batch);
        for (mask, result) in [(first, &once), (first & second, &twice)] {
            let expected: Vec<_> = all.iter().filter(|r| stays(mask, r.offset - 1000)).cloned().collect();
            prop_assert_eq!(&read(result), &expected);
            prop_assert_eq!(unchanged(result), unchanged(&batch));
            let (before, after) = (header(&batch), header(result));
            prop_assert_eq!(after.count() as usize, expected.len());
            let max = expected.iter().map(|r| r.timestamp).max();
            let max = max.filter(|_| appended_at.is_none()).unwrap_or(if mask == first { before } else { header(&once) }.max_timestamp.get());
            prop_assert_eq!(after.max_timestamp.get(), max);
            let has_horizon = horizon.is_some() && !expected.is_empty();
            prop_assert_eq!(after.has_delete_horizon(), has_horizon);
            if has_horizon {
                prop_assert_eq!(Some(after.base_timestamp.get()), horizon);
            }
        }
        prop_assert!(horizon.is_some() || codec != Compression::None || once.len() <= batch.len());
    }

    #[test]
    fn damaged_records_are_an_error_and_never_a_panic(
        records in records(), codec in proptest::sample::select(Compression::ALL), at: prop::sample::Index, byte: u8,
    ) {
        let mut batch = build(codec, &records);
        let at = BATCH_HEADER_BYTES + at.index(batch.len() - BATCH_HEADER_BYTES);
        batch[at] = byte;
        seal(&mut batch);
        let view = BatchView::parse(&batch).unwrap();
        let readable = view.records(&mut Vec::new()).is_ok_and(|mut records| records.all(|r| r.is_ok()));
        let mut filter = BatchFilter::default();
        prop_assert_eq!(filter.select(view, DECOMPRESSED_BYTES_MAX, |_| true).is_ok(), readable);
    }
}

fn plain(values: &[&[u8]]) -> Vec<Owned> {
    let record = |value: &&[u8]| Owned {
        offset: 0,
        timestamp: 5,
        key: Some(b"k".to_vec()),
        value: Some(value.to_vec()),
        headers: Vec::new(),
    };
    values.iter().map(record).collect()
}

#[test]
fn a_batch_without_records_is_the_one_that_kafka_leaves() {
    for codec in Compression::ALL {
        let batch = build(*codec, &plain(&[&[b'x'; 500], &[b'y'; 500]]));
        let horizon = filtered(&batch, |_| true, Some(9));
        for empty in [filtered(&batch, |_| false, Some(9)), filtered(&horizon, |_| false, None)] {
            let h = header(&empty);
            assert_eq!((empty.len(), h.count(), h.codec()), (BATCH_HEADER_BYTES, 0, 0));
            assert_eq!((h.base_timestamp.get(), h.max_timestamp.get()), (-1, 5));
            assert_eq!((h.producer(), h.last_sequence()), (Some(PRODUCER), Some(18)));
            assert!(!h.has_delete_horizon());
            assert_eq!(read(&empty), []);
            assert_eq!(filtered(&empty, |_| true, Some(3)), empty, "there is nothing more to remove");
        }
    }
}

#[test]
fn the_codec_stays_unless_compression_no_longer_pays() {
    for codec in &Compression::ALL[1..] {
        let batch = build(*codec, &plain(&[&[b'x'; 500], b"y"]));
        assert_eq!(header(&filtered(&batch, |n| n == 0, None)).compression(), Some(*codec));
        let one = filtered(&batch, |n| n == 1, None);
        assert_eq!(header(&one).compression(), Some(Compression::None));
        assert_eq!(read(&one).len(), 1);
    }
}

#[test]
fn a_batch_that_would_be_too_large_is_not_written() {
    let batch = build(Compression::None, &plain(&[b"a", b"b", b"c"]));
    let mut filter = BatchFilter::default();
    let mut selection = filter.select(BatchView::parse(&batch).unwrap(), 1 << 20, |_| true).unwrap();
    let mut out = b"before".to_vec();
    assert!(!selection.write(Some(Timestamp(1 << 41)), batch.len(), &mut out));
    assert_eq!(&out[..], b"before");
    assert!(selection.write(Some(Timestamp(1 << 41)), batch.len() + 15, &mut out));
    assert_eq!(read(&out[6..]), read(&batch));
}

#[test]
fn records_that_decompress_to_more_than_allowed_are_an_error() {
    let batch = build(Compression::Zstd, &plain(&[&[b'x'; 5000]]));
    let view = BatchView::parse(&batch).unwrap();
    let mut filter = BatchFilter::default();
    let error = filter.select(view, 4000, |_| true).unwrap_err();
    assert_eq!(error, BatchError::DecompressedTooLarge { max: 4000 });
    assert_eq!(filter.select(view, 6000, |_| true).unwrap().count(), 1, "the filter goes on with others");
}

#[test]
fn transaction_bits_and_the_timestamp_type_stay() {
    let mut batch = build(Compression::None, &plain(&[b"a", b"b"]));
    let head = BatchHeader::mut_from_prefix(&mut batch).unwrap().0;
    head.attributes.set(0b1_1000);
    seal(&mut batch);
    let h = header(&filtered(&batch, |n| n == 1, None));
    assert_eq!((h.is_transactional(), h.timestamp_type()), (true, TimestampType::LogAppendTime));
}

#[test]
fn what_stays_of_a_fresh_batch_whose_records_all_stay_is_valid_for_a_producer_again() {
    let mut batch = build(Compression::Lz4, &plain(&[&[b'x'; 500], &[b'y'; 500]]));
    stamp(&mut batch, Offset(0), LeaderEpoch(-1));
    validate(&filtered(&batch, |_| true, None)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_filter_in_steps_leaves_the_same_records_and_header_as_one_at_once(
        records in records(),
        codec in proptest::sample::select(&Compression::ALL[1..]),
        mask: u64,
        horizon in option::of(any::<i64>()),
        work in 1..20_000usize,
    ) {
        let batch = build(codec, &records);
        // The builder leaves what is not smaller compressed as it is.
        prop_assume!(header(&batch).compression() == Some(codec));
        let keeps = |n: i64| mask >> (n % 64) & 1 == 1;
        let at_once = filtered(&batch, keeps, horizon);
        let in_steps = filtered_in_steps(&batch, keeps, horizon, work).unwrap();
        prop_assert_eq!(read(&at_once), read(&in_steps));
        let fields = |batch: &[u8]| {
            let h = header(batch);
            (h.base_timestamp, h.max_timestamp, h.count, h.has_delete_horizon())
        };
        prop_assert_eq!(fields(&at_once), fields(&in_steps));
        prop_assert!(unchanged(&batch) == unchanged(&in_steps));
    }

    #[test]
    fn a_filter_in_steps_ends_whatever_the_bytes_are(
        records in records(),
        codec in proptest::sample::select(&Compression::ALL[1..]),
        damage in vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut batch = build(codec, &records);
        prop_assume!(header(&batch).compression() == Some(codec));
        for (at, bits) in damage {
            let at = BATCH_HEADER_BYTES + at % (batch.len() - BATCH_HEADER_BYTES);
            batch[at] ^= bits;
        }
        seal(&mut batch);
        let view = BatchView::parse(&batch).unwrap();
        let readable = BatchFilter::default().select(view, DECOMPRESSED_BYTES_MAX, |_| true).is_ok();
        prop_assert_eq!(filtered_in_steps(&batch, |_| true, None, 500).is_ok(), readable);
    }
}

#[test]
fn a_filter_in_steps_takes_no_more_memory_than_it_may() {
    let large =
        [Owned { offset: 0, timestamp: 5, key: None, value: Some(vec![7; 16 << 20]), headers: vec![] }];
    let small: Vec<_> = (0..12_000)
        .map(|n: i64| Owned { timestamp: n, value: Some(vec![n as u8; 1000]), ..large[0].clone() })
        .collect();
    for codec in &Compression::ALL[1..] {
        for (records, fits) in [(&large[..], false), (&small, true)] {
            let batch = build(*codec, records);
            let view = BatchView::parse(&batch).unwrap();
            let limits = StreamLimits { decompressed_max: 64 << 20, memory_max: 8 << 20 };
            let mut filter = StreamFilter::new(view.header(), limits).unwrap();
            let done = loop {
                match filter.step(view.stored_records(), &mut 100_000, |_| true) {
                    Ok(false) => {}
                    Ok(true) => break true,
                    Err(BatchError::DecompressedTooLarge { .. }) => break false,
                    Err(error) => panic!("{codec}: {error}"),
                }
            };
            assert_eq!(done, fits, "{codec}");
        }
    }
}
