//! Blocking file access, for start-up, recovery, and tools that work on a stopped broker's data.
//!
//! A shard uses these calls only before it serves; afterwards it uses [`Disk`](crate::plane::Disk) and
//! [`FileJob`](crate::plane::FileJob)s.

use std::io;
use std::path::{Path, PathBuf};

use crate::buf::AlignedBuf;

/// An open file of this shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading.
    Read,
    /// For reading and writing. The file must exist.
    ReadWrite,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// Name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Size in bytes.
    pub bytes: u64,
}

/// One of several reads.
#[derive(Debug)]
pub struct FileRead {
    /// The file.
    pub file: FileId,
    /// Where it begins.
    pub at: u64,
    /// Takes the bytes.
    pub buf: AlignedBuf,
    /// How many bytes were read.
    pub outcome: io::Result<usize>,
}

impl FileRead {
    /// Prepares a read of this many bytes.
    pub fn new(file: FileId, at: u64, bytes: usize) -> Self {
        Self { file, at, buf: AlignedBuf::new(bytes), outcome: Ok(0) }
    }

    /// Returns the bytes, if all of them were read.
    pub fn whole(self) -> Option<AlignedBuf> {
        self.outcome.is_ok_and(|read| read == self.buf.len()).then_some(self.buf)
    }
}

/// One of several writes.
#[derive(Debug)]
pub struct FileWrite {
    /// The file.
    pub file: FileId,
    /// Where it begins.
    pub at: u64,
    /// The bytes.
    pub data: AlignedBuf,
    /// Whether all of them were written. `None`: that was not tried.
    pub outcome: Option<io::Result<()>>,
}

/// The file system. Positions and lengths of reads and writes are multiples of 4096, because files are opened for direct I/O. A
/// read at the end of a file may be short.
pub trait Fs {
    /// Creates a directory and its parents durably. Succeeds if it exists.
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()>;
    /// Returns the entries of a directory, sorted by name.
    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens a file for direct I/O.
    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId>;
    /// Returns the size of an open file.
    fn file_bytes(&mut self, file: FileId) -> io::Result<u64>;
    /// Returns the bytes of an open file that have space on the disk. Fewer than its size: it has holes, or the file system compresses it.
    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64>;
    /// Reads until `buf` is full or the file ends. Returns the bytes read. `buf` needs no alignment.
    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Performs several reads. Where they would each wait for the disk, they wait together.
    fn read_many(&mut self, reads: &mut [FileRead]) {
        for read in reads {
            read.outcome = self.read_at(read.file, read.at, &mut read.buf);
        }
    }
    /// Writes all of `data`, which needs no alignment.
    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()>;
    /// Performs several writes, which do not overlap. Where they would each wait for the disk, they wait together. When one has failed, the others
    /// need not be tried.
    fn write_many(&mut self, writes: &mut [FileWrite]) {
        for write in writes {
            let outcome = write.outcome.insert(self.write_at(write.file, write.at, &write.data));
            if outcome.is_err() {
                break;
            }
        }
    }
    /// Makes a file's data durable (`fdatasync`).
    fn sync_file(&mut self, file: FileId) -> io::Result<()>;
    /// Makes the data of several files durable. Where each would wait for the disk, they wait together. An error comes with the place of its file among
    /// `files`.
    fn sync_many(&mut self, files: &[FileId]) -> Result<(), (usize, io::Error)> {
        files.iter().enumerate().try_for_each(|(n, file)| self.sync_file(*file).map_err(|e| (n, e)))
    }
    /// Closes a file. Operations in flight on it still complete.
    fn close_file(&mut self, file: FileId);
    /// Does what a [`FileJob::Create`](crate::plane::FileJob::Create) does, blocking.
    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId>;
    /// Does what a [`FileJob::Replace`](crate::plane::FileJob::Replace) does, blocking.
    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId>;
    /// Does what a [`FileJob::Remove`](crate::plane::FileJob::Remove) does, blocking.
    fn remove_file(&mut self, path: &Path) -> io::Result<()>;
    /// Returns the free bytes of the directory's file system. It does no disk I/O, so a shard may call it while it serves.
    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64>;
    /// Returns the size of the directory's file system in bytes. It does no disk I/O either.
    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64>;
    /// Renames a file within one file system, durably.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
}

/// Returns whether an operation failed because the file system or a quota is full. On file systems that copy on write, writes into
/// allocated space can fail this way too.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Name of a file that reserves space for [`FileJob::Replace`](crate::plane::FileJob::Replace) on a full disk.
pub const RESERVE_NAME: &str = "reserve";

/// Returns the name that a file has until it is complete.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}
