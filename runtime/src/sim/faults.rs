//! Faults that can be injected into a simulated disk.

use std::ops::Range;
use std::path::PathBuf;

use crate::buf::PAGE_BYTES;

/// A fault that affects operations on part of a file. Created by one of the constructors, restricted with [`within`](Fault::within)
/// and [`times`](Fault::times), and injected with [`SimDisk::inject`](super::SimDisk::inject).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub(super) path: PathBuf,
    pub(super) range: Range<u64>,
    pub(super) times: Option<u32>,
    pub(super) kind: FaultKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FaultKind {
    ReadError,
    /// With this error number.
    WriteError(i32),
    SyncError(i32),
    PunchError(i32),
    JobError(i32),
    WriteLost,
    WriteMisdirected {
        path: PathBuf,
        at: u64,
    },
}

impl FaultKind {
    /// Returns whether it affects writes.
    pub(super) fn is_of_write(&self) -> bool {
        matches!(self, Self::WriteError(_) | Self::WriteLost | Self::WriteMisdirected { .. })
    }
}

impl Fault {
    fn new(path: impl Into<PathBuf>, kind: FaultKind) -> Self {
        Self { path: path.into(), range: 0..u64::MAX, times: None, kind }
    }

    /// Reads fail with EIO.
    pub fn read_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::ReadError)
    }

    /// Writes fail with EIO after reaching the disk in part.
    pub fn write_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteError(libc::EIO))
    }

    /// Writes fail with ENOSPC after reaching the disk in part, as on a full file system that copies on write.
    pub fn write_no_space(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteError(libc::ENOSPC))
    }

    /// Syncs fail with EIO; no later sync makes durable what they covered.
    pub fn sync_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::SyncError(libc::EIO))
    }

    /// Syncs fail with ENOSPC; no later sync makes durable what they covered.
    pub fn sync_no_space(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::SyncError(libc::ENOSPC))
    }

    /// Holes cannot be punched, as on a file system that has none (EOPNOTSUPP).
    pub fn no_holes(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::PunchError(libc::EOPNOTSUPP))
    }

    /// File jobs on this path fail with EIO, except those that punch holes.
    pub fn job_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::JobError(libc::EIO))
    }

    /// Writes report success but do not happen.
    pub fn lost_write(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteLost)
    }

    /// Writes report success but go to this position of another file.
    pub fn misdirected_write(path: impl Into<PathBuf>, to: impl Into<PathBuf>, at: u64) -> Self {
        assert!(at.is_multiple_of(PAGE_BYTES as u64), "a misdirected write goes to a block boundary");
        Self::new(path, FaultKind::WriteMisdirected { path: to.into(), at })
    }

    /// Restricts the fault to operations that touch these bytes. (A sync touches all of them.)
    #[must_use]
    pub fn within(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }

    /// Restricts the fault to the next `times` operations.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// Injected faults, oldest first.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the fault for an operation of this kind on this range, if there is one, and counts it as used.
    pub(super) fn take_matching(
        &mut self,
        path: &std::path::Path,
        range: Range<u64>,
        is_kind: impl Fn(&FaultKind) -> bool,
    ) -> Option<FaultKind> {
        let at = self.0.iter().position(|fault| {
            fault.path == path
                && is_kind(&fault.kind)
                && fault.range.start < range.end
                && range.start < fault.range.end
        })?;
        let kind = self.0[at].kind.clone();
        if let Some(times) = &mut self.0[at].times {
            *times -= 1;
            if *times == 0 {
                self.0.remove(at);
            }
        }
        Some(kind)
    }
}

/// Damage to a 4 KiB block at rest. Reads see it immediately, and it survives a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is flipped.
    FlipBit(usize),
    /// It reads as zero bytes.
    Zero,
    /// It reads as its content before the last write.
    Stale,
    /// It reads as another block, of this or another file.
    ContentOf(PathBuf, u64),
    /// It is swapped with another block, of this or another file.
    SwapWith(PathBuf, u64),
    /// It cannot be read (EIO) until it is written again.
    Unreadable,
}
