//! Measures at start-up, in a few milliseconds, which way of making writes durable is faster on a disk, and what a small write costs
//! compared to a large one.
//!
//! Disks cannot be classified in advance. With a volatile cache and no FUA, a durable write is a write and a flush, so one flush
//! per round is cheaper. With FUA or a protected cache, every write is durable immediately.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::OFlags;

use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::osfs::OpenFile;

/// Time limit of the measurement, not counting the operation in progress when it expires.
const TIME_MAX: Duration = Duration::from_millis(8);

/// Writes in flight, as in a shard with a few busy partitions.
const DEPTH: usize = 4;

/// Maximum number of round pairs; more would add little information.
const ROUNDS_MAX: usize = 25;

/// Size of a large write.
const LARGE_BYTES: usize = 256 << 10;

/// Number of large writes, and the time limit for starting them.
const LARGE_ROUNDS: usize = 5;
const LARGE_TIME_MAX: Duration = Duration::from_millis(4);

/// Name of the scratch file, which is removed afterwards. The next start overwrites one left by a start that was interrupted.
const SCRATCH_NAME: &str = ".durability.tmp";

/// A way of making a round of writes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DurableWrites {
    /// Each write is durable by itself (`RWF_DSYNC`).
    EachWrite,
    /// Plain writes followed by one `fdatasync`.
    SyncPerRound,
}

/// Result of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct DurabilityMeasurement {
    /// The faster way.
    pub faster: DurableWrites,
    /// Median time of a round of durable writes; `None` if the time limit came first.
    pub each_write: Option<Duration>,
    /// Median time of a round of writes and a sync; `None` if the time limit came first.
    pub sync_per_round: Option<Duration>,
    /// Median time of a large durable write made in the faster way.
    pub large_write: Option<Duration>,
}

impl DurabilityMeasurement {
    /// Returns the number of bytes that the disk writes sequentially in the time that one more small write of a round takes: to write fewer
    /// bytes a second time costs less than a write of their own. `None` if the disk is too slow to be measured.
    pub fn break_even_bytes(&self) -> Option<u64> {
        let round = match self.faster {
            DurableWrites::EachWrite => self.each_write,
            DurableWrites::SyncPerRound => self.sync_per_round,
        }?;
        let small = round / DEPTH as u32;
        // What the large write takes beyond a small one is the time for its bytes.
        let transfer = self.large_write?.saturating_sub(small).max(Duration::from_nanos(1));
        Some((LARGE_BYTES as u128 * small.as_nanos() / transfer.as_nanos()) as u64)
    }
}

/// Returns the name of a directory's file system if that keeps data in memory only, where it does not survive a restart of the
/// machine.
pub fn volatile_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    Ok(match rustix::fs::statfs(dir)?.f_type as u32 {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58F6 => Some("ramfs"),
        _ => None,
    })
}

/// Measures rounds of small durable writes in both ways, and large ones in the faster way, on a scratch file in this directory.
pub fn durable_writes(dir: &Path) -> io::Result<DurabilityMeasurement> {
    let path = dir.join(SCRATCH_NAME);
    let result = measure(&path);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    result
}

fn measure(path: &Path) -> io::Result<DurabilityMeasurement> {
    let started = Instant::now();
    let file = OpenFile::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
    let zeros = AlignedBuf::zeroed(LARGE_BYTES);
    let small = &zeros[..DEPTH * PAGE_BYTES];
    file.write_at(0, &zeros)?;
    rustix::fs::fdatasync(&file)?;
    let mut ring = IoUring::new(8)?;
    let (mut each, mut per_round) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS_MAX {
        // Alternate the order: the first round after a pause is slower.
        let order = [DurableWrites::EachWrite, DurableWrites::SyncPerRound];
        for way in if round % 2 == 0 { order } else { [order[1], order[0]] } {
            if started.elapsed() >= TIME_MAX {
                break;
            }
            let begun = Instant::now();
            write_round(&mut ring, &file, small, PAGE_BYTES, way)?;
            let times = if way == DurableWrites::EachWrite { &mut each } else { &mut per_round };
            times.push(begun.elapsed());
        }
    }
    let (each_write, sync_per_round) = (median(&mut each), median(&mut per_round));
    let faster = faster(each_write, sync_per_round);
    let (started, mut large) = (Instant::now(), Vec::new());
    while large.len() < LARGE_ROUNDS && started.elapsed() < LARGE_TIME_MAX {
        let begun = Instant::now();
        write_round(&mut ring, &file, &zeros, LARGE_BYTES, faster)?;
        large.push(begun.elapsed());
    }
    let large_write = median(&mut large);
    Ok(DurabilityMeasurement { faster, each_write, sync_per_round, large_write })
}

/// How much faster syncs have to be, as a ratio in percent. A sync takes a second trip through the kernel, on another thread, which
/// costs half as much processor time again, and everything in a round waits for its slowest write.
const SYNC_HANDICAP_PERCENT: u32 = 130;

/// Returns the faster way. If the disk is too slow to measure both, few syncs are better.
fn faster(each_write: Option<Duration>, sync_per_round: Option<Duration>) -> DurableWrites {
    match (each_write, sync_per_round) {
        (Some(each), Some(per_round)) if each * 100 <= per_round * SYNC_HANDICAP_PERCENT => {
            DurableWrites::EachWrite
        }
        _ => DurableWrites::SyncPerRound,
    }
}

fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort();
    times.get(times.len() / 2).copied()
}

/// Writes `data` in pieces of this size, all in flight at once, and makes it durable.
fn write_round(
    ring: &mut IoUring,
    file: &OpenFile,
    data: &[u8],
    piece_bytes: usize,
    way: DurableWrites,
) -> io::Result<()> {
    let fd = types::Fd(file.as_raw_fd());
    let flags = if way == DurableWrites::EachWrite { libc::RWF_DSYNC } else { 0 };
    let writes: Vec<squeue::Entry> = data
        .chunks(piece_bytes)
        .enumerate()
        .map(|(piece, data)| {
            let at = (piece * piece_bytes) as u64;
            opcode::Write::new(fd, data.as_ptr(), data.len() as u32).offset(at).rw_flags(flags).build()
        })
        .collect();
    run(ring, &writes)?;
    if way == DurableWrites::SyncPerRound {
        run(ring, &[opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()])?;
    }
    Ok(())
}

/// Runs operations and waits for all of them.
fn run(ring: &mut IoUring, entries: &[squeue::Entry]) -> io::Result<()> {
    // SAFETY: file and data outlive this call, which waits for everything that it starts; the queue has space for all of it.
    unsafe { ring.submission().push_multiple(entries) }.map_err(io::Error::other)?;
    let mut left = entries.len();
    let mut result = Ok(());
    while left > 0 {
        match ring.submit_and_wait(left) {
            Err(e) if e.raw_os_error() != Some(libc::EINTR) => panic!("io_uring_enter failed: {e}"),
            _ => {}
        }
        for cqe in ring.completion() {
            left -= 1;
            if cqe.result() < 0 {
                result = Err(io::Error::from_raw_os_error(-cqe.result()));
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_measured_and_the_scratch_file_is_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let measured = durable_writes(dir.path()).expect("a directory that can be written to");
        println!("{measured:?}");
        assert_eq!(measured.faster, faster(measured.each_write, measured.sync_per_round));
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn the_faster_way_is_chosen_and_slow_disks_use_few_syncs() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(faster(ms(1), ms(2)), DurableWrites::EachWrite);
        assert_eq!(faster(ms(12), ms(10)), DurableWrites::EachWrite, "a sync has to be clearly faster");
        assert_eq!(faster(ms(2), ms(1)), DurableWrites::SyncPerRound);
        assert_eq!(faster(ms(9), None), DurableWrites::SyncPerRound);
        assert_eq!(faster(None, None), DurableWrites::SyncPerRound);
    }

    #[test]
    fn bytes_are_worth_writing_twice_as_long_as_a_write_of_their_own_takes_longer() {
        let us = |n| Some(Duration::from_micros(n));
        let faster = DurableWrites::EachWrite;
        let measured = |round, large| DurabilityMeasurement {
            faster,
            each_write: round,
            sync_per_round: None,
            large_write: large,
        };
        // 25 microseconds for a small write; 256 KiB take 250 more.
        assert_eq!(measured(us(100), us(275)).break_even_bytes(), Some((256 << 10) / 10));
        assert_eq!(measured(us(400), us(275)).break_even_bytes(), Some((256 << 10) * 100 / 175));
        assert!(
            measured(us(4000), us(275)).break_even_bytes() > Some(1 << 30),
            "large writes cost nothing more"
        );
        assert_eq!(measured(None, us(1)).break_even_bytes(), None);
        assert_eq!(measured(us(1), None).break_even_bytes(), None);
    }

    #[test]
    fn a_file_system_in_memory_is_distinguished_from_one_on_a_disk() {
        assert_eq!(volatile_file_system(Path::new("/proc")).expect("proc is mounted"), None);
        if let Ok(found) = volatile_file_system(Path::new("/dev/shm")) {
            println!("/dev/shm: {found:?}");
        }
        volatile_file_system(Path::new("/nonexistent")).expect_err("no such directory");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        durable_writes(&dir.path().join("none")).expect_err("no such directory");
    }
}
