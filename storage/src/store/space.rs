//! Finds space: extents for partitions, slabs for extents.
//!
//! A frame is appended only to an extent with a place on disk. While a slab is being created for one, appends are rejected as busy; the owner keeps
//! them and is notified when to retry. Writes into a new extent wait until the reservation of its incarnation is durable in the map: an incarnation
//! is never used twice, whatever a crash undoes.
//!
//! A full disk is noticed when a slab is added, or a hole in one is allocated. Then appends that need an extent fail, and everything else continues. Only copy-on-write file systems
//! can also lack space for writes: see [`super::stall`]. The sizes of slabs and the removal of free ones are in [`super::slabs`].
//!
//! One partition can have a *reserve* ([`Store::keep_reserve_for`]): a free block that only this partition gets, when there is no other. On a full disk, the
//! first space that is freed makes up for it.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::frame::frame_bytes;
use highwater_protocol::ids::{Incarnation, LeaderEpoch};
use highwater_runtime::fs::FileId;
use highwater_runtime::plane::Disk;

use super::alloc::{Allocator, Backing};
use super::punch::{Punching, Surplus};
use super::{Phase, Store};
use crate::api::{AppendError, FramePlacement, PartitionSlot, StoreEvent};
use crate::extent::{Extent, FIRST_POSITION, WriteBound, bound_after};
use crate::layout::{EXTENT_HEADER_BYTES, Place, SlabId};
use crate::limits::{EXTENT_BYTES_MAX, PADDING_BYTES_MAX};
use crate::map::{MapRecord, PartitionKey};
use crate::partition::{Gaps, Partition};
use crate::position::ExtentRef;
use crate::state_log::Seq;

/// Incarnations reserved in the map at once.
pub(super) const INCARNATIONS_RESERVED: u64 = 1024;

/// How often the size of the smallest extent is doubled for the reserve, if there is as much space in one piece.
const RESERVE_DOUBLINGS: u8 = 2;

/// A slab's open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlabFile {
    pub(super) file: FileId,
    pub(super) bytes: u64,
    /// Whether all of it had space on the disk when it was opened.
    pub(super) backing: Backing,
}

/// The space of a store.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent conditions, each set and cleared by an event of its own"
)]
pub(super) struct Space {
    pub(super) alloc: Allocator,
    pub(super) slabs: BTreeMap<SlabId, SlabFile>,
    /// The slab that is being created, with its size.
    pub(super) creating: Option<(SlabId, u64)>,
    /// The hole that is being allocated on the disk, with its size as a binary logarithm.
    pub(super) allocating: Option<(Place, u8)>,
    /// The piece that is being returned to the file system.
    pub(super) punching: Option<Punching>,
    pub(super) surplus: Surplus,
    /// The next slab has this number: larger than any file found.
    pub(super) next_slab: SlabId,
    /// The disk had no space for a slab of this size, whatever it reports as free.
    pub(super) too_large: Option<u64>,
    /// Appends wait for an extent of this size, given by its binary logarithm.
    pub(super) wanted: Option<u8>,
    /// A rewrite waits for an extent of this size, given by its binary logarithm. It is given up if no slab fits.
    pub(super) spare: Option<u8>,
    /// No slab fits the disk for an extent of this size or a larger one.
    pub(super) full: Option<u8>,
    /// The owner has been notified that the disk is full.
    pub(super) is_told: bool,
    /// Whether there is no space to create a slab ahead of need.
    pub(super) is_tight: bool,
    /// Whether an append has been rejected since there was space last.
    refused: bool,
    /// Whether the state log may have used up its reserve.
    pub(super) reserve_due: bool,
    /// Whether space was released, so that slabs may be entirely free.
    pub(super) trim_due: bool,
    /// The partition with a reserve.
    reserve_owner: Option<PartitionSlot>,
    /// Its reserve, with the size as a binary logarithm; `None` while there is no space for one.
    reserve: Option<(Place, u8)>,
    /// Extents that become free once the map says so durably.
    pending_free: VecDeque<(Seq, Place, u8)>,
    /// The first incarnation of this run.
    first_incarnation: u64,
    /// The next extent's incarnation.
    pub(super) next_incarnation: u64,
    /// Incarnations below this are reserved in the map, perhaps not durably yet.
    pub(super) reserved: u64,
    /// Incarnations below this are reserved durably.
    reserved_durable: u64,
    reservations: VecDeque<(Seq, u64)>,
}

impl Space {
    pub(super) fn new(alloc: Allocator, next_incarnation: u64) -> Self {
        Self {
            alloc,
            slabs: BTreeMap::new(),
            creating: None,
            allocating: None,
            punching: None,
            surplus: Surplus::default(),
            next_slab: SlabId(0),
            too_large: None,
            wanted: None,
            spare: None,
            full: None,
            is_told: false,
            is_tight: false,
            refused: false,
            reserve_due: false,
            trim_due: false,
            reserve_owner: None,
            reserve: None,
            pending_free: VecDeque::new(),
            first_incarnation: next_incarnation,
            next_incarnation,
            reserved: next_incarnation,
            reserved_durable: next_incarnation,
            reservations: VecDeque::new(),
        }
    }

    /// Moves the next incarnation beyond this era of the journal: both are numbered together.
    pub(super) fn begin_after(&mut self, era: Option<Incarnation>) {
        let next = era.map_or(0, |era| era.0 + 1);
        self.next_incarnation = self.next_incarnation.max(next);
    }

    /// Returns whether frames may be written into an extent of this incarnation.
    pub(super) fn is_reserved(&self, incarnation: Incarnation) -> bool {
        incarnation.0 < self.reserved_durable
    }

    /// No slab is being made, and no part of one allocated or punched.
    pub(super) fn is_quiet(&self) -> bool {
        self.creating.is_none() && self.allocating.is_none() && self.punching.is_none()
    }

    /// Takes a block of this size, given by its binary logarithm.
    pub(super) fn allocate(&mut self, log2: u8) -> Option<Place> {
        let place = self.alloc.allocate(log2)?;
        self.surplus.note_ready(self.alloc.ready_bytes());
        Some(place)
    }

    /// Takes the reserve out of the free blocks, if there is to be one and there is none. Before the disk is full, it takes nothing of the largest
    /// block, for which a slab may just have been created.
    fn fill_reserve(&mut self, log2_min: u8) {
        if self.reserve_owner.is_none() || self.reserve.is_some() {
            return;
        }
        let is_full = self.full.is_some();
        let mut sizes = (log2_min..=log2_min + RESERVE_DOUBLINGS).rev();
        let found =
            sizes.find(|log2| self.alloc.has_beside_largest(*log2) || is_full && self.alloc.has(*log2));
        self.reserve = found.and_then(|log2| Some((self.alloc.allocate(log2)?, log2)));
    }

    /// Returns whether a partition gets an extent of this size out of its reserve.
    fn has_reserve(&self, slot: PartitionSlot, log2: u8) -> bool {
        self.reserve_owner == Some(slot) && self.reserve.is_some_and(|(_, reserved)| reserved >= log2)
    }

    /// Returns whether an append that needs an extent of this size can only be rejected.
    fn refuses(&self, log2: u8) -> bool {
        self.full.is_some_and(|full| log2 >= full) && !self.alloc.has(log2)
    }

    /// Takes an extent out that the map does not durably know to be free. For a planted bug only.
    pub(super) fn take_pending(&mut self) -> Option<(Place, u8)> {
        self.pending_free.pop_front().map(|(_, place, log2)| (place, log2))
    }

    /// Returns whether space was released that the map does not durably know to be free.
    pub(super) fn is_releasing(&self) -> bool {
        !self.pending_free.is_empty()
    }
}

/// An extent that a frame needs.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// The smallest size that holds the frame, as a binary logarithm.
    log2_min: u8,
    /// The preferred size.
    log2: u8,
}

impl Store {
    /// Keeps space for a partition: it can append on a full disk when others cannot. At most one partition of a store has a reserve.
    pub fn keep_reserve_for(&mut self, slot: PartitionSlot) {
        let before = self.space.reserve_owner.replace(slot);
        assert!(before.is_none_or(|before| before == slot), "one partition has a reserve");
        self.fill_reserve();
    }

    fn fill_reserve(&mut self) {
        self.space.fill_reserve(self.config.limits.extent_bytes_min.ilog2() as u8);
    }

    /// Returns whether appends wait for a slab that is being created.
    pub fn awaits_slab(&self) -> bool {
        self.space.wanted.is_some() && self.phase != Phase::Failed
    }

    /// Returns whether an append of this many bytes would be rejected as [`Busy`](crate::AppendError::Busy) now: too much waits for the disk, or the
    /// slab for its extent is being created. `is_bulk`: the batch has pages of its own.
    pub fn is_busy(&mut self, slot: PartitionSlot, batch_bytes: usize, is_bulk: bool, wall_ms: i64) -> bool {
        let Some(partition) = self.partition(slot) else { return false };
        if partition.faulty || self.check_stall(partition).is_err() {
            return false;
        }
        if partition.cut.is_some() {
            return true;
        }
        match self.check_backlog(partition, batch_bytes) {
            Err(AppendError::Busy) => return true,
            Err(_) => return false,
            Ok(()) => {}
        }
        let placement = if is_bulk { FramePlacement::OwnPages } else { FramePlacement::Packed };
        let need = self.need(partition, batch_bytes, (placement, Gaps::None), wall_ms);
        need.is_some_and(|need| self.find_space(slot, need) == Err(AppendError::Busy))
    }

    /// Returns the extent that a frame with this payload needs; `None` if it fits the active one.
    fn need(
        &self,
        partition: &Partition,
        payload_bytes: usize,
        (placement, gaps): (FramePlacement, Gaps),
        wall_ms: i64,
    ) -> Option<Need> {
        let limits = &self.config.limits;
        let frame_bytes = frame_bytes(payload_bytes);
        let takes = |active: &Extent| active.has_gaps || gaps == Gaps::None;
        if partition.fits(limits, frame_bytes, placement)
            && !wants_roll(partition, wall_ms)
            && partition.active().is_some_and(takes)
        {
            return None;
        }
        let log2_first = limits.extent_bytes_min.ilog2() as u8;
        let log2_min =
            ((EXTENT_HEADER_BYTES + frame_bytes).next_power_of_two().ilog2() as u8).max(log2_first);
        assert!(1 << log2_min <= EXTENT_BYTES_MAX, "the size of the batch was checked");
        let log2_segment = partition.config.segment_bytes.saturating_add(EXTENT_HEADER_BYTES as u64);
        let log2_segment =
            log2_segment.checked_next_power_of_two().map_or(u8::MAX, |bytes| bytes.ilog2() as u8);
        let last = partition.extents.back().map(|last| last.log2_bytes);
        let next = last.map_or(log2_first, |last| limits.next_extent_log2(last));
        Some(Need { log2_min, log2: next.min(log2_segment).max(log2_min) })
    }

    /// Returns whether there is space for an extent. If not, requests a slab or reports that there will be none.
    fn find_space(&mut self, slot: PartitionSlot, need: Need) -> Result<(), AppendError> {
        if self.state.is_stalled() {
            // Nothing in a new extent is durable before the map is.
            return Err(AppendError::StorageFull);
        }
        if self.space.alloc.has(need.log2_min) || self.space.has_reserve(slot, need.log2_min) {
            return Ok(());
        }
        if self.space.refuses(need.log2_min) {
            self.space.refused = true;
            return Err(AppendError::StorageFull);
        }
        self.space.wanted = self.space.wanted.max(Some(need.log2_min));
        Err(AppendError::Busy)
    }

    /// Ensures that the partition's active extent has room for a frame with this payload, and may have a gap before it if there is one: seals it and
    /// begins another one if necessary.
    pub(super) fn ensure_room(
        &mut self,
        slot: PartitionSlot,
        payload_bytes: usize,
        (placement, gaps): (FramePlacement, Gaps),
        epoch: LeaderEpoch,
        wall_ms: i64,
    ) -> Result<(), AppendError> {
        let partition = self.partition(slot).expect("the caller looked");
        let Some(need) = self.need(partition, payload_bytes, (placement, gaps), wall_ms) else {
            return self.check_write_bound(partition, payload_bytes);
        };
        self.find_space(slot, need)?;
        let mut sizes = (need.log2_min..=need.log2).rev();
        let found = sizes.find_map(|log2| Some((self.space.allocate(log2)?, log2)));
        let found = found.or_else(|| self.space.reserve.take());
        let (place, log2) =
            found.expect("a block of the smallest size is free, or reserved for this partition");
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        partition.freeze_tail(&mut self.budget, false);
        partition.seal_active();
        let incarnation = Incarnation(self.space.next_incarnation);
        self.space.next_incarnation += 1;
        let extent = ExtentRef { sequence: partition.next_sequence(), incarnation };
        let start = partition.append_point();
        let has_gaps = gaps == Gaps::Allowed;
        let configured = partition.configurations.has_had_any();
        // Frames that compaction has removed before the first one are of the epoch before it: the first frame of an epoch leaves a trace.
        let epoch = partition.epochs.last().filter(|_| has_gaps).unwrap_or(epoch);
        partition.extents.push_back(Extent {
            has_gaps,
            configured,
            ..Extent::new(extent, log2, start, epoch, wall_ms)
        });
        self.place_extent(slot, extent, place, frame_bytes(payload_bytes));
        Ok(())
    }

    /// Returns whether a frame in the active extent would wait for a record of the map for which there is no space.
    fn check_write_bound(&self, partition: &Partition, payload_bytes: usize) -> Result<(), AppendError> {
        let bytes = (frame_bytes(payload_bytes) + PADDING_BYTES_MAX) as u32;
        let would_wait = partition.active().is_some_and(|active| {
            active.write_bound.writable_to(self.state.certain()) < active.bytes().min(active.end + bytes)
        });
        if would_wait && self.state.is_stalled() { Err(AppendError::StorageFull) } else { Ok(()) }
    }

    /// Places an extent that is begun for a frame of this size, and records it in the map.
    fn place_extent(&mut self, slot: PartitionSlot, reference: ExtentRef, place: Place, frame_bytes: usize) {
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let key = PartitionKey::from(partition.tp);
        let extent = partition.extent_mut(reference).expect("it was just made");
        extent.place = Some(place);
        let bound = bound_after(
            &self.config.limits,
            extent.bytes(),
            FIRST_POSITION + frame_bytes as u32,
            frame_bytes as u64,
        );
        extent.write_bound = WriteBound::known(bound);
        let write_bound = extent.write_bound_entry();
        let entry = extent.entry(false).expect("it has a place now");
        if !std::mem::replace(&mut self.macs_recorded, true) {
            // Before the first extent with codes: no frame in it is durable before the map has the extent, and so this record.
            let macs = MapRecord::Macs(self.macs.into());
            self.record(&macs);
        }
        // The map never knows the extent without its bound.
        if let Some((incarnation, position)) = write_bound {
            self.record(&MapRecord::WriteBound { incarnation, position });
        }
        let seq = self.record(&MapRecord::Allocated { key, extent: entry });
        let partition = self.partitions.get_mut(slot.0).expect("as above");
        partition.extent_mut(reference).expect("as above").map_seq = Some(seq);
    }

    /// Reserves incarnations, creates the next slab when space is short, and removes unneeded slabs.
    pub(super) fn grow_space(&mut self, disk: &mut dyn Disk) {
        // Nothing is recorded before the first extent: an idle store writes nothing.
        let used = self.space.next_incarnation > self.space.first_incarnation;
        if used && self.space.next_incarnation + INCARNATIONS_RESERVED / 2 > self.space.reserved {
            let reserved = self.space.next_incarnation + INCARNATIONS_RESERVED;
            let seq = self.record(&MapRecord::Reserve { next_incarnation: reserved });
            self.space.reserved = reserved;
            self.space.reservations.push_back((seq, reserved));
        }
        self.fill_reserve();
        self.trim_slabs(disk);
        self.add_slab_if_short(disk);
    }

    /// Retries to add a slab, if there was no space for one.
    pub(super) fn retry_space(&mut self, disk: &mut dyn Disk) {
        self.space.is_tight = false;
        self.space.too_large = None;
        self.space.trim_due = true;
        if self.space.full.is_some() && self.space.refused && self.space.wanted.is_none() {
            self.space.wanted = self.space.full;
        }
        self.grow_space(disk);
        self.make_reserve(disk);
        self.retry_stalled_writes();
        self.journal.retry_stalled();
        if self.state.is_stalled() {
            self.state.retry_stalled(disk);
        }
    }

    /// Notifies the owner that there is space, if anything waited for it.
    pub(super) fn on_space_gained(&mut self) {
        self.fill_reserve();
        if self.space.wanted.is_some_and(|log2| self.space.alloc.has(log2)) {
            self.space.wanted = None;
        }
        // Waiting appends are retried, and rejected ones may be sent again.
        self.push_event(StoreEvent::RoomAvailable);
        if self.space.full.is_some_and(|log2| self.space.alloc.has(log2)) {
            self.space.full = None;
            self.space.refused = false;
            self.tell_space();
        }
    }

    /// Frees an extent once the map says so durably.
    pub(super) fn free_when_durable(&mut self, seq: Seq, place: Place, log2_bytes: u8) {
        self.space.pending_free.push_back((seq, place, log2_bytes));
    }

    /// Handles that the map is durable up to here.
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
            self.space.trim_due = true;
            self.on_space_gained();
        }
    }
}

/// Returns whether the partition's configuration requires a new segment.
pub(super) fn wants_roll(partition: &Partition, wall_ms: i64) -> bool {
    partition.active().is_some_and(|active| {
        let old = wall_ms.saturating_sub(active.created_ms) >= partition.config.segment_ms;
        let large = u64::from(active.used_bytes()) >= partition.config.segment_bytes;
        active.has_frames() && (old || large)
    })
}
