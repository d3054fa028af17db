//! Rewriting a part of a log: one new extent takes the place of sealed ones, without what a filter drops.
//!
//! Offsets and indexes never change: each frame that is kept has the index, the epoch and the offsets that it had, and the new extent stands for the
//! whole range of those that it replaces. Only committed frames are rewritten, and never the extent in which the durable end is. In steps:
//!
//! 1. The new extent gets its space, as large as those it replaces together. The map does not know of it yet.
//! 2. Its header is written, durably, without saying where it ends: if the map is lost now, the extent counts for nothing, and frames that are
//!    written over an earlier use of the space cannot pass for that.
//! 3. Frames are read through the store's read path, shown to the filter, and written. One read or write is in flight at a time.
//! 4. A sync, then the header again, durably, with its end: if the map is lost from here on, the new extent counts.
//! 5. One record of the map swaps the extents. Readers see the new one at once: those that were in an old one begin again at their offset. The space of
//!    the old ones, and what the new one has too much, is free once that record is durable. Until then a crash brings the old ones back.
//!
//! At any step the rewrite is given up when the log has changed so that the old extents are not there any more or might not stay, when there
//! is no space, or when the owner asks for it. Then the new space is free again as soon as nothing is being written to it, and nothing has changed.
//!
//! The first frame of a leader's epoch is never dropped without trace: if its batch is, an epoch start takes its index, so that the epochs are
//! found again without the map. So is each configuration of the replicas that the partition remembers. So is the last batch of each producer, which the filter has to leave at least its header. The last batch of the log stays
//! for readers: nothing else tells them that there is no record up to the end.
//!
//! [`output`] puts the new extent together, [`copy`] fills it, [`swap`] ends the rewrite.

mod copy;
mod output;
mod swap;

use bytes::Bytes;
use highwater_protocol::ids::{Incarnation, LogIndex};
use highwater_runtime::plane::Disk;

use super::{Phase, Store};
use crate::api::{
    BatchFilter, IndexCursor, PartitionSlot, ReadId, RewritableExtent, RewriteAborted, RewriteError,
    Rewritten, StoreEvent,
};
use crate::extent::{Extent, FIRST_POSITION, NO_TIMESTAMP};
use crate::layout::Place;
use crate::limits::REWRITE_EXTENTS_MAX;
use crate::map::MapRecord;
use crate::partition::Partition;
use crate::position::{ExtentRef, LogPoint};
use output::Output;

/// A rewrite in progress.
#[derive(Debug)]
pub(super) struct Rewrite {
    slot: PartitionSlot,
    /// The extents that are to be replaced, in order.
    sources: Vec<ExtentRef>,
    start: LogPoint,
    end: LogPoint,
    filter: Box<dyn BatchFilter>,
    step: Step,
    /// Writes and syncs in flight.
    ops_left: u32,
    /// Why it is being given up.
    aborted: Option<RewriteAborted>,
    /// Size of the space for the new extent, given by its binary logarithm.
    log2_bytes: u8,
    /// The new extent, once it has space.
    output: Option<Output>,
    /// The next frame to read.
    next: IndexCursor,
    /// Frames that were read, and where the next one of them begins.
    frames: Bytes,
    at: usize,
    /// When a batch without a timestamp was appended at the latest.
    untimed_ms: i64,
    outcome: Rewritten,
    /// What the filter made of a batch.
    scratch: Vec<u8>,
}

/// What a rewrite does next, once nothing of it is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It takes space for the new extent. `asked`: a slab was asked for.
    Placing { asked: bool },
    /// It writes the header, when the incarnation is reserved.
    Beginning,
    /// It goes on with the frames that were read, or reads the next ones.
    Copying,
    /// It waits for a read.
    Reading(ReadId),
    /// It syncs the frames.
    Syncing,
    /// It writes the header with the end.
    Ending,
    /// It swaps the extents.
    Swapping,
}

/// How a step ended.
enum Progress {
    /// The next step can be taken.
    Next,
    /// Something has to happen first.
    Waits,
    /// No bytes are left for this turn.
    Paused,
}

impl Partition {
    /// Whether an extent may be replaced by one that was rewritten from it.
    fn is_rewritable(&self, extent: &Extent) -> bool {
        extent.sealed
            && extent.seal_recorded
            && extent.place.is_some()
            && extent.sequence < self.durable.sequence
            && extent.end_index <= self.commit_point().index
            && (extent.sequence, extent.end) <= (self.extent_end.sequence, self.extent_end.position)
    }

    /// Whether part of its log may be replaced now.
    fn takes_rewrite(&self) -> bool {
        !self.deleting && !self.faulty && self.cut.is_none()
    }
}

impl Rewrite {
    /// The extents that it replaces, by number. `None`: they are not all there any more, or may not be replaced.
    fn sources_in(&self, partition: &Partition) -> Option<std::ops::Range<usize>> {
        let first = partition.extent_at(self.sources[0])?;
        let range = first..first + self.sources.len();
        let all = partition.extents.iter().skip(first).zip(&self.sources);
        let same = all.filter(|(e, source)| e.reference() == **source && partition.is_rewritable(e)).count();
        (same == self.sources.len()).then_some(range)
    }

    /// Begins again, with nothing read and no space.
    fn begin_again(&mut self) {
        self.step = Step::Placing { asked: false };
        self.output = None;
        self.next = IndexCursor::at(self.start.index);
        self.frames = Bytes::new();
        self.at = 0;
        let Rewritten { extents, bytes_before, .. } = self.outcome;
        self.outcome = Rewritten { extents, bytes_before, ..Rewritten::default() };
    }
}

impl Store {
    /// The extents of a partition that may be rewritten, from the start of its log on.
    pub fn rewritable_extents(&self, slot: PartitionSlot) -> impl Iterator<Item = RewritableExtent> {
        let partition = self.partition(slot).filter(|partition| partition.takes_rewrite());
        partition.into_iter().flat_map(|partition| {
            let may = |extent: &&Extent| partition.is_rewritable(extent);
            partition.extents.iter().take_while(may).map(|extent| RewritableExtent {
                base_index: extent.base_index,
                end_index: extent.end_index,
                base_offset: extent.base_offset,
                end_offset: extent.end_offset,
                bytes: u64::from(extent.used_bytes()),
                generation: extent.generation,
                created_ms: extent.created_ms,
                newest_ms: extent.newest_ms(),
                horizon_ms: extent.horizon().map(|(_, horizon_ms)| horizon_ms),
            })
        })
    }

    /// Rewrites extents that follow one another, the first of which begins at this index, to one extent. [`Store::continue_rewrite`] does it, and
    /// [`StoreEvent::Rewritten`] reports the end.
    pub fn rewrite(
        &mut self,
        slot: PartitionSlot,
        from: LogIndex,
        extents: usize,
        filter: Box<dyn BatchFilter>,
    ) -> Result<(), RewriteError> {
        if self.rewrite.is_some() {
            return Err(RewriteError::Busy);
        }
        let partition = self.partition(slot).filter(|partition| partition.takes_rewrite());
        let partition = partition.filter(|_| self.phase == Phase::Open).ok_or(RewriteError::Unavailable)?;
        let first = partition.extents.partition_point(|extent| extent.base_index < from);
        let sources: Vec<&Extent> = partition.extents.iter().skip(first).take(extents).collect();
        let is_possible = sources.len() == extents
            && extents <= REWRITE_EXTENTS_MAX
            && sources.iter().all(|extent| partition.is_rewritable(extent));
        let (Some(head), Some(tail)) = (sources.first(), sources.last()) else {
            return Err(RewriteError::NotRewritable);
        };
        if !is_possible || head.base_index != from {
            return Err(RewriteError::NotRewritable);
        }
        let limits = &self.config.limits;
        let bytes_before: u64 = sources.iter().map(|extent| u64::from(extent.used_bytes())).sum();
        let log2_min = limits.extent_bytes_min.ilog2() as u8;
        let log2_bytes = (u64::from(FIRST_POSITION) + bytes_before).next_power_of_two().ilog2() as u8;
        let largest = sources.iter().map(|extent| extent.log2_bytes).max().unwrap_or(log2_min);
        if log2_bytes > largest.max(limits.extent_bytes_max.ilog2() as u8) {
            return Err(RewriteError::NotRewritable);
        }
        let rewrite = Rewrite {
            slot,
            sources: sources.iter().map(|extent| extent.reference()).collect(),
            start: head.start_mark().point(),
            end: tail.end_mark().point(),
            filter,
            step: Step::Placing { asked: false },
            ops_left: 0,
            aborted: None,
            log2_bytes: log2_bytes.max(log2_min),
            output: None,
            next: IndexCursor::at(from),
            frames: Bytes::new(),
            at: 0,
            untimed_ms: sources.iter().map(|extent| extent.untimed_ms).max().unwrap_or(NO_TIMESTAMP),
            outcome: Rewritten { extents, bytes_before, ..Rewritten::default() },
            scratch: Vec::new(),
        };
        self.rewrite = Some(Box::new(rewrite));
        Ok(())
    }

    /// Gives up the rewrite that is in progress. [`StoreEvent::Rewritten`] reports the end.
    pub fn abort_rewrite(&mut self) {
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.aborted.get_or_insert(RewriteAborted::Requested);
        }
        self.give_up_changed_rewrite();
    }

    /// Goes on with a rewrite, as far as that is possible without waiting, while there are `bytes` of frames left, and reduces them. Returns true if it
    /// can go on: call it again in a later turn.
    pub fn continue_rewrite(&mut self, disk: &mut dyn Disk, bytes: &mut usize) -> bool {
        self.give_up_changed_rewrite();
        let Some(mut rewrite) = self.rewrite.take() else { return false };
        while rewrite.ops_left == 0 && rewrite.aborted.is_none() {
            if rewrite.step == Step::Swapping {
                self.end_rewrite(*rewrite);
                return false;
            }
            match self.take_step(disk, &mut rewrite, bytes) {
                Ok(Progress::Next) => {}
                Ok(progress) => {
                    self.rewrite = Some(rewrite);
                    return matches!(progress, Progress::Paused);
                }
                Err(why) => rewrite.aborted = Some(why),
            }
        }
        self.rewrite = Some(rewrite);
        self.give_up_changed_rewrite();
        false
    }

    fn take_step(
        &mut self,
        disk: &mut dyn Disk,
        rewrite: &mut Rewrite,
        bytes: &mut usize,
    ) -> Result<Progress, RewriteAborted> {
        match rewrite.step {
            Step::Placing { asked } => self.place_rewrite(rewrite, asked),
            Step::Beginning => Ok(self.begin_rewritten_extent(disk, rewrite)),
            Step::Copying => self.copy_frames(disk, rewrite, bytes),
            Step::Reading(_) => Ok(Progress::Waits),
            Step::Syncing => Ok(self.sync_rewrite(disk, rewrite)),
            Step::Ending => Ok(self.write_rewritten_header(disk, rewrite, Step::Swapping)),
            Step::Swapping => unreachable!("the caller looked"),
        }
    }

    /// Takes space for the new extent.
    fn place_rewrite(&mut self, rewrite: &mut Rewrite, asked: bool) -> Result<Progress, RewriteAborted> {
        let log2 = rewrite.log2_bytes;
        let Some(place) = self.space.allocate(log2) else {
            if asked && self.space.spare.is_none() {
                return Err(RewriteAborted::NoSpace);
            }
            self.space.spare = Some(log2);
            rewrite.step = Step::Placing { asked: true };
            // The next flush has a slab made, or finds that there is no space for one.
            return Ok(if asked { Progress::Waits } else { Progress::Paused });
        };
        self.space.spare = None;
        let incarnation = Incarnation(self.space.next_incarnation);
        self.space.next_incarnation += 1;
        if !std::mem::replace(&mut self.macs_recorded, true) {
            // Before the first extent that has codes.
            let macs = MapRecord::Macs(self.macs.into());
            self.record(&macs);
        }
        let output = self.new_output(rewrite, incarnation, place);
        rewrite.output = Some(output);
        rewrite.step = Step::Beginning;
        Ok(Progress::Next)
    }

    fn new_output(&self, rewrite: &Rewrite, incarnation: Incarnation, place: Place) -> Output {
        let partition = self.partition(rewrite.slot).expect("it was looked at before each step");
        let at = rewrite.sources_in(partition).expect("it was looked at before each step");
        let sources = || partition.extents.range(at.clone());
        let head = &partition.extents[at.start];
        let reference = ExtentRef { sequence: head.sequence, incarnation };
        let created_ms = sources().map(|extent| extent.created_ms).max().unwrap_or(head.created_ms);
        let generation = sources().map(|extent| extent.generation).max().unwrap_or(0) + 1;
        let mut extent =
            Extent::new(reference, rewrite.log2_bytes, rewrite.start, head.leader_epoch, created_ms);
        extent.generation = generation;
        extent.configured = partition.configurations.has_had_any();
        extent.place = Some(place);
        let macs = self.macs.of(incarnation).expect("a new extent has codes");
        Output::new(extent, macs, partition.tag, &self.config.limits)
    }

    /// Ends a rewrite that is to be given up, or whose log has changed, unless something of it is in flight.
    pub(super) fn give_up_changed_rewrite(&mut self) {
        let Some(rewrite) = &self.rewrite else { return };
        let partition = self.partition(rewrite.slot).filter(|partition| partition.takes_rewrite());
        let is_possible = self.phase == Phase::Open
            && partition.is_some_and(|partition| rewrite.sources_in(partition).is_some());
        let changed = (!is_possible).then_some(RewriteAborted::Changed);
        let Some(why) = rewrite.aborted.or(changed) else { return };
        if rewrite.ops_left > 0 {
            // Its space is free when nothing is being written there.
            return;
        }
        let rewrite = self.rewrite.take().expect("it was there");
        let slot = rewrite.slot;
        self.release_output(*rewrite);
        self.push_event(StoreEvent::Rewritten { slot, outcome: Err(why) });
    }

    /// The space of a new extent is free again: the map has never known of it.
    fn release_output(&mut self, rewrite: Rewrite) {
        self.space.spare = None;
        if let Some(place) = rewrite.output.and_then(|output| output.extent.place) {
            self.space.alloc.release(place, rewrite.log2_bytes);
            self.space.trim_due = true;
            self.on_space_gained();
        }
    }
}
