//! A disk in memory whose operations complete when a test says so, in the order it says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{DirEntry, FileId, Fs, OpenMode, temporary_path};
use highwater_runtime::plane::{Completion, Disk, Durability, FileJob, Token};

#[derive(Clone)]
pub(super) enum Op {
    Write { inode: usize, at: u64, data: Bytes },
    Prepare { path: PathBuf, content: Vec<u8> },
    Publish { path: PathBuf },
}

/// See the module's doc. A clone is another disk with the same content.
#[derive(Clone, Default)]
pub(super) struct MemDisk {
    inodes: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
    open: BTreeMap<u32, (usize, PathBuf)>,
    next_file: u32,
    pub(super) in_flight: Vec<(Token, Op)>,
    /// Blocks of files that give EIO when read.
    pub(super) unreadable: BTreeSet<(PathBuf, u64)>,
    /// Changes that blocking calls may still make; then they fail, the one that fails half done.
    pub(super) changes_left: Option<usize>,
    pub(super) changes: usize,
    pub(super) full: bool,
    /// Writes into files that are there find no space either, and reach the disk in part.
    pub(super) copies_on_write: bool,
}

impl MemDisk {
    /// Completes the operation at this place of the queue.
    pub(super) fn complete(&mut self, place: usize) -> (Token, Completion) {
        let (token, op) = self.in_flight.remove(place);
        let completion = match op {
            Op::Write { inode, at, data } => {
                let fails = self.full && self.copies_on_write;
                let written = if fails { 512 } else { data.len() };
                self.inodes[inode][at as usize..at as usize + written].copy_from_slice(&data[..written]);
                Completion::Write(if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) })
            }
            Op::Prepare { .. } if self.full => Completion::Prepared(Err(io::ErrorKind::StorageFull.into())),
            Op::Prepare { path, content } => Completion::Prepared(Ok(self.put(&path, content))),
            Op::Publish { path } => {
                self.publish(&path);
                Completion::Published(Ok(()))
            }
        };
        (token, completion)
    }

    /// The place in the queue of the first write.
    pub(super) fn next_write(&self) -> Option<usize> {
        self.in_flight.iter().position(|(_, op)| matches!(op, Op::Write { .. }))
    }

    /// The disk after a crash in which of every operation in flight only what `keep` says took place: for each 512-byte
    /// sector of a write; for a replacement, as one.
    pub(super) fn crashed(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut disk = self.clone();
        disk.in_flight.clear();
        disk.open.clear();
        for (_, op) in &self.in_flight {
            match op {
                Op::Write { inode, at, data } => {
                    for (i, sector) in data.chunks(512).enumerate() {
                        if keep(i) {
                            let from = *at as usize + i * 512;
                            disk.inodes[*inode][from..from + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
                Op::Prepare { path, content } => {
                    if keep(0) {
                        disk.put(path, content.clone());
                    }
                }
                Op::Publish { path } => {
                    if keep(0) {
                        disk.publish(path);
                    }
                }
            }
        }
        disk.open.clear();
        disk.names.retain(|path, _| path.extension().is_none_or(|extension| extension != "tmp"));
        disk
    }

    pub(super) fn bytes(&self, path: &Path) -> &[u8] {
        &self.inodes[self.names[path]]
    }

    pub(super) fn bytes_mut(&mut self, path: &Path) -> &mut Vec<u8> {
        &mut self.inodes[self.names[path]]
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.names.remove(path);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().map(|path| path.display().to_string()).collect()
    }

    fn put(&mut self, path: &Path, content: Vec<u8>) -> FileId {
        self.inodes.push(content);
        self.names.insert(path.to_path_buf(), self.inodes.len() - 1);
        self.handle(path)
    }

    fn publish(&mut self, path: &Path) {
        let prepared = self.names.remove(&temporary_path(path)).expect("it was prepared");
        self.names.insert(path.to_path_buf(), prepared);
    }

    fn handle(&mut self, path: &Path) -> FileId {
        self.next_file += 1;
        self.open.insert(self.next_file, (self.names[path], path.to_path_buf()));
        FileId(self.next_file)
    }

    fn change(&mut self) -> Result<(), ()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => Err(()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine is off")
}

impl Fs for MemDisk {
    fn create_dir_all(&mut self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&mut self, _dir: &Path) -> io::Result<Vec<DirEntry>> {
        unreachable!("a state log lists nothing")
    }

    fn open(&mut self, path: &Path, _mode: OpenMode) -> io::Result<FileId> {
        if self.names.contains_key(path) {
            Ok(self.handle(path))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn file_bytes(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.inodes[self.open[&file.0].0].len() as u64)
    }

    fn allocated_bytes(&mut self, file: FileId) -> io::Result<u64> {
        self.file_bytes(file)
    }

    fn read_at(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (inode, path) = &self.open[&file.0];
        let span = at..at + buf.len() as u64;
        if self.unreadable.iter().any(|(p, block)| p == path && span.contains(block)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let rest = &self.inodes[*inode][at as usize..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&mut self, file: FileId, at: u64, data: &[u8]) -> io::Result<()> {
        let whole = self.change().is_ok();
        let n = if whole { data.len() } else { data.len() / 2 };
        let (inode, _) = &self.open[&file.0];
        self.inodes[*inode][at as usize..at as usize + n].copy_from_slice(&data[..n]);
        if whole { Ok(()) } else { Err(crashed()) }
    }

    fn sync_file(&mut self, _file: FileId) -> io::Result<()> {
        Ok(())
    }

    fn close_file(&mut self, file: FileId) {
        self.open.remove(&file.0).expect("closed once");
    }

    fn create_file(&mut self, _path: &Path, _bytes: u64) -> io::Result<FileId> {
        unreachable!("a state log replaces")
    }

    fn replace_file(&mut self, path: &Path, content: &[u8], bytes: u64) -> io::Result<FileId> {
        self.change().map_err(|()| crashed())?;
        Ok(self.put(path, padded(content, bytes)))
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path);
        Ok(())
    }

    fn free_bytes(&mut self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn total_bytes(&mut self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_path_buf(), inode);
        Ok(())
    }
}

impl Disk for MemDisk {
    fn write(&mut self, file: FileId, at: u64, data: Bytes, durability: Durability, token: Token) {
        assert_eq!(durability, Durability::Durable);
        assert!(
            at.is_multiple_of(4096)
                && data.len().is_multiple_of(4096)
                && (data.as_ptr() as usize).is_multiple_of(4096)
        );
        let inode = self.open[&file.0].0;
        let busy =
            self.in_flight.iter().any(|(_, op)| matches!(op, Op::Write { inode: i, .. } if *i == inode));
        assert!(!busy, "one write in flight per file");
        self.in_flight.push((token, Op::Write { inode, at, data }));
    }

    fn read(&mut self, _file: FileId, _at: u64, _buf: AlignedBuf, _token: Token) {
        unreachable!("a state log reads when it is opened only")
    }

    fn sync(&mut self, _file: FileId, _token: Token) {
        unreachable!("a state log's writes are durable by themselves")
    }

    fn file_job(&mut self, job: FileJob, token: Token) {
        let op = match job {
            FileJob::Prepare { path, content, bytes } => {
                Op::Prepare { path: temporary_path(&path), content: padded(&content.concat(), bytes) }
            }
            FileJob::Publish { path } => Op::Publish { path },
            other => unreachable!("a state log has no use for {other:?}"),
        };
        self.in_flight.push((token, op));
    }
}

fn padded(content: &[u8], bytes: u64) -> Vec<u8> {
    let mut whole = content.to_vec();
    whole.resize(bytes as usize, 0);
    whole
}
