//! Cost of a request in the broker: parsing it, appending it to the tail of a log, and sending a message to another core.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_net::{Decoder, Step};
use highwater_protocol::batch::{BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord};
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, PartitionIndex, StoreId, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::native::{Acks, produce_head};
use highwater_runtime::baseline::mesh_round_trip;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::sim::DiskHarness;
use highwater_storage::{
    DurableForm, MacKey, PartitionConfig, PartitionSlot, Payload, Store, StoreConfig, StoreLimits,
};

/// Size of a record's value in bytes.
const VALUE_BYTES: usize = 100;

/// Number of requests that arrive in one receive.
const REQUESTS: u32 = 64;

/// Number of appends between two commit rounds.
const SMALL_APPENDS: u64 = 64;
const BULK_APPENDS: u64 = 4;

/// Size at which a store is replaced by an empty one, as its simulated disk is in memory.
const STORE_BYTES_MAX: usize = 64 << 20;

/// Duration of a mesh sample.
const MESH_TIME: Duration = Duration::from_millis(20);

const TO: TopicPartition = TopicPartition { topic: TopicId([3; 16]), partition: PartitionIndex(0) };

fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let value = [0x5a; VALUE_BYTES];
    for n in 0..records {
        let at = Timestamp(1_700_000_000_000 + n as i64);
        builder.append(&NewRecord::new(at, None, Some(&value))).expect("below the limit");
    }
    builder.finish(BatchProducer::NONE).expect("not empty").freeze()
}

/// A store on a simulated disk. Only appends are timed.
struct Log {
    disk: DiskHarness,
    store: Store,
    slot: PartitionSlot,
    bytes: usize,
}

impl Log {
    fn new() -> Self {
        let config = StoreConfig {
            dir: PathBuf::from("/data/store-000"),
            cluster: ClusterId([5; 16]),
            store: StoreId(0),
            token_space: 3,
            new_mac_key: MacKey([0; 16]),
            limits: StoreLimits::default(),
            durable_form: DurableForm::Dsync,
        };
        let mut disk = DiskHarness::new(1);
        let (mut store, _) = Store::open(config, &mut disk).expect("an empty disk");
        let slot = store.ensure_partition(TO, PartitionConfig::default());
        let mut log = Self { disk, store, slot, bytes: 0 };
        log.settle();
        log
    }

    /// Waits until everything is durable and nothing is in flight.
    fn settle(&mut self) {
        loop {
            let more = self.store.flush(&mut self.disk);
            while self.store.poll_event().is_some() {}
            let Some((token, completion)) = self.disk.step() else {
                if more {
                    continue;
                }
                break;
            };
            self.store.on_disk(&mut self.disk, token, completion);
        }
    }

    /// Waits until there is space for this many bytes of batches, which may need another slab.
    fn make_room(&mut self, bytes: usize, bulk: bool) {
        // A frame has a header and padding in addition to its batch.
        while self.store.is_busy(self.slot, 4 * bytes, bulk, 1_700_000_000_000) {
            self.settle();
        }
    }

    fn append(&mut self, payload: Payload<'_>) {
        let appended =
            self.store.append(&mut self.disk, self.slot, payload, LeaderEpoch(1), 1_700_000_000_000);
        black_box(appended.expect("all earlier appends are durable"));
    }
}

/// Measures the time of `iterations` appends, with a commit round after every `round` appends.
fn appends(iterations: u64, round: u64, batch: &Bytes, bulk: bool) -> Duration {
    let header = *BatchHeader::parse(batch).expect("a batch");
    let mut took = Duration::ZERO;
    let mut log = Log::new();
    let mut left = iterations;
    while left > 0 {
        if log.bytes > STORE_BYTES_MAX {
            log = Log::new();
        }
        let count = left.min(round);
        let pages: Vec<AlignedBuf> = (0..if bulk { count } else { 0 })
            .map(|_| {
                let mut pages = AlignedBuf::new(FRAME_HEADER_BYTES + batch.len());
                pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch.len()].copy_from_slice(batch);
                pages
            })
            .collect();
        log.make_room(batch.len() * count as usize, bulk);
        let began = Instant::now();
        if bulk {
            for pages in pages {
                log.append(Payload::bulk(header, pages));
            }
        } else {
            for _ in 0..count {
                log.append(Payload::small(header, batch));
            }
        }
        took += began.elapsed();
        log.bytes += batch.len() * count as usize;
        log.settle();
        left -= count;
    }
    took
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for (name, records, round, bulk) in [
        ("small, 1 record", 1, SMALL_APPENDS, false),
        ("small, 150 records", 150, SMALL_APPENDS, false),
        ("bulk, 9000 records", 9_000, BULK_APPENDS, true),
    ] {
        let batch = batch(records);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &batch, |b, batch| {
            b.iter_custom(|iterations| appends(iterations, round, batch, bulk));
        });
    }
    group.finish();
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    let batch = batch(1);
    let mut received = Vec::new();
    for id in 0..REQUESTS {
        received.extend_from_slice(&produce_head(id.into(), TO, Acks::All, batch.len()));
        received.extend_from_slice(&batch);
    }
    group.throughput(Throughput::Elements(REQUESTS.into()));
    group.bench_function("64 produce requests of one record", |b| {
        let mut decoder = Decoder::greeted();
        b.iter(|| {
            let mut data = black_box(&received[..]);
            let mut requests = 0;
            while let Step::Request(request) = decoder.next(&mut data).expect("well-formed requests") {
                black_box(request);
                requests += 1;
            }
            assert_eq!(requests, REQUESTS);
        });
    });
    group.finish();
}

fn mesh(c: &mut Criterion) {
    let mut group = c.benchmark_group("mesh round trip");
    group.sample_size(10);
    for (name, busy) in [("asleep", false), ("busy", true)] {
        group.bench_function(name, |b| {
            // Starting shards takes longer than a message, so start them once per sample.
            b.iter_custom(|iterations| {
                let one = mesh_round_trip(busy, MESH_TIME).expect("shards start").value;
                Duration::from_nanos((one * iterations as f64) as u64)
            });
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = parse, append, mesh }
criterion_main!(benches);
