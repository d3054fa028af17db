//! Frames from the leader of a partition: their checks, and how they are appended.

use highwater_protocol::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Frames};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_protocol::limits::BULK_BYTES_MIN;
use highwater_replication::raft::{Append, Config, ConfigEntry};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;
use highwater_storage::{FrameContent, LogPoint, Payload, ReplicateError, ReplicatedFrame};

use super::Replicas;
use super::replica::PartitionId;

/// What is wrong with the frames of a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FramesError {
    /// They are not what the message says.
    #[error("the frames of a message for entries {from}..{end} are invalid: {what}")]
    Invalid { from: LogIndex, end: LogIndex, what: &'static str },
    /// The log does not take one of them.
    #[error("a frame does not fit the log: {0}")]
    NotTaken(ReplicateError),
    /// A message with which a log starts anew does not say at which offset.
    #[error("the message with which the log starts anew has no offset")]
    NoStartOffset,
}

/// The frames of a message. They have been checked against it.
#[derive(Debug)]
pub(super) struct IncomingFrames<'a> {
    from: LogIndex,
    frames: Vec<Frame<'a>>,
    configs: Vec<ConfigEntry>,
}

impl<'a> IncomingFrames<'a> {
    /// Checks every bit of the frames, and that they are the entries of the message: those that compaction has removed may be missing.
    pub(super) fn parse(append: &Append, bytes: &'a [u8]) -> Result<Self, FramesError> {
        let invalid = |what| FramesError::Invalid { from: append.from, end: append.end, what };
        let mut parsed = Self { from: append.from, frames: Vec::new(), configs: Vec::new() };
        let mut next = append.from;
        for frame in Frames::new(bytes) {
            let frame = frame.map_err(|_| invalid("a header is damaged"))?;
            frame.check().map_err(|_| invalid("a payload is damaged"))?;
            if frame.kind() == FrameKind::Padding {
                continue;
            }
            let (index, epoch) = place(&frame);
            if index < next || index >= append.end {
                return Err(invalid("an index is out of order"));
            }
            if append.epoch_of(index).is_some_and(|expected| expected != epoch) {
                return Err(invalid("an epoch is not that of its entry"));
            }
            if frame.kind() == FrameKind::Configuration {
                let config = Config::from_stored(frame.payload())
                    .map_err(|_| invalid("a configuration cannot be read"))?;
                parsed.configs.push(ConfigEntry { index, config });
            }
            next = index.next();
            parsed.frames.push(frame);
        }
        if next == append.end { Ok(parsed) } else { Err(invalid("the last entries are missing")) }
    }

    /// Returns the configurations among the entries.
    pub(super) fn configs(&self) -> &[ConfigEntry] {
        &self.configs
    }
}

fn place(frame: &Frame<'_>) -> (LogIndex, LeaderEpoch) {
    let header = frame.header();
    (LogIndex(header.index.get()), LeaderEpoch(header.leader_epoch.get()))
}

/// Returns where the log goes on after a frame.
fn end_of(frame: &Frame<'_>) -> LogPoint {
    let offset = frame.header().base_offset.get();
    let records = match frame.batch() {
        Some(batch) => i64::from(batch.header().last_offset_delta.get()) + 1,
        None => 0,
    };
    LogPoint { index: place(frame).0.next(), offset: Offset(offset + records) }
}

impl Replicas {
    /// Appends the frames of a message from an index on, at which the log ends. If the store does not take all of them, the leader sends the
    /// others again.
    pub(super) fn append_frames(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        incoming: &IncomingFrames<'_>,
        from: LogIndex,
        wall_ms: i64,
    ) -> Result<(), FramesError> {
        let Some(partition) = self.table.get_mut(id) else { return Ok(()) };
        let store = &mut self.stores[partition.store].store;
        let bounds = store.bounds(partition.slot);
        assert!(bounds.append_index == from, "the log ends where the core says");
        // Where compaction has removed frames, the log goes on after them.
        let mut follows = LogPoint { index: incoming.from, offset: bounds.append_end };
        for frame in &incoming.frames {
            let (index, epoch) = place(frame);
            let end = end_of(frame);
            if index < from {
                follows = end;
                continue;
            }
            let content = match (frame.kind(), frame.batch()) {
                (FrameKind::Batch, Some(batch)) if frame.payload().len() >= BULK_BYTES_MIN => {
                    let mut pages = AlignedBuf::new(FRAME_HEADER_BYTES + frame.payload().len());
                    pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + frame.payload().len()]
                        .copy_from_slice(frame.payload());
                    FrameContent::Batch(Payload::bulk(*batch.header(), pages))
                }
                (FrameKind::Batch, Some(batch)) => {
                    FrameContent::Batch(Payload::small(*batch.header(), frame.payload()))
                }
                (FrameKind::Configuration, _) => FrameContent::Configuration(frame.payload()),
                _ => FrameContent::EpochStart,
            };
            let offset = Offset(frame.header().base_offset.get());
            let replicated = ReplicatedFrame { index, epoch, offset, follows, content };
            match store.append_replicated(disk, partition.slot, replicated, wall_ms) {
                Ok(_) => {}
                Err(error) => {
                    partition.consensus.handle_refused(store.bounds(partition.slot).append_index);
                    return match error {
                        ReplicateError::Refused(_) => Ok(()),
                        error => Err(FramesError::NotTaken(error)),
                    };
                }
            }
            partition.consensus.mark(end);
            follows = end;
        }
        Ok(())
    }
}
