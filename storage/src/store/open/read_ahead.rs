//! Reads the parts of extents in which logs are expected to end, for many partitions together.
//!
//! A store can have ten thousand partitions that were written to, and each read waits for the disk. So before partitions are recovered one after
//! another, the first bytes that recovery will ask for are read together, with the header and the last page if these are near.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::Incarnation;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::FileRead;
use highwater_runtime::plane::Disk;

use super::Slabs;
use super::walk::known_end;
use crate::layout::{PAGE_BYTES, SlabId};
use crate::map::{CheckpointEntry, ExtentEntry, PartitionEntry, PartitionKey, WriteBounds};
use crate::recovery::READ_BYTES_FIRST;

/// Extents that are read together.
const EXTENTS_READ_TOGETHER: usize = 128;

/// A part of an extent.
pub(super) struct ReadAhead {
    from: u32,
    bytes: AlignedBuf,
}

impl ReadAhead {
    /// Returns the bytes from a position of the extent on, if all of them were read.
    pub(super) fn get(&self, at: u32, len: usize) -> Option<&[u8]> {
        let start = at.checked_sub(self.from)? as usize;
        self.bytes.get(start..start.checked_add(len)?)
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
        let mut wanted = Vec::new();
        for (_, partition) in &self.partitions {
            if wanted.len() >= EXTENTS_READ_TOGETHER {
                break;
            }
            wanted.extend(wanted_of(partition, slabs, bounds).take(EXTENTS_READ_TOGETHER));
            self.ready += 1;
        }
        let (extents, mut reads): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
        disk.read_many(&mut reads);
        for ((incarnation, from), read) in extents.into_iter().zip(reads) {
            // What cannot be read is read again, page by page.
            if let Some(bytes) = read.whole() {
                self.by_incarnation.insert(incarnation, ReadAhead { from, bytes });
            }
        }
    }
}

/// The first reads of those extents of a partition whose frames have to be read, each with its incarnation and position.
fn wanted_of(
    partition: &PartitionEntry,
    slabs: &Slabs,
    bounds: &WriteBounds,
) -> impl Iterator<Item = ((Incarnation, u32), FileRead)> {
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
        is_inside.then(|| ((Incarnation(extent.incarnation), from), FileRead::new(slab.file, place, bytes)))
    })
}

/// The part of an extent that is read first: from its header on, or from the page of the checkpoint if that is in it.
fn part_of(extent: &ExtentEntry, checkpoint: Option<&CheckpointEntry>, bounds: &WriteBounds) -> (u32, usize) {
    let page = PAGE_BYTES as u32;
    let here = checkpoint.filter(|checkpoint| checkpoint.incarnation == extent.incarnation);
    let from = here.map_or(0, |checkpoint| checkpoint.position - checkpoint.position % page);
    let end = extent.sealed.map_or(bounds.of(extent), |seal| seal.position);
    let left = end.saturating_sub(from).clamp(page, READ_BYTES_FIRST as u32 + page);
    (from, left.next_multiple_of(page) as usize)
}
