//! Commit rounds: everything appended to the store since the last round becomes durable together.
//!
//! A round passes the frozen pieces and the tails of all dirty partitions to the disk at once. With [`DurableForm::Dsync`] each write is durable by
//! itself; with [`DurableForm::SyncPerRound`] one sync per slab follows the writes. There is no timer between rounds: what is appended while
//! [`ROUNDS_IN_FLIGHT_MAX`] of them are in flight makes the next one larger.
//!
//! Small tails are written together in one entry of the journal ([`super::journal`]), which has no such limits. The rest of this text is about tails
//! that are written in place.
//!
//! A partition whose partial last page is in flight skips a round: its next write would overlap.
//!
//! A copy-on-write file system may have no space for a write into an existing extent. Then the partition stalls; see [`super::stall`].

use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::plane::{Completion, Disk, Durability, Token, WRITE_BYTES_MAX};

use bytes::Bytes;

use super::journal::RoundEntry;
use super::{Queued, Store, TOKEN_KIND_SHIFT, TOKEN_STORE};
use crate::api::{PartitionSlot, ReadId, StoreEvent};
use crate::config::DurableForm;
use crate::layout::{PAGE_BYTES, Place, SlabId};
use crate::limits::ROUNDS_IN_FLIGHT_MAX;
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Advanced, Flight, Piece, Route, TailState};
use crate::position::ExtentRef;

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Part of a flight.
    Write { slot: PartitionSlot, flight: u64, round: u64, slab: SlabId },
    /// The sync after a round's writes to this slab.
    Sync { round: u64, slab: SlabId },
    /// A read.
    Read(ReadId),
    /// An entry of the journal, and the round that it belongs to.
    Journal { sequence: u64, round: Option<u64> },
    /// The file of the journal.
    CreateJournal,
    /// Part of a write-back from the journal to the extents.
    WriteBack { slab: SlabId },
    /// The sync after the writes of a write-back.
    WriteBackSync { slab: SlabId },
    /// Part of what a rewrite writes.
    Rewrite { slab: SlabId },
    /// The sync after the frames of a rewrite.
    RewriteSync { slab: SlabId },
    /// A new slab.
    CreateSlab,
    /// The removal of a slab.
    RemoveFile,
    /// Space for the state log.
    CreateReserve,
    /// The return of space to the file system.
    Punch,
    /// The allocation of a hole.
    Allocate,
}

/// Rounds in flight, and every operation of the store.
#[derive(Default, Debug)]
pub(super) struct Rounds {
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    in_flight: Vec<Round>,
    next_round: u64,
}

/// One round.
#[derive(Debug)]
struct Round {
    number: u64,
    slabs: Vec<RoundSlab>,
    /// Whether its journal entry is being written.
    has_entry: bool,
}

/// A slab that a round writes to.
#[derive(Debug)]
struct RoundSlab {
    slab: SlabId,
    writes_left: u32,
    /// The flights that become durable with the sync.
    flights: Vec<(PartitionSlot, u64)>,
}

impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn slab(&mut self, round: u64, slab: SlabId) -> &mut RoundSlab {
        let round = self
            .in_flight
            .iter_mut()
            .find(|r| r.number == round)
            .expect("a round ends with its last operation");
        let at = round.slabs.iter().position(|s| s.slab == slab).unwrap_or_else(|| {
            round.slabs.push(RoundSlab { slab, writes_left: 0, flights: Vec::new() });
            round.slabs.len() - 1
        });
        &mut round.slabs[at]
    }

    fn end_slab(&mut self, round: u64, slab: SlabId) {
        let at = self.at(round);
        self.in_flight[at].slabs.retain(|s| s.slab != slab);
        self.end_if_done(at);
    }

    fn end_entry(&mut self, round: u64) {
        let at = self.at(round);
        self.in_flight[at].has_entry = false;
        self.end_if_done(at);
    }

    fn at(&self, round: u64) -> usize {
        let at = self.in_flight.iter().position(|r| r.number == round);
        at.expect("a round ends with its last operation")
    }

    fn end_if_done(&mut self, at: usize) {
        if self.in_flight[at].slabs.is_empty() && !self.in_flight[at].has_entry {
            self.in_flight.swap_remove(at);
        }
    }
}

impl Store {
    /// Returns a token for this operation.
    pub(super) fn token(&mut self, op: Op) -> Token {
        let at = self.rounds.free.pop().unwrap_or_else(|| {
            self.rounds.ops.push(None);
            self.rounds.ops.len() - 1
        });
        self.rounds.ops[at] = Some(op);
        Token(u64::from(self.config.token_space) << 56 | TOKEN_STORE << TOKEN_KIND_SHIFT | at as u64)
    }

    /// Handles a completed operation.
    pub(super) fn on_operation(&mut self, disk: &mut dyn Disk, at: usize, completion: Completion) {
        let op = self.rounds.ops[at].take().expect("every operation is answered once");
        self.rounds.free.push(at);
        match (op, completion) {
            (Op::Write { slot, flight, round, slab }, Completion::Write(result)) => match result {
                Ok(()) => self.on_written(disk, slot, flight, round, slab, false),
                Err(e) if is_out_of_space(&e) => self.on_written(disk, slot, flight, round, slab, true),
                Err(e) => self.fail(format!("could not write to {}: {e}", self.slab_path(slab))),
            },
            (Op::Sync { round, slab }, Completion::Sync(result)) => match result {
                Ok(()) => self.on_synced(round, slab, false),
                Err(e) if is_out_of_space(&e) => self.on_synced(round, slab, true),
                Err(e) => self.fail(format!("could not sync {}: {e}", self.slab_path(slab))),
            },
            (Op::Journal { sequence, round }, Completion::Write(result)) => {
                self.on_entry_written(sequence, round, result);
            }
            (Op::CreateJournal, Completion::Replaced(result)) => self.on_journal_created(disk, result),
            (Op::WriteBack { slab }, Completion::Write(result)) => match result {
                Ok(()) => self.on_write_back(disk, false),
                Err(e) if is_out_of_space(&e) => self.on_write_back(disk, true),
                Err(e) => self.fail(format!("could not write to {}: {e}", self.slab_path(slab))),
            },
            (Op::WriteBackSync { slab }, Completion::Sync(result)) => match result {
                Ok(()) => self.on_write_back_synced(false),
                Err(e) if is_out_of_space(&e) => self.on_write_back_synced(true),
                Err(e) => self.fail(format!("could not sync {}: {e}", self.slab_path(slab))),
            },
            (Op::Rewrite { slab }, Completion::Write(result))
            | (Op::RewriteSync { slab }, Completion::Sync(result)) => self.on_rewrite_done(slab, result),
            (Op::Read(id), Completion::Read(result)) => self.on_read(disk, id, result),
            (Op::CreateSlab, Completion::Created(result)) => self.on_slab_created(disk, result),
            (Op::CreateReserve, Completion::Created(result)) => self.on_reserve_created(disk, result),
            (Op::RemoveFile, Completion::Removed(result)) => {
                if let Err(e) = result {
                    // It holds nothing. The next start finds it and may use it.
                    tracing::warn!("a free slab of {} could not be removed: {e}", self.config.dir.display());
                }
            }
            (Op::Punch, Completion::Punched(result)) => self.on_punched(disk, result),
            (Op::Allocate, Completion::Allocated(result)) => self.on_allocated(disk, result),
            (op, completion) => panic!("{op:?} answered with {completion:?}"),
        }
    }

    pub(super) fn slab_path(&self, slab: SlabId) -> String {
        self.config.dir.join(crate::layout::slab_name(slab)).display().to_string()
    }

    /// Starts a round with everything that may be written now.
    pub(super) fn start_round(&mut self, disk: &mut dyn Disk) {
        if self.dirty.is_empty() || self.rounds.in_flight.len() >= ROUNDS_IN_FLIGHT_MAX {
            return;
        }
        let number = self.rounds.next_round;
        let mut entry = self.begin_entry(disk);
        self.rounds.in_flight.push(Round { number, slabs: Vec::new(), has_entry: false });
        for _ in 0..self.dirty.len() {
            if entry.as_ref().is_some_and(|entry| entry.is_full) {
                break;
            }
            let slot = self.dirty.pop_front().expect("as many as were counted");
            self.submit_partition(disk, slot, number, &mut entry);
            let Some(partition) = self.partitions.get_mut(slot.0) else { continue };
            partition.flags.dirty = !partition.deleting && partition.has_work();
            if partition.flags.dirty {
                self.dirty.push_back(slot);
            }
        }
        let has_entry = entry.is_some_and(|entry| self.write_round_entry(disk, entry, number));
        let round = self.rounds.in_flight.last_mut().expect("it was just begun");
        round.has_entry = has_entry;
        if round.slabs.is_empty() && !has_entry {
            self.rounds.in_flight.pop();
            return;
        }
        self.rounds.next_round += 1;
        self.stats.rounds += 1;
    }

    /// Handles the written journal entry of a round.
    pub(super) fn end_journal_of_round(&mut self, round: u64) {
        self.rounds.end_entry(round);
    }

    fn submit_partition(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        round: u64,
        entry: &mut Option<RoundEntry>,
    ) {
        let (map_durable, map_certain) = (self.state.durable(), self.state.certain());
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        if partition.stalled && partition.has_failed_flight() {
            // The next piece shares a page with it, or would be written twice.
            return;
        }
        if let TailState::Reactivating(seq) = partition.tail_state {
            if seq > map_durable {
                return;
            }
            partition.tail_state = TailState::Active;
        }
        let mut entry = entry.as_mut().filter(|_| self.takes_journal(slot));
        loop {
            let Some(partition) = self.partitions.get_mut(slot.0) else { return };
            let next = match (partition.queue.front(), &partition.tail) {
                (Some(piece), _) => (piece.extent, piece.from, piece.end.position),
                (None, Some(tail)) if tail.is_fresh() => {
                    let last = partition.extents.back().expect("a tail lies in an extent");
                    (last.reference(), tail.base(), last.end)
                }
                _ => return,
            };
            let (reference, from, to) = next;
            let extent = partition.extent(reference).expect("what is not durable is not freed");
            let Some(place) = extent.place else { return };
            let is_header = partition.queue.front().is_some_and(|piece| piece.frame_bytes == 0);
            let in_place = is_header || entry.is_none();
            if !self.space.is_reserved(reference.incarnation)
                || !is_header && !extent.write_bound.allows(to, map_certain)
                || in_place && partition.overlaps_flight(reference, from)
            {
                return;
            }
            if !is_header && in_place && !partition.may_write_in_place() {
                return self.write_back_first(slot);
            }
            // The first header of a slab has the key of the journal's entries, in case the map is lost.
            if !extent.header_written && (in_place || place.at == 0) {
                self.submit_header(disk, slot, reference, round);
            }
            let partition = self.partitions.get_mut(slot.0).expect("it was there");
            if partition.queue.is_empty() {
                partition.freeze_tail(&mut self.budget, true);
                self.evict();
            }
            let partition = self.partitions.get_mut(slot.0).expect("it was there");
            let piece = partition.queue.pop_front().expect("a piece or a tail was there");
            match &mut entry {
                Some(entry) if !is_header => {
                    if let Err(piece) = self.add_to_entry(entry, slot, piece) {
                        let partition = self.partitions.get_mut(slot.0).expect("as above");
                        return partition.queue.push_front(piece);
                    }
                }
                _ => {
                    let route = if is_header { Route::Header } else { Route::Extent };
                    self.submit(disk, slot, piece, (place.slab, route), round);
                }
            }
        }
    }

    fn submit_header(&mut self, disk: &mut dyn Disk, slot: PartitionSlot, reference: ExtentRef, round: u64) {
        let (cluster, store) = (self.config.cluster, self.config.store);
        let macs = self.macs;
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let tp = partition.tp;
        let extent = partition.extent_mut(reference).expect("the caller looked");
        extent.header_written = true;
        let place = extent.place.expect("the caller looked");
        let id = extent.id(cluster, store, tp, &macs).expect("the caller looked");
        let end = extent.start_mark();
        let mut page = highwater_runtime::buf::AlignedBuf::new(PAGE_BYTES);
        page.copy_from_slice(&id.to_block());
        let piece = Piece { extent: reference, from: 0, data: page.freeze(), end, frame_bytes: 0 };
        self.submit(disk, slot, piece, (place.slab, Route::Header), round);
    }

    fn submit(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        piece: Piece,
        (slab, route): (SlabId, Route),
        round: u64,
    ) {
        let form = self.config.durable_form;
        let durability = match form {
            DurableForm::Dsync if is_planted(Mutant::AckBeforeSync) => Durability::Volatile,
            DurableForm::Dsync => Durability::Durable,
            DurableForm::SyncPerRound => Durability::Volatile,
        };
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let extent = partition.extent(piece.extent).expect("the caller looked");
        let place = extent.place.expect("the caller looked");
        let bytes = piece.data.len();
        assert!(
            bytes > 0 && bytes.is_multiple_of(PAGE_BYTES) && (piece.from as usize).is_multiple_of(PAGE_BYTES)
        );
        assert!(piece.from as usize + bytes <= extent.bytes() as usize, "a write stays within its extent");
        let flight = partition.flight_first + partition.flights.len() as u64;
        let writes = bytes.div_ceil(WRITE_BYTES_MAX) as u32;
        let (from_position, data) = (piece.from, piece.data.clone());
        partition.flights.push_back(Flight {
            piece,
            route,
            writes_left: writes,
            landed: false,
            failed: false,
        });
        let of_slab = self.rounds.slab(round, slab);
        of_slab.writes_left += writes;
        if form == DurableForm::SyncPerRound {
            of_slab.flights.push((slot, flight));
        }
        let at = Place { slab, at: place.at + u64::from(from_position) };
        self.write_to_slab(disk, at, &data, durability, Op::Write { slot, flight, round, slab });
    }

    /// Writes to a slab, at most [`WRITE_BYTES_MAX`] bytes at a time. Returns the number of writes.
    pub(super) fn write_to_slab(
        &mut self,
        disk: &mut dyn Disk,
        Place { slab, at }: Place,
        data: &Bytes,
        durability: Durability,
        op: Op,
    ) -> u32 {
        let file = self.space.slabs[&slab].file;
        let mut writes = 0;
        for from in (0..data.len()).step_by(WRITE_BYTES_MAX) {
            let part = data.slice(from..(from + WRITE_BYTES_MAX).min(data.len()));
            let token = self.token(op);
            self.stats.writes += 1;
            self.stats.durable_writes += u64::from(durability == Durability::Durable);
            self.stats.bytes_written += part.len() as u64;
            disk.write(file, at + from as u64, part, durability, token);
            writes += 1;
        }
        writes
    }

    fn on_written(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
        number: u64,
        round: u64,
        slab: SlabId,
        no_space: bool,
    ) {
        let partition = self.partitions.get_mut(slot.0).expect("a partition waits for its writes");
        let flight = partition.flight_mut(number);
        flight.writes_left -= 1;
        let whole = flight.writes_left == 0;
        if no_space {
            self.on_flight_failed(slot, number, &self.slab_path(slab));
        }
        if whole && self.config.durable_form == DurableForm::Dsync {
            let partition = self.partitions.get_mut(slot.0).expect("as above");
            partition.flight_mut(number).landed = true;
            self.advance(slot);
        }
        let of_slab = self.rounds.slab(round, slab);
        of_slab.writes_left -= 1;
        if of_slab.writes_left > 0 {
            return;
        }
        match self.config.durable_form {
            DurableForm::Dsync => self.rounds.end_slab(round, slab),
            DurableForm::SyncPerRound => {
                let token = self.token(Op::Sync { round, slab });
                self.stats.syncs += 1;
                disk.sync(self.space.slabs[&slab].file, token);
            }
        }
    }

    fn on_synced(&mut self, round: u64, slab: SlabId, no_space: bool) {
        let flights = std::mem::take(&mut self.rounds.slab(round, slab).flights);
        self.rounds.end_slab(round, slab);
        for (slot, flight) in &flights {
            let partition = self.partitions.get_mut(slot.0).expect("a partition waits for its writes");
            partition.flight_mut(*flight).landed = true;
            if no_space {
                // A later sync proves nothing about the writes before this one: all of them are repeated.
                self.on_flight_failed(*slot, *flight, &self.slab_path(slab));
            }
        }
        for (slot, _) in flights {
            self.advance(slot);
        }
    }

    /// Moves a partition's durable end forward as far as possible.
    pub(super) fn advance(&mut self, slot: PartitionSlot) {
        let map_durable = self.state.certain();
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        let before = partition.durable;
        let waited = partition.flags.waits_for_map;
        let Advanced { bytes, released } = partition.advance_durable(map_durable);
        self.unacked_bytes -= bytes;
        for entry in released {
            self.journal.release(entry);
        }
        self.note_journaled(slot);
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        if partition.flags.waits_for_map && !waited {
            self.waiting_for_map.push(slot);
        }
        if partition.deleting {
            if bytes > 0 {
                self.push_event(StoreEvent::RoomAvailable);
            }
            self.finish_delete(slot);
            return;
        }
        let moved = partition.durable.index > before.index;
        // The header of an extent alone is durable before its first frame, and the extents before it are complete then.
        let passed = bytes > 0 || partition.durable.sequence > before.sequence;
        if moved && !partition.flags.event {
            partition.flags.event = true;
            self.events.push_back(Queued::Durable(slot));
        }
        if passed {
            self.record_seals(slot);
        }
        if is_planted(Mutant::BoundAfterWrite) {
            self.keep_write_bound(slot, bytes);
        }
        self.end_stall_if_settled(slot);
    }

    /// A promise to the owner that is fulfilled once the map is durable.
    pub(super) fn promise(&mut self, seq: crate::state_log::Seq, event: StoreEvent) {
        self.promises.push_back((seq, event));
    }
}
