//! Frames from the leader of a partition: their checks, and how they are appended.

use highwater_protocol::frame::{FRAME_HEADER_BYTES, Frame, FrameKind, Frames as FrameIter};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_protocol::limits::BULK_BYTES_MIN;
use highwater_replication::peer::Frames;
use highwater_replication::raft::{Append, Config, ConfigEntry};
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::Disk;
use highwater_storage::{
    FrameContent, LogPoint, PartitionSlot, Payload, ReplicateError, ReplicatedFrame, Store,
};

use super::Replicas;
use super::consensus::Consensus;
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
pub(super) struct IncomingFrames {
    from: LogIndex,
    pieces: Vec<Frames>,
    configs: Vec<ConfigEntry>,
}

impl IncomingFrames {
    /// Checks every bit of the frames, and that they are the entries of the message: those that compaction has removed may be missing.
    pub(super) fn parse(append: &Append, pieces: Vec<Frames>) -> Result<Self, FramesError> {
        let invalid = |what| FramesError::Invalid { from: append.from, end: append.end, what };
        let mut configs = Vec::new();
        let mut next = append.from;
        for frame in pieces.iter().flat_map(|piece| FrameIter::new(piece.bytes())) {
            let frame = frame.map_err(|_| invalid("a header is damaged"))?;
            frame.check().map_err(|_| invalid("a payload is damaged"))?;
            if frame.kind() == FrameKind::Padding {
                continue;
            }
            let Place { index, epoch, .. } = Place::of(&frame);
            if index < next || index >= append.end {
                return Err(invalid("an index is out of order"));
            }
            if append.epoch_of(index).is_some_and(|expected| expected != epoch) {
                return Err(invalid("an epoch is not that of its entry"));
            }
            if frame.kind() == FrameKind::Configuration {
                let config = Config::from_stored(frame.payload())
                    .map_err(|_| invalid("a configuration cannot be read"))?;
                configs.push(ConfigEntry { index, config });
            }
            next = index.next();
        }
        if next != append.end {
            return Err(invalid("the last entries are missing"));
        }
        Ok(Self { from: append.from, pieces, configs })
    }

    /// Returns the configurations among the entries.
    pub(super) fn configs(&self) -> &[ConfigEntry] {
        &self.configs
    }
}

/// Where a frame is in the leader's log.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: LogIndex,
    epoch: LeaderEpoch,
    offset: Offset,
    /// Where the log goes on after it.
    end: LogPoint,
}

impl Place {
    fn of(frame: &Frame<'_>) -> Self {
        let header = frame.header();
        let (index, offset) = (LogIndex(header.index.get()), Offset(header.base_offset.get()));
        let records = match frame.batch() {
            Some(batch) => i64::from(batch.header().last_offset_delta.get()) + 1,
            None => 0,
        };
        let end = LogPoint { index: index.next(), offset: Offset(offset.0 + records) };
        Self { index, epoch: LeaderEpoch(header.leader_epoch.get()), offset, end }
    }
}

/// The log of a partition that takes the frames of a message.
struct Follower<'a> {
    store: &'a mut Store,
    slot: PartitionSlot,
    consensus: &'a mut Consensus,
    /// Where the log ends: frames before it are there already.
    from: LogIndex,
    /// Where the leader's log goes on after the last frame. Where compaction has removed frames, the log goes on after them.
    follows: LogPoint,
    wall_ms: i64,
}

impl Follower<'_> {
    /// Appends a frame, unless it is there.
    fn take(
        &mut self,
        disk: &mut dyn Disk,
        place: Place,
        content: FrameContent<'_>,
    ) -> Result<(), ReplicateError> {
        let Place { index, epoch, offset, end } = place;
        if index >= self.from {
            let frame = ReplicatedFrame { index, epoch, offset, follows: self.follows, content };
            self.store.append_replicated(disk, self.slot, frame, self.wall_ms)?;
            self.consensus.mark(end);
        }
        self.follows = end;
        Ok(())
    }

    /// Appends the frames of a piece. A large one stays in the pages in which it was received.
    fn take_piece(&mut self, disk: &mut dyn Disk, piece: Frames) -> Result<(), ReplicateError> {
        let bytes = match piece {
            Frames::Small(bytes) => bytes,
            Frames::Large { pages, bytes } => {
                let first = FrameIter::new(&pages[..bytes]).next().and_then(Result::ok);
                let batch = first.and_then(|frame| Some((Place::of(&frame), *frame.batch()?.header())));
                match batch {
                    Some((place, header)) => {
                        let content = FrameContent::Batch(Payload::bulk(header, pages));
                        return self.take(disk, place, content);
                    }
                    None => pages.freeze(),
                }
            }
        };
        FrameIter::new(&bytes).flatten().try_for_each(|frame| self.take_small(disk, &frame))
    }

    fn take_small(&mut self, disk: &mut dyn Disk, frame: &Frame<'_>) -> Result<(), ReplicateError> {
        let content = match (frame.kind(), frame.batch()) {
            (FrameKind::Padding, _) => return Ok(()),
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
        self.take(disk, Place::of(frame), content)
    }
}

impl Replicas {
    /// Appends the frames of a message from an index on, at which the log ends. If the store does not take all of them, this replica asks the leader
    /// for the others when there is space.
    pub(super) fn append_frames(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        incoming: IncomingFrames,
        from: LogIndex,
        wall_ms: i64,
    ) -> Result<(), FramesError> {
        let Some(partition) = self.table.get_mut(id) else { return Ok(()) };
        let (store, slot) = (&mut self.stores[partition.store].store, partition.slot);
        let bounds = store.bounds(slot);
        assert!(bounds.append_index == from, "the log ends where the core says");
        let follows = LogPoint { index: incoming.from, offset: bounds.append_end };
        let consensus = &mut partition.consensus;
        let mut follower = Follower { store, slot, consensus, from, follows, wall_ms };
        for piece in incoming.pieces {
            let Err(error) = follower.take_piece(disk, piece) else { continue };
            let end = follower.store.bounds(slot).append_index;
            follower.consensus.handle_refused(end);
            return match error {
                ReplicateError::Refused(_) => {
                    self.refused.insert(id);
                    Ok(())
                }
                error => Err(FramesError::NotTaken(error)),
            };
        }
        Ok(())
    }
}
