//! Execution of the operations of a simulated disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::{Rng as _, RngExt as _};

use super::blocks::{Block, copy_sectors};
use super::disk::{FileState, Op, State, errno};
use super::faults::{Damage, FaultKind};
use super::jobs::{blocks_of, failed, job_result, partial_file, tear};
use super::ledger::{Event, Inode};
use crate::buf::PAGE_BYTES;
use crate::fs::{FileId, OpenMode, RESERVE_NAME, temporary_path};
use crate::plane::{Completion, Durability, FileJob};

impl State {
    pub(super) fn complete(&mut self, id: u64, op: Op) -> Completion {
        let completion = match op {
            Op::Write { inode, block, data, fails, .. } => {
                self.apply_write(inode, block, &data, fails.is_some());
                self.log(Event::WriteCompleted { id, ok: fails.is_none() });
                Completion::Write(fails.map_or(Ok(()), |code| Err(errno(code))))
            }
            Op::Read { inode, at, mut buf } => {
                let result = self.read(inode, at, &mut buf);
                Completion::Read(result.map(|filled| (buf, filled)))
            }
            Op::Sync { inode } => Completion::Sync(self.finish_sync(id, inode)),
            Op::Punch { inode, block, data } => {
                let result = self.check_can_punch_holes(inode);
                if result.is_ok() {
                    self.apply_write(inode, block, &data, false);
                }
                self.log(Event::WriteCompleted { id, ok: result.is_ok() });
                Completion::Punched(result)
            }
            Op::Job { job, .. } if self.job_fails(&job) => {
                self.log(Event::JobCompleted { id, ok: false });
                failed(&job, eio())
            }
            Op::Job { inode, job } => match job {
                FileJob::Punch { .. } => unreachable!("an operation of its own"),
                FileJob::PunchHeads { .. } => Completion::Punched(self.punch_heads(id, inode, &job)),
                FileJob::Allocate { ref path, at, bytes } => {
                    Completion::Allocated(self.allocate(id, inode, path, blocks_of(at, bytes)))
                }
                FileJob::Remove { .. } => {
                    self.log(Event::JobCompleted { id, ok: true });
                    Completion::Removed(Ok(()))
                }
                FileJob::Publish { path } => Completion::Published(self.publish(id, &path)),
                FileJob::Create { .. } => Completion::Created(self.finish_job(id, inode, &job)),
                FileJob::Replace { .. } => Completion::Replaced(self.finish_job(id, inode, &job)),
                FileJob::Prepare { .. } => Completion::Prepared(self.finish_job(id, inode, &job)),
            },
        };
        self.forget_unused();
        completion
    }

    pub(super) fn apply_write(&mut self, inode: Inode, block: usize, data: &[Block], torn: bool) {
        let masks = if torn { tear(data.len(), &mut self.rng) } else { vec![0xFF; data.len()] };
        let Some(file) = self.files.get_mut(&inode) else { return };
        for ((at, data), mask) in (block..).zip(data).zip(masks) {
            file.before.insert(at, file.content.get(at).cloned());
            file.content.set_sectors(at, data, mask);
            file.unreadable.remove(&at);
        }
    }

    /// Reads the content, with random sectors of overlapping writes in flight.
    pub(super) fn read(&mut self, inode: Inode, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = &self.files[&inode];
        let filled = file.content.read(at, buf);
        let first = at as usize / PAGE_BYTES;
        let blocks = first..first + filled.div_ceil(PAGE_BYTES);
        let is_of_read = |kind: &FaultKind| *kind == FaultKind::ReadError;
        if file.unreadable.range(blocks.clone()).next().is_some()
            || self.faults.take_matching(&file.path, at..at + filled as u64, is_of_read).is_some()
        {
            return Err(eio());
        }
        for operation in self.in_flight.values() {
            if let Op::Write { inode: other, block, data, .. } = &operation.op
                && *other == inode
            {
                for (n, data) in (*block..).zip(data.iter()).filter(|(n, _)| blocks.contains(n)) {
                    let part = &mut buf[(n - first) * PAGE_BYTES..filled.min((n - first + 1) * PAGE_BYTES)];
                    copy_sectors(part, &data[..], self.rng.next_u64() as u8);
                }
            }
        }
        // The bytes after the end must not depend on the buffer's earlier content.
        buf[filled..].fill(0xA5);
        Ok(filled)
    }

    fn finish_sync(&mut self, id: u64, inode: Inode) -> io::Result<()> {
        let path = &self.files[&inode].path;
        let is_of_sync = |kind: &FaultKind| matches!(kind, FaultKind::SyncError(_));
        let fails = self.faults.take_matching(path, 0..u64::MAX, is_of_sync);
        self.log(Event::SyncCompleted { id, ok: fails.is_none() });
        match fails {
            Some(FaultKind::SyncError(code)) => Err(errno(code)),
            _ => Ok(()),
        }
    }

    /// Creates the file of a job.
    fn finish_job(&mut self, id: u64, inode: Inode, job: &FileJob) -> io::Result<FileId> {
        let (path, content) = job_result(job).expect("the job creates a file");
        let is_create = matches!(job, FileJob::Create { .. });
        let mut result = self.check_can_create(&path, content.bytes(), is_create);
        let reserve = path.with_file_name(RESERVE_NAME);
        if !is_create && result.is_err() && self.ledger.names().contains_key(&reserve) {
            self.job_now(FileJob::Remove { path: reserve });
            result = self.check_can_create(&path, content.bytes(), is_create);
        }
        self.log(Event::JobCompleted { id, ok: result.is_ok() });
        result?;
        self.files.insert(inode, FileState::new(path, content));
        Ok(self.open_inode(inode, OpenMode::ReadWrite))
    }

    /// Gives a prepared file its name.
    fn publish(&mut self, id: u64, path: &Path) -> io::Result<()> {
        let prepared = self.ledger.names().get(&temporary_path(path)).copied();
        self.log(Event::JobCompleted { id, ok: prepared.is_some() });
        let prepared = prepared.ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(file) = self.files.get_mut(&prepared) {
            file.path = path.to_path_buf();
        }
        Ok(())
    }

    fn check_can_create(&self, path: &Path, bytes: u64, is_create: bool) -> io::Result<()> {
        if !self.is_dir(path.parent().unwrap_or(Path::new(""))) {
            return Err(errno(libc::ENOENT));
        }
        if is_create && self.ledger.names().contains_key(path) {
            return Err(errno(libc::EEXIST));
        }
        match self.capacity {
            Some(capacity) if self.used_bytes() + bytes > capacity => Err(errno(libc::ENOSPC)),
            _ => Ok(()),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.content.allocated_bytes()).sum()
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path == Path::new("") || path == Path::new("/") || self.ledger.dirs().contains(path)
    }

    /// Writes immediately, for blocking calls.
    pub(super) fn write_now(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        if self.open.get(&file).is_some_and(|(_, mode)| *mode == OpenMode::Read) {
            return Err(errno(libc::EBADF));
        }
        let id = self.next_op();
        let op = self.begin_write(id, file, at, data, Durability::Volatile);
        match self.complete(id, op) {
            Completion::Write(result) => result,
            other => unreachable!("a write completed as {other:?}"),
        }
    }

    pub(super) fn sync_now(&mut self, file: FileId) -> io::Result<()> {
        let id = self.next_op();
        let op = self.begin_sync(id, file);
        match self.complete(id, op) {
            Completion::Sync(result) => result,
            other => unreachable!("a sync completed as {other:?}"),
        }
    }

    pub(super) fn job_now(&mut self, job: FileJob) -> Completion {
        let id = self.next_op();
        let op = self.begin_job(id, job);
        self.complete(id, op)
    }

    pub(super) fn create_now(&mut self, job: FileJob) -> io::Result<FileId> {
        match self.job_now(job) {
            Completion::Created(result) | Completion::Replaced(result) => result,
            other => unreachable!("a file job completed as {other:?}"),
        }
    }

    pub(super) fn kill(&mut self) {
        while let Some(((_, id), operation)) = self.in_flight.pop_first() {
            match operation.op {
                Op::Write { inode, block, data, .. } | Op::Punch { inode, block, data } => {
                    self.interrupt_write(id, inode, block, &data);
                }
                Op::Read { .. } => {}
                Op::Sync { .. } => self.log(Event::SyncInterrupted { id }),
                Op::Job { inode, job } => {
                    if let FileJob::Remove { .. } = job {
                        let ok = self.rng.random();
                        self.log(Event::JobCompleted { id, ok });
                    } else if let FileJob::Publish { path } = &job {
                        if self.rng.random() {
                            let _ = self.publish(id, path);
                        } else {
                            self.log(Event::JobCompleted { id, ok: false });
                        }
                    } else if let FileJob::PunchHeads { .. } = &job {
                        if self.rng.random() {
                            let _ = self.punch_heads(id, inode, &job);
                        } else {
                            self.log(Event::JobCompleted { id, ok: false });
                        }
                    } else if let FileJob::Allocate { path, at, bytes } = &job {
                        if self.rng.random() {
                            let _ = self.allocate(id, inode, path, blocks_of(*at, *bytes));
                        } else {
                            self.log(Event::JobCompleted { id, ok: false });
                        }
                    } else if self.rng.random() {
                        // Nothing receives the result, whether it succeeds or not.
                        let _ = self.finish_job(id, inode, &job);
                    } else {
                        self.log(Event::JobCompleted { id, ok: false });
                        self.leave_partial_file(&job);
                    }
                }
            }
        }
        self.open.clear();
        self.forget_unused();
    }

    fn interrupt_write(&mut self, id: u64, inode: Inode, block: usize, data: &[Block]) {
        let masks = match self.rng.random_range(0..3_u8) {
            0 => vec![0; data.len()],
            1 => vec![0xFF; data.len()],
            _ => tear(data.len(), &mut self.rng),
        };
        let Some(file) = self.files.get_mut(&inode) else { return };
        let mut seen = vec![None; data.len()];
        for (n, (data, mask)) in data.iter().zip(masks).enumerate().filter(|(_, (_, mask))| *mask != 0) {
            file.content.set_sectors(block + n, data, mask);
            seen[n] = file.content.get(block + n).cloned();
        }
        self.log(Event::WriteInterrupted { id, data: seen });
    }

    fn leave_partial_file(&mut self, job: &FileJob) {
        let Some((path, content)) = partial_file(job, &mut self.rng) else { return };
        let mut bytes = vec![0; content.bytes() as usize];
        content.read(0, &mut bytes);
        let (id, inode) = (self.next_op(), self.next_inode());
        let job =
            FileJob::Replace { path: path.clone(), bytes: bytes.len() as u64, content: vec![bytes.into()] };
        self.log(Event::JobStarted { id, inode, job });
        self.log(Event::JobCompleted { id, ok: true });
        self.files.insert(inode, FileState::new(path, content));
    }

    pub(super) fn damage(&mut self, path: &Path, block: usize, damage: &Damage) {
        let content = |path: &Path, block: usize| {
            let inode = *self.ledger.names().get(path).expect("only an existing file can be damaged");
            (inode, self.files[&inode].content.get(block).cloned())
        };
        let (inode, mut old) = content(path, block);
        let new = match damage {
            Damage::FlipBit(bit) => {
                let flipped = Arc::make_mut(old.get_or_insert_with(|| Arc::new([0; PAGE_BYTES])));
                flipped[bit / 8] ^= 1 << (bit % 8);
                old
            }
            Damage::Zero => None,
            Damage::Stale => self.files[&inode].before.get(&block).cloned().flatten(),
            Damage::ContentOf(other, at) => content(other, *at as usize).1,
            Damage::SwapWith(other, at) => {
                let (other, theirs) = content(other, *at as usize);
                self.put(other, *at as usize, old);
                theirs
            }
            Damage::Unreadable => {
                self.files.entry(inode).and_modify(|file| {
                    file.unreadable.insert(block);
                });
                return;
            }
        };
        self.put(inode, block, new);
    }

    fn put(&mut self, inode: Inode, block: usize, content: Option<Block>) {
        self.ledger.damage(inode, block, content.as_ref());
        if let Some(file) = self.files.get_mut(&inode) {
            file.content.set(block, content);
        }
    }
}

fn eio() -> io::Error {
    errno(libc::EIO)
}
