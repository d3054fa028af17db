//! Disk I/O: direct writes and reads through the ring, slow work on file names on the file thread. Reads are in [`super::disk_reads`].

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};

use super::UringPlane;
use super::disk_reads::ReadOp;
use super::jobs::{Job, JobDone, JobResult};
use super::limits::{DISK_OPS_IN_FLIGHT_MAX, LARGE_SENDS_BYTES, WAITING_MAX};
use super::ring::Cqe;
use super::token::Op;
use crate::buf::{AlignedBuf, PAGE_BYTES};
use crate::fs::{DirEntry, FileId, FileRead, FileWrite, Fs, OpenMode};
use crate::osfs::OpenFile;
use crate::plane::{Completion, Disk, Durability, FileJob, Token, WRITE_BYTES_MAX};
use crate::slab::Key;

/// A write or a sync, from its start to its completion.
pub(super) struct DiskOp {
    token: Token,
    /// Keeps the file open: closing a file id does not affect operations in flight.
    file: Arc<OpenFile>,
    at: u64,
    /// Bytes transferred so far.
    done: usize,
    work: Work,
}

enum Work {
    Write { data: Bytes, durability: Durability },
    Sync,
}

impl Work {
    fn completion(&self, result: io::Result<()>) -> Completion {
        match self {
            Self::Write { .. } => Completion::Write(result),
            Self::Sync => Completion::Sync(result),
        }
    }
}

/// What to do with an operation after a completion.
enum Next {
    Resubmit,
    Done(io::Result<()>),
}

impl DiskOp {
    fn entry(&self) -> squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        let at = self.at + self.done as u64;
        match &self.work {
            Work::Write { data, durability } => {
                let rest = &data[self.done..];
                let flags = match durability {
                    Durability::Volatile => 0,
                    Durability::Durable => libc::RWF_DSYNC,
                };
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32).offset(at).rw_flags(flags).build()
            }
            Work::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }

    fn advance(&mut self, outcome: io::Result<usize>) -> Next {
        let n = match outcome {
            Ok(n) => n,
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => return Next::Resubmit,
            Err(e) => return Next::Done(Err(e)),
        };
        match &self.work {
            Work::Sync => Next::Done(Ok(())),
            Work::Write { data, .. } => {
                if self.done + n == data.len() {
                    return Next::Done(Ok(()));
                }
                // A write that ends inside a block is repeated from the start of that block, because direct I/O needs whole blocks.
                let whole = n / PAGE_BYTES * PAGE_BYTES;
                if whole == 0 {
                    return Next::Done(Err(io::ErrorKind::WriteZero.into()));
                }
                self.done += whole;
                Next::Resubmit
            }
        }
    }
}

fn assert_pages(what: &str, at: u64, address: *const u8, bytes: usize) {
    assert!(
        at.is_multiple_of(PAGE_BYTES as u64)
            && address.addr().is_multiple_of(PAGE_BYTES)
            && bytes.is_multiple_of(PAGE_BYTES)
            && bytes > 0,
        "{what} of {bytes} bytes at {at} from {address:p}: whole pages only"
    );
}

impl<M: Send + 'static> UringPlane<M> {
    fn start_disk(&mut self, file: FileId, at: u64, token: Token, work: Work) {
        match self.fs.file(file) {
            Ok(file) => {
                let op = DiskOp { token, file: Arc::clone(file), at, done: 0, work };
                let key = self.disk_ops.insert(op);
                assert!(
                    self.disk_waiting.len() < WAITING_MAX,
                    "more than {WAITING_MAX} disk operations are waiting"
                );
                self.disk_waiting.push_back(key);
                self.start_disk_ops();
            }
            Err(e) => self.completions.push_back((token, work.completion(Err(e)))),
        }
    }

    fn start_disk_ops(&mut self) {
        while self.disk_in_flight < DISK_OPS_IN_FLIGHT_MAX
            && let Some(key) = self.disk_waiting.pop_front()
        {
            self.disk_in_flight += 1;
            self.read_window.handle_write_start();
            self.push_disk_op(key);
        }
    }

    fn push_disk_op(&mut self, key: Key) {
        let Some(op) = self.disk_ops.get(key) else { return };
        let entry = op.entry();
        self.has_new_disk_ops = true;
        // SAFETY: data and file stay in the slab until the operation has completed, and are not accessed before that.
        unsafe { self.ring.push(entry, Op::Disk(key)) };
    }

    /// Submits what was queued for the disk if large sends are to follow. A send copies its bytes while it is submitted, and the kernel passes the disk
    /// operations of a submission on at its end only: a commit or the next read would wait for the copy, and the disk would be idle meanwhile.
    pub(super) fn submit_to_disk_before_sends(&mut self) {
        if std::mem::take(&mut self.has_new_disk_ops) && self.bytes_to_send() >= LARGE_SENDS_BYTES {
            self.ring.submit();
        }
    }

    /// Handles a completion. Returns the result unless the operation continues.
    pub(super) fn on_disk_completed(&mut self, key: Key, cqe: Cqe) -> Option<(Token, Completion)> {
        let op = self.disk_ops.get_mut(key)?;
        match op.advance(cqe.outcome()) {
            Next::Resubmit => {
                self.push_disk_op(key);
                None
            }
            Next::Done(result) => {
                self.disk_in_flight -= 1;
                self.read_window.handle_write_end();
                self.start_disk_ops();
                let op = self.disk_ops.remove(key)?;
                Some((op.token, op.work.completion(result)))
            }
        }
    }

    /// Handles a job that the file thread has done.
    pub(super) fn on_job_done(&mut self, done: JobDone) {
        let mut open = |result: io::Result<OpenFile>| result.and_then(|file| self.fs.insert(file));
        let completion = match done.result {
            JobResult::Created(result) => Completion::Created(open(result)),
            JobResult::Replaced(result) => Completion::Replaced(open(result)),
            JobResult::Prepared(result) => Completion::Prepared(open(result)),
            JobResult::Published(result) => Completion::Published(result),
            JobResult::Removed(result) => Completion::Removed(result),
            JobResult::Punched(result) => Completion::Punched(result),
            JobResult::Allocated(result) => Completion::Allocated(result),
        };
        self.completions.push_back((done.token, completion));
    }
}

impl<M: Send + 'static> Disk for UringPlane<M> {
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token) {
        assert_pages("write", at, data.as_ptr(), data.len());
        assert!(data.len() <= WRITE_BYTES_MAX, "a write of {} bytes is too large", data.len());
        self.start_disk(file, at, token, Work::Write { data, durability });
    }

    fn read(&mut self, file: FileId, at: u64, buf: AlignedBuf, token: Token) {
        assert_pages("read", at, buf.as_ptr(), buf.len());
        match self.fs.file(file) {
            Ok(file) => self.queue_read(ReadOp::new(token, Arc::clone(file), at, buf)),
            Err(e) => self.completions.push_back((token, Completion::Read(Err(e)))),
        }
    }

    fn sync(&mut self, file: FileId, token: Token) {
        self.start_disk(file, 0, token, Work::Sync);
    }

    fn file_job(&mut self, job: FileJob, token: Token) {
        let job = Job::Work { shard: self.mailbox.shard(), token, work: job };
        self.jobs.send(job).expect("the file thread runs as long as any shard");
    }
}

impl<M: Send + 'static> Fs for UringPlane<M> {
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

    fn write_many(&mut self, writes: &mut [FileWrite]) {
        self.fs.write_many(writes);
    }

    fn sync_many(&mut self, files: &[FileId]) -> Result<(), (usize, io::Error)> {
        self.fs.sync_many(files)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.fs.write_at(file, at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.fs.sync_file(file)
    }

    fn close_file(&mut self, file: FileId) {
        if let Some(file) = self.fs.take(file) {
            // When the broker ends there may be no file thread any more.
            let _ = self.jobs.send(Job::Close(file));
        }
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
    use crate::osfs::OsFs;

    fn op(work: Work) -> DiskOp {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut fs = OsFs::new();
        let file = fs.create_file(&dir.path().join("f"), 4096).expect("create");
        let file = Arc::clone(fs.file(file).expect("open"));
        DiskOp { token: Token(1), file, at: 0, done: 0, work }
    }

    #[test]
    fn a_short_write_continues_at_the_block_where_it_ended() {
        let data = AlignedBuf::zeroed(5 * PAGE_BYTES).freeze();
        let mut op = op(Work::Write { data, durability: Durability::Durable });
        assert!(matches!(op.advance(Ok(2 * PAGE_BYTES + 512)), Next::Resubmit));
        assert_eq!(op.done, 2 * PAGE_BYTES);
        assert!(matches!(op.advance(Err(io::Error::from_raw_os_error(libc::EAGAIN))), Next::Resubmit));
        assert!(matches!(op.advance(Ok(3 * PAGE_BYTES)), Next::Done(Ok(()))));
        assert!(matches!(op.work.completion(Ok(())), Completion::Write(Ok(()))));
    }

    #[test]
    fn a_write_that_makes_no_progress_or_fails_is_reported() {
        let data = AlignedBuf::zeroed(PAGE_BYTES).freeze();
        let mut op = op(Work::Write { data, durability: Durability::Volatile });
        assert!(matches!(op.advance(Ok(0)), Next::Done(Err(_))));
        let enospc = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(
            matches!(op.advance(Err(enospc)), Next::Done(Err(e)) if e.kind() == io::ErrorKind::StorageFull)
        );
    }
}
