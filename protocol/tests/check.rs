//! What a broker's validation finds in a batch from a producer, whatever the header says and for every codec.

use std::io::Write;

use highwater_protocol::batch::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchCheck, BatchError, BatchHeader, BatchProducer, BatchView,
    CheckedBatch, Compression, Header, NO_TIMESTAMP, NewRecord, RecordRules, RejectReason, RejectedRecord,
    Unpacker, check, decompressed_max, seal, stamp_create_time,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Timestamp;
use highwater_protocol::limits::{
    DECOMPRESSED_BYTES_ANY_RATIO, DECOMPRESSED_BYTES_MAX_DEFAULT, REJECTED_RECORDS_REPORTED_MAX,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zerocopy::FromBytes;

/// Returns a batch with these stored records.
fn batch_of(stored: &[u8], codec: Compression, count: i32, base: i64, max: i64) -> Vec<u8> {
    let mut bytes = one(Compression::None, &[(5, b"v")])[..BATCH_HEADER_BYTES].to_vec();
    bytes.extend_from_slice(stored);
    let length = (bytes.len() - 12) as i32;
    let header = BatchHeader::mut_from_prefix(&mut bytes).unwrap().0;
    header.length.set(length);
    header.attributes.set(codec as i16);
    header.count.set(count);
    header.last_offset_delta.set(count - 1);
    header.base_timestamp.set(base);
    header.max_timestamp.set(max);
    seal(&mut bytes);
    bytes
}

/// Returns a batch with these timestamps and values.
fn one(codec: Compression, records: &[(i64, &[u8])]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    for (at, value) in records {
        builder.append(&NewRecord::new(Timestamp(*at), None, Some(value))).unwrap();
    }
    builder.finish(BatchProducer::NONE).unwrap().to_vec()
}

fn records_of(batch: &[u8]) -> &[u8] {
    &batch[BATCH_HEADER_BYTES..]
}

fn changed(mut bytes: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    change(BatchHeader::mut_from_prefix(&mut bytes).unwrap().0);
    seal(&mut bytes);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn compressed(codec: Compression, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => gzip(bytes),
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 3).unwrap(),
    }
}

fn in_steps(batch: &[u8], rules: &RecordRules, work: usize) -> Result<(CheckedBatch, usize), BatchError> {
    let batch = BatchView::parse(batch)?;
    let mut check = BatchCheck::new(rules.clone(), Unpacker::default());
    for step in 1.. {
        let mut left = work;
        if let Some(checked) = check.step(&batch, &mut left)? {
            return Ok((checked, step));
        }
    }
    unreachable!("a check ends")
}

type Owned = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), "[ab]{0,300}".prop_map(String::into_bytes)]
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let at = prop_oneof![Just(-1), 0..1_i64 << 41, any::<i64>()];
    let headers = prop_oneof![4 => vec((bytes(), option::of(bytes())), 0..3), 1 => vec((vec(any::<u8>(), 0..2), Just(None)), 60..80)];
    vec((at, option::of(bytes()), option::of(bytes()), headers), 1..30)
}

fn build(codec: Compression, records: &[Owned]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    for (at, key, value, headers) in records {
        let headers: Vec<_> =
            headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let record = NewRecord {
            timestamp: Timestamp(*at),
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        };
        builder.append(&record).unwrap();
    }
    builder.finish(BatchProducer::NONE).unwrap().to_vec()
}

/// Returns the largest timestamp found by reading all records one by one, or `None` if they are invalid.
fn oracle(batch: &[u8]) -> Option<i64> {
    let batch = BatchView::parse(batch).ok()?;
    let mut scratch = Vec::new();
    let mut max = -1;
    for (number, record) in (0..).zip(batch.records(&mut scratch).ok()?) {
        let record = record.ok()?;
        if record.offset.0 != number {
            return None;
        }
        max = max.max(record.timestamp.0);
    }
    Some(max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_check_finds_the_largest_timestamp_in_steps_of_any_size(
        records in records(), codec in proptest::sample::select(Compression::ALL), header_max: i64, work in 0_usize..4000,
    ) {
        let batch = changed(build(codec, &records), |h| h.max_timestamp.set(header_max));
        let max = records.iter().map(|r| r.0).max().unwrap().max(-1);
        let (checked, _) = in_steps(&batch, &RecordRules::FORMAT, work.max(1)).unwrap();
        prop_assert_eq!(&checked, &check(&batch, RecordRules::FORMAT).unwrap());
        prop_assert_eq!(checked.max_timestamp, Timestamp(max));
        prop_assert_eq!(checked.rejected_count, 0);
    }

    #[test]
    fn validation_agrees_with_reading_every_record_after_a_byte_changed(
        records in records(), codec in proptest::sample::select(Compression::ALL), at: proptest::sample::Index, to: u8,
        cut in 0_usize..3, work in 1_usize..500,
    ) {
        let good = build(Compression::None, &records);
        let mut raw = records_of(&good).to_vec();
        let at = at.index(raw.len());
        raw[at] = to;
        raw.truncate(raw.len() - cut);
        let base = records[0].0;
        let count = records.len() as i32;
        let batch = batch_of(&compressed(codec, &raw), codec, count, base, -1);
        let expected = oracle(&batch);
        let whole = check(&batch, RecordRules::FORMAT);
        prop_assert_eq!(whole.as_ref().ok().map(|c| c.max_timestamp.0), expected, "{:?}", whole);
        let steps = in_steps(&batch, &RecordRules::FORMAT, work).map(|(checked, _)| checked);
        prop_assert_eq!(steps.is_ok(), whole.is_ok());
    }

    #[test]
    fn a_changed_byte_in_compressed_records_causes_no_panic_and_no_endless_check(
        records in records(), codec in proptest::sample::select(Compression::ALL), at: proptest::sample::Index, to: u8, cut in 0_usize..20,
    ) {
        let raw = build(Compression::None, &records);
        let mut stored = compressed(codec, records_of(&raw));
        let at = at.index(stored.len());
        stored[at] = to;
        stored.truncate(stored.len().saturating_sub(cut).max(1));
        let batch = batch_of(&stored, codec, records.len() as i32, records[0].0, -1);
        let whole = check(&batch, RecordRules::FORMAT).is_ok();
        prop_assert_eq!(in_steps(&batch, &RecordRules::FORMAT, 50).is_ok(), whole);
        if whole {
            prop_assert!(oracle(&batch).is_some());
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn every_codec_restores_what_was_compressed(
        words in vec(0_usize..40, 0..3000), noise in vec(any::<u8>(), 0..3000), level in 1..20_i32,
        flags in any::<[bool; 4]>(), block in 0..4_usize,
    ) {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let mut raw = Vec::new();
        for word in words {
            raw.extend_from_slice(&noise[(word * 7).min(noise.len())..((word * 7) + word).min(noise.len())]);
            raw.extend_from_slice(&[word as u8; 9]);
        }
        let raw = raw.repeat(1 + 20 * usize::from(flags[0]));
        let info = FrameInfo::new()
            .block_mode(if flags[1] { BlockMode::Linked } else { BlockMode::Independent })
            .block_size([BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB][block])
            .block_checksums(flags[2])
            .content_checksum(flags[3])
            .content_size(flags[0].then_some(raw.len() as u64));
        let mut lz4 = FrameEncoder::with_frame_info(info, Vec::new());
        lz4.write_all(&raw).unwrap();
        let mut members = gzip(&raw[..raw.len() / 2]);
        members.extend(
            flate2::GzBuilder::new().filename("f").comment("c").extra("xyz").write(Vec::new(), flate2::Compression::fast()).finish().unwrap(),
        );
        members.extend(gzip(&raw[raw.len() / 2..]));
        let mut frames = zstd::encode_all(&raw[..raw.len() / 3], level).unwrap();
        frames.extend(zstd::encode_all(&raw[raw.len() / 3..], 1).unwrap());
        for (codec, stored) in [
            (Compression::Lz4, lz4.finish().unwrap()),
            (Compression::Gzip, members),
            (Compression::Zstd, frames),
            (Compression::Snappy, compressed(Compression::Snappy, &raw)),
        ] {
            let mut out = vec![7];
            codec.decompress(&stored, &mut out).unwrap();
            prop_assert!(out == raw, "{codec}: {} bytes of {}", out.len(), raw.len());
        }
    }
}

#[test]
fn a_large_raw_block_of_snappy_is_decoded_in_chunks() {
    let mut raw: Vec<u8> =
        (0..800_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
    let copy = raw[..1 << 20].to_vec();
    raw.extend(copy);
    let stored = compressed(Compression::Snappy, &raw);
    let mut unpacker = Unpacker::default();
    unpacker.start(Compression::Snappy, raw.len()).unwrap();
    let (mut out, mut chunks) = (Vec::new(), 0);
    while !unpacker.is_done() {
        assert!(unpacker.fill(&stored).unwrap() < 400_000, "a chunk");
        let chunk = unpacker.unread();
        out.extend_from_slice(chunk);
        unpacker.consume(chunk.len());
        chunks += 1;
    }
    assert!(out == raw && chunks > 20, "{chunks} chunks");
    for damage in (0..stored.len()).step_by(stored.len() / 50) {
        let mut bad = stored.clone();
        bad[damage] ^= 0x55;
        let mut out = Vec::new();
        // The output may be wrong, but is never larger than claimed.
        let _ = Compression::Snappy.decompress(&bad, &mut out);
        assert!(out.len() <= raw.len() + (1 << 20));
    }
    assert!(Compression::Snappy.decompress(&stored[..stored.len() - 3], &mut Vec::new()).is_err());

    // A reference over more than 64 KiB, as klauspost's encoder writes them: a literal of 600,000 bytes, and four bytes copied from
    // its beginning.
    let literal: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
    let mut far = vec![0xc4, 0xcf, 0x24, 62 << 2];
    far.extend_from_slice(&599_999_u32.to_le_bytes()[..3]);
    far.extend_from_slice(&literal);
    far.push((3 << 2) | 3);
    far.extend_from_slice(&600_000_u32.to_le_bytes());
    let mut out = Vec::new();
    Compression::Snappy.decompress(&far, &mut out).unwrap();
    assert!(out[..600_000] == literal[..] && out[600_000..] == literal[..4]);
}

#[test]
fn records_that_do_not_match_the_header_are_rejected() {
    let three = one(Compression::None, &[(5, b"a"), (6, b"b"), (7, b"c")]);
    let raw = records_of(&three).to_vec();
    let bad = |batch: &[u8]| check(batch, RecordRules::FORMAT).unwrap_err();
    for codec in Compression::ALL {
        let stored = compressed(*codec, &raw);
        assert!(check(&batch_of(&stored, *codec, 3, 5, 7), RecordRules::FORMAT).is_ok(), "{codec}");
        let fewer = batch_of(&stored, *codec, 2, 5, 7);
        let more = batch_of(&stored, *codec, 4, 5, 7);
        assert!(
            matches!(bad(&fewer), BatchError::TrailingRecords { .. } | BatchError::Record { number: 2, .. }),
            "{codec}"
        );
        if *codec != Compression::None {
            assert_eq!(bad(&more), BatchError::Record { number: 3, field: "length" }, "{codec}");
            let twice = compressed(*codec, &stored);
            bad(&batch_of(&twice, *codec, 3, 5, 7));
            let other = [Compression::Gzip, Compression::Lz4][usize::from(*codec == Compression::Gzip)];
            assert_eq!(bad(&batch_of(&stored, other, 3, 5, 7)), BatchError::Compressed(other));
            assert_eq!(bad(&batch_of(&[7; 40], *codec, 3, 5, 7)), BatchError::Compressed(*codec));
            let trailing = [&stored[..], b"garbage"].concat();
            bad(&batch_of(&trailing, *codec, 3, 5, 7));
            bad(&batch_of(&stored[..stored.len() - 1], *codec, 3, 5, 7));
        }
    }
    let second_batch = [&raw[..], &three[..]].concat();
    bad(&batch_of(&second_batch, Compression::None, 3, 5, 7));
    bad(&batch_of(&compressed(Compression::Lz4, &second_batch), Compression::Lz4, 3, 5, 7));
    for error in [BatchError::Compressed(Compression::Gzip), BatchError::TrailingRecords { bytes: 1 }] {
        assert_eq!(error.code(), ErrorCode::InvalidBatch);
    }
}

#[test]
fn the_largest_timestamp_comes_from_the_records_and_can_be_stamped() {
    for codec in Compression::ALL {
        let value = [b'x'; 300];
        let batch = one(*codec, &[(100, &value), (300, &value), (-1, &value), (200, &value)]);
        for header_max in [-1, 0, 300, i64::MAX] {
            let mut batch = changed(batch.clone(), |h| {
                h.max_timestamp.set(header_max);
                h.attributes.set(h.attributes.get() | 8);
            });
            let checked = check(&batch, RecordRules::FORMAT).unwrap();
            assert_eq!(checked.max_timestamp, Timestamp(300));
            stamp_create_time(&mut batch, checked.max_timestamp);
            BatchView::parse(&batch).unwrap().check_checksum().unwrap();
            BatchView::parse(&batch).unwrap().verify_records(&mut Vec::new()).unwrap();
        }
        let untimed = one(*codec, &[(-1, &value), (-1, &value)]);
        assert_eq!(check(&untimed, RecordRules::FORMAT).unwrap().max_timestamp, NO_TIMESTAMP);
    }
}

#[test]
fn records_out_of_range_or_without_a_key_are_reported() {
    let batch = one(Compression::Gzip, &[(10, &[b'v'; 90]), (-1, b"v"), (9, b"v"), (20, b"v"), (21, b"v")]);
    let rules = RecordRules { timestamps: 10..=20, ..RecordRules::FORMAT };
    let checked = check(&batch, rules.clone()).unwrap();
    let at = |number, at| RejectedRecord { number, reason: RejectReason::Timestamp(Timestamp(at)) };
    assert_eq!(checked.rejected, [at(2, 9), at(4, 21)]);
    assert_eq!(checked.rejected_count, 2);
    let keyless = check(&batch, RecordRules { keys: true, ..RecordRules::FORMAT }).unwrap();
    assert_eq!(keyless.rejected_count, 5);
    assert_eq!(keyless.rejected[0].reason, RejectReason::NoKey);
    let many: Vec<(i64, &[u8])> = (0..1000).map(|_| (1, &b"v"[..])).collect();
    let checked = check(&one(Compression::None, &many), rules).unwrap();
    assert_eq!((checked.rejected.len(), checked.rejected_count), (REJECTED_RECORDS_REPORTED_MAX, 1000));
}

#[test]
fn only_the_header_of_a_trusted_producers_batch_is_checked() {
    let rules = RecordRules { timestamps: 10..=20, trust_header: true, ..RecordRules::FORMAT };
    let verdict = |base, max| {
        let checked =
            check(&batch_of(b"not records", Compression::Gzip, 3, base, max), rules.clone()).unwrap();
        (checked.max_timestamp.0, checked.rejected_count)
    };
    assert_eq!(verdict(12, 15), (15, 0));
    assert_eq!(verdict(12, -1), (-1, 0));
    assert_eq!(verdict(9, -1), (-1, 0), "no timestamp, so none is too old");
    assert_eq!(verdict(9, 15), (15, 1));
    assert_eq!(verdict(12, 21), (21, 1));
    let mut bytes = batch_of(b"not records", Compression::Gzip, 3, 1, 1);
    bytes[70] ^= 1;
    assert!(matches!(check(&bytes, rules.clone()), Err(BatchError::Checksum { .. })));
}

#[test]
fn a_decompression_bomb_is_checked_in_many_small_steps_and_stopped_at_its_ratio() {
    let zeros = vec![0; 15 << 20];
    let count = 1;
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let raw = one(Compression::None, &[(5, &zeros)]);
        let stored = compressed(codec, records_of(&raw));
        let batch = batch_of(&stored, codec, count, 5, 5);
        let fits = decompressed_max(stored.len(), DECOMPRESSED_BYTES_MAX_DEFAULT) > zeros.len();
        match in_steps(&batch, &RecordRules::FORMAT, 100_000) {
            // LZ4 may write 4 MiB at a time.
            Ok((_, steps)) => {
                let steps_min = if codec == Compression::Lz4 { 4 } else { 50 };
                assert!(fits && steps >= steps_min, "{codec}: {steps} steps");
            }
            Err(error) => {
                assert!(!fits, "{codec}: {} bytes: {error}", stored.len());
                assert_eq!(error, BatchError::DecompressedTooLarge { max: DECOMPRESSED_BYTES_ANY_RATIO });
                assert_eq!(codec, Compression::Zstd, "no other codec does better");
            }
        }
    }
}

#[test]
fn the_check_can_pause_inside_a_record_with_a_million_headers() {
    let headers = 1 << 20;
    let mut record = vec![0, 0, 0, 1, 1];
    let mut count = Vec::new();
    let mut rest = u64::from(2 * headers as u32);
    while rest >= 0x80 {
        count.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    count.push(rest as u8);
    record.extend(count);
    record.extend(std::iter::repeat_n([0, 1], headers).flatten());
    let mut raw = Vec::new();
    let mut rest = 2 * record.len() as u64;
    while rest >= 0x80 {
        raw.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    raw.push(rest as u8);
    raw.extend(&record);
    for codec in [Compression::None, Compression::Lz4] {
        let batch = batch_of(&compressed(codec, &raw), codec, 1, 5, 5);
        let (checked, steps) = in_steps(&batch, &RecordRules::FORMAT, 50_000).unwrap();
        assert!(checked.max_timestamp == Timestamp(5) && steps > 50, "{steps}");
    }
}

#[test]
fn messages_of_older_formats_are_distinguished_from_corrupt_ones() {
    for magic in [0, 1] {
        // Shorter than the current header.
        let mut message = vec![0; 40];
        message[11] = 28;
        message[16] = magic;
        let error = check(&message, RecordRules::FORMAT).unwrap_err();
        assert_eq!((error, error.code()), (BatchError::Magic(magic as i8), ErrorCode::InvalidBatch));
    }
}
