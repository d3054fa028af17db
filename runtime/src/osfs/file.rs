//! An open file, and the creation of files.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Once;

use rustix::fs::{AtFlags, CWD, FallocateFlags, IFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{parent_of, sync_dir};
use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::fs::{RESERVE_NAME, is_out_of_space, temporary_path};

/// Bytes of one blocking read or write.
const STEP_BYTES: usize = 1 << 20;

/// A file opened for direct I/O, or buffered if the file system does not support it.
pub(crate) struct OpenFile {
    fd: OwnedFd,
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for OpenFile {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl OpenFile {
    /// Opens a file, with `O_DIRECT` if the file system supports it (tmpfs and some network file systems return EINVAL).
    pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<Self> {
        let flags = flags | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
            Ok(fd) => Ok(Self { fd }),
            Err(Errno::INVAL) => {
                let fd = rustix::fs::open(path, flags, mode)?;
                warn_buffered(path);
                Ok(Self { fd })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Creates an empty file whose writes go to its existing blocks (see [`write_in_place`](Self::write_in_place)).
    fn make(path: &Path) -> io::Result<Self> {
        let file = Self::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_in_place();
        Ok(file)
    }

    /// Makes writes go to the file's existing blocks on a file system that would otherwise copy them (btrfs). Otherwise every write
    /// needs new space, and the log gets fragmented. It has no effect on a file with content. The file system then keeps no
    /// checksums; ours cover every byte.
    fn write_in_place(&self) {
        // Best effort: most file systems do not have the flag, and never copy blocks that are not shared.
        if let Ok(flags) = rustix::fs::ioctl_getflags(&self.fd) {
            let _ = rustix::fs::ioctl_setflags(&self.fd, flags | IFlags::NOCOW);
        }
    }

    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_size.cast_unsigned())
    }

    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        // Always in units of 512 bytes, whatever the block size.
        Ok(rustix::fs::fstat(&self.fd)?.st_blocks.cast_unsigned().saturating_mul(512))
    }

    fn punch(&self, at: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry(|| rustix::fs::fallocate(&self.fd, flags, at, bytes))
    }

    pub(crate) fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut bounce: Option<AlignedBuf> = None;
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            let direct =
                rest.as_ptr().addr().is_multiple_of(PAGE_BYTES) && rest.len().is_multiple_of(PAGE_BYTES);
            let n = if direct {
                retry(|| rustix::io::pread(&self.fd, &mut *rest, at + done as u64))?
            } else {
                let pages = bounce.get_or_insert_with(|| AlignedBuf::new(rest.len().min(STEP_BYTES)));
                let n = retry(|| rustix::io::pread(&self.fd, &mut pages[..], at + done as u64))?;
                let n = n.min(rest.len());
                rest[..n].copy_from_slice(&pages[..n]);
                n
            };
            done += n;
            if n == 0 || !n.is_multiple_of(PAGE_BYTES) {
                break;
            }
        }
        Ok(done)
    }

    pub(crate) fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        if !data.len().is_multiple_of(PAGE_BYTES) || !at.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::other(format!(
                "write of {} bytes at {at} is not whole pages",
                data.len()
            )));
        }
        if data.as_ptr().addr().is_multiple_of(PAGE_BYTES) {
            return self.write_pages(at, data);
        }
        let mut pages = AlignedBuf::new(data.len().min(STEP_BYTES));
        let mut at = at;
        for step in data.chunks(STEP_BYTES) {
            pages[..step.len()].copy_from_slice(step);
            self.write_pages(at, &pages[..step.len()])?;
            at += step.len() as u64;
        }
        Ok(())
    }

    fn write_pages(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let n = retry(|| rustix::io::pwrite(&self.fd, &data[done..], at + done as u64))?;
            // A write that ends inside a block is repeated from the start of that block, because direct I/O needs whole blocks.
            let whole = n / PAGE_BYTES * PAGE_BYTES;
            if whole == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += whole;
        }
        Ok(())
    }
}

/// Performs a [`FileJob::Create`](crate::plane::FileJob::Create).
pub(crate) fn create_file(path: &Path, bytes: u64) -> io::Result<OpenFile> {
    // This check only saves work; the rename below decides.
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    finish(path, || {
        let file = OpenFile::make(&temporary_path(path))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => write_whole(&file, &[], bytes)?,
            Err(e) => return Err(e.into()),
        }
        rustix::fs::fsync(&file)?;
        rename_to_free_name(&temporary_path(path), path)?;
        Ok(file)
    })
}

/// Performs a [`FileJob::Replace`](crate::plane::FileJob::Replace).
pub(crate) fn replace_file(path: &Path, content: &[&[u8]], bytes: u64) -> io::Result<OpenFile> {
    let file = prepare_file(path, content, bytes)?;
    finish(path, || {
        std::fs::rename(temporary_path(path), path)?;
        Ok(file)
    })
}

/// Performs a [`FileJob::Prepare`](crate::plane::FileJob::Prepare).
pub(crate) fn prepare_file(path: &Path, content: &[&[u8]], bytes: u64) -> io::Result<OpenFile> {
    match try_prepare_file(path, content, bytes) {
        Err(e) if is_out_of_space(&e) => {
            // Without a reserve, the original error is returned.
            let Ok(()) = std::fs::remove_file(path.with_file_name(RESERVE_NAME)) else { return Err(e) };
            sync_dir(parent_of(path))?;
            try_prepare_file(path, content, bytes)
        }
        other => other,
    }
}

/// Performs a [`FileJob::Publish`](crate::plane::FileJob::Publish).
pub(crate) fn publish_file(path: &Path) -> io::Result<()> {
    std::fs::rename(temporary_path(path), path)?;
    sync_dir(parent_of(path))
}

/// Performs a [`FileJob::Remove`](crate::plane::FileJob::Remove).
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => sync_dir(parent_of(path)),
    }
}

/// Performs a [`FileJob::Punch`](crate::plane::FileJob::Punch).
pub(crate) fn punch_range(path: &Path, at: u64, bytes: u64) -> io::Result<()> {
    OpenFile::open(path, OFlags::RDWR)?.punch(at, bytes)
}

/// Performs a [`FileJob::PunchHeads`](crate::plane::FileJob::PunchHeads).
pub(crate) fn punch_heads(path: &Path, at: u64, bytes: u64, every: u64, head_bytes: u64) -> io::Result<()> {
    let file = OpenFile::open(path, OFlags::RDWR)?;
    for head in (at..at + bytes).step_by(usize::try_from(every).unwrap_or(usize::MAX)) {
        file.punch(head, head_bytes)?;
    }
    // Not only the content: where the holes are has to be durable.
    Ok(rustix::fs::fsync(&file)?)
}

/// Performs a [`FileJob::Allocate`](crate::plane::FileJob::Allocate).
pub(crate) fn allocate_range(path: &Path, at: u64, bytes: u64) -> io::Result<()> {
    let file = OpenFile::open(path, OFlags::RDWR)?;
    match retry(|| rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, at, bytes)) {
        // Without it the file system has no holes to punch either.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        Err(e) => Err(e),
        Ok(()) => Ok(rustix::fs::fsync(&file)?),
    }
}

fn try_prepare_file(path: &Path, content: &[&[u8]], bytes: u64) -> io::Result<OpenFile> {
    let made = OpenFile::make(&temporary_path(path)).and_then(|file| {
        write_whole(&file, content, bytes)?;
        rustix::fs::fsync(&file)?;
        Ok(file)
    });
    made.inspect_err(|_| remove_temporary(path))
}

/// Makes the name durable, or removes the temporary file after an error.
fn finish(path: &Path, make: impl FnOnce() -> io::Result<OpenFile>) -> io::Result<OpenFile> {
    match make() {
        Ok(file) => {
            sync_dir(parent_of(path))?;
            Ok(file)
        }
        Err(e) => {
            remove_temporary(path);
            Err(e)
        }
    }
}

/// Best effort: the next start removes leftover temporary files.
fn remove_temporary(path: &Path) {
    let _ = std::fs::remove_file(temporary_path(path));
}

/// Writes these pieces of content, and zero bytes up to `bytes`.
fn write_whole(file: &OpenFile, content: &[&[u8]], bytes: u64) -> io::Result<()> {
    let content_bytes: usize = content.iter().map(|piece| piece.len()).sum();
    if content_bytes as u64 > bytes || !bytes.is_multiple_of(PAGE_BYTES as u64) {
        return Err(io::Error::other(format!(
            "a file of {bytes} bytes cannot hold {content_bytes} bytes in whole pages"
        )));
    }
    let mut pages = AlignedBuf::new(STEP_BYTES.min(usize::try_from(bytes).unwrap_or(STEP_BYTES)));
    let mut pieces = content.iter();
    let mut rest: &[u8] = &[];
    let mut at = 0;
    while at < bytes {
        let step = usize::try_from(bytes - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        let mut filled = 0;
        while filled < step {
            if rest.is_empty() {
                let Some(next) = pieces.next() else { break };
                rest = next;
            }
            let (now, later) = rest.split_at(rest.len().min(step - filled));
            pages[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            rest = later;
        }
        pages[filled..step].fill(0);
        file.write_at(at, &pages[..step])?;
        at += step as u64;
    }
    Ok(())
}

fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Without RENAME_NOREPLACE, a hard link has the same effect in two steps.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?;
            Ok(std::fs::remove_file(from)?)
        }
        Err(e) => Err(e.into()),
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn warn_buffered(path: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            path = %path.display(),
            "this file system has no direct I/O: files go through the page cache (fine for tests, slower and less predictable for data)"
        );
    });
}
