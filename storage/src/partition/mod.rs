//! One partition's log in memory: its extents, its tail, and what is being written.
//!
//! ```text
//!  extents:  [sealed][sealed][.........active..........]
//!                                 ^durable    ^queued     ^append end
//!  cache:          ----------------------------
//!  journal:               --------                         (from the extent end on: not in the extents yet)
//!  flights:                       ------------             (handed to the disk, in order)
//!  queue:                                     ----         (frozen, waits for a round)
//!  tail:                                          ----     (still being filled)
//! ```
//!
//! Invariant: `extent end <= durable <= append end`. The frames from the extent end to the durable end are in the journal, and in the
//! cache until the extents have them.
//!
//! Invariant: `durable <= append end`; the frames between them are contiguous and in memory: in flights, queue and tail, in this order.
//!
//! Invariant: two writes that overlap are never in flight together. They can only share the page where one ends and the next
//! goes on; the second waits.

mod cache;
mod cut;
mod flight;
mod padding;
mod placement;
mod tail;

use std::collections::VecDeque;
use std::ops::Range;

use highwater_protocol::frame::FramePlace;
use highwater_protocol::ids::{ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset, TopicPartition};

use crate::api::{Bounds, PartitionSlot, ReplicaState};
use crate::config::{CommitRule, PartitionConfig};
use crate::configurations::Configurations;
use crate::epochs::Epochs;
use crate::extent::Extent;
use crate::mac::StoreMacs;
use crate::map::CheckpointEntry;
use crate::mutants::{Mutant, is_planted};
use crate::position::{ExtentRef, LogPoint, Mark};
use crate::producers::Producers;
use crate::state_log::Seq;

pub(crate) use cache::{CacheBudget, Chunk, Chunks};
pub(crate) use cut::{Cut, CutGoal, CutStep};
pub(crate) use flight::{Advanced, Flight, Piece, Route, WriteBack};
pub(crate) use placement::{AppendContext, Gaps};
pub(crate) use tail::Tail;

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) slot: PartitionSlot,
    pub(crate) tp: TopicPartition,
    pub(crate) tag: u32,
    pub(crate) config: PartitionConfig,
    /// Oldest first. Their sequences rise.
    pub(crate) extents: VecDeque<Extent>,
    pub(crate) log_start: Offset,
    pub(crate) append_index: LogIndex,
    pub(crate) append_offset: Offset,
    /// Everything before it is on stable storage, and the map knows its extents.
    pub(crate) durable: Mark,
    /// The extents have everything before it, durably.
    pub(crate) extent_end: Mark,
    /// The first entry of the journal that has bytes from the extent end on and is not covered by the write-back in progress.
    pub(crate) journal_need: Option<u64>,
    /// What is being written from the journal to the extents.
    pub(crate) write_back: Option<WriteBack>,
    /// The commit point that the owner noted, or that recovery read from the frames. Not used with [`CommitRule::OwnDisk`].
    pub(crate) commit: LogPoint,
    /// See [`Bounds::last_epoch`].
    pub(crate) last_epoch: Option<LeaderEpoch>,
    /// The epochs of its frames.
    pub(crate) epochs: Epochs,
    /// The configurations of its replicas.
    pub(crate) configurations: Configurations,
    pub(crate) replica: ReplicaRecord,
    pub(crate) producers: Producers,
    /// How many of them the store has counted.
    pub(crate) producers_counted: usize,
    pub(crate) tail: Option<Tail>,
    /// Size of the last tail that left: the next one is likely to be as large.
    pub(crate) tail_bytes_last: usize,
    pub(crate) queue: VecDeque<Piece>,
    pub(crate) flights: VecDeque<Flight>,
    /// Number of the first flight; they are numbered in order.
    pub(crate) flight_first: u64,
    pub(crate) chunks: Chunks,
    pub(crate) unacked_bytes: u64,
    /// The last checkpoint in the map.
    pub(crate) checkpoint: Option<Box<CheckpointEntry>>,
    /// Part of the log is damaged: no appends.
    pub(crate) faulty: bool,
    /// Appended frames wait for space on the disk: appends are refused until these are durable.
    pub(crate) stalled: bool,
    pub(crate) deleting: bool,
    /// Part of the log is being cut off.
    pub(crate) cut: Option<Box<Cut>>,
    pub(crate) tail_state: TailState,
    pub(crate) flags: Flags,
}

/// Whether recovery may take the map's word for where a log ends.
///
/// After a while without appends a partition becomes [`Clean`](Self::Clean): the map says so, and a start after a crash need not search for the end
/// of its log. The map has to be told before the partition is written to again. Otherwise a frame that a crash left after the end of a clean
/// log would be forgotten, and come back once the log has grown up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailState {
    /// Recovery searches for the end of the log.
    Active,
    /// Not written to since the last checkpoint.
    Idle,
    /// The map says where the log ends.
    Clean,
    /// Written to once this record of the map is durable.
    Reactivating(Seq),
}

/// The state of the partition's replica here.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ReplicaRecord {
    /// The last one that was recorded in the map.
    pub(crate) recorded: Option<ReplicaState>,
    /// The last one that is durable.
    pub(crate) durable: Option<ReplicaState>,
}

/// In which of the store's lists a partition is.
#[derive(Clone, Copy, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is the membership in one list")]
pub(crate) struct Flags {
    /// Has something for a round.
    pub(crate) dirty: bool,
    /// Appended to since its last checkpoint.
    pub(crate) touched: bool,
    /// A `Durable` event waits to be taken.
    pub(crate) event: bool,
    /// Its durable end waits for the map.
    pub(crate) waits_for_map: bool,
    /// Listed among the partitions of which only the journal has a part.
    pub(crate) journaled: bool,
    /// Its next step waits for its write-back.
    pub(crate) urgent: bool,
    /// Its write bound is due to be raised.
    pub(crate) bound_due: bool,
    /// Among those whose frames a start found and writes again, in place: the cache does not have them.
    pub(crate) written_again: bool,
}

impl Partition {
    /// A partition without records.
    pub(crate) fn new(slot: PartitionSlot, tp: TopicPartition, config: PartitionConfig) -> Self {
        let start = Mark {
            sequence: ExtentSequence(0),
            incarnation: Incarnation(0),
            position: 0,
            index: LogIndex(0),
            offset: Offset(0),
        };
        Self {
            slot,
            tp,
            tag: tp.tag(),
            config,
            extents: VecDeque::new(),
            log_start: Offset(0),
            append_index: start.index,
            append_offset: start.offset,
            durable: start,
            extent_end: start,
            journal_need: None,
            write_back: None,
            commit: start.point(),
            last_epoch: None,
            epochs: Epochs::default(),
            configurations: Configurations::default(),
            replica: ReplicaRecord::default(),
            producers: Producers::default(),
            producers_counted: 0,
            tail: None,
            tail_bytes_last: 0,
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            flight_first: 0,
            chunks: Chunks::default(),
            unacked_bytes: 0,
            checkpoint: None,
            faulty: false,
            stalled: false,
            deleting: false,
            cut: None,
            tail_state: TailState::Active,
            flags: Flags::default(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            log_start: self.log_start,
            durable_end: self.durable.offset,
            append_end: self.append_offset,
            durable_index: self.durable.index,
            append_index: self.append_index,
            commit: self.commit_point(),
            bytes: self.extents.iter().map(|extent| u64::from(extent.used_bytes())).sum(),
            faulty: self.faulty,
            last_epoch: self.last_epoch,
            epoch_is_new: self.epoch_is_new(),
        }
    }

    fn epoch_is_new(&self) -> bool {
        self.last_epoch.is_some_and(|epoch| self.epochs.last() != Some(epoch))
    }

    /// Takes another configuration.
    pub(crate) fn configure(&mut self, config: PartitionConfig) {
        if (self.config.commit, config.commit) == (CommitRule::OwnDisk, CommitRule::Quorum) {
            // There were no other replicas until now: durable frames are committed and stay so.
            self.commit = self.durable.point();
        }
        self.config = config;
    }

    /// The end of what is known to be committed.
    pub(crate) fn commit_point(&self) -> LogPoint {
        match self.config.commit {
            CommitRule::OwnDisk => self.durable.point(),
            CommitRule::Quorum => self.commit,
        }
    }

    /// Index of the first frame that is here.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.extents.front().map_or(self.append_index, |extent| extent.base_index)
    }

    /// Forgets the epochs and configurations that are not in effect from this index on.
    pub(crate) fn forget_below(&mut self, index: LogIndex) {
        self.epochs.forget_below(index);
        self.configurations.forget_below(index);
    }

    /// Where the next frame and the next record go.
    pub(crate) fn append_point(&self) -> LogPoint {
        LogPoint { index: self.append_index, offset: self.append_offset }
    }

    /// The place in the chain of the next extent.
    pub(crate) fn next_sequence(&self) -> ExtentSequence {
        let last = self.extents.back().map_or(self.durable.sequence, |extent| extent.sequence);
        last.max(self.durable.sequence).next()
    }

    /// The extent that takes the next frame, if it is not sealed.
    pub(crate) fn active(&self) -> Option<&Extent> {
        self.extents.back().filter(|extent| !extent.sealed)
    }

    /// The number of this extent. `None` if it is gone, also if another one has its place in the chain.
    pub(crate) fn extent_at(&self, extent: ExtentRef) -> Option<usize> {
        let at = self.extents.binary_search_by_key(&extent.sequence, |extent| extent.sequence).ok()?;
        let is_it = self.extents[at].incarnation == extent.incarnation;
        (is_it || is_planted(Mutant::ReadReplacedExtent)).then_some(at)
    }

    pub(crate) fn extent(&self, extent: ExtentRef) -> Option<&Extent> {
        self.extent_at(extent).map(|at| &self.extents[at])
    }

    pub(crate) fn extent_mut(&mut self, extent: ExtentRef) -> Option<&mut Extent> {
        self.extent_at(extent).map(|at| &mut self.extents[at])
    }

    /// The extent in which the durable end is.
    pub(crate) fn durable_extent(&self) -> Option<&Extent> {
        self.extent(self.durable.extent())
    }

    /// How far an extent may be read.
    pub(crate) fn readable_to(&self, extent: &Extent) -> u32 {
        match extent.sequence.cmp(&self.durable.sequence) {
            std::cmp::Ordering::Less => extent.end,
            std::cmp::Ordering::Equal => self.durable.position,
            std::cmp::Ordering::Greater => crate::extent::FIRST_POSITION,
        }
    }

    /// How far an extent may be read from the disk. What follows is in the cache.
    pub(crate) fn written_to(&self, extent: &Extent) -> u32 {
        match extent.sequence.cmp(&self.extent_end.sequence) {
            std::cmp::Ordering::Less => extent.end,
            std::cmp::Ordering::Equal => self.extent_end.position,
            std::cmp::Ordering::Greater => crate::extent::FIRST_POSITION,
        }
    }

    /// The position from which on the cache has the frames of an extent, if it has some and does not have all.
    pub(crate) fn cached_from(&self, extent: &Extent) -> Option<u32> {
        self.chunks.first_position(extent.sequence)
    }

    /// The offsets of the records that lie in an extent and may be read.
    pub(crate) fn readable_offsets(&self, extent: &Extent) -> Range<Offset> {
        extent.base_offset..match extent.sequence.cmp(&self.durable.sequence) {
            std::cmp::Ordering::Less => extent.end_offset,
            std::cmp::Ordering::Equal => self.durable.offset,
            std::cmp::Ordering::Greater => extent.base_offset,
        }
    }

    /// Where the next frame goes, as it says itself.
    pub(crate) fn place(&self, macs: &StoreMacs, leader_epoch: LeaderEpoch) -> FramePlace {
        let active = self.active().expect("an extent takes the frame");
        assert!(self.epochs.last().is_none_or(|last| last <= leader_epoch), "epochs never fall along a log");
        assert!(self.durable.index <= self.append_index, "what is durable has been appended");
        let commit = self.commit_point().index;
        assert!(commit <= self.append_index, "what is committed has been appended");
        FramePlace {
            incarnation: active.incarnation,
            index: self.append_index,
            durable_index: self.durable.index,
            commit_index: commit,
            partition_tag: self.tag,
            mac: macs.of(active.incarnation).expect("an extent without codes takes no frames").at(active.end),
        }
    }

    /// A leader of this epoch may append. Recovery may have begun a newer one than that of the last frame.
    pub(crate) fn assert_leads(&self, epoch: LeaderEpoch) {
        assert!(self.last_epoch.is_none_or(|last| last <= epoch), "epochs of leaders never go back");
    }

    /// Whether something waits for a round.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.tail.as_ref().is_some_and(Tail::is_fresh)
    }

    /// Whether everything appended is durable.
    pub(crate) fn is_settled(&self) -> bool {
        !self.has_work() && self.flights.is_empty()
    }

    /// Whether a write that begins here would overlap one that is in flight.
    pub(crate) fn overlaps_flight(&self, extent: ExtentRef, from: u32) -> bool {
        let mut in_place =
            self.flights.iter().rev().filter(|flight| !matches!(flight.route, Route::Journal(_)));
        in_place.any(|other| other.writes_left > 0 && other.piece.extent == extent && other.to() > from)
    }

    /// Whether the extents have everything that is durable or in flight, or are being written to: then the next piece may go there.
    pub(crate) fn may_write_in_place(&self) -> bool {
        self.is_written_back()
            && self.flights.iter().all(|flight| matches!(flight.route, Route::Extent | Route::Header))
    }

    /// Whether the extents have everything that is durable.
    pub(crate) fn is_written_back(&self) -> bool {
        self.journal_need.is_none() && self.write_back.is_none()
    }

    /// Bytes of frames that no round has taken yet.
    pub(crate) fn pending_bytes(&self) -> u64 {
        let queued: u64 = self.queue.iter().map(|piece| piece.frame_bytes).sum();
        queued + self.tail.as_ref().map_or(0, Tail::fresh_bytes)
    }

    /// The flight of this number.
    pub(crate) fn flight_mut(&mut self, number: u64) -> &mut Flight {
        let at = usize::try_from(number - self.flight_first).expect("flights are few");
        &mut self.flights[at]
    }

    /// Whether a write found no space and has not been tried again.
    pub(crate) fn has_failed_flight(&self) -> bool {
        self.flights.iter().any(|flight| flight.failed)
    }

    /// Puts the pieces that found no space, and all after them, back at the head of the queue, in order. Returns the entries of the journal
    /// that they were in. `None`: there is nothing, or part of it is still in flight.
    pub(crate) fn requeue_failed(&mut self) -> Option<Vec<u64>> {
        let first = self.flights.iter().position(|flight| flight.failed)?;
        if self.flights.iter().any(|flight| !flight.landed) {
            return None;
        }
        let mut entries = Vec::new();
        for flight in self.flights.drain(first..).rev() {
            if let Route::Journal(sequence) = flight.route {
                entries.push(sequence);
                if let Some(at) =
                    self.extents.binary_search_by_key(&flight.piece.extent.sequence, |e| e.sequence).ok()
                    && flight.piece.begins_extent()
                {
                    let extent = &mut self.extents[at];
                    extent.header_written &= !extent.header_journaled;
                    extent.header_journaled = false;
                }
            }
            self.queue.push_front(flight.piece);
        }
        Some(entries)
    }

    /// Moves the durable end over the flights that have become durable, in order, as far as the map knows their extents.
    pub(crate) fn advance_durable(&mut self, map_durable: Seq) -> Advanced {
        let mut advanced = Advanced::default();
        self.flags.waits_for_map = false;
        while let Some(flight) = self.flights.front() {
            if !flight.is_durable() {
                break;
            }
            let known = self.extent(flight.piece.extent).and_then(|extent| extent.map_seq);
            if known.expect("what is written lies in an extent that has a place") > map_durable {
                self.flags.waits_for_map = true;
                break;
            }
            let Flight { piece, route, writes_left, .. } = self.flights.pop_front().expect("it was there");
            self.flight_first += 1;
            assert!(writes_left == 0);
            assert!(piece.end.index >= self.durable.index && piece.end.offset >= self.durable.offset);
            assert!(piece.end.sequence >= self.durable.sequence);
            advanced.bytes += piece.frame_bytes;
            self.durable = piece.end;
            match route {
                Route::Extent => {
                    assert!(self.is_written_back(), "what is written in place follows what the extents have");
                    self.extent_end = piece.end;
                }
                Route::Header => {}
                Route::Journal(sequence) if self.journal_need.is_none() => self.journal_need = Some(sequence),
                Route::Journal(sequence) => advanced.released.push(sequence),
            }
        }
        assert!(self.extent_end.index <= self.durable.index, "what the extents have is durable");
        assert!(self.durable.index <= self.append_index && self.durable.offset <= self.append_offset);
        assert!(self.unacked_bytes >= advanced.bytes);
        self.unacked_bytes -= advanced.bytes;
        advanced
    }

    /// Ends the active extent: the next frame goes into another one.
    pub(crate) fn seal_active(&mut self) {
        if let Some(active) = self.extents.back_mut() {
            active.sealed = true;
        }
    }
}
