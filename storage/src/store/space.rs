//! Finding room: extents for partitions, slabs for extents.
//!
//! An extent can be given to a partition before its place is known: while a slab is being made, appends gather in memory. Their
//! writes wait for two things: the place, and that the map's reservation of the extent's life is durable (a life is never used
//! twice, whatever a crash forgets).
//!
//! The disk can be full in one place only: when a slab is added. Then appends that need an extent fail, everything else goes on.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use highwater_protocol::frame::frame_bytes;
use highwater_protocol::ids::{Incarnation, LeaderEpoch};
use highwater_runtime::plane::{Disk, FileId, FileJob};

use super::Store;
use super::round::Op;
use crate::alloc::Allocator;
use crate::api::{AppendError, Slot, StoreEvent};
use crate::extent::Extent;
use crate::lay::Lie;
use crate::layout::{EXTENT_HEADER_BYTES, Place, SlabId, slab_name};
use crate::map::{MapRecord, PartitionKey};
use crate::partition::Partition;
use crate::state_log::Seq;

/// Lives of extents reserved in the map at once.
pub(super) const INCARNATIONS_RESERVED: u64 = 1024;

/// The next slab is made when less than this part of the newest one's size is free.
const FREE_PART_MIN: u64 = 4;

/// A slab's open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlabFile {
    pub(super) file: FileId,
    pub(super) bytes: u64,
}

/// The space of a store.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) alloc: Allocator,
    pub(super) slabs: BTreeMap<SlabId, SlabFile>,
    /// The slab that is being made, with its size.
    creating: Option<(SlabId, u64)>,
    /// The next slab has this number: larger than any file found.
    pub(super) next_slab: SlabId,
    /// What the next slab's size is to be, if the disk has no space for more.
    shrunk_bytes: Option<u64>,
    /// The last attempt to add a slab found no space.
    full: bool,
    /// An append was refused since space was there last.
    refused: bool,
    /// Extents that wait for a place.
    waiting: VecDeque<(Slot, Incarnation)>,
    /// Extents that are free once the map says so durably.
    pending_free: VecDeque<(Seq, Place, u8)>,
    /// The first life of this run.
    first_incarnation: u64,
    /// The next extent's life.
    pub(super) next_incarnation: u64,
    /// Lives below are reserved in the map; it may not be durable yet.
    pub(super) reserved: u64,
    /// Lives below are reserved durably.
    reserved_durable: u64,
    reservations: VecDeque<(Seq, u64)>,
}

impl Space {
    pub(super) fn new(alloc: Allocator, next_incarnation: u64) -> Self {
        Self {
            alloc,
            slabs: BTreeMap::new(),
            creating: None,
            next_slab: SlabId(0),
            shrunk_bytes: None,
            full: false,
            refused: false,
            waiting: VecDeque::new(),
            pending_free: VecDeque::new(),
            first_incarnation: next_incarnation,
            next_incarnation,
            reserved: next_incarnation,
            reserved_durable: next_incarnation,
            reservations: VecDeque::new(),
        }
    }

    /// Whether frames may be written into an extent of this life.
    pub(super) fn is_reserved(&self, incarnation: Incarnation) -> bool {
        incarnation.0 < self.reserved_durable
    }

    /// No slab is being made.
    pub(super) fn is_quiet(&self) -> bool {
        self.creating.is_none()
    }

    /// The last attempt to add a slab found no space.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

impl Store {
    /// Makes sure that the partition's active extent takes a frame with this payload: seals it and begins another one if need be.
    pub(super) fn ensure_room(
        &mut self,
        slot: Slot,
        payload_bytes: usize,
        lie: Lie,
        epoch: LeaderEpoch,
        wall_ms: i64,
    ) -> Result<(), AppendError> {
        let limits = &self.config.limits;
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let frame_bytes = frame_bytes(payload_bytes);
        if partition.fits(limits, frame_bytes, lie) && !wants_roll(partition, wall_ms) {
            return Ok(());
        }
        let log2_max = limits.extent_bytes_max.ilog2() as u8;
        let log2_first = limits.extent_bytes_min.ilog2() as u8;
        let log2_min =
            ((EXTENT_HEADER_BYTES + frame_bytes).next_power_of_two().ilog2() as u8).max(log2_first);
        assert!(log2_min <= log2_max, "the size of the batch was checked");
        let log2_segment = partition.config.segment_bytes.saturating_add(EXTENT_HEADER_BYTES as u64);
        let log2_segment =
            log2_segment.checked_next_power_of_two().map_or(u8::MAX, |bytes| bytes.ilog2() as u8);
        let next = partition.extents.back().map_or(log2_first, |last| last.log2_bytes + 1);
        let wanted = next.min(log2_segment).max(log2_min).min(log2_max);
        // A partition's extents are recorded in order: what a crash forgets is the end of its log.
        let after_waiting = partition.extents.back().is_some_and(|last| last.place.is_none());
        let mut sizes = (log2_min..=wanted).rev().filter(|_| !after_waiting);
        let found = sizes.find_map(|log2| Some((self.space.alloc.allocate(log2)?, log2)));
        if found.is_none() && self.space.full {
            self.space.refused = true;
            return Err(AppendError::StorageFull);
        }
        partition.freeze_tail(&mut self.budget, false);
        partition.seal_active();
        let incarnation = Incarnation(self.space.next_incarnation);
        self.space.next_incarnation += 1;
        let log2 = found.map_or(wanted, |(_, log2)| log2);
        let (index, offset) = (partition.append_index, partition.append_offset);
        partition.extents.push_back(Extent::new(incarnation, log2, index, offset, epoch, wall_ms));
        match found {
            Some((place, _)) => self.place_extent(slot, incarnation, place),
            None => self.space.waiting.push_back((slot, incarnation)),
        }
        Ok(())
    }

    /// Gives an extent its place, and tells the map.
    fn place_extent(&mut self, slot: Slot, incarnation: Incarnation, place: Place) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let key = PartitionKey::from(partition.tp);
        let extent = partition.extent_mut(incarnation).expect("it was just made or waited");
        extent.place = Some(place);
        let entry = extent.entry().expect("it has a place now");
        let seq = self.record(&MapRecord::Allocated { key, extent: entry });
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        partition.extent_mut(incarnation).expect("as above").map_seq = Some(seq);
    }

    /// Reserves lives, makes the next slab when space is short, and gives waiting extents their places.
    pub(super) fn grow_space(&mut self, disk: &mut dyn Disk) {
        // Nothing is recorded before the first extent: an idle store writes nothing.
        let used = self.space.next_incarnation > self.space.first_incarnation;
        if used && self.space.next_incarnation + INCARNATIONS_RESERVED / 2 > self.space.reserved {
            let reserved = self.space.next_incarnation + INCARNATIONS_RESERVED;
            let seq = self.record(&MapRecord::Reserve { next_incarnation: reserved });
            self.space.reserved = reserved;
            self.space.reservations.push_back((seq, reserved));
        }
        self.place_waiting();
        let newest = self.space.alloc.newest_slab_bytes().unwrap_or(0);
        let short = self.space.alloc.free_bytes() < newest / FREE_PART_MIN;
        if (short || !self.space.waiting.is_empty()) && self.space.creating.is_none() && !self.space.full {
            self.create_slab(disk);
        }
    }

    fn place_waiting(&mut self) {
        while let Some((slot, incarnation)) = self.space.waiting.front().copied() {
            let log2 =
                self.partition(slot).and_then(|p| p.extent(incarnation)).map(|extent| extent.log2_bytes);
            if let Some(log2) = log2 {
                let Some(place) = self.space.alloc.allocate(log2) else { break };
                self.place_extent(slot, incarnation, place);
            }
            self.space.waiting.pop_front();
        }
    }

    fn create_slab(&mut self, disk: &mut dyn Disk) {
        let limits = &self.config.limits;
        let newest = self.space.alloc.newest_slab_bytes();
        let usual = newest.map_or(limits.slab_bytes_first, |bytes| (2 * bytes).min(limits.slab_bytes_max));
        let bytes = self.space.shrunk_bytes.unwrap_or(usual).max(limits.slab_bytes_first);
        let slab = self.space.next_slab;
        self.space.next_slab = SlabId(slab.0 + 1);
        self.space.creating = Some((slab, bytes));
        let token = self.token(Op::CreateSlab);
        disk.file_job(FileJob::Create { path: self.config.dir.join(slab_name(slab)), bytes }, token);
    }

    /// A slab was made, or not.
    pub(super) fn on_slab_created(&mut self, disk: &mut dyn Disk, result: io::Result<FileId>) {
        let (slab, bytes) = self.space.creating.take().expect("one slab is made at a time");
        match result {
            Ok(file) => {
                self.space.slabs.insert(slab, SlabFile { file, bytes });
                self.space.alloc.add_slab(slab, bytes);
                self.space.shrunk_bytes = None;
                self.space.full = false;
                self.on_space_gained();
            }
            Err(e) if e.kind() == io::ErrorKind::StorageFull || e.kind() == io::ErrorKind::QuotaExceeded => {
                let first = self.config.limits.slab_bytes_first;
                if bytes > first {
                    self.space.shrunk_bytes = Some((bytes / 2).max(first));
                    self.create_slab(disk);
                } else {
                    self.space.shrunk_bytes = Some(first);
                    if !self.space.full {
                        self.space.full = true;
                        let dir = self.config.dir.display();
                        self.push_event(StoreEvent::StorageFull(format!(
                            "{dir}: no space for another slab of {bytes} bytes; appends that need it fail until space is freed ({e})"
                        )));
                    }
                }
            }
            Err(e) => {
                let path = self.config.dir.join(slab_name(slab));
                self.fail(format!("could not make {}: {e}", path.display()));
            }
        }
    }

    /// Tries again to add a slab, if there was no space for one.
    pub(super) fn retry_space(&mut self, disk: &mut dyn Disk) {
        let starved = self.space.refused || !self.space.waiting.is_empty();
        if self.space.full && starved && self.space.creating.is_none() {
            self.create_slab(disk);
        }
        if self.state.is_stalled() {
            self.state.retry_stalled(disk);
        }
    }

    fn on_space_gained(&mut self) {
        self.place_waiting();
        if std::mem::take(&mut self.space.refused) {
            self.push_event(StoreEvent::SpaceAvailable);
        }
    }

    /// Frees an extent as soon as the map says so durably.
    pub(super) fn free_when_durable(&mut self, seq: Seq, place: Place, log2_bytes: u8) {
        self.space.pending_free.push_back((seq, place, log2_bytes));
    }

    /// The map has become durable up to here.
    pub(super) fn settle_space(&mut self, durable: Seq) {
        while self.space.reservations.front().is_some_and(|(seq, _)| *seq <= durable) {
            let (_, reserved) = self.space.reservations.pop_front().expect("it was there");
            self.space.reserved_durable = reserved;
        }
        let mut gained = false;
        while self.space.pending_free.front().is_some_and(|(seq, ..)| *seq <= durable) {
            let (_, place, log2_bytes) = self.space.pending_free.pop_front().expect("it was there");
            self.space.alloc.release(place, log2_bytes);
            gained = true;
        }
        if gained {
            self.on_space_gained();
        }
    }
}

/// Whether the partition's configuration asks for a new segment.
pub(super) fn wants_roll(partition: &Partition, wall_ms: i64) -> bool {
    partition.active().is_some_and(|active| {
        let old = wall_ms.saturating_sub(active.created_ms) >= partition.config.segment_ms;
        let large = u64::from(active.used_bytes()) >= partition.config.segment_bytes;
        active.has_frames() && (old || large)
    })
}
