//! Whether bytes are the frame that a place calls for.

use highwater_protocol::frame::{FrameError, FrameHeader};
use highwater_protocol::ids::{ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset};

use super::Expectation;
use super::decide::FrameCondition;
use crate::mac::{ExtentMacs, is_believable};
use crate::mutants::{Mutant, is_planted};
use crate::position::OFFSET_MAX;

/// The properties that the next frame must have.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) sequence: ExtentSequence,
    pub(super) incarnation: Incarnation,
    pub(super) tag: u32,
    pub(super) macs: Option<ExtentMacs>,
    pub(super) index: LogIndex,
    pub(super) offset: Offset,
    /// Epoch of the frame before it.
    pub(super) epoch: Option<LeaderEpoch>,
    /// Frames may be missing before it.
    pub(super) has_gaps: bool,
}

impl Next {
    /// The frame with this index, in an extent of which this is expected.
    pub(super) fn of(expect: &Expectation, index: LogIndex) -> Self {
        Self {
            sequence: expect.start.sequence,
            incarnation: expect.start.incarnation,
            tag: expect.tag,
            macs: expect.macs,
            index,
            offset: expect.start.offset,
            epoch: expect.epoch,
            has_gaps: expect.has_gaps,
        }
    }
}

/// Whether a header is of this extent's incarnation and partition at all.
pub(super) fn is_ours(header: &FrameHeader, next: &Next) -> bool {
    let of_this_life =
        header.incarnation.get() == next.incarnation.0 || is_planted(Mutant::IgnoreIncarnation);
    of_this_life && header.partition_tag.get() == next.tag
}

/// Whether a header that was searched for is one of this extent's incarnation and partition.
pub(super) fn is_found(header: &FrameHeader, position: u32, next: &Next) -> bool {
    is_ours(header, next) && is_believable(next.macs.as_ref(), header, position)
}

/// Whether a header of this extent is of an epoch that had ended before it: a leftover of a truncated suffix.
pub(super) fn is_leftover(header: &FrameHeader, next: &Next) -> bool {
    next.epoch.is_some_and(|epoch| header.leader_epoch.get() < epoch.0)
}

/// Compares a header whose checksum is right with the properties required here.
pub(super) fn chain(header: &FrameHeader, next: &Next) -> FrameCondition {
    if header.incarnation.get() < next.incarnation.0 && !is_planted(Mutant::IgnoreIncarnation) {
        return FrameCondition::Older;
    }
    if is_ours(header, next) && is_leftover(header, next) {
        return FrameCondition::Leftover;
    }
    let (index, offset) = (header.index.get(), header.base_offset.get());
    let follows = if next.has_gaps || is_planted(Mutant::AcceptGap) {
        index >= next.index.0 && offset >= next.offset.0
    } else {
        (index, offset) == (next.index.0, next.offset.0)
    };
    let fits = is_ours(header, next)
        && follows
        && header.durable_index() <= index
        && (0..OFFSET_MAX).contains(&offset);
    if fits { FrameCondition::Valid } else { FrameCondition::Misdirected }
}

/// The header at the start of `bytes`, and how it compares with the properties required here.
pub(super) fn header<'a>(bytes: &'a [u8], next: &Next) -> Result<&'a FrameHeader, FrameCondition> {
    match FrameHeader::parse(bytes) {
        Ok((header, _)) => match chain(header, next) {
            FrameCondition::Valid => Ok(header),
            other => Err(other),
        },
        Err(FrameError::Zero) => Err(FrameCondition::Zero),
        // The checksum is right, so it was written like this.
        Err(FrameError::Version(_) | FrameError::Kind(_) | FrameError::Flags) => {
            Err(FrameCondition::NewerVersion)
        }
        Err(_) => Err(FrameCondition::Bad),
    }
}
