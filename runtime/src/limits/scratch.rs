//! Files to measure a disk with. They have no name while they are used, so they are gone with the process, however it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::LimitError;

/// Bytes of the file that stands for space that was written before, as a broker's is once it has run for a while. Writes go round in it.
pub const WRITTEN_BYTES: u64 = 512 << 20;

/// Bytes of the files that stand for space that is allocated and was never written. A measurement that comes to its end is over.
pub const FRESH_BYTES_MAX: u64 = 2 << 30;

/// What `statfs` calls a file system in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

pub(super) struct Scratch {
    fd: OwnedFd,
    bytes: u64,
}

impl AsFd for Scratch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Scratch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Scratch {
    /// A file of that size in this directory, its space allocated and not written, for direct I/O.
    pub(super) fn new(dir: &Path, bytes: u64) -> Result<Self, LimitError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cannot =
            |e: io::Error| LimitError::new(format!("cannot measure the disk in {}", dir.display()))(e);
        let fs = rustix::fs::statfs(dir).map_err(|e| cannot(e.into()))?;
        if fs.f_type == TMPFS_MAGIC {
            return Err(no_disk(dir));
        }
        let free = fs.f_bavail * fs.f_bsize.cast_unsigned();
        if free < bytes {
            return Err(cannot(io::Error::other(format!(
                "it needs {} MiB for a moment, and {} MiB are free: choose another directory with --dir",
                bytes >> 20,
                free >> 20
            ))));
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".limits-{}-{number}.tmp", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(Errno::INVAL) => {
                // Some file systems make the file before they refuse to open it so.
                let _ = std::fs::remove_file(&path);
                return Err(no_disk(dir));
            }
            Err(e) => return Err(cannot(e.into())),
        };
        std::fs::remove_file(&path).map_err(cannot)?;
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes).map_err(|e| cannot(e.into()))?;
        rustix::fs::fsync(&fd).map_err(|e| cannot(e.into()))?;
        Ok(Self { fd, bytes })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn no_disk(dir: &Path) -> LimitError {
    LimitError::refuse(
        format!("cannot measure the disk in {}", dir.display()),
        "its file system is in memory or has no direct I/O: choose a directory on a disk with --dir",
    )
}
