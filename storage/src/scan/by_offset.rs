//! Scans for frames by their offset.
//!
//! Frames from disk are checked, every bit of those that are returned. A frame that is bad ends a result; at the head of one it
//! is reported with the next offset that can be read, which is looked for frame by frame, never guessed.

use std::ops::Range;

use highwater_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader, Work};
use highwater_protocol::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameError, FrameKind};
use highwater_protocol::ids::{LogIndex, Offset};
use highwater_runtime::plane::WRITE_BYTES_MAX;

use super::{ReadGoal, ScanCursor, Step, View};
use crate::extent::{Entry, latest_of};
use crate::mac::is_believable;

/// Bytes that a disk can have written astray at once: after a frame that is good, the one before it may still come.
const ASTRAY_BYTES_MAX: u32 = WRITE_BYTES_MAX as u32;

/// The work of passing a frame.
const FRAME_WORK: Work = 30;

/// Bytes of a frame that are checked for one unit of work.
const CHECKED_BYTES_PER_WORK: usize = 8;

/// Frames found so far: from one position to another.
#[derive(Clone, Copy)]
struct Taken {
    from: u32,
    to: u32,
    next: Offset,
    frame_bytes_max: u32,
}

impl Taken {
    fn bytes(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// These frames and the one after them.
    fn with(self, frame: Self) -> Self {
        let frame_bytes_max = self.frame_bytes_max.max(frame.frame_bytes_max);
        Self { from: self.from, to: frame.to, next: frame.next, frame_bytes_max }
    }
}

/// Looks through `view` from the cursor's position on, which lies in it or at its end, and moves the cursor, while there is `work` left. `note`
/// is called for each frame passed.
pub(crate) fn scan_by_offset(
    goal: &ReadGoal,
    cursor: &mut ScanCursor,
    view: &View<'_>,
    note: &mut dyn FnMut(Entry),
    work: &mut Work,
) -> Step {
    if cursor.searching {
        return search(cursor, view);
    }
    let mut taken: Option<Taken> = None;
    let step = walk(goal, cursor, view, note, work, &mut taken);
    match taken {
        Some(taken) => Step::Frames {
            bytes: view.bytes.slice((taken.from - view.from) as usize..(taken.to - view.from) as usize),
            next: taken.next,
            frame_bytes_max: taken.frame_bytes_max,
        },
        None => step,
    }
}

/// Walks until there is a result. Frames taken by then are the result first.
fn walk(
    goal: &ReadGoal,
    cursor: &mut ScanCursor,
    view: &View<'_>,
    note: &mut dyn FnMut(Entry),
    work: &mut Work,
    taken: &mut Option<Taken>,
) -> Step {
    loop {
        let position = cursor.position;
        if position >= view.limit {
            return Step::EndOfExtent;
        }
        if *work == 0 {
            return if taken.is_some() { Step::End } else { Step::Again };
        }
        *work = work.saturating_sub(FRAME_WORK);
        let bytes = view.at(position);
        let (header, kind) = match view.header(position) {
            Ok(found) => found,
            Err(FrameError::Truncated { .. }) if view.end() < view.limit => {
                return Step::More { bytes: FRAME_HEADER_BYTES, behind: None };
            }
            Err(_) => return stop_at_bad(taken.as_ref(), cursor, view, FRAME_ALIGN as u32),
        };
        let whole = header.frame_bytes();
        let (base, behind) = (Offset(header.base_offset.get()), Offset(header.next_offset()));
        if kind != FrameKind::Batch {
            if taken.is_some() && Frame::checked(bytes).is_err() {
                return Step::End;
            }
            cursor.position += whole as u32;
            continue;
        }
        if behind > cursor.offset && base > cursor.offset && !view.may_skip() {
            return stop_at_bad(taken.as_ref(), cursor, view, 0);
        }
        if let Some(max_timestamp_before) = cursor.max_timestamp {
            let index = LogIndex(header.index.get());
            note(Entry { position, index, offset: base, max_timestamp_before });
        }
        let batch_header = bytes.get(FRAME_HEADER_BYTES..).and_then(|batch| BatchHeader::parse(batch).ok());
        let max_timestamp = batch_header.map(latest_of);
        let bytes_with_it = taken.as_ref().map(|taken| taken.bytes() + whole);
        let interest = if behind > cursor.offset {
            interest(goal, cursor, base..behind, max_timestamp, bytes_with_it)
        } else {
            Interest::Pass
        };
        match interest {
            Interest::Pass => {
                cursor.pass(behind, whole, max_timestamp);
                continue;
            }
            Interest::Stop => return Step::End,
            Interest::Unknown
                if bytes.len() < FRAME_HEADER_BYTES + BATCH_HEADER_BYTES && view.end() < view.limit =>
            {
                return Step::More { bytes: FRAME_HEADER_BYTES + BATCH_HEADER_BYTES, behind: Some(behind) };
            }
            Interest::Unknown => return Step::Damaged { resume_at: behind },
            Interest::Take | Interest::LookInto => {}
        }
        if bytes.len() < whole {
            return Step::More { bytes: whole, behind: Some(behind) };
        }
        *work = work.saturating_sub(whole / CHECKED_BYTES_PER_WORK);
        if Frame::checked(bytes).is_err() {
            return stop_at_bad(taken.as_ref(), cursor, view, FRAME_ALIGN as u32);
        }
        cursor.pass(behind, whole, max_timestamp);
        if matches!(interest, Interest::LookInto) {
            let from = (position - view.from) as usize;
            return Step::LookInto(view.bytes.slice(from..from + whole));
        }
        let frame = Taken {
            from: position,
            to: position + whole as u32,
            next: behind,
            frame_bytes_max: whole as u32,
        };
        *taken = Some(taken.map_or(frame, |taken| taken.with(frame)));
    }
}

/// The frame that should be here is bad or missing: frames taken before it are the result, else it is searched for.
fn stop_at_bad(taken: Option<&Taken>, cursor: &mut ScanCursor, view: &View<'_>, skip: u32) -> Step {
    if taken.is_some() { Step::End } else { begin_search(cursor, view, skip) }
}

/// What a reader does with a batch.
enum Interest {
    /// It goes past it.
    Pass,
    /// It takes the frame.
    Take,
    /// It looks for a record in the batch.
    LookInto,
    /// It may not read this frame or has no room for it.
    Stop,
    /// That depends on the batch's header, which is not here.
    Unknown,
}

/// What a reader does with a batch of these offsets that ends after the cursor. `bytes_with_it`: the bytes of all frames taken, with this
/// one, if some were taken before.
fn interest(
    goal: &ReadGoal,
    cursor: &mut ScanCursor,
    offsets: Range<Offset>,
    max_timestamp: Option<i64>,
    bytes_with_it: Option<usize>,
) -> Interest {
    let look_into = |is_wanted| if is_wanted { Interest::LookInto } else { Interest::Pass };
    match (goal, max_timestamp) {
        // Looked for in `by_index`.
        (ReadGoal::Index(_), _) => Interest::Pass,
        (ReadGoal::Frames { max_bytes, up_to }, _) => {
            let is_full = bytes_with_it.is_some_and(|bytes| bytes > *max_bytes);
            if offsets.end > *up_to || is_full { Interest::Stop } else { Interest::Take }
        }
        (ReadGoal::Time { .. } | ReadGoal::Latest { .. }, None) => Interest::Unknown,
        (ReadGoal::Latest { log_start, is_exact: false }, Some(max_timestamp))
            if offsets.start >= *log_start =>
        {
            cursor.latest = cursor.latest.max(max_timestamp);
            Interest::Pass
        }
        // Of a batch that begins below the start of the log only some records count. A header may say too much.
        (ReadGoal::Latest { .. }, Some(max_timestamp)) => look_into(max_timestamp > cursor.latest),
        (ReadGoal::Time { at, .. }, Some(max_timestamp)) => look_into(max_timestamp >= at.0),
    }
}

/// The frame that should be here is not: searches for it further on.
fn begin_search(cursor: &mut ScanCursor, view: &View<'_>, skip: u32) -> Step {
    cursor.searching = true;
    cursor.found = None;
    cursor.position += skip;
    search(cursor, view)
}

/// Looks for a good frame at every place where one can be: for the one that is wanted, else for the one with the lowest offset after it.
/// The inside of a good frame is skipped, and a frame without the code of its position is not a frame ([`crate::mac`]).
fn search(cursor: &mut ScanCursor, view: &View<'_>) -> Step {
    cursor.max_timestamp = None;
    while cursor.position + FRAME_HEADER_BYTES as u32 <= view.end() {
        if let Some((resume_at, until)) = cursor.found
            && cursor.position >= until
        {
            return Step::Damaged { resume_at };
        }
        let bytes = view.at(cursor.position);
        let is_magic = bytes[4..6] == FRAME_MAGIC.to_le_bytes();
        let found = is_magic.then(|| view.header(cursor.position).ok()).flatten();
        let believed = found.filter(|(header, _)| is_believable(view.macs.as_ref(), header, cursor.position));
        let Some((header, _)) = believed else {
            cursor.position += FRAME_ALIGN as u32;
            continue;
        };
        let whole = header.frame_bytes();
        if whole > bytes.len() && view.end() < view.limit && !view.is_chunk {
            return Step::More { bytes: whole, behind: None };
        }
        if Frame::checked(bytes).is_err() {
            cursor.position += FRAME_ALIGN as u32;
            continue;
        }
        let (base, behind) = (Offset(header.base_offset.get()), Offset(header.next_offset()));
        if base == cursor.offset || (base < cursor.offset && cursor.offset < behind) {
            cursor.searching = false;
            cursor.found = None;
            return Step::Again;
        }
        if base > cursor.offset {
            let until = cursor.position.saturating_add(ASTRAY_BYTES_MAX);
            cursor.found =
                Some(cursor.found.map_or((base, until), |(found, until)| (found.min(base), until)));
        }
        cursor.position += whole as u32;
    }
    if view.end() == view.limit {
        cursor.position = view.limit;
        return cursor.found.map_or(Step::EndOfExtent, |(resume_at, _)| Step::Damaged { resume_at });
    }
    if view.is_chunk {
        cursor.position = view.end();
        return Step::Again;
    }
    Step::More { bytes: FRAME_HEADER_BYTES, behind: None }
}
