//! Runs the log of the metadata on shard 0: appends what the controller proposes, and brings it what is committed.
//!
//! Committed records are read from the log, on the leader too: there is one way in which they are applied, whoever has proposed them. What was just
//! appended comes from memory.

use highwater_protocol::batch::{BatchError, BatchView};
use highwater_protocol::ids::Offset;
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_runtime::plane::Plane;
use highwater_storage::{Cursor, Frames, ReadId, ReadLimits, ReadResult};

use super::Shard;
use super::drain::Drain;
use super::lead::Lead;
use crate::limits::{METADATA_LOAD_BYTES_MAX, METADATA_LOAD_MEMORY_BYTES_MAX};
use crate::message::Message;
use crate::meta::controller::{Controller, LogView};
use crate::meta::{RecoverError, metadata_topic};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{AppendFailure, AppendOutcome, EXIT_DISK, Partitions, PieceReads, batches_of};
use crate::reply_to::ReplyTo;

/// Reads the log of the metadata.
#[derive(Default)]
pub(super) struct MetadataReader {
    /// Where the last read has ended.
    cursor: Option<Cursor>,
    reads: PieceReads,
}

/// Why the log of the metadata cannot be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("records {from} to {until} are lost")]
    Lost { from: Offset, until: Offset },
    #[error("a batch cannot be read: {0}")]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Record(#[from] RecoverError),
    #[error("record {0} has no content")]
    Empty(Offset),
}

impl MetadataReader {
    /// Returns whether a store's read is that of the log of the metadata.
    pub(super) fn is_reading(&self, store: usize, id: ReadId) -> bool {
        self.reads.is_reading(store, id)
    }
}

impl Lead {
    /// Brings what the replica of the log is doing to the controller. Returns whether that has begun to decide.
    pub(super) fn follow_log(&mut self, partitions: &Partitions) -> bool {
        let Some((_, log)) = partitions.metadata() else { return false };
        self.controller.handle_log(LogView {
            led: log.led(),
            is_alone: log.is_alone(),
            end: partitions.bounds(log).append_end,
            waits_for_space: partitions.is_stalled(METADATA_PARTITION),
        })
    }

    fn handle_frames(&mut self, frames: &Frames) -> Result<(), FollowError> {
        let mut scratch = Vec::new();
        for chunk in &frames.bytes {
            for (start, bytes) in batches_of(chunk) {
                let batch = BatchView::parse(&chunk[start..start + bytes])?;
                apply_batch(&mut self.controller, &batch, &mut scratch)?;
            }
        }
        self.reader.cursor = Some(frames.next);
        Ok(())
    }
}

fn apply_batch(
    controller: &mut Controller,
    batch: &BatchView<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), FollowError> {
    let mut offset = batch.header().base_offset();
    for record in batch.records(scratch)? {
        let value = record?.value.ok_or(FollowError::Empty(offset))?;
        controller.handle_committed(offset, value)?;
        offset = offset.plus(1);
    }
    Ok(())
}

impl Shard {
    /// Appends what the controller has proposed, and applies what is committed. Called before the commit round of a turn, and after it. Returns
    /// whether more is left for the next turn.
    pub(super) fn run_metadata_log(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if matches!(self.drain, Some(Drain::Closing | Drain::Exited)) {
            return false;
        }
        let Some(lead) = &mut self.lead else { return false };
        if let Some(next) = lead.controller.wants_log() {
            let wall_ms = plane.wall_clock_ms();
            let topic = metadata_topic(self.setup.identity.founder);
            self.partitions.open_metadata(plane, &topic, next, wall_ms);
        }
        if lead.follow_log(&self.partitions) {
            lead.carry_over(plane);
        }
        if lead.controller.may_add_replicas() {
            let wall_ms = plane.wall_clock_ms();
            self.partitions.follow_nodes(plane, lead.controller.metadata().nodes(), wall_ms);
        }
        self.register_at_leader();
        self.handle_held_requests(plane);
        self.append_proposals(plane);
        self.read_metadata_log(plane)
    }

    fn append_proposals(&mut self, plane: &mut dyn Plane<Message>) {
        let wall_ms = plane.wall_clock_ms();
        while let Some(lead) = &mut self.lead
            && let Some((number, batch)) = lead.controller.poll_append(wall_ms)
        {
            let to = ReplyTo::Controller(number);
            self.partitions.append_own(plane, METADATA_PARTITION, to, &batch, wall_ms);
            self.route_partition_events(plane);
        }
    }

    /// Handles the outcome of an append of the controller's.
    pub(super) fn proposals_are_appended(&mut self, number: u64, outcome: AppendOutcome) {
        let Some(lead) = &mut self.lead else { return };
        let outcome = outcome.map(|at| at.base_offset).map_err(|failure| match failure {
            AppendFailure::Api(error) => error,
            failure => unreachable!("the controller's batches are valid: {failure}"),
        });
        lead.controller.handle_appended(number, outcome);
    }

    /// Reads what is committed and not applied. Returns whether the next turn can read on.
    fn read_metadata_log(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Some(lead) = &mut self.lead else { return false };
        let (Some(next), Some((id, log))) = (lead.controller.wants_from(), self.partitions.metadata()) else {
            return false;
        };
        // A node that has nothing looks for a snapshot.
        let cursor =
            lead.reader.cursor.filter(|cursor| cursor.offset() == next || lead.controller.is_blank());
        let log_start = self.partitions.bounds(log).log_start;
        let cursor = match cursor {
            Some(cursor) if cursor.offset() >= log_start => cursor,
            _ => Cursor::at(if lead.controller.is_blank() { log_start } else { next }),
        };
        let from = cursor.offset();
        let is_early = is_planted(Mutant::MetadataAppliedUncommitted);
        let end = if is_early { self.partitions.bounds(log).append_end } else { log.high_watermark() };
        if from >= end || lead.reader.reads.is_busy() {
            return false;
        }
        let limits = ReadLimits {
            bytes_max: METADATA_LOAD_BYTES_MAX,
            memory_bytes_max: METADATA_LOAD_MEMORY_BYTES_MAX,
        };
        let read = lead.reader.reads.read(plane, &mut self.partitions, id, (cursor, end), limits);
        let Some(result) = read else { return false };
        self.apply_metadata_read(plane, result);
        true
    }

    /// Handles the result of a read of the log.
    pub(super) fn apply_metadata_read(&mut self, plane: &mut dyn Plane<Message>, result: ReadResult) {
        let Some(lead) = &mut self.lead else { return };
        lead.reader.reads.handle_result(&result);
        let from = lead.controller.metadata().next_offset();
        let outcome = match result {
            ReadResult::Frames(frames) => lead.handle_frames(&frames),
            ReadResult::AtEnd | ReadResult::NeedsMemory(_) => Ok(()),
            ReadResult::OutOfRange { log_start: until, .. }
            | ReadResult::Damaged { resume_at: until }
            | ReadResult::AfterDamage { end: until } => Err(FollowError::Lost { from, until }),
        };
        if let Err(error) = outcome {
            plane.fatal(EXIT_DISK, format!("the log of the cluster's metadata cannot be followed: {error}"));
        }
    }
}
