//! Which way of making writes durable is faster on a disk: measured at start, in a few milliseconds.
//!
//! Disks differ by more than anything one could know about them: with a volatile cache and no FUA a durable write is a write and
//! a flush, so a flush for a whole round is cheaper; with FUA or a protected cache every write is durable at once.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::OFlags;

use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::osfs::OpenFile;

/// Time the measurement takes at most, but for the operation that is running when it is over.
const TIME_MAX: Duration = Duration::from_millis(8);

/// Writes in flight together: what a shard with a few busy partitions has.
const DEPTH: usize = 4;

/// Pairs of rounds after which more would tell little.
const ROUNDS_MAX: usize = 25;

/// Name of the scratch file, which is removed again. A start that was cut short leaves it for the next one to overwrite.
const SCRATCH_NAME: &str = ".durability.tmp";

/// A way of making a round of writes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DurableWrites {
    /// Every write by itself (`RWF_DSYNC`).
    EachWrite,
    /// Plain writes, then one `fdatasync`.
    SyncPerRound,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct DurabilityMeasurement {
    /// The faster way.
    pub faster: DurableWrites,
    /// Median time of a round of durable writes; none if the time was over before.
    pub each_write: Option<Duration>,
    /// Median time of a round of writes and a sync; none if the time was over before.
    pub sync_per_round: Option<Duration>,
}

/// The name of the file system of a directory, if it is one that keeps everything in memory: nothing there outlives the machine.
pub fn volatile_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    Ok(match rustix::fs::statfs(dir)?.f_type as u32 {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58F6 => Some("ramfs"),
        _ => None,
    })
}

/// Measures rounds of small durable writes, both ways, on a scratch file in this directory.
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
    let zeros = AlignedBuf::zeroed(DEPTH * PAGE_BYTES);
    file.write_at(0, &zeros)?;
    rustix::fs::fdatasync(&file)?;
    let mut ring = IoUring::new(8)?;
    let (mut each, mut per_round) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS_MAX {
        // Either goes first in turn: the first round after a pause is slower.
        let order = [DurableWrites::EachWrite, DurableWrites::SyncPerRound];
        for way in if round % 2 == 0 { order } else { [order[1], order[0]] } {
            if started.elapsed() >= TIME_MAX {
                break;
            }
            let begun = Instant::now();
            write_round(&mut ring, &file, &zeros, way)?;
            let times = if way == DurableWrites::EachWrite { &mut each } else { &mut per_round };
            times.push(begun.elapsed());
        }
    }
    let (each_write, sync_per_round) = (median(&mut each), median(&mut per_round));
    Ok(DurabilityMeasurement { faster: faster(each_write, sync_per_round), each_write, sync_per_round })
}

/// A sync makes a second trip through the kernel, on another thread, for a round that is over by then with durable writes. Where the
/// two take equally long that costs half as much processor time again, and what waits for a round waits for its slowest write. So
/// syncs have to be faster by this much, in percent.
const SYNC_HANDICAP_PERCENT: u32 = 130;

/// A disk so slow that the time was over before both were measured gains most from few syncs.
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

fn write_round(ring: &mut IoUring, file: &OpenFile, data: &AlignedBuf, way: DurableWrites) -> io::Result<()> {
    let fd = types::Fd(file.as_raw_fd());
    let flags = if way == DurableWrites::EachWrite { libc::RWF_DSYNC } else { 0 };
    let writes: Vec<squeue::Entry> = data
        .chunks(PAGE_BYTES)
        .enumerate()
        .map(|(page, data)| {
            let at = (page * PAGE_BYTES) as u64;
            opcode::Write::new(fd, data.as_ptr(), PAGE_BYTES as u32).offset(at).rw_flags(flags).build()
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
    // SAFETY: file and data outlive this call, which waits for all that was started; there is room for all of it.
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
    fn both_ways_are_measured_and_the_scratch_file_is_gone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let measured = durable_writes(dir.path()).expect("a directory that can be written to");
        println!("{measured:?}");
        assert_eq!(measured.faster, faster(measured.each_write, measured.sync_per_round));
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn the_faster_way_is_chosen_and_a_slow_disk_syncs_seldom() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(faster(ms(1), ms(2)), DurableWrites::EachWrite);
        assert_eq!(faster(ms(12), ms(10)), DurableWrites::EachWrite, "a sync has to be worth its trouble");
        assert_eq!(faster(ms(2), ms(1)), DurableWrites::SyncPerRound);
        assert_eq!(faster(ms(9), None), DurableWrites::SyncPerRound);
        assert_eq!(faster(None, None), DurableWrites::SyncPerRound);
    }

    #[test]
    fn a_file_system_in_memory_is_told_from_one_on_a_disk() {
        assert_eq!(volatile_file_system(Path::new("/proc")).expect("proc is mounted"), None);
        if let Ok(found) = volatile_file_system(Path::new("/dev/shm")) {
            println!("/dev/shm: {found:?}");
        }
        volatile_file_system(Path::new("/nonexistent")).expect_err("no such directory");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().expect("temporary directory");
        durable_writes(&dir.path().join("none")).expect_err("no such directory");
    }
}
