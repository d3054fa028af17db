//! A disk without a node.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::disk::SimDisk;
use super::ledger::CrashPolicy;
use crate::buf::AlignedBuf;
use crate::fs::{DirEntry, FileId, Fs, OpenMode};
use crate::plane::{Completion, Disk, Durability, FileJob, Instant, Token};

/// Drives a [`SimDisk`] directly: operations started through [`Disk`] complete in [`step`](DiskHarness::step), in an order that
/// depends on the seed.
///
/// ```
/// # use highwater_runtime::sim::DiskHarness;
/// # use highwater_runtime::fs::Fs;
/// # use highwater_runtime::plane::{Disk, Token, Completion};
/// let mut disk = DiskHarness::new(7);
/// let file = disk.create_file("data".as_ref(), 8192)?;
/// disk.sync(file, Token(1));
/// while let Some((token, completion)) = disk.step() {
///     assert!(token == Token(1) && matches!(completion, Completion::Sync(Ok(()))));
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct DiskHarness {
    disk: SimDisk,
}

impl DiskHarness {
    /// Creates a harness with an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::on(SimDisk::new(seed))
    }

    /// Creates a harness for this disk.
    pub fn on(disk: SimDisk) -> Self {
        Self { disk }
    }

    /// Returns the disk, for injecting faults, recording, or reading its durable content.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Advances the time until the next operation completes. Returns `None` if nothing is in flight.
    pub fn step(&mut self) -> Option<(Token, Completion)> {
        let due = self.disk.next_due()?;
        self.disk.state().clock.advance_to(due);
        self.disk.complete_next().map(|(_, token, completion)| (token, completion))
    }

    /// Runs until everything in flight has completed.
    pub fn run_until_idle(&mut self) -> Vec<(Token, Completion)> {
        std::iter::from_fn(|| self.step()).collect()
    }

    /// Returns the number of operations in flight.
    pub fn in_flight(&self) -> usize {
        self.disk.in_flight()
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Instant {
        self.disk.state().clock.now()
    }

    /// See [`SimDisk::crash`].
    pub fn crash(&mut self, policy: CrashPolicy) {
        self.disk.crash(policy);
    }
}

impl Disk for DiskHarness {
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token) {
        self.disk.submit_write(0, file, at, &data, durability, token);
    }

    fn read(&mut self, file: FileId, at: u64, buf: AlignedBuf, token: Token) {
        self.disk.submit_read(0, file, at, buf, token);
    }

    fn sync(&mut self, file: FileId, token: Token) {
        self.disk.submit_sync(0, file, token);
    }

    fn file_job(&mut self, job: FileJob, token: Token) {
        self.disk.submit_job(0, job, token);
    }
}

impl Fs for DiskHarness {
    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        self.disk.open(path, mode)
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.disk.file_bytes(file)
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.disk.allocated_bytes(file)
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, at, buf)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, at, data)
    }

    fn sync_file(&mut self, file: FileId) -> io::Result<()> {
        self.disk.sync_file(file)
    }

    fn close_file(&mut self, file: FileId) {
        self.disk.close_file(file);
    }

    fn create_file(&mut self, path: &Path, bytes: u64) -> io::Result<FileId> {
        self.disk.create_file(path, bytes)
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        self.disk.replace_file(path, content, bytes)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn free_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn total_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.disk.total_bytes(dir)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
}
