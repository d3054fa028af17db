//! File jobs that make or change files, and what is left of them when they are interrupted.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::{Rng as _, RngExt as _};

use super::blocks::{Block, Blocks, hole, split};
use super::disk::{Op, State, check_aligned, errno};
use super::faults::FaultKind;
use super::ledger::{Event, Inode};
use super::rng::SimRng;
use crate::buf::PAGE_BYTES;
use crate::fs::temporary_path;
use crate::plane::{Completion, Durability, FileJob};

impl State {
    /// Returns whether a fault was injected for this job.
    pub(super) fn job_fails(&mut self, job: &FileJob) -> bool {
        let path = match job {
            FileJob::Create { path, .. }
            | FileJob::Replace { path, .. }
            | FileJob::Prepare { path, .. }
            | FileJob::Publish { path }
            | FileJob::Remove { path }
            | FileJob::Allocate { path, .. } => path,
            FileJob::Punch { .. } | FileJob::PunchHeads { .. } => return false,
        };
        let is_of_job = |kind: &FaultKind| matches!(kind, FaultKind::JobError(_));
        self.faults.take_matching(path, 0..u64::MAX, is_of_job).is_some()
    }

    /// A hole is written like data: it is durable after a sync, and until then it survives a crash in part.
    pub(super) fn begin_punch(&mut self, id: u64, path: &Path, at: u64, bytes: u64) -> Op {
        let inode = self.check_can_punch(path, at, bytes);
        let blocks = blocks_of(at, bytes);
        self.stats.bytes_punched += bytes;
        let (block, durability) = (blocks.start, Durability::Volatile);
        let data: Arc<[Block]> = vec![hole(); blocks.len()].into();
        self.log(Event::WriteStarted { id, inode, block, data: data.clone(), durability });
        Op::Punch { inode, block, data }
    }

    pub(super) fn check_can_punch(&self, path: &Path, at: u64, bytes: u64) -> Inode {
        check_aligned(at, bytes as usize);
        let inode = *self.ledger.names().get(path).expect("only an existing file can be punched");
        assert!(at + bytes <= self.files[&inode].content.bytes(), "a hole ends after {}", path.display());
        self.assert_no_write_in_flight(inode, &blocks_of(at, bytes));
        inode
    }

    pub(super) fn punch_heads(&mut self, id: u64, inode: Inode, job: &FileJob) -> io::Result<()> {
        let result = self.check_can_punch_holes(inode);
        if result.is_ok() {
            for head in heads(job) {
                let blocks = blocks_of(head.start, head.end - head.start);
                self.apply_write(inode, blocks.start, &vec![hole(); blocks.len()], false);
            }
        }
        self.log(Event::JobCompleted { id, ok: result.is_ok() });
        result
    }

    pub(super) fn check_can_punch_holes(&mut self, inode: Inode) -> io::Result<()> {
        let path = &self.files[&inode].path;
        let is_of_punch = |kind: &FaultKind| matches!(kind, FaultKind::PunchError(_));
        match self.faults.take_matching(path, 0..u64::MAX, is_of_punch) {
            Some(FaultKind::PunchError(code)) => Err(errno(code)),
            _ => Ok(()),
        }
    }

    /// Gives the holes among these blocks space.
    pub(super) fn allocate(
        &mut self,
        id: u64,
        inode: Inode,
        path: &Path,
        blocks: Range<usize>,
    ) -> io::Result<()> {
        let content = self.files.get(&inode).map(|file| &file.content);
        let holes = content.map_or(0, |content| blocks.clone().filter(|at| content.is_hole(*at)).count());
        let needed = (holes * PAGE_BYTES) as u64;
        let result = match self.capacity {
            _ if self.ledger.names().get(path) != Some(&inode) => Err(errno(libc::ENOENT)),
            Some(capacity) if self.used_bytes() + needed > capacity => Err(errno(libc::ENOSPC)),
            _ => Ok(()),
        };
        self.log(Event::JobCompleted { id, ok: result.is_ok() });
        result?;
        if let Some(file) = self.files.get_mut(&inode) {
            file.content.allocate(blocks);
        }
        Ok(())
    }
}

/// Returns the completion of a job that failed.
pub(super) fn failed(job: &FileJob, error: io::Error) -> Completion {
    match job {
        FileJob::Create { .. } => Completion::Created(Err(error)),
        FileJob::Replace { .. } => Completion::Replaced(Err(error)),
        FileJob::Prepare { .. } => Completion::Prepared(Err(error)),
        FileJob::Publish { .. } => Completion::Published(Err(error)),
        FileJob::Remove { .. } => Completion::Removed(Err(error)),
        FileJob::Punch { .. } | FileJob::PunchHeads { .. } => Completion::Punched(Err(error)),
        FileJob::Allocate { .. } => Completion::Allocated(Err(error)),
    }
}

/// Returns a mask of the sectors of each block that a torn write has written: random ones, those before a point, or all but one.
pub(super) fn tear(blocks: usize, rng: &mut SimRng) -> Vec<u8> {
    let sectors = blocks * 8;
    let point = rng.random_range(0..sectors.max(1));
    let style = rng.random_range(0..3_u8);
    (0..blocks)
        .map(|block| match style {
            0 => rng.next_u64() as u8,
            1 => (0..8).filter(|n| block * 8 + n < point).fold(0, |mask, n| mask | 1 << n),
            _ => (0..8).filter(|n| block * 8 + n != point).fold(0, |mask, n| mask | 1 << n),
        })
        .collect()
}

/// Returns path and content of the file that a job creates, if it creates one.
pub(super) fn job_result(job: &FileJob) -> Option<(PathBuf, Blocks)> {
    match job {
        FileJob::Create { path, bytes } => Some((path.clone(), Blocks::zeroed(*bytes))),
        FileJob::Replace { path, content, bytes } => {
            Some((path.clone(), Blocks::with_content(&content.concat(), *bytes)))
        }
        FileJob::Prepare { path, content, bytes } => {
            Some((temporary_path(path), Blocks::with_content(&content.concat(), *bytes)))
        }
        FileJob::Publish { .. }
        | FileJob::Remove { .. }
        | FileJob::Punch { .. }
        | FileJob::PunchHeads { .. }
        | FileJob::Allocate { .. } => None,
    }
}

/// Returns the ranges of a [`FileJob::PunchHeads`].
pub(super) fn heads(job: &FileJob) -> impl Iterator<Item = Range<u64>> + use<> {
    let (range, every, head_bytes) = match job {
        FileJob::PunchHeads { at, bytes, every, head_bytes, .. } => (*at..at + bytes, *every, *head_bytes),
        _ => (0..0, 1, 0),
    };
    range.step_by(every as usize).map(move |head| head..head + head_bytes)
}

/// Returns the blocks of a range of a file.
pub(super) fn blocks_of(at: u64, bytes: u64) -> Range<usize> {
    at as usize / PAGE_BYTES..(at + bytes) as usize / PAGE_BYTES
}

/// Returns the temporary file of an interrupted job.
pub(super) fn partial_file(job: &FileJob, rng: &mut SimRng) -> Option<(PathBuf, Blocks)> {
    let (path, content, bytes) = match job {
        FileJob::Create { path, bytes } => (path, Vec::new(), *bytes),
        FileJob::Replace { path, content, bytes } | FileJob::Prepare { path, content, bytes } => {
            (path, content.concat(), *bytes)
        }
        FileJob::Publish { .. }
        | FileJob::Remove { .. }
        | FileJob::Punch { .. }
        | FileJob::PunchHeads { .. }
        | FileJob::Allocate { .. } => return None,
    };
    let page = PAGE_BYTES as u64;
    let bytes = rng.random_range(0..=bytes / page) * page;
    let mut blocks = Blocks::zeroed(bytes);
    let content = split(&content[..content.len().min(bytes as usize)]);
    for ((at, data), mask) in content.iter().enumerate().zip(tear(content.len(), rng)) {
        blocks.set_sectors(at, data, mask);
    }
    Some((temporary_path(path), blocks))
}
