//! Scratch files for measuring a disk. They are unnamed while in use, so they disappear with the process, however it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::BaselineError;

/// Bytes of the file with space that was written before, as in a broker that has run for a while. Writes wrap around in it.
pub const WRITTEN_BYTES: u64 = 512 << 20;

/// Bytes of the files with space that is allocated but was never written. A measurement stops when it is used up.
pub const FRESH_BYTES_MAX: u64 = 2 << 30;

/// `statfs` type of a file system in memory.
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
    /// Creates a file of this size in `dir` for direct I/O. Its space is allocated but not written.
    pub(super) fn new(dir: &Path, bytes: u64) -> Result<Self, BaselineError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cannot =
            |e: io::Error| BaselineError::new(format!("cannot measure the disk in {}", dir.display()))(e);
        let fs = rustix::fs::statfs(dir).map_err(|e| cannot(e.into()))?;
        if fs.f_type == TMPFS_MAGIC {
            return Err(no_disk(dir));
        }
        let free = fs.f_bavail * fs.f_bsize.cast_unsigned();
        if free < bytes {
            return Err(cannot(io::Error::other(format!(
                "it temporarily needs {} MiB, and {} MiB are free: choose another directory with --dir",
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
                // Some file systems create the file before they reject `O_DIRECT`.
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

fn no_disk(dir: &Path) -> BaselineError {
    BaselineError::failed(
        format!("cannot measure the disk in {}", dir.display()),
        "its file system is in memory or has no direct I/O: choose a directory on a disk with --dir",
    )
}
