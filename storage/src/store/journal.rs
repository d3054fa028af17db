//! The journal's part in commit rounds: which tails it takes, and when their entries are durable. See [`crate::journal`].
//!
//! The journal is created when it is first needed: the first round with small tails has the file created in the background. Its first entry has no
//! pieces and begins the era, which the map then records. Until then, and if the disk has no space for a journal, every tail is written directly to
//! its extent.
//!
//! The rule for a partition in a round: if everything pending is small, it goes into the journal. Otherwise it is written in place, after the extents
//! have everything that the journal has of the partition. So data in place is contiguous, and no write overlaps a write-back.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::ids::Incarnation;
use highwater_runtime::fs::{FileId, is_out_of_space};
use highwater_runtime::plane::{Disk, Durability, FileJob};

use super::round::Op;
use super::slabs::DISK_PART_MAX;
use super::write_back::WriteBackBatch;
use super::{Phase, Store};
use crate::api::PartitionSlot;
use crate::config::StoreConfig;
use crate::journal::JOURNAL_NAME;
use crate::journal::entry::{ENTRY_BYTES_MAX, EntryBuilder, EntryOwner, PieceTarget};
use crate::journal::ring::Ring;
use crate::layout::EXTENT_HEADER_FIELD_BYTES;
use crate::limits::JOURNAL_BYTES_MIN;
use crate::map::MapRecord;
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Flight, Piece, Route};
use crate::position::ExtentRef;
use crate::state_log::Seq;

/// A tail uses at most this part of the journal.
const TAILS_PER_JOURNAL_MIN: u64 = 4;

/// Returns the size of a journal on this disk. `None` if there is no space for one.
pub(super) fn journal_bytes(config: &StoreConfig, disk: &mut dyn Disk) -> Option<u64> {
    let free = disk.free_bytes(&config.dir).unwrap_or(u64::MAX);
    let part = (free / DISK_PART_MAX).checked_ilog2().map_or(0, |log2| 1 << log2);
    let bytes = config.limits.journal_bytes.min(part);
    (bytes >= JOURNAL_BYTES_MIN).then_some(bytes)
}

/// The journal of a store, in whatever state it is.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent conditions, each set and cleared by an event of its own"
)]
pub(super) struct Journal {
    /// The file and its size.
    file: Option<(FileId, u64)>,
    /// Whether the lack of space for it has been reported.
    is_told: bool,
    state: State,
    ring: Option<Ring>,
    /// Entries that are being written or wait for an earlier one, the oldest first.
    in_flight: VecDeque<EntryInFlight>,
    /// Partitions with data that only the journal has, the one that has waited longest first. Some may have been deleted.
    pub(super) journaled: VecDeque<PartitionSlot>,
    /// Those of `journaled` whose next step waits for their write-back.
    pub(super) urgent: VecDeque<PartitionSlot>,
    pub(super) write_back: Option<WriteBackBatch>,
    /// Whether all of `journaled` has to be written back.
    wants_write_back: bool,
    /// The file may be replaced, and entries in it overwritten, only after the map has recorded that nothing of earlier eras is needed.
    cleared: Option<Seq>,
    /// Entries that deleted partitions needed, until the map knows durably that these are gone: a crash before that brings them back.
    releases: VecDeque<(Seq, u64)>,
    /// A write-back found no space. The next step of retention retries it.
    stalled: bool,
    /// Whether it has to be retried now.
    retry: bool,
    /// The journal may have more of this era than could be applied, or has lost some: the next start needs it unchanged. Nothing new is written to
    /// it.
    held: Option<Incarnation>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not needed so far.
    #[default]
    Unused,
    /// The file of this size is being created.
    Creating(u64),
    /// The first entry is being written.
    Beginning,
    /// The map is recording the era.
    Recording(Seq),
    /// Entries may have pieces.
    Ready,
    /// There is no space for it, or the write of an entry failed. Nothing more is written to it.
    Off,
}

/// An entry that is being written.
#[derive(Debug)]
struct EntryInFlight {
    sequence: u64,
    flights: Vec<(PartitionSlot, u64)>,
    failed: bool,
}

/// The entry that a round is building.
pub(super) struct RoundEntry {
    /// Whether a piece had no room in it.
    pub(super) is_full: bool,
    builder: EntryBuilder,
    flights: Vec<(PartitionSlot, u64)>,
    sequence: u64,
    room: usize,
}

impl Journal {
    /// Creates the state of a journal with its file, if there is one. Nothing in it is needed any more.
    pub(super) fn new(file: Option<(FileId, u64)>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Notes that this record of the map says that nothing of earlier eras is needed.
    pub(super) fn set_cleared(&mut self, seq: Seq) {
        self.cleared = Some(seq);
    }

    /// Returns the era, once the map has it.
    pub(super) fn era(&self) -> Option<Incarnation> {
        let begun = matches!(self.state, State::Recording(_) | State::Ready | State::Off)
            .then(|| self.ring.as_ref().map(Ring::era))
            .flatten();
        begun.or(self.held)
    }

    /// Returns the era of which the next start needs entries, after an orderly stop.
    pub(super) fn era_at_rest(&self) -> Option<Incarnation> {
        self.era().filter(|_| self.held.is_some() || self.stalled)
    }

    /// Keeps everything in the journal for the next start.
    pub(super) fn hold(&mut self, era: Incarnation) {
        self.held = Some(era);
        self.state = State::Off;
    }

    /// Gives up what was kept for the next start.
    pub(super) fn stop_holding(&mut self) {
        self.held = None;
    }

    /// Returns whether a write-back waits for space on the disk.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    pub(super) fn retry_stalled(&mut self) {
        self.retry = self.stalled;
        if self.state == State::Off && self.ring.is_none() && self.held.is_none() {
            self.state = State::Unused;
        }
    }

    /// Returns whether a batch may begin. A batch that found no space is retried once each time.
    pub(super) fn may_write_back(&mut self) -> bool {
        self.write_back.is_none() && (!self.stalled || std::mem::take(&mut self.retry))
    }

    /// Requests that everything that only the journal has is written to the extents.
    pub(super) fn want_write_back(&mut self) {
        self.wants_write_back = !self.journaled.is_empty();
    }

    pub(super) fn is_write_back_due(&mut self) -> bool {
        self.wants_write_back &= !self.journaled.is_empty();
        let crowded = self.ring.as_ref().is_some_and(|ring| 2 * ring.needed_bytes() > ring.bytes());
        self.wants_write_back || crowded || self.stalled
    }

    /// Notes that a partition no longer needs this entry.
    pub(super) fn release(&mut self, sequence: u64) {
        self.ring.as_mut().expect("an entry was written").release(sequence);
    }

    /// The same, once a record of the map is durable.
    pub(super) fn release_when_durable(&mut self, seq: Seq, sequence: u64) {
        self.releases.push_back((seq, sequence));
    }

    /// The map has become durable up to here.
    pub(super) fn settle_releases(&mut self, durable: Seq) {
        while let Some((_, sequence)) = self.releases.pop_front_if(|(seq, _)| *seq <= durable) {
            self.release(sequence);
        }
    }

    /// Returns whether nothing is in flight and the extents have everything.
    pub(super) fn is_idle(&self) -> bool {
        !matches!(self.state, State::Creating(_))
            && self.in_flight.is_empty()
            && self.write_back.is_none()
            && (self.stalled
                || self.ring.as_ref().is_none_or(|ring| ring.need_count() == self.releases.len()))
    }

    /// Returns whether anything of the journal is in flight.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.state, State::Creating(_)) || !self.in_flight.is_empty() || self.write_back.is_some()
    }

    pub(super) fn close(&mut self, disk: &mut dyn Disk) {
        if let Some((file, _)) = self.file.take() {
            disk.close_file(file);
        }
    }
}

impl Store {
    /// Returns the entry of a round that begins. `None` if nothing may go into the journal now.
    pub(super) fn begin_entry(&mut self, disk: &mut dyn Disk) -> Option<RoundEntry> {
        if self.config.limits.journal_bytes == 0 {
            return None;
        }
        match self.journal.state {
            State::Unused => self.create_journal(disk),
            State::Recording(seq) if seq <= self.state.durable() => self.journal.state = State::Ready,
            _ => {}
        }
        if self.journal.state != State::Ready {
            return None;
        }
        let ring = self.journal.ring.as_ref().expect("it is ready");
        let room = ring.room().min(ENTRY_BYTES_MAX);
        Some(RoundEntry {
            is_full: false,
            builder: EntryBuilder::default(),
            flights: Vec::new(),
            sequence: ring.next(),
            room,
        })
    }

    fn create_journal(&mut self, disk: &mut dyn Disk) {
        if self.phase != Phase::Open || self.journal.cleared > Some(self.state.durable()) {
            return;
        }
        if self.journal.file.is_some() {
            return self.begin_era(disk);
        }
        let Some(bytes) = journal_bytes(&self.config, disk) else {
            let full = std::io::ErrorKind::StorageFull;
            return self.on_journal_created(disk, Err(full.into()));
        };
        self.journal.state = State::Creating(bytes);
        let token = self.token(Op::CreateJournal);
        let path = self.config.dir.join(JOURNAL_NAME);
        disk.file_job(FileJob::Replace { path, content: Vec::new(), bytes }, token);
    }

    /// Handles the created file, or the failure to create it.
    pub(super) fn on_journal_created(&mut self, disk: &mut dyn Disk, result: std::io::Result<FileId>) {
        match (result, self.journal.state) {
            (Ok(file), State::Creating(bytes)) => {
                self.journal.file = Some((file, bytes));
                self.begin_era(disk);
            }
            (Ok(_), state) => panic!("a file was made for a journal that is {state:?}"),
            (Err(e), _) => {
                self.journal.state = State::Off;
                if std::mem::replace(&mut self.journal.is_told, true) {
                    return;
                }
                tracing::warn!(
                    "{}: no journal could be made: {e}; records of each partition are written to its extents at once, which is slower with many partitions",
                    self.config.dir.join(JOURNAL_NAME).display()
                );
            }
        }
    }

    /// Begins an era with an entry without pieces.
    fn begin_era(&mut self, disk: &mut dyn Disk) {
        let era = Incarnation(self.space.next_incarnation);
        self.space.next_incarnation += 1;
        let (_, bytes) = self.journal.file.expect("the caller looked");
        self.journal.ring = Some(Ring::new(bytes, era));
        self.journal.state = State::Beginning;
        self.write_entry(disk, &EntryBuilder::default(), Vec::new(), None);
    }

    /// Returns whether everything pending of this partition goes into the entry of this round.
    pub(super) fn takes_journal(&self, slot: PartitionSlot) -> bool {
        let partition = self.partitions.get(slot.0).expect("the caller looked");
        let ring_bytes = self.journal.ring.as_ref().map_or(0, Ring::bytes);
        // A write-back would take them from the cache.
        !partition.flags.written_again
            && partition.pending_bytes()
                <= self.config.limits.journal_tail_bytes_max.min(ring_bytes / TAILS_PER_JOURNAL_MIN)
    }

    /// Adds a piece to the entry. Returns the piece if the entry has no room for it.
    pub(super) fn add_to_entry(
        &mut self,
        entry: &mut RoundEntry,
        slot: PartitionSlot,
        piece: Piece,
    ) -> Result<(), Piece> {
        let header = self.header_for(slot, piece.extent);
        let bytes = piece.frame_bytes as usize + header.as_ref().map_or(0, |(_, header)| header.len());
        let pieces = 1 + usize::from(header.is_some());
        if entry.builder.bytes_with(pieces, bytes) > entry.room {
            entry.is_full = true;
            return Err(piece);
        }
        let partition = self.partitions.get_mut(slot.0).expect("the caller looked");
        let extent = partition.extent_mut(piece.extent).expect("the caller looked");
        let place = extent.place.expect("the caller looked");
        let incarnation = piece.extent.incarnation;
        if let Some((target, header)) = header {
            extent.header_written = true;
            extent.header_journaled = true;
            entry.builder.push(target, header);
        }
        let position = piece.end.position - piece.frame_bytes as u32;
        let from = (position - piece.from) as usize;
        let fresh = piece.data.slice(from..from + piece.frame_bytes as usize);
        entry.builder.push(PieceTarget { incarnation, place, position }, fresh);
        let flight = partition.flight_first + partition.flights.len() as u64;
        let route = Route::Journal(entry.sequence);
        partition.flights.push_back(Flight { piece, route, writes_left: 0, landed: false, failed: false });
        self.journal.ring.as_mut().expect("it is ready").need(entry.sequence);
        entry.flights.push((slot, flight));
        Ok(())
    }

    /// Returns, as a piece, the header of an extent that has none yet. The first header of a slab is always written in place: it has the key of the
    /// journal's entries, in case the map is lost.
    fn header_for(&self, slot: PartitionSlot, reference: ExtentRef) -> Option<(PieceTarget, Bytes)> {
        let partition = self.partitions.get(slot.0).expect("the caller looked");
        let extent = partition.extent(reference).expect("the caller looked");
        if extent.header_written {
            return None;
        }
        let id = extent.id(self.config.cluster, self.config.store, partition.tp, &self.macs);
        let id = id.expect("the caller looked");
        let header = Bytes::copy_from_slice(&id.to_block()[..EXTENT_HEADER_FIELD_BYTES]);
        let target = PieceTarget { incarnation: reference.incarnation, place: id.place, position: 0 };
        Some((target, header))
    }

    /// Writes the entry of a round, if it has pieces. Returns whether it has.
    pub(super) fn write_round_entry(&mut self, disk: &mut dyn Disk, entry: RoundEntry, round: u64) -> bool {
        if entry.builder.is_empty() {
            return false;
        }
        self.write_entry(disk, &entry.builder, entry.flights, Some(round));
        if is_planted(Mutant::AckBeforeJournal) {
            let flights = self.journal.in_flight.back().map(|last| last.flights.clone());
            self.land(&flights.unwrap_or_default());
        }
        true
    }

    fn write_entry(
        &mut self,
        disk: &mut dyn Disk,
        builder: &EntryBuilder,
        flights: Vec<(PartitionSlot, u64)>,
        round: Option<u64>,
    ) {
        let owner = EntryOwner { cluster: self.config.cluster, store: self.config.store, key: self.macs.key };
        let ring = self.journal.ring.as_mut().expect("an era was begun");
        let bytes = builder.bytes_with(0, 0);
        let reserved = ring.reserve(bytes, !builder.is_empty()).expect("the caller looked for room");
        let data = builder.build(&owner, reserved.numbers, reserved.at);
        let sequence = reserved.numbers.sequence;
        self.journal.in_flight.push_back(EntryInFlight { sequence, flights, failed: false });
        let token = self.token(Op::Journal { sequence, round });
        self.stats.writes += 1;
        self.stats.durable_writes += 1;
        self.stats.bytes_written += bytes as u64;
        self.stats.journal_entries += 1;
        self.stats.journal_bytes += bytes as u64;
        let (file, _) = self.journal.file.expect("an era was begun");
        disk.write(file, reserved.at, data, Durability::Durable, token);
    }

    /// Handles an entry that was written, or the failure to write it.
    pub(super) fn on_entry_written(
        &mut self,
        sequence: u64,
        round: Option<u64>,
        result: std::io::Result<()>,
    ) {
        if let Some(round) = round {
            self.end_journal_of_round(round);
        }
        match result {
            Ok(()) => {}
            Err(e) if is_out_of_space(&e) => {
                // Later entries are worth nothing without this one.
                self.journal.state = State::Off;
                for entry in self.journal.in_flight.iter_mut().filter(|entry| entry.sequence >= sequence) {
                    entry.failed = true;
                }
            }
            Err(e) => {
                let path = self.config.dir.join(JOURNAL_NAME);
                return self.fail(format!("could not write to {}: {e}", path.display()));
            }
        }
        let ring = self.journal.ring.as_mut().expect("an entry was written");
        ring.on_written(sequence);
        let durable = ring.durable();
        let is_written = |entry: &EntryInFlight| {
            entry.sequence < durable || is_planted(Mutant::AckJournalOutOfOrder) && entry.sequence == sequence
        };
        let mut at = 0;
        while let Some(entry) = self.journal.in_flight.get(at) {
            if !is_written(entry) {
                at += 1;
                continue;
            }
            let entry = self.journal.in_flight.remove(at).expect("it was there");
            if entry.failed {
                self.on_entry_failed(&entry);
            }
            self.land(&entry.flights);
        }
        if self.journal.state == State::Beginning {
            let era = self.journal.ring.as_ref().expect("as above").era();
            let seq = self.record(&MapRecord::Journal { era: era.0 });
            self.journal.state = State::Recording(seq);
        }
    }

    fn land(&mut self, flights: &[(PartitionSlot, u64)]) {
        for (slot, flight) in flights {
            let Some(partition) = self.partitions.get_mut(slot.0) else { continue };
            partition.flight_mut(*flight).landed = true;
            self.advance(*slot);
        }
    }

    /// An entry had no space: writes its pieces in place.
    fn on_entry_failed(&mut self, entry: &EntryInFlight) {
        let path = self.config.dir.join(JOURNAL_NAME);
        for (slot, flight) in &entry.flights {
            self.on_flight_failed(*slot, *flight, &path.display().to_string());
        }
    }

    /// Lists a partition with data that only the journal has.
    pub(super) fn note_journaled(&mut self, slot: PartitionSlot) {
        let Some(partition) = self.partitions.get_mut(slot.0) else { return };
        if partition.journal_need.is_some() && !std::mem::replace(&mut partition.flags.journaled, true) {
            self.journal.journaled.push_back(slot);
        }
    }

    /// Writes an entry without pieces if that frees space in a full journal.
    pub(super) fn trim_journal(&mut self, disk: &mut dyn Disk) {
        let Some(ring) = self.journal.ring.as_ref().filter(|_| self.journal.state == State::Ready) else {
            return;
        };
        let tight = ring.room() < ENTRY_BYTES_MAX.min(ring.bytes() as usize / 4);
        if tight && ring.wants_trim() && ring.in_flight() == 0 {
            self.write_entry(disk, &EntryBuilder::default(), Vec::new(), None);
        }
    }
}
