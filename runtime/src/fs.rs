//! Files as straight-line code sees them: at start-up, in recovery, and in tools that work on a stopped broker's data.
//!
//! These calls block. A shard makes them only before it serves; afterwards it uses [`Disk`](crate::plane::Disk) and
//! [`FileJob`](crate::plane::FileJob)s.

use std::io;
use std::path::{Path, PathBuf};

use crate::plane::FileId;

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading.
    Read,
    /// For reading and writing. The file exists.
    ReadWrite,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its size.
    pub bytes: u64,
}

/// The file system. Positions and lengths of reads and writes are multiples of 4096 (files are opened for direct I/O), except
/// that a read at the end of a file is short.
pub trait Fs {
    /// Makes a directory, and its parents, durable. No error if it is there.
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()>;
    /// What a directory holds, sorted by name.
    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens a file for direct I/O.
    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId>;
    /// Size of an open file.
    fn file_bytes(&mut self, file: FileId) -> io::Result<u64>;
    /// Reads until `buf` is full or the file ends; tells how much. `buf` needs no alignment here.
    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data`. `data` needs no aligned address here.
    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()>;
    /// fdatasync.
    fn sync_file(&mut self, file: FileId) -> io::Result<()>;
    /// Closes a file. Operations in flight on it are still answered.
    fn close_file(&mut self, file: FileId);
    /// Does a [`FileJob::Create`](crate::plane::FileJob::Create) now.
    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId>;
    /// Does a [`FileJob::Replace`](crate::plane::FileJob::Replace) now.
    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId>;
    /// Does a [`FileJob::Remove`](crate::plane::FileJob::Remove) now.
    fn remove_file(&mut self, path: &Path) -> io::Result<()>;
    /// Bytes that can still be written to the file system of this directory. Asks no disk, so a shard may call it while it serves.
    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64>;
    /// Renames within one file system and makes it durable.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
}

/// Whether an operation failed because the file system, or what a quota leaves of it, is full. Writes into space that a file has already
/// can fail so too, where a file system copies on write.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The name of a file that keeps space for [`FileJob::Replace`](crate::plane::FileJob::Replace) on a full disk.
pub const RESERVE_NAME: &str = "reserve";

/// The name a file has while it is being made.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}
