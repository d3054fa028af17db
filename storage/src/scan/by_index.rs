//! Scans for frames by their index.
//!
//! Frames are looked for by index for another replica, or to cut the log off: all frames count, and none may be missing. Damage
//! is the answer, unless it is to padding: then the frame that is looked for lies further on.

use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use highwater_protocol::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameKind};
use highwater_protocol::ids::{LogIndex, Offset};

use super::{IndexGoal, ScanCursor, Step, View};
use crate::extent::{Entry, latest_of};
use crate::mac::is_believable;

/// Frames found so far: from one position to another, and the index after them.
#[derive(Clone, Copy)]
struct Taken {
    from: u32,
    to: u32,
    next: LogIndex,
}

/// Looks through `view` from the cursor's position on, and moves the cursor. `note` is called for each frame passed.
pub(crate) fn scan_by_index(
    goal: &IndexGoal,
    cursor: &mut ScanCursor,
    view: &View<'_>,
    note: &mut dyn FnMut(Entry),
) -> Step {
    if cursor.searching {
        return search(goal, cursor, view);
    }
    let mut taken: Option<Taken> = None;
    let step = walk(goal, cursor, view, note, &mut taken);
    match taken {
        Some(Taken { from, to, next }) => {
            let bytes = view.bytes.slice((from - view.from) as usize..(to - view.from) as usize);
            Step::IndexFrames { bytes, next }
        }
        None => step,
    }
}

fn walk(
    goal: &IndexGoal,
    cursor: &mut ScanCursor,
    view: &View<'_>,
    note: &mut dyn FnMut(Entry),
    taken: &mut Option<Taken>,
) -> Step {
    loop {
        let position = cursor.position;
        if position >= view.limit {
            return Step::EndOfExtent;
        }
        let bytes = view.at(position);
        let (header, kind) = match view.header(position) {
            Ok(found) => found,
            Err(FrameError::Truncated { .. }) if view.end() < view.limit => {
                return Step::More { bytes: FRAME_HEADER_BYTES, behind: None };
            }
            Err(_) if taken.is_some() => return Step::End,
            Err(_) => return begin_search(goal, cursor, view),
        };
        let (index, whole) = (LogIndex(header.index.get()), header.frame_bytes());
        let next_wanted = taken.map_or(goal.index, |taken| taken.next);
        if index > next_wanted && !view.may_skip() {
            return Step::Lost;
        }
        if kind == FrameKind::Padding {
            if taken.is_some() && (bytes.len() < whole || Frame::checked(bytes).is_err()) {
                return Step::End;
            }
            cursor.position += whole as u32;
            continue;
        }
        if index < next_wanted {
            let Some(max_timestamp) = max_timestamp(header, kind, bytes) else {
                if view.end() < view.limit {
                    return Step::More { bytes: FRAME_HEADER_BYTES + BATCH_HEADER_BYTES, behind: None };
                }
                return Step::Lost;
            };
            if let Some(max_timestamp_before) = cursor.max_timestamp {
                let offset = Offset(header.base_offset.get());
                note(Entry { position, index, offset, max_timestamp_before });
            }
            cursor.pass(Offset(header.next_offset()), whole, Some(max_timestamp));
            continue;
        }
        let Some(take) = &goal.take else {
            return Step::Located { offset: Offset(header.base_offset.get()) };
        };
        let full = taken.is_some_and(|taken| (position - taken.from) as usize + whole > take.max_bytes);
        if index >= take.up_to || full {
            return Step::End;
        }
        if bytes.len() < whole {
            return Step::More { bytes: whole, behind: None };
        }
        if Frame::checked(bytes).is_err() {
            return if taken.is_some() { Step::End } else { Step::Lost };
        }
        let from = taken.map_or(position, |taken| taken.from);
        *taken = Some(Taken { from, to: position + whole as u32, next: index.next() });
        cursor.pass(Offset(header.next_offset()), whole, None);
    }
}

/// The largest timestamp of a frame: the lowest there is, if it holds no batch. `None`: its batch's header is not here.
fn max_timestamp(header: &FrameHeader, kind: FrameKind, bytes: &[u8]) -> Option<i64> {
    if kind != FrameKind::Batch {
        return Some(crate::extent::NO_TIMESTAMP);
    }
    debug_assert!(header.next_offset() > header.base_offset.get());
    let batch = BatchHeader::parse(bytes.get(FRAME_HEADER_BYTES..)?).ok()?;
    Some(latest_of(batch))
}

/// The frame that should be here is not. It may have been padding.
fn begin_search(goal: &IndexGoal, cursor: &mut ScanCursor, view: &View<'_>) -> Step {
    cursor.searching = true;
    cursor.max_timestamp = None;
    cursor.position += FRAME_ALIGN as u32;
    search(goal, cursor, view)
}

/// Looks at every place where a frame can begin for the one that is looked for, or for one before it.
fn search(goal: &IndexGoal, cursor: &mut ScanCursor, view: &View<'_>) -> Step {
    while cursor.position + FRAME_HEADER_BYTES as u32 <= view.end() {
        let bytes = view.at(cursor.position);
        let wanted = view.header(cursor.position).ok().filter(|(header, kind)| {
            *kind != FrameKind::Padding
                && header.index.get() <= goal.index.0
                && is_believable(view.macs.as_ref(), header, cursor.position)
        });
        if let Some((header, _)) = wanted {
            let whole = header.frame_bytes();
            if whole > bytes.len() && view.end() < view.limit && !view.is_chunk {
                return Step::More { bytes: whole, behind: None };
            }
            if Frame::checked(bytes).is_ok() {
                cursor.searching = false;
                return Step::Again;
            }
        }
        cursor.position += FRAME_ALIGN as u32;
    }
    if view.end() == view.limit {
        // Whether the frame should have been here is known by where the extent ends.
        return Step::EndOfExtent;
    }
    if view.is_chunk {
        cursor.position = view.end();
        return Step::Again;
    }
    Step::More { bytes: FRAME_HEADER_BYTES, behind: None }
}
