//! What can be made to go wrong with a simulated disk.

use std::ops::Range;
use std::path::PathBuf;

use crate::buf::PAGE_BYTES;

/// Something that operations on a part of a file meet. Made by one of the constructors, narrowed with [`within`](Fault::within)
/// and [`times`](Fault::times), put in place with [`SimDisk::inject`](super::SimDisk::inject).
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
    WriteLost,
    WriteMisdirected {
        path: PathBuf,
        at: u64,
    },
}

impl Fault {
    fn new(path: impl Into<PathBuf>, kind: FaultKind) -> Self {
        Self { path: path.into(), range: 0..u64::MAX, times: None, kind }
    }

    /// Reads fail with EIO.
    pub fn read_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::ReadError)
    }

    /// Writes fail with EIO, having reached the disk in part.
    pub fn write_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteError(libc::EIO))
    }

    /// Writes fail with ENOSPC, having reached the disk in part: what a file system that copies on write does when it is full.
    pub fn write_no_space(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteError(libc::ENOSPC))
    }

    /// Syncs fail with EIO; what they covered is made durable by no later sync.
    pub fn sync_error(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::SyncError(libc::EIO))
    }

    /// Syncs fail with ENOSPC; what they covered is made durable by no later sync.
    pub fn sync_no_space(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::SyncError(libc::ENOSPC))
    }

    /// Writes are answered as if they had happened, but have not.
    pub fn lost_write(path: impl Into<PathBuf>) -> Self {
        Self::new(path, FaultKind::WriteLost)
    }

    /// Writes are answered as if they had happened, but have gone to this place of this file.
    pub fn misdirected_write(path: impl Into<PathBuf>, to: impl Into<PathBuf>, at: u64) -> Self {
        assert!(at.is_multiple_of(PAGE_BYTES as u64), "a misdirected write goes to a block");
        Self::new(path, FaultKind::WriteMisdirected { path: to.into(), at })
    }

    /// Only operations that touch these bytes meet it. (A sync touches all of them.)
    #[must_use]
    pub fn within(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }

    /// Only the next so many operations meet it.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// Faults in place, oldest first.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that an operation of this kind there meets, if any.
    pub(super) fn met(
        &mut self,
        path: &std::path::Path,
        range: Range<u64>,
        is: impl Fn(&FaultKind) -> bool,
    ) -> Option<FaultKind> {
        let at = self.0.iter().position(|fault| {
            fault.path == path
                && is(&fault.kind)
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

/// What happens to one 4 KiB block at rest. Reads see it at once, and so does whoever comes after a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is flipped.
    FlipBit(usize),
    /// It reads as zero bytes.
    Zero,
    /// It reads as what it held before it was last written.
    Stale,
    /// It reads as another block, of this or another file.
    ContentOf(PathBuf, u64),
    /// It changes places with another block of this or another file.
    SwapWith(PathBuf, u64),
    /// It cannot be read (EIO) until it is written again.
    Unreadable,
}
