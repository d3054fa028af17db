//! Puts damaged partitions back into service, without the records that are lost.
//!
//! A start takes a partition out of service if records are missing that may have been acknowledged, and finds the same at every start, because the
//! map keeps the checkpoint from before. Accepting the loss changes what the map says, and no byte of the log before its end:
//!
//! - all extents are sealed, each where the next one begins and the last one at the end of the log. So reads of the lost offsets return an error
//!   that names them, as for damage that is found later, and new records go into a new extent and never before frames that are found later;
//! - extents that cannot be read at all are no longer part of the log. If nothing is left before them, the log starts after them;
//! - a new leader epoch begins: if the end of the log was lost, its offsets are used again. Its first frame follows the lost ones. If the map is lost
//!   later, that frame proves that there were frames before it, and the next start finds the loss again.

use std::path::PathBuf;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_runtime::plane::Disk;

use super::Store;
use crate::api::{AppendError, PartitionSlot, RecoveryReport};
use crate::extent::CREATED_UNKNOWN;
use crate::layout::{Place, slab_name};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, TailState};
use crate::position::LogPoint;

/// Why a loss cannot be accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptLossError {
    /// Two extents hold the same part of the log.
    #[error(
        "two of its extents hold the same offsets, and which of them is right is not known; delete its topic"
    )]
    Overlap,
    /// The disk has no space for what the journal has of it, or to write its last frames again, which may not be durable.
    #[error(
        "the disk has no space to write its last records again; they may not be lost: free space, and start or repair again"
    )]
    NoSpace,
}

/// A part of a slab that is free once a loss is accepted: what is in it is no part of any log, and is overwritten one day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// The slab.
    pub path: PathBuf,
    /// Where it begins. The slab may end before that.
    pub at: u64,
    /// Its size.
    pub bytes: u64,
}

impl Store {
    /// Puts a partition that is out of service back into service; does nothing if it is not out of service.
    ///
    /// The store has to be one that was just opened, with this report, and nothing may be appended to it. The loss is accepted durably when
    /// [`shutdown`](Self::shutdown) is complete, and not at all if that is not reached. Returns the space of which nothing can be read.
    pub fn accept_loss(
        &mut self,
        slot: PartitionSlot,
        report: &RecoveryReport,
    ) -> Result<Vec<GivenUp>, AcceptLossError> {
        let Some(partition) = self.partition_mut(slot).filter(|partition| partition.faulty) else {
            return Ok(Vec::new());
        };
        if report.journal_without_space || report.without_space.contains(&partition.tp) {
            return Err(AcceptLossError::NoSpace);
        }
        let mut places = partition.drop_lost(report)?;
        let tag = partition.tag;
        // Their space stays taken until the next start.
        places.extend(self.orphans.forget(tag));
        // The last snapshot of the map is made only if something has changed.
        self.untouched = None;
        if self.partitions_out_of_service() == 0 {
            self.journal.stop_holding();
        }
        let given_up = |(place, log2_bytes): (Place, u8)| {
            let path = self.config.dir.join(slab_name(place.slab));
            GivenUp { path, at: place.at, bytes: 1 << log2_bytes }
        };
        Ok(places.into_iter().map(given_up).collect())
    }

    /// Appends the first frame of the epoch that begins after an accepted loss. [`AppendError::Busy`]: try again when the slab that it needs was made.
    pub fn begin_epoch_after_loss(
        &mut self,
        disk: &mut dyn Disk,
        slot: PartitionSlot,
    ) -> Result<(), AppendError> {
        let partition = self.partition(slot).filter(|partition| partition.bounds().epoch_is_new);
        let Some(epoch) = partition.and_then(|partition| partition.last_epoch) else { return Ok(()) };
        self.append_epoch_start(disk, slot, epoch, CREATED_UNKNOWN).map(drop)
    }

    fn partitions_out_of_service(&self) -> usize {
        self.by_tp.values().filter(|slot| self.partition(**slot).is_some_and(|p| p.faulty)).count()
    }
}

impl Partition {
    /// Drops the extents that cannot be used, and returns their places.
    fn drop_lost(&mut self, report: &RecoveryReport) -> Result<Vec<(Place, u8)>, AcceptLossError> {
        assert!(self.is_settled() && self.is_written_back(), "nothing was appended since the start");
        let is_lost = |incarnation| report.unusable.contains(&incarnation);
        let left = || self.extents.iter().filter(|extent| !is_lost(extent.incarnation));
        if left().zip(left().skip(1)).any(|(one, next)| next.base_index < one.end_index) {
            return Err(AcceptLossError::Overlap);
        }
        let lost = self.extents.iter().filter(|extent| is_lost(extent.incarnation));
        let places = lost.filter_map(|extent| Some((extent.place?, extent.log2_bytes))).collect();
        self.extents.retain(|extent| !is_lost(extent.incarnation));
        let mut end = LogPoint { index: self.durable.index, offset: self.durable.offset };
        for extent in self.extents.iter_mut().rev() {
            extent.end_index = extent.end_index.max(end.index);
            extent.end_offset = extent.end_offset.max(end.offset);
            extent.sealed = true;
            end = LogPoint { index: extent.base_index, offset: extent.base_offset };
        }
        if let Some(last) = self.extents.back() {
            self.durable = last.end_mark();
        }
        self.log_start = self.log_start.max(end.offset);
        let first = self.extents.front().map_or(LogIndex(0), |first| first.base_index);
        self.forget_below(first);
        if !is_planted(Mutant::KeepEpochAfterLoss) {
            self.last_epoch = Some(LeaderEpoch(self.last_epoch.map_or(0, |last| last.0) + 1));
        }
        self.extent_end = self.durable;
        self.append_index = self.durable.index;
        self.append_offset = self.durable.offset;
        self.commit = self.durable.point();
        self.tail = None;
        self.tail_state = TailState::Clean;
        self.faulty = false;
        Ok(places)
    }
}
