//! Cost of batches and requests in the codec, before anything is written or sent.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_protocol::batch::{
    BatchBuilder, BatchCheck, BatchHeader, BatchProducer, BatchView, Compression, NewRecord, RecordRules,
    Unpacker, Work, stamp, validate,
};
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, Frame, FramePlace, Frames, frame_bytes, write_batch_frame,
};
use highwater_protocol::ids::{
    Incarnation, LeaderEpoch, LogIndex, Offset, PartitionIndex, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::native::{
    Acks, Body, CommitOffsetsRequest, CommittedOffset, MessageKind, ProducePrefix, ProduceReply, Start,
    SubscribeRequest, WIRE_HEADER_BYTES, WireHeader, message, produce_head, put_message,
};
use highwater_protocol::partitioner::partition_for_key;

/// Size of a record's value in bytes, as in the usual comparisons of brokers.
const VALUE_BYTES: usize = 100;

/// Numbers of records: one, a batch after a short linger, and a large batch.
const RECORD_COUNTS: [u32; 3] = [1, 150, 9_000];

/// Returns values of words from a small vocabulary, which are realistic to compress.
fn values() -> Vec<Vec<u8>> {
    const WORDS: [&str; 16] = [
        "order",
        "paid",
        "shipped",
        "eu-west-1",
        "0017",
        "4242",
        "null",
        "true",
        "customer",
        "amount",
        "EUR",
        "retry",
        "p99",
        "warn",
        "ok",
        "2026",
    ];
    let mut state = 17_u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        WORDS[(state >> 28) as usize]
    };
    (0..1000)
        .map(|_| {
            let mut value = String::new();
            while value.len() < VALUE_BYTES {
                value.push_str(word());
                value.push(' ');
            }
            value.truncate(VALUE_BYTES);
            value.into_bytes()
        })
        .collect()
}

fn fill(builder: &mut BatchBuilder, values: &[Vec<u8>], records: u32) {
    for (n, value) in (0..records).zip(values.iter().cycle()) {
        let key = n.to_le_bytes();
        let at = Timestamp(1_700_000_000_000 + i64::from(n / 10));
        builder.append(&NewRecord::new(at, Some(&key), Some(value))).expect("below the limit");
    }
}

fn batch(compression: Compression, records: u32, prefix_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(compression, prefix_bytes);
    fill(&mut builder, &values(), records);
    builder.finish(BatchProducer::NONE).expect("not empty")
}

fn place() -> FramePlace {
    FramePlace {
        incarnation: Incarnation(7),
        index: LogIndex(100),
        durable_index: LogIndex(90),
        commit_index: LogIndex(90),
        partition_tag: 0x1234_5678,
        mac: 0x1122_3344_5566_7788,
    }
}

/// Returns a stamped batch in a frame.
fn frame(records: u32) -> Vec<u8> {
    let mut bytes = batch(Compression::None, records, FRAME_HEADER_BYTES);
    stamp(&mut bytes[FRAME_HEADER_BYTES..], Offset(1000), LeaderEpoch(1));
    let header = *BatchView::parse(&bytes[FRAME_HEADER_BYTES..]).expect("a batch").header();
    bytes.resize(frame_bytes(header.batch_bytes()), 0);
    write_batch_frame(&mut bytes, &header, place());
    bytes.to_vec()
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for bytes in [64, 4 << 10, 64 << 10, 1 << 20] {
        let data = vec![0xa5; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &data, |b, data| {
            b.iter(|| crc32c::crc32c(black_box(data)));
        });
    }
    group.finish();
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch/validate");
    for records in RECORD_COUNTS {
        let bytes = batch(Compression::None, records, 0);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(records), &bytes, |b, bytes| {
            b.iter(|| validate(black_box(bytes)).is_ok());
        });
    }
    group.finish();

    let mut group = c.benchmark_group("batch/build");
    let values = values();
    for records in RECORD_COUNTS {
        group.throughput(Throughput::Elements(u64::from(records)));
        group.bench_with_input(BenchmarkId::from_parameter(records), &records, |b, records| {
            let mut builder = BatchBuilder::new(Compression::None, 40);
            b.iter(|| {
                fill(&mut builder, &values, *records);
                let bytes = builder.finish(BatchProducer::NONE);
                builder.recycle(black_box(bytes).expect("not empty"));
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("batch/iterate");
    for records in RECORD_COUNTS {
        let bytes = batch(Compression::None, records, 0);
        group.throughput(Throughput::Elements(u64::from(records)));
        group.bench_with_input(BenchmarkId::from_parameter(records), &bytes, |b, bytes| {
            b.iter(|| {
                let batch = BatchView::parse(black_box(bytes)).expect("a batch");
                let mut scratch = Vec::new();
                let records = batch.records(&mut scratch).expect("not compressed");
                records.fold(0, |sum, record| sum + record.expect("a record").value.map_or(0, <[u8]>::len))
            });
        });
    }
    group.finish();
}

fn compression(c: &mut Criterion) {
    let values = values();
    let codecs = &Compression::ALL[1..];
    let mut group = c.benchmark_group("batch/compress");
    for codec in codecs {
        group.throughput(Throughput::Bytes(batch(Compression::None, 150, 0).len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(codec), codec, |b, codec| {
            let mut builder = BatchBuilder::new(*codec, 0);
            b.iter(|| {
                fill(&mut builder, &values, 150);
                black_box(builder.finish(BatchProducer::NONE))
            });
        });
    }
    group.finish();

    for records in [150, 9_000] {
        let mut group = c.benchmark_group(format!("batch/decompress {records}"));
        for codec in codecs {
            let bytes = batch(*codec, records, 0);
            group.throughput(Throughput::Bytes(batch(Compression::None, records, 0).len() as u64));
            group.bench_with_input(BenchmarkId::from_parameter(codec), &bytes, |b, bytes| {
                let mut scratch = Vec::new();
                b.iter(|| {
                    let batch = BatchView::parse(black_box(bytes)).expect("a batch");
                    batch.decompressed(&mut scratch).expect("a valid batch").len()
                });
            });
        }
        group.finish();
    }
}

/// Cost of the broker's checks of a batch before appending it. Throughput counts the bytes of the records, so that codecs can be compared. The
/// row of the checksum is the cost without checks of the records.
fn checks(c: &mut Criterion) {
    for records in RECORD_COUNTS {
        let mut group = c.benchmark_group(format!("batch/check {records}"));
        let plain = batch(Compression::None, records, 0);
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function("checksum alone", |b| b.iter(|| validate(black_box(&plain)).is_ok()));
        for codec in Compression::ALL {
            let bytes = batch(*codec, records, 0);
            group.bench_with_input(BenchmarkId::from_parameter(codec), &bytes, |b, bytes| {
                let mut unpacker = Unpacker::default();
                let batch = BatchView::parse(bytes).expect("a batch");
                b.iter(|| {
                    let mut check = BatchCheck::new(RecordRules::FORMAT, std::mem::take(&mut unpacker));
                    let mut work = Work::MAX;
                    let checked = check.step(black_box(&batch), &mut work).expect("a valid batch");
                    unpacker = check.into_unpacker();
                    checked.expect("it is done").max_timestamp
                });
            });
        }
        group.finish();
    }
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/write");
    for records in RECORD_COUNTS {
        let mut bytes = frame(records);
        let mut header = *BatchHeader::parse(&bytes[FRAME_HEADER_BYTES..]).expect("a batch");
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(records), |b| {
            b.iter(|| {
                header.stamp(Offset(7), LeaderEpoch(2));
                stamp(&mut bytes[FRAME_HEADER_BYTES..], Offset(7), LeaderEpoch(2));
                write_batch_frame(black_box(&mut bytes), &header, place());
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("frame/check");
    for records in RECORD_COUNTS {
        let bytes = frame(records);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(records), &bytes, |b, bytes| {
            b.iter(|| Frame::checked(black_box(bytes)).is_ok());
        });
    }
    group.finish();

    let mut group = c.benchmark_group("frame/walk");
    let bytes = frame(1).repeat(1000);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("headers of 1000", |b| b.iter(|| Frames::new(black_box(&bytes)).count()));
    group.finish();
}

fn requests(c: &mut Criterion) {
    let to = TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(5) };
    let batch = batch(Compression::None, 1, 0);
    let produce = [&produce_head(1, to, Acks::All, batch.len())[..], &batch].concat();
    let subscribe = message(
        2,
        &SubscribeRequest {
            topic: to.topic,
            partition: to.partition,
            start: Start::Earliest,
            credit_bytes: 1 << 20,
        },
    );
    let position = |n| CommittedOffset {
        partition: PartitionIndex(n),
        offset: Offset(12_345),
        leader_epoch: 1,
        metadata: String::new(),
    };
    let commit = message(
        3,
        &CommitOffsetsRequest {
            consumer: "billing".into(),
            topic: to.topic,
            positions: (0..8).map(position).collect(),
        },
    );

    let mut group = c.benchmark_group("native");
    group.bench_function("parse produce of one record", |b| {
        b.iter(|| {
            let bytes = black_box(&produce[..]);
            let header = WireHeader::parse(bytes).expect("a header");
            assert_eq!(header.kind(), Some(MessageKind::Produce));
            let (prefix, batch) = ProducePrefix::split(&bytes[WIRE_HEADER_BYTES..]).expect("a prefix");
            let target = prefix.target().expect("a target");
            (target, validate(batch).is_ok())
        });
    });
    group.bench_function("parse subscribe", |b| {
        b.iter(|| SubscribeRequest::decode(&black_box(&subscribe[..])[WIRE_HEADER_BYTES..]));
    });
    group.bench_function("parse commit of 8 positions", |b| {
        b.iter(|| CommitOffsetsRequest::decode(&black_box(&commit[..])[WIRE_HEADER_BYTES..]));
    });
    group.bench_function("write 64 produce replies", |b| {
        let reply = ProduceReply { base_offset: 1.into(), log_append_time: (-1).into(), log_start: 0.into() };
        b.iter_batched_ref(
            || BytesMut::with_capacity(4096),
            |out| (0..64).for_each(|id| put_message(out, id, black_box(&reply))),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("partition of a key", |b| {
        b.iter(|| partition_for_key(black_box(b"customer-0001234"), black_box(48)));
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = checksums, batches, compression, checks, frames, requests }
criterion_main!(benches);
