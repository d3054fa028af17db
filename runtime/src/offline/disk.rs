//! A disk that performs every operation at once.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::buf::AlignedBuf;
use crate::fs::{DirEntry, FileId, FileRead, FileWrite, Fs, OpenMode, temporary_path};
use crate::plane::{Completion, Disk, Durability, FileJob, Token};

/// A [`Disk`] over a file system with blocking calls. An operation is complete when the call that starts it returns;
/// [`poll`](Self::poll) returns the completions, in order.
pub struct OfflineDisk<'a> {
    fs: &'a mut dyn Fs,
    /// At most one for each operation that the owner starts between two polls.
    completed: VecDeque<(Token, Completion)>,
}

impl<'a> OfflineDisk<'a> {
    /// Creates a disk over this file system.
    pub fn new(fs: &'a mut dyn Fs) -> Self {
        Self { fs, completed: VecDeque::new() }
    }

    /// Returns the next completion. `None` if nothing is in flight.
    pub fn poll(&mut self) -> Option<(Token, Completion)> {
        self.completed.pop_front()
    }

    fn job(&mut self, job: FileJob) -> Completion {
        match job {
            FileJob::Create { path, bytes } => Completion::Created(self.fs.create_file(&path, bytes)),
            FileJob::Replace { path, content, bytes } => {
                Completion::Replaced(self.fs.replace_file(&path, &content.concat(), bytes))
            }
            FileJob::Prepare { path, content, bytes } => {
                let path = temporary_path(&path);
                Completion::Prepared(self.fs.replace_file(&path, &content.concat(), bytes))
            }
            FileJob::Publish { path } => Completion::Published(self.fs.rename(&temporary_path(&path), &path)),
            FileJob::Remove { path } => Completion::Removed(self.fs.remove_file(&path)),
            FileJob::Punch { .. } | FileJob::PunchHeads { .. } => {
                Completion::Punched(Err(io::ErrorKind::Unsupported.into()))
            }
            FileJob::Allocate { .. } => Completion::Allocated(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl Disk for OfflineDisk<'_> {
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token) {
        let mut outcome = self.fs.write_at(file, at, &data);
        if durability == Durability::Durable {
            outcome = outcome.and_then(|()| self.fs.sync_file(file));
        }
        self.completed.push_back((token, Completion::Write(outcome)));
    }

    fn read(&mut self, file: FileId, at: u64, mut buf: AlignedBuf, token: Token) {
        let outcome = self.fs.read_at(file, at, &mut buf).map(|read| (buf, read));
        self.completed.push_back((token, Completion::Read(outcome)));
    }

    fn sync(&mut self, file: FileId, token: Token) {
        let outcome = self.fs.sync_file(file);
        self.completed.push_back((token, Completion::Sync(outcome)));
    }

    fn file_job(&mut self, job: FileJob, token: Token) {
        let completion = self.job(job);
        self.completed.push_back((token, completion));
    }
}

impl Fs for OfflineDisk<'_> {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.fs.create_dir_all(path)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs.list(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        self.fs.open(path, mode)
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.fs.file_bytes(file)
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.fs.allocated_bytes(file)
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.fs.read_at(file, at, buf)
    }

    fn read_many(&mut self, reads: &mut [FileRead]) {
        self.fs.read_many(reads);
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.fs.write_at(file, at, data)
    }

    fn write_many(&mut self, writes: &mut [FileWrite]) {
        self.fs.write_many(writes);
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.fs.sync_file(file)
    }

    fn sync_many(&mut self, files: &[FileId]) -> Result<(), (usize, io::Error)> {
        self.fs.sync_many(files)
    }

    fn close_file(&mut self, file: FileId) {
        self.fs.close_file(file);
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        self.fs.create_file(path, bytes)
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        self.fs.replace_file(path, content, bytes)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }

    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.fs.free_bytes(dir)
    }

    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.fs.total_bytes(dir)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PAGE_BYTES;
    use crate::osfs::OsFs;

    #[test]
    fn every_operation_completes_at_once_and_in_order() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("f");
        let mut fs = OsFs::new();
        let mut disk = OfflineDisk::new(&mut fs);
        disk.file_job(FileJob::Create { path: path.clone(), bytes: 8192 }, Token(1));
        let Some((Token(1), Completion::Created(Ok(file)))) = disk.poll() else { panic!("no file") };
        disk.write(file, 4096, Bytes::from(vec![7; PAGE_BYTES]), Durability::Durable, Token(2));
        disk.sync(file, Token(3));
        disk.read(file, 4096, AlignedBuf::new(PAGE_BYTES), Token(4));
        assert!(matches!(disk.poll(), Some((Token(2), Completion::Write(Ok(()))))));
        assert!(matches!(disk.poll(), Some((Token(3), Completion::Sync(Ok(()))))));
        let Some((Token(4), Completion::Read(Ok((buf, PAGE_BYTES))))) = disk.poll() else {
            panic!("no read")
        };
        assert!(buf.iter().all(|b| *b == 7));
        let content = vec![Bytes::from_static(b"new "), Bytes::from_static(b"content")];
        disk.file_job(FileJob::Prepare { path: path.clone(), content, bytes: 4096 }, Token(5));
        disk.file_job(FileJob::Publish { path: path.clone() }, Token(6));
        assert!(matches!(disk.poll(), Some((Token(5), Completion::Prepared(Ok(_))))));
        assert!(matches!(disk.poll(), Some((Token(6), Completion::Published(Ok(()))))));
        assert!(disk.poll().is_none());
        let bytes = std::fs::read(&path).expect("the file was replaced");
        assert!(bytes.starts_with(b"new content") && bytes.len() == 4096);
    }
}
