//! Batches made by other software: compressed by gzip, lz4 and zstd themselves, checksummed by another implementation.
//!
//! All of them hold the same three records.

use highwater_protocol::batch::{
    BatchBuilder, BatchError, BatchFilter, BatchProducer, BatchView, Compression, Header, NewRecord, validate,
};
use highwater_protocol::ids::{Offset, ProducerId, Timestamp};

const UNCOMPRESSED: &str = concat!(
    "0000000000000000000000b6ffffffff020fa680610000000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff00000003ca010000000c757365722d31900168656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068",
    "656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f20040a74",
    "726163650401020a656d707479011800f30302010a776f726c64002000c0cf24040c757365722d3101020000",
);
const GZIP: &str = concat!(
    "000000000000000000000085ffffffff02320a00450001000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff000000031f8b08000000000002033bc5c8c0c0c0535a9c5aa46b388131233527275f81729285aba4283139",
    "958591892b35b7a0a4925182e13333132357797e514e0a8302c381f32a2c504b1999181800f1c7547885000000",
);
const SNAPPY_RAW: &str = concat!(
    "00000000000000000000007dffffffff02c3d6e7b00002000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff0000000385014cca010000000c757365722d31900168656c6c6f20ee06000906b8040a7472616365040102",
    "0a656d707479011800f30302010a776f726c64002000c0cf24040c757365722d3101020000",
);
const SNAPPY_XERIAL: &str = concat!(
    "000000000000000000000095ffffffff0240d4bbce0002000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff0000000382534e415050590000000001000000010000001b564cca010000000c757365722d31900168656c",
    "6c6f20ee06000906000000312fb8040a74726163650401020a656d707479011800f30302010a776f726c64002000c0cf2404",
    "0c757365722d3101020000",
);
const LZ4: &str = concat!(
    "00000000000000000000008effffffff0292ee38a70003000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff0000000304224d186440a74a000000ff05ca010000000c757365722d31900168656c6c6f2006002ff02004",
    "0a74726163650401020a656d707479011800f30302010a776f726c64002000c0cf24040c757365722d310102000000000000",
    "bff08297",
);
const LZ4_LINKED: &str = concat!(
    "00000000000000000000009affffffff02fe6680410003000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff0000000304224d187c4085000000000000005b4a000000ff05ca010000000c757365722d31900168656c6c",
    "6f2006002ff020040a74726163650401020a656d707479011800f30302010a776f726c64002000c0cf24040c757365722d31",
    "01020000024fe4db00000000bff08297",
);
const ZSTD: &str = concat!(
    "000000000000000000000085ffffffff020f2d4d5b0004000000020000018bcfe568000000018bcfe9fbe0ffffffffffffff",
    "ffffffffffffff0000000328b52ffd24853d0200c403ca010000000c757365722d31900168656c6c6f20040a747261636504",
    "01020a656d707479011800f30302010a776f726c64002000c0cf2404010200000200c443f63c5261021568f90c",
);
const IDEMPOTENT: &str = concat!(
    "0000000000000000000000b6ffffffff02203b432f0000000000020000018bcfe568000000018bcfe9fbe00000000000000f",
    "a000030000001100000003ca010000000c757365722d31900168656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068",
    "656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f20040a74",
    "726163650401020a656d707479011800f30302010a776f726c64002000c0cf24040c757365722d3101020000",
);

const BASE: i64 = 1_700_000_000_000;

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn check(hex: &str, codec: Compression) {
    let bytes = unhex(hex);
    let batch = validate(&bytes).unwrap();
    assert_eq!(batch.header().compression(), Some(codec));
    let mut scratch = Vec::new();
    let records: Vec<_> = batch.records(&mut scratch).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);

    assert_eq!((records[0].offset, records[0].timestamp), (Offset(0), Timestamp(BASE)));
    assert_eq!(records[0].key, Some(&b"user-1"[..]));
    assert_eq!(records[0].value, Some("hello ".repeat(12).as_bytes()));
    let headers: Vec<_> = records[0].headers.clone().collect();
    assert_eq!(
        headers,
        [Header { key: b"trace", value: Some(&[1, 2]) }, Header { key: b"empty", value: None }]
    );
    assert_eq!(headers[0].key_text(), "trace");

    assert_eq!((records[1].offset, records[1].timestamp), (Offset(1), Timestamp(BASE - 250)));
    assert_eq!((records[1].key, records[1].value), (None, Some(&b"world"[..])));
    assert_eq!(records[1].headers.len(), 0);

    assert_eq!((records[2].offset, records[2].timestamp), (Offset(2), Timestamp(BASE + 300_000)));
    assert_eq!((records[2].key, records[2].value), (Some(&b"user-1"[..]), None));
    let headers: Vec<_> = records[2].headers.clone().collect();
    assert_eq!(headers, [Header { key: b"", value: Some(b"") }]);

    batch.verify_records(&mut Vec::new()).unwrap();
}

#[test]
fn batches_of_every_codec_can_be_read() {
    check(UNCOMPRESSED, Compression::None);
    check(GZIP, Compression::Gzip);
    check(SNAPPY_RAW, Compression::Snappy);
    check(SNAPPY_XERIAL, Compression::Snappy);
    check(LZ4, Compression::Lz4);
    check(LZ4_LINKED, Compression::Lz4);
    check(ZSTD, Compression::Zstd);
    check(IDEMPOTENT, Compression::None);
}

#[test]
fn records_can_be_removed_from_batches_of_every_codec() {
    let mut filter = BatchFilter::default();
    for hex in [UNCOMPRESSED, GZIP, SNAPPY_RAW, SNAPPY_XERIAL, LZ4, LZ4_LINKED, ZSTD, IDEMPOTENT] {
        let bytes = unhex(hex);
        let batch = BatchView::parse(&bytes).unwrap();
        let mut selection = filter.select(batch, 1 << 20, |record| record.key.is_some()).unwrap();
        let mut out = Vec::new();
        assert!(selection.write(None, usize::MAX, &mut out));
        let left = BatchView::parse(&out).unwrap();
        left.check_checksum().unwrap();
        let mut scratch = Vec::new();
        let records: Vec<_> = left.records(&mut scratch).unwrap().map(Result::unwrap).collect();
        assert_eq!([records[0].offset, records[1].offset], [Offset(0), Offset(2)]);
        assert_eq!(
            (records[0].timestamp, records[1].timestamp),
            (Timestamp(BASE), Timestamp(BASE + 300_000))
        );
        assert_eq!((records[0].value, records[1].value), (Some("hello ".repeat(12).as_bytes()), None));
        assert_eq!((records[0].headers.len(), records.len()), (2, 2));
    }
}

#[test]
fn the_builder_produces_identical_bytes() {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let value = "hello ".repeat(12);
    let headers = [Header { key: b"trace", value: Some(&[1, 2]) }, Header { key: b"empty", value: None }];
    let mut fill = |producer| {
        let first = NewRecord::new(Timestamp(BASE), Some(b"user-1"), Some(value.as_bytes()));
        builder.append(&NewRecord { headers: &headers, ..first }).unwrap();
        builder.append(&NewRecord::new(Timestamp(BASE - 250), None, Some(b"world"))).unwrap();
        let last = NewRecord::new(Timestamp(BASE + 300_000), Some(b"user-1"), None);
        builder.append(&NewRecord { headers: &[Header { key: b"", value: Some(b"") }], ..last }).unwrap();
        assert_eq!(builder.max_timestamp(), Timestamp(BASE + 300_000));
        builder.finish(producer).unwrap()
    };
    assert_eq!(fill(BatchProducer::NONE), unhex(UNCOMPRESSED));
    let producer = BatchProducer { id: ProducerId(4000), epoch: 3, sequence: 17 };
    let bytes = fill(producer);
    assert_eq!(bytes, unhex(IDEMPOTENT));
    let header = BatchView::parse(&bytes).unwrap().header();
    assert_eq!(header.producer(), Some(producer));
    assert_eq!(header.last_sequence(), Some(19));
}

#[test]
fn every_truncation_and_every_flipped_bit_of_every_vector_is_detected() {
    for hex in [UNCOMPRESSED, GZIP, SNAPPY_RAW, SNAPPY_XERIAL, LZ4, LZ4_LINKED, ZSTD, IDEMPOTENT] {
        let bytes = unhex(hex);
        for cut in 0..bytes.len() {
            assert!(matches!(validate(&bytes[..cut]), Err(BatchError::Truncated { .. })), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let leader_epoch = (12..16).contains(&(bit / 8));
            assert_eq!(validate(&flipped).is_ok(), leader_epoch, "bit {bit}");
        }
    }
}
