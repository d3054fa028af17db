//! Throughput of one core: checksums and memory copies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::meter::ThreadClock;
use super::pages::Pages;
use super::{Cpu, Measured, Unit};

/// Size of the last-level cache, in bytes, if the machine does not report it.
const CACHE_BYTES: usize = 64 << 20;

/// Upper limit of the memory that is copied through, whatever cache size the machine reports.
const COPY_BYTES_MAX: usize = 1 << 30;

/// Bytes processed between two readings of the clock, for operations that are shorter than a reading.
const ROUND_BYTES: usize = 1 << 20;

/// Computes CRC-32C over the same bytes repeatedly, so that they stay in the cache if they fit.
pub fn checksum(bytes: usize, duration: Duration) -> Measured {
    let data = vec![0xa5; bytes];
    let rounds = (ROUND_BYTES / bytes.max(1)).max(1);
    rate(duration, bytes * rounds, || {
        for _ in 0..rounds {
            black_box(crc32c::crc32c(black_box(&data)));
        }
    })
}

/// Copies `bytes` bytes at a time through more memory than the caches hold.
pub fn memory_copy(bytes: usize, duration: Duration) -> Measured {
    let half = (last_cache_bytes() * 2).min(COPY_BYTES_MAX) / 2;
    let (from, mut to) = (Pages::new(half.max(bytes)), Pages::new(half.max(bytes)));
    let positions = from.len() / bytes;
    let mut position = 0;
    rate(duration, bytes, || {
        let at = position * bytes;
        to[at..at + bytes].copy_from_slice(&from[at..at + bytes]);
        position = (position + 1) % positions;
        black_box(&to);
    })
}

fn rate(duration: Duration, bytes: usize, mut run: impl FnMut()) -> Measured {
    let (clock, started) = (ThreadClock::start(), Instant::now());
    let mut total = 0;
    while total == 0 || started.elapsed() < duration {
        run();
        total += bytes;
    }
    let value = total as f64 / started.elapsed().as_secs_f64();
    let cpu = Cpu { broker: clock.seconds() / (total as f64 / 1e9), client: None };
    Measured { value, unit: Unit::BytesPerSecond, cpu: Some(cpu) }
}

fn last_cache_bytes() -> usize {
    let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").ok();
    let kib = size.and_then(|size| size.trim().strip_suffix('K')?.parse::<usize>().ok());
    kib.map_or(CACHE_BYTES, |kib| kib << 10)
}
