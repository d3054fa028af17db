//! Looking for frames behind a place where one is missing.

use highwater_protocol::frame::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, Frame, FrameHeader,
};
use highwater_protocol::ids::{LogIndex, Offset};
use highwater_runtime::buf::PAGE_BYTES;

use super::check::{self, Next};
use super::decide::Later;
use super::window::Window;
use crate::expect::Mark;

/// What lies behind.
pub(super) struct LookAhead {
    /// Whether frames of this incarnation are there, and whether one proves that the missing frame had been durable.
    pub(super) later: Later,
    /// The first whole valid frame that a log could go on with.
    pub(super) resume: Option<Mark>,
    pub(super) durable_index_max: LogIndex,
}

impl Default for LookAhead {
    fn default() -> Self {
        Self { later: Later::None, resume: None, durable_index_max: LogIndex(0) }
    }
}

/// Looks at every place from `from` to `to` where a frame can begin. What is inside a whole valid frame is not looked at: it is
/// somebody's data. Stops at the first whole frame that proves that the frame of `next.index` had been durable.
pub(super) fn look_ahead(window: &mut Window<'_>, next: &Next, from: u32, to: u32) -> LookAhead {
    let mut ahead = LookAhead::default();
    let mut position = from.next_multiple_of(FRAME_ALIGN as u32);
    while position < to {
        let bytes = window.get(position, FRAME_HEADER_BYTES);
        let bytes = &bytes[..bytes.len().min((to - position) as usize + FRAME_HEADER_BYTES)];
        let Some(skipped) = find_header(bytes) else {
            // Every whole word was looked at, also those whose header ends behind these bytes.
            position += (bytes.len() as u32 & !7).max(FRAME_ALIGN as u32);
            continue;
        };
        position += skipped as u32;
        if position >= to {
            break;
        }
        let bytes = window.get(position, FRAME_HEADER_BYTES);
        let ours = |header: &FrameHeader| check::is_ours(header, next) && header.index.get() >= next.index.0;
        let header = match FrameHeader::parse(bytes) {
            Ok((header, _)) if ours(header) => *header,
            _ => {
                position += FRAME_ALIGN as u32;
                continue;
            }
        };
        let durable_index = LogIndex(header.durable_index.get().min(header.index.get()));
        let proves = durable_index > next.index;
        ahead.later = ahead.later.max(if proves { Later::Proven } else { Later::Unproven });
        ahead.durable_index_max = ahead.durable_index_max.max(durable_index);
        let whole = header.frame_bytes();
        if Frame::checked(window.get(position, whole)).is_err() {
            position += FRAME_ALIGN as u32;
            continue;
        }
        if ahead.resume.is_none() && header.base_offset.get() >= next.offset.0 {
            ahead.resume = Some(Mark {
                incarnation: next.incarnation,
                position,
                index: LogIndex(header.index.get()),
                offset: Offset(header.base_offset.get()),
            });
        }
        if ahead.resume.is_some() && ahead.later == Later::Proven {
            break;
        }
        position += whole as u32;
    }
    ahead
}

/// The next frame itself, on one of the page boundaries that a damaged padding frame at `position` would have led to.
pub(super) fn behind_padding(window: &mut Window<'_>, next: &Next, position: u32, end: u32) -> Option<u32> {
    let first = (position + 1).next_multiple_of(PAGE_BYTES as u32);
    [first, first + PAGE_BYTES as u32].into_iter().find(|at| {
        if at + FRAME_HEADER_BYTES as u32 > end {
            return false;
        }
        let Ok(header) = check::header(window.get(*at, FRAME_HEADER_BYTES), next) else {
            return false;
        };
        let whole = header.frame_bytes();
        whole <= (end - at) as usize && Frame::checked(window.get(*at, whole)).is_ok()
    })
}

/// Where the first header could begin, in steps of [`FRAME_ALIGN`]: its magic and version are there.
fn find_header(bytes: &[u8]) -> Option<usize> {
    const WANTED: u64 = (FRAME_MAGIC as u64) << 32 | (FRAME_VERSION as u64) << 48;
    const MASK: u64 = 0x00FF_FFFF_0000_0000;
    let (words, _) = bytes.as_chunks::<8>();
    let found = words.iter().position(|word| u64::from_le_bytes(*word) & MASK == WANTED)?;
    Some(found * 8)
}
