//! Runs every baseline measurement in a tiny form: it returns a value and leaves no files.

use std::path::Path;
use std::time::Duration;

use highwater_runtime::baseline::{
    Disk, Durable, Exchange, Measured, Pipeline, Reads, Space, Stream, Unit, Writes, checksum, exchange,
    memory_copy, mesh_round_trip, stream, wake_up,
};

/// Long enough for a few operations of each kind, even on a busy machine.
const SHORT: Duration = Duration::from_millis(60);

/// A directory next to the program: the default temporary directory may be in memory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

fn disk(dir: &Path) -> Disk {
    Disk::with_space(dir, 16 << 20, 64 << 20)
}

#[track_caller]
fn positive(measured: Measured, unit: Unit) {
    assert!(measured.value.is_finite() && measured.value > 0.0, "{measured:?}");
    assert_eq!(measured.unit, unit);
    if let Some(cpu) = measured.cpu {
        assert!(cpu.broker > 0.0 && cpu.client.is_none_or(|client| client > 0.0), "{measured:?}");
    }
}

#[track_caller]
fn empty(dir: &Path) {
    assert_eq!(std::fs::read_dir(dir).expect("list").count(), 0);
}

#[test]
fn the_pipeline_makes_batches_durable_in_written_and_fresh_space() {
    let dir = directory();
    let mut disk = disk(dir.path());
    for space in [Space::Written, Space::Fresh] {
        let pipeline = Pipeline { batch_bytes: 64 << 10, depth: 4, window: 8, space };
        positive(pipeline.measure(&mut disk, SHORT).expect("measured"), Unit::BytesPerSecond);
        empty(dir.path());
    }
}

#[test]
fn a_pipeline_that_uses_up_its_fresh_space_ends_early() {
    let dir = directory();
    let mut disk = Disk::with_space(dir.path(), 1 << 20, 32 << 20);
    let pipeline = Pipeline::new(Space::Fresh);
    let hours = Duration::from_hours(2);
    // A tenth of this would be warm-up, which is longer than the space lasts.
    let e = pipeline.measure(&mut disk, hours).expect_err("no measurement");
    assert!(e.to_string().contains("--duration"), "{e}");
}

#[test]
fn small_requests_are_answered_when_durable_and_without_a_disk() {
    let dir = directory();
    let mut disk = disk(dir.path());
    for in_flight in [1, 5] {
        let small = Exchange { connections: 8, ..Exchange::small(in_flight) };
        positive(exchange(small, Some(&mut disk), SHORT).expect("measured"), Unit::PerSecond);
        positive(exchange(small, None, SHORT).expect("measured"), Unit::PerSecond);
    }
    empty(dir.path());
}

#[test]
fn streams_and_large_requests_use_the_loopback_interface() {
    for frame_bytes in [64, 1 << 20] {
        let streams = Stream { connections: 3, frame_bytes };
        positive(stream(streams, SHORT).expect("measured"), Unit::BytesPerSecond);
        let requests = Exchange { connections: 3, in_flight: 1, request_bytes: frame_bytes, reply_bytes: 64 };
        positive(exchange(requests, None, SHORT).expect("measured"), Unit::PerSecond);
    }
}

#[test]
fn direct_writes_and_reads_are_measured_and_leave_no_file() {
    let dir = directory();
    let mut disk = disk(dir.path());
    for durable in [Durable::No, Durable::EachWrite, Durable::SyncPerRound] {
        for (bytes, unit) in [(4 << 10, Unit::PerSecond), (64 << 10, Unit::BytesPerSecond)] {
            for space in [Space::Written, Space::Fresh] {
                let writes = Writes { bytes, depth: 2, durable, space };
                positive(disk.writes(writes, SHORT).expect("measured"), unit);
            }
        }
    }
    let reads = Reads { bytes: 64 << 10, depth: 2 };
    positive(disk.reads(reads, SHORT).expect("measured"), Unit::BytesPerSecond);
    empty(dir.path());
}

#[test]
fn a_core_computes_checksums_and_copies_memory() {
    for bytes in [128, 1 << 20] {
        positive(checksum(bytes, SHORT), Unit::BytesPerSecond);
    }
    positive(memory_copy(1 << 20, SHORT), Unit::BytesPerSecond);
}

#[test]
fn cores_exchange_messages_and_wake_each_other() {
    for busy in [false, true] {
        positive(mesh_round_trip(busy, SHORT).expect("measured"), Unit::Nanoseconds);
    }
    positive(wake_up(SHORT).expect("measured"), Unit::Nanoseconds);
}

#[test]
fn a_file_system_in_memory_is_rejected_with_what_to_do() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("shared memory is a file system in memory");
    let writes = Writes { bytes: 4 << 10, depth: 1, durable: Durable::No, space: Space::Fresh };
    let e = disk(dir.path()).writes(writes, SHORT).expect_err("no disk").to_string();
    assert!(e.contains("in memory") && e.contains("--dir"), "{e}");
    empty(dir.path());
}

#[test]
fn a_disk_with_too_little_space_is_rejected_before_anything_is_written() {
    let dir = directory();
    let mut disk = Disk::with_space(dir.path(), 1 << 60, 1 << 20);
    let e = disk.reads(Reads { bytes: 4 << 10, depth: 1 }, SHORT).expect_err("no such disk").to_string();
    assert!(e.contains("MiB are free"), "{e}");
    empty(dir.path());
}
