//! Looking for frames after a place where one is missing.

use highwater_protocol::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameHeader};
use highwater_protocol::ids::{LogIndex, Offset};
use highwater_runtime::plane::WRITE_BYTES_MAX;

use super::check::{self, Next};
use super::decide::{FrameCondition, Later};
use super::window::Window;
use crate::position::Mark;

/// Bytes that a disk can have written astray at once: after a frame that a log could go on with, one that belongs before it may
/// still come.
const ASTRAY_BYTES_MAX: u32 = WRITE_BYTES_MAX as u32;

/// The result of looking ahead.
pub(super) struct LookAhead {
    /// The missing frame itself: the bytes before it are damaged padding, or were overwritten by a block that belongs elsewhere.
    pub(super) itself: Option<u32>,
    /// Whether frames of this incarnation are there, and whether one proves that the missing frame had been durable.
    pub(super) later: Later,
    /// The whole valid frame with the lowest index that a log could go on with.
    pub(super) resume: Option<Mark>,
    pub(super) durable_index_max: LogIndex,
}

impl Default for LookAhead {
    fn default() -> Self {
        Self { itself: None, later: Later::None, resume: None, durable_index_max: LogIndex(0) }
    }
}

/// Where to look.
pub(super) struct Range {
    pub(super) from: u32,
    pub(super) to: u32,
    /// Before this, inside a frame whose payload is bad, only the missing frame itself counts: anything else may be a client's data.
    pub(super) inside_until: u32,
    /// Whether it is worth going on for the sake of a proof.
    pub(super) wants_proof: bool,
}

/// Looks at every place in the range where a frame can begin. The inside of a whole valid frame is skipped: it
/// may be a client's data. So is a frame without the code of its position in this extent ([`crate::mac`]).
pub(super) fn look_ahead(window: &mut Window<'_>, next: &Next, range: &Range) -> LookAhead {
    let mut ahead = LookAhead::default();
    // After damage it cannot be told whether a frame that may be missing was there.
    let strict = Next { has_gaps: false, ..*next };
    let mut position = range.from.next_multiple_of(FRAME_ALIGN as u32);
    let mut stop = range.to;
    while position < stop {
        let bytes = window.get(position, FRAME_HEADER_BYTES);
        let bytes = &bytes[..bytes.len().min((stop - position) as usize + FRAME_HEADER_BYTES)];
        let Some(skipped) = find_header(bytes) else {
            // Every whole word was looked at, also those whose header ends after these bytes.
            position += (bytes.len() as u32 & !7).max(FRAME_ALIGN as u32);
            continue;
        };
        position += skipped as u32;
        if position >= stop {
            break;
        }
        let bytes = window.get(position, FRAME_HEADER_BYTES);
        let ours = |header: &FrameHeader| {
            check::is_found(header, position, next)
                && header.index.get() >= next.index.0
                && !check::is_leftover(header, next)
        };
        let header = match FrameHeader::parse(bytes) {
            Ok((header, _)) if ours(header) => *header,
            _ => {
                position += FRAME_ALIGN as u32;
                continue;
            }
        };
        let whole = header.frame_bytes();
        let is_valid = Frame::checked(window.get(position, whole)).is_ok();
        if is_valid && check::chain(&header, &strict) == FrameCondition::Valid {
            ahead.itself = Some(position);
            break;
        }
        if position < range.inside_until {
            position += FRAME_ALIGN as u32;
            continue;
        }
        let durable_index = LogIndex(header.durable_index());
        let proves = durable_index > next.index;
        ahead.later = ahead.later.max(if proves { Later::Proven } else { Later::Unproven });
        ahead.durable_index_max = ahead.durable_index_max.max(durable_index);
        if !is_valid {
            position += FRAME_ALIGN as u32;
            continue;
        }
        let mark = Mark {
            sequence: next.sequence,
            incarnation: next.incarnation,
            position,
            index: LogIndex(header.index.get()),
            offset: Offset(header.base_offset.get()),
        };
        let from_there = Next { index: mark.index, offset: mark.offset, ..*next };
        if mark.offset >= next.offset
            && check::chain(&header, &from_there) == FrameCondition::Valid
            && ahead.resume.is_none_or(|resume| mark.index < resume.index)
        {
            ahead.resume = Some(mark);
        }
        if let Some(resume) = ahead.resume
            && (ahead.later == Later::Proven || !range.wants_proof)
        {
            stop = stop.min(resume.position.saturating_add(ASTRAY_BYTES_MAX).max(position));
        }
        position += whole as u32;
    }
    ahead
}

/// Where the first header could begin, in steps of [`FRAME_ALIGN`]: its magic is there.
fn find_header(bytes: &[u8]) -> Option<usize> {
    const WANTED: u64 = (FRAME_MAGIC as u64) << 32;
    const MASK: u64 = 0x0000_FFFF_0000_0000;
    let (words, _) = bytes.as_chunks::<8>();
    let found = words.iter().position(|word| u64::from_le_bytes(*word) & MASK == WANTED)?;
    Some(found * 8)
}
