//! The operating system's file system, through blocking calls.
//!
//! The shard's plane keeps its open files in an [`OsFs`]; offline tools use one directly.

mod file;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

pub(crate) use file::{
    OpenFile, allocate_range, create_file, prepare_file, publish_file, punch_heads, punch_range, remove_file,
    replace_file,
};

use crate::fs::{DirEntry, FileId, FileRead, FileWrite, Fs, OpenMode};
use crate::slab::{Key, Slab};

/// Bits of a [`FileId`] that hold the file's index; the generation is in the bits above.
const INDEX_BITS: u32 = 20;

/// Files that one `OsFs` may have open; far more than a store's slabs need.
pub const FILES_OPEN_MAX: usize = 1 << INDEX_BITS;

/// Threads that one call of [`Fs::read_many`] or [`Fs::write_many`] uses. They only wait for the disk.
const THREADS_MAX: usize = 16;

/// Reads or writes for which a thread is worth its start.
const OPERATIONS_PER_THREAD_MIN: usize = 4;

/// The operating system's file system. Files are opened for direct I/O if the file system supports it.
pub struct OsFs {
    files: Slab<Arc<OpenFile>>,
}

impl Default for OsFs {
    fn default() -> Self {
        Self::new()
    }
}

impl OsFs {
    /// Creates an `OsFs` without open files.
    pub fn new() -> Self {
        Self { files: Slab::new(u32::MAX >> INDEX_BITS) }
    }

    pub(crate) fn insert(&mut self, file: OpenFile) -> io::Result<FileId> {
        if self.files.len() >= FILES_OPEN_MAX {
            return Err(io::Error::other(format!("more than {FILES_OPEN_MAX} files are open")));
        }
        let key = self.files.insert(Arc::new(file));
        Ok(FileId(key.generation << INDEX_BITS | key.index))
    }

    /// Takes a file out, in order to close it elsewhere.
    pub(crate) fn take(&mut self, id: FileId) -> Option<Arc<OpenFile>> {
        self.files.remove(key(id))
    }

    pub(crate) fn file(&self, id: FileId) -> io::Result<&Arc<OpenFile>> {
        self.files.get(key(id)).ok_or_else(|| io::Error::other(format!("file number {} is not open", id.0)))
    }
}

/// Performs operations on several threads, of which each gets at least `per_thread_min`.
fn together<T: Send>(operations: &mut [T], per_thread_min: usize, perform: impl Fn(&mut T) + Copy + Send) {
    let per_thread = operations.len().div_ceil(THREADS_MAX).max(per_thread_min);
    let (first, rest) = operations.split_at_mut(per_thread.min(operations.len()));
    std::thread::scope(|scope| {
        for part in rest.chunks_mut(per_thread) {
            scope.spawn(move || part.iter_mut().for_each(perform));
        }
        first.iter_mut().for_each(perform);
    });
}

fn key(id: FileId) -> Key {
    Key { index: id.0 & ((1 << INDEX_BITS) - 1), generation: id.0 >> INDEX_BITS }
}

impl Fs for OsFs {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = path;
        while !at.as_os_str().is_empty() && !at.exists() {
            missing.push(at.to_path_buf());
            let Some(parent) = at.parent() else { break };
            at = parent;
        }
        for dir in missing.iter().rev() {
            match fs::create_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            sync_dir(parent_of(dir))?;
        }
        if path.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // The entry was renamed since, as a file job does with its temporary file.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            found.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: metadata.is_dir(),
                bytes: metadata.len(),
            });
        }
        found.sort();
        Ok(found)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        let access = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
        };
        self.insert(OpenFile::open(path, access)?)
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.file(file)?.bytes()
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.file(file)?.allocated_bytes()
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file(file)?.read_at(at, buf)
    }

    fn read_many(&mut self, reads: &mut [FileRead]) {
        let this = &*self;
        together(reads, OPERATIONS_PER_THREAD_MIN, |read| {
            read.outcome = this.file(read.file).and_then(|file| file.read_at(read.at, &mut read.buf));
        });
    }

    fn write_many(&mut self, writes: &mut [FileWrite]) {
        let this = &*self;
        together(writes, OPERATIONS_PER_THREAD_MIN, |write| {
            write.outcome = Some(this.file(write.file).and_then(|file| file.write_at(write.at, &write.data)));
        });
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.file(file)?.write_at(at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self.file(file)?.as_fd())?)
    }

    fn sync_many(&mut self, files: &[FileId]) -> Result<(), (usize, io::Error)> {
        let this = &*self;
        let mut syncs: Vec<(FileId, io::Result<()>)> = files.iter().map(|file| (*file, Ok(()))).collect();
        together(&mut syncs, 1, |(file, outcome)| {
            *outcome = this.file(*file).and_then(|file| Ok(rustix::fs::fdatasync(file.as_fd())?));
        });
        syncs.into_iter().enumerate().try_for_each(|(n, (_, outcome))| outcome.map_err(|e| (n, e)))
    }

    fn close_file(&mut self, file: FileId) {
        self.files.remove(key(file));
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        self.insert(create_file(path, bytes)?)
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        self.insert(replace_file(path, &[content], bytes)?)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        remove_file(path)
    }

    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        let (from, to) = (parent_of(from), parent_of(to));
        sync_dir(to)?;
        if from == to { Ok(()) } else { sync_dir(from) }
    }
}

/// Returns the directory that contains `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ if path.is_absolute() => Path::new("/"),
        _ => Path::new("."),
    }
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(&fd)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::AlignedBuf;
    use crate::fs::temporary_path;

    fn page(fill: u8, pages: usize) -> Vec<u8> {
        vec![fill; pages * 4096]
    }

    #[test]
    fn a_created_file_has_its_size_reads_as_zero_and_cannot_be_created_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("slab-000000");
        let mut fs = OsFs::new();
        let file = fs.create_file(&path, 1 << 20).expect("create");
        assert_eq!(fs.file_bytes(file).expect("size"), 1 << 20);
        let mut buf = page(7, 4);
        assert_eq!(fs.read_at(file, 8192, &mut buf).expect("read"), buf.len());
        assert!(buf.iter().all(|b| *b == 0));
        fs.write_at(file, 4096, &page(3, 2)).expect("write");
        let again = fs.create_file(&path, 4096).expect_err("the name is taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(!temporary_path(&path).exists());
        let mut buf = page(0, 2);
        fs.read_at(file, 4096, &mut buf).expect("read");
        assert_eq!(buf, page(3, 2), "the first file is untouched");
    }

    #[test]
    fn a_replacement_takes_the_name_and_the_old_file_can_still_be_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("meta.a");
        let mut fs = OsFs::new();
        let old = fs.replace_file(&path, b"old", 4096).expect("replace");
        let new = fs.replace_file(&path, &page(9, 3), 5 * 4096).expect("replace");
        let mut buf = page(1, 8);
        assert_eq!(fs.read_at(new, 0, &mut buf).expect("read"), 5 * 4096, "short at the end");
        assert_eq!(buf[..3 * 4096], page(9, 3));
        assert!(buf[3 * 4096..5 * 4096].iter().all(|b| *b == 0));
        assert_eq!(fs.read_at(old, 0, &mut buf).expect("read"), 4096);
        assert_eq!(buf[..3], *b"old");
        let listed = fs.list(dir.path()).expect("list");
        assert_eq!(listed, [DirEntry { name: "meta.a".into(), is_dir: false, bytes: 5 * 4096 }]);
    }

    #[test]
    fn a_punched_range_has_no_space_until_it_is_allocated_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("slab-000000");
        let mut fs = OsFs::new();
        let file = fs.create_file(&path, 1 << 20).expect("create");
        fs.write_at(file, 0, &page(3, 256)).expect("write");
        fs.sync_file(file).expect("sync");
        assert!(fs.allocated_bytes(file).expect("allocated") >= 1 << 20);
        match punch_range(&path, 64 << 10, 128 << 10) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            other => other.expect("punch"),
        }
        punch_heads(&path, 256 << 10, 32 << 10, 16 << 10, 8 << 10).expect("punch");
        assert_eq!(fs.file_bytes(file).expect("size"), 1 << 20);
        let left = fs.allocated_bytes(file).expect("allocated");
        assert!(left < 1 << 20, "{left} bytes are allocated");
        let mut buf = page(7, 34);
        fs.read_at(file, 60 << 10, &mut buf).expect("read");
        assert!(buf[..4096].iter().all(|b| *b == 3) && buf[33 * 4096..].iter().all(|b| *b == 3));
        assert!(buf[4096..33 * 4096].iter().all(|b| *b == 0));
        let mut first = page(7, 8);
        fs.read_at(file, 256 << 10, &mut first).expect("read");
        let fills: Vec<u8> = first.chunks(4096).map(|page| page[0]).collect();
        assert_eq!(fills, [0, 0, 3, 3, 0, 0, 3, 3]);
        allocate_range(&path, 0, 1 << 20).expect("allocate");
        assert!(fs.allocated_bytes(file).expect("allocated") >= 1 << 20);
        fs.read_at(file, 60 << 10, &mut buf).expect("read");
        assert!(buf[0] == 3 && buf[4096] == 0, "what was there is there");
    }

    #[test]
    fn unaligned_buffers_can_be_read_into_and_written_from() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let file = fs.create_file(&dir.path().join("f"), 4 << 20).expect("create");
        let data: Vec<u8> = (0..=3 << 20).map(|i| (i * 7 % 251) as u8).collect();
        fs.write_at(file, 4096, &data[1..]).expect("write");
        fs.sync_file(file).expect("sync");
        let mut back = vec![0; data.len()];
        assert_eq!(fs.read_at(file, 4096, &mut back[1..]).expect("read"), data.len() - 1);
        assert_eq!(back[1..], data[1..]);
    }

    #[test]
    fn many_reads_and_writes_at_once_do_what_each_of_them_does_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let file = fs.create_file(&dir.path().join("f"), 100 * 4096).expect("create");
        let gone = fs.create_file(&dir.path().join("g"), 4096).expect("create");
        fs.close_file(gone);
        let write = |file, n: u8| {
            let mut data = AlignedBuf::new(4096);
            data.fill(n);
            FileWrite { file, at: u64::from(n) * 4096, data, outcome: None }
        };
        let mut writes: Vec<FileWrite> = (0..100).map(|n| write(file, n)).collect();
        writes.push(write(gone, 0));
        fs.write_many(&mut writes);
        fs.sync_many(&[file; 20]).expect("synced");
        assert!(matches!(fs.sync_many(&[file, gone, file]), Err((1, _))));
        assert!(matches!(writes.pop(), Some(FileWrite { outcome: Some(Err(_)), .. })));
        assert!(writes.iter().all(|write| matches!(write.outcome, Some(Ok(())))));
        for count in [0, 1, 3, 99] {
            let mut reads: Vec<FileRead> =
                (0..count).map(|n| FileRead::new(file, n * 4096, 2 * 4096)).collect();
            reads.push(FileRead::new(file, 99 * 4096, 2 * 4096));
            reads.push(FileRead::new(gone, 0, 4096));
            fs.read_many(&mut reads);
            assert!(reads.pop().expect("the last one").outcome.is_err());
            let short = reads.pop().expect("the one before");
            assert_eq!(short.outcome.as_ref().ok(), Some(&4096), "short at the end");
            assert!(short.whole().is_none());
            for (n, read) in (0..).zip(reads) {
                let bytes = read.whole().expect("all of it");
                assert_eq!(bytes[..], [page(n, 1), page(n + 1, 1)].concat());
            }
        }
    }

    #[test]
    fn a_closed_file_id_is_invalid_even_when_its_slot_is_reused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let a = fs.create_file(&dir.path().join("a"), 4096).expect("create");
        fs.close_file(a);
        let b = fs.create_file(&dir.path().join("b"), 8192).expect("create");
        assert_ne!(a, b);
        assert!(fs.file_bytes(a).is_err());
        assert_eq!(fs.file_bytes(b).expect("size"), 8192);
    }

    #[test]
    fn directories_are_created_with_their_parents_and_renames_move_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let deep = dir.path().join("x/y/z");
        fs.create_dir_all(&deep).expect("create");
        fs.create_dir_all(&deep).expect("no error if it exists");
        fs.create_file(&deep.join("f"), 4096).expect("create");
        fs.rename(&deep.join("f"), &dir.path().join("x/g")).expect("rename");
        assert!(fs.list(&deep).expect("list").is_empty());
        let names: Vec<_> =
            fs.list(&dir.path().join("x")).expect("list").into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["g", "y"]);
        assert!(fs.create_dir_all(&dir.path().join("x/g")).is_err(), "a file is in the way");
    }
}
