//! Reads the parts of extents in which logs are expected to end, for many partitions together.
//!
//! A store can have ten thousand partitions that were written to, or one that was written to at full speed, and each read waits for the disk. So
//! before partitions are recovered one after another, the bytes that recovery will ask for are read together, in pieces: from the checkpoint up to
//! the write bound, with the header and the last page if these are near.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::Incarnation;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, FileRead};
use highwater_runtime::plane::Disk;

use super::Slabs;
use super::walk::known_end;
use crate::layout::{PAGE_BYTES, SlabId};
use crate::map::{CheckpointEntry, ExtentEntry, PartitionEntry, PartitionKey, WriteBounds};

/// Extents that are read together.
const EXTENTS_READ_TOGETHER: usize = 128;

/// Bytes that are read together, but for the last extent.
const BYTES_READ_TOGETHER: usize = 16 << 20;

/// Bytes of one extent that are read ahead: what is searched after a crash, and what is appended between two checkpoints.
const EXTENT_BYTES_MAX: u32 = 24 << 20;

/// Bytes of one read.
const PIECE_BYTES: usize = 512 << 10;

/// A part of an extent.
pub(super) struct ReadAhead {
    from: u32,
    /// All but the last of [`PIECE_BYTES`]. `None`: it could not be read as a whole.
    pieces: Vec<Option<AlignedBuf>>,
}

impl ReadAhead {
    /// Copies the bytes from a position of the extent on. Returns whether all of them were read.
    pub(super) fn copy_to(&self, at: u32, mut buf: &mut [u8]) -> bool {
        let Some(start) = at.checked_sub(self.from) else { return false };
        let mut start = start as usize;
        while !buf.is_empty() {
            let piece = self.pieces.get(start / PIECE_BYTES).and_then(Option::as_ref);
            let bytes = piece.and_then(|piece| piece.get(start % PIECE_BYTES..)).unwrap_or_default();
            let len = bytes.len().min(buf.len());
            if len == 0 {
                return false;
            }
            let (here, rest) = buf.split_at_mut(len);
            here.copy_from_slice(&bytes[..len]);
            (buf, start) = (rest, start + len);
        }
        true
    }
}

/// A part of an extent that is to be read.
struct Wanted {
    incarnation: Incarnation,
    from: u32,
    file: FileId,
    /// Where it is in the file.
    place: u64,
    bytes: usize,
}

impl Wanted {
    fn reads(&self) -> impl Iterator<Item = FileRead> {
        let pieces = (0..self.bytes).step_by(PIECE_BYTES);
        pieces.map(|at| FileRead::new(self.file, self.place + at as u64, PIECE_BYTES.min(self.bytes - at)))
    }
}

/// The partitions of a map, with the parts of their extents that were read ahead.
pub(super) struct ReadAheads {
    partitions: VecDeque<(PartitionKey, PartitionEntry)>,
    /// So many of them were read ahead.
    ready: usize,
    by_incarnation: BTreeMap<Incarnation, ReadAhead>,
}

impl ReadAheads {
    pub(super) fn new(partitions: BTreeMap<PartitionKey, PartitionEntry>) -> Self {
        Self { partitions: partitions.into_iter().collect(), ready: 0, by_incarnation: BTreeMap::new() }
    }

    /// Returns the next partition. What was read of its extents can be taken.
    pub(super) fn next(
        &mut self,
        disk: &mut dyn Disk,
        slabs: &Slabs,
        bounds: &WriteBounds,
    ) -> Option<(PartitionKey, PartitionEntry)> {
        if self.ready == 0 {
            self.read(disk, slabs, bounds);
        }
        self.ready = self.ready.saturating_sub(1);
        self.partitions.pop_front()
    }

    pub(super) fn take(&mut self, incarnation: Incarnation) -> Option<ReadAhead> {
        self.by_incarnation.remove(&incarnation)
    }

    /// Reads ahead for the next partitions.
    fn read(&mut self, disk: &mut dyn Disk, slabs: &Slabs, bounds: &WriteBounds) {
        self.by_incarnation.clear();
        let (mut wanted, mut bytes): (Vec<Wanted>, usize) = (Vec::new(), 0);
        for (_, partition) in &self.partitions {
            if wanted.len() >= EXTENTS_READ_TOGETHER || bytes >= BYTES_READ_TOGETHER {
                break;
            }
            for part in wanted_of(partition, slabs, bounds).take(EXTENTS_READ_TOGETHER) {
                // What is not read ahead is read when it is needed.
                if bytes < BYTES_READ_TOGETHER {
                    bytes += part.bytes;
                    wanted.push(part);
                }
            }
            self.ready += 1;
        }
        let mut reads: Vec<FileRead> = wanted.iter().flat_map(Wanted::reads).collect();
        disk.read_many(&mut reads);
        let mut reads = reads.into_iter();
        for part in wanted {
            let count = part.bytes.div_ceil(PIECE_BYTES);
            // What cannot be read is read again, page by page.
            let pieces = reads.by_ref().take(count).map(FileRead::whole).collect();
            self.by_incarnation.insert(part.incarnation, ReadAhead { from: part.from, pieces });
        }
    }
}

/// What is to be read of those extents of a partition whose frames have to be read.
fn wanted_of(
    partition: &PartitionEntry,
    slabs: &Slabs,
    bounds: &WriteBounds,
) -> impl Iterator<Item = Wanted> {
    let checkpoint = partition.checkpoint.as_ref();
    let extents = partition.extents.iter().enumerate();
    extents.filter_map(move |(at, extent)| {
        if known_end(&partition.extents[at..], checkpoint, partition.complete).is_some() {
            return None;
        }
        let slab = slabs.get(&SlabId(extent.slab))?;
        let (from, bytes) = part_of(extent, checkpoint, bounds);
        let place = extent.at + u64::from(from);
        let is_inside = place + bytes as u64 <= slab.bytes;
        let incarnation = Incarnation(extent.incarnation);
        is_inside.then_some(Wanted { incarnation, from, file: slab.file, place, bytes })
    })
}

/// The part of an extent that is read first: from its header on, or from the page of the checkpoint if that is in it.
fn part_of(extent: &ExtentEntry, checkpoint: Option<&CheckpointEntry>, bounds: &WriteBounds) -> (u32, usize) {
    let page = PAGE_BYTES as u32;
    let here = checkpoint.filter(|checkpoint| checkpoint.incarnation == extent.incarnation);
    let from = here.map_or(0, |checkpoint| checkpoint.position - checkpoint.position % page);
    let end = extent.sealed.map_or(bounds.of(extent), |seal| seal.position);
    let left = end.saturating_sub(from).clamp(page, EXTENT_BYTES_MAX);
    (from, left.next_multiple_of(page) as usize)
}
