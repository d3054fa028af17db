//! Reading a log after a crash: where it ends, what is missing, and what may be dropped.
//!
//! [`scan`] walks the frames of an extent from a place where one is known to begin. Every frame must be of this incarnation of the extent and
//! of this partition, with the next index, the next offset and an epoch that does not go back. At the first position where that fails it
//! looks ahead over the bytes that can have been in flight, up to the write bound of the extent, and [`decide`] says what it means. Where frames are
//! missing that had been acknowledged, the scan goes on after the gap, so that the rest can be served.
//!
//! The end is found by frames, never by sizes. A bad checksum never means that the frames after it are worthless.

mod check;
mod decide;
mod expect;
mod look_ahead;
#[cfg(test)]
mod tests;
mod window;

use highwater_protocol::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, FrameKind};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};

use crate::mutants::{Mutant, is_planted};
use crate::position::Mark;

pub use decide::{Decision, FrameCondition, Later, decide};
pub use expect::{Expectation, ExtentBytes};

use check::Next;
use look_ahead::LookAhead;
use window::Window;

/// A part of a log that is not there though it had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The frame that is missing.
    pub from: Mark,
    /// The next frame that is there; `None` if there is none in this extent.
    pub to: Option<Mark>,
    /// The content of its place.
    pub found: FrameCondition,
    /// [`Decision::Hole`] or [`Decision::Rot`].
    pub decision: Decision,
}

/// Damaged bytes between two frames that follow one another: padding, or a block that the disk wrote astray. Nothing is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// After the frame before it.
    pub from: u32,
    /// Where the next frame is.
    pub to: u32,
}

/// The result of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// After the last valid frame.
    pub end: Mark,
    /// The bytes found there.
    pub found: FrameCondition,
    /// The decision: never [`Decision::Keep`]. With [`Decision::Hole`] or [`Decision::Rot`], the last of `gaps` has details.
    pub decision: Decision,
    /// The missing frames. A partition with gaps is faulty: it refuses appends and serves the rest.
    pub gaps: Vec<Gap>,
    /// Damaged bytes that hold no frame. A partition is none the worse for them.
    pub skipped: Vec<Skipped>,
    /// Epoch of the last frame.
    pub last_epoch: Option<LeaderEpoch>,
    /// Valid frames.
    pub frames: u64,
    /// Largest `durable_index` of any frame seen: every frame with a lower index had been durable. May speak of an earlier extent.
    pub durable_index_max: LogIndex,
    /// Bytes read.
    pub bytes_read: u64,
    /// Positions of pages that could not be read.
    pub unreadable: Vec<u32>,
    /// A frame was found where it does not belong: the disk wrote it to the wrong place.
    pub misdirected: bool,
}

/// Walks the frames of an extent, giving each valid one to `visit` with its position, padding included. Every bit of them is checked.
pub fn scan(
    expect: &Expectation,
    bytes: &mut dyn ExtentBytes,
    visit: &mut dyn FnMut(u32, &Frame<'_>),
) -> Scanned {
    let end = expect.sealed_at.unwrap_or(expect.extent_bytes).min(expect.extent_bytes);
    let mut walk = Walk {
        window: Window::new(bytes, end, expect.write_bound),
        expect,
        end,
        at: expect.start,
        next: Next::of(expect, expect.start.index),
        frames: 0,
        durable_index_max: LogIndex(0),
        misdirected: false,
    };
    let mut gaps = Vec::new();
    let mut skipped = Vec::new();
    loop {
        let (found, skip) = walk.frames(visit);
        let (decision, ahead) = walk.decide(found, skip);
        if let Some(to) = ahead.itself {
            skipped.push(Skipped { from: walk.at.position, to });
            walk.at.position = to;
            continue;
        }
        if matches!(decision, Decision::Hole | Decision::Rot) {
            gaps.push(Gap { from: walk.at, to: ahead.resume, found, decision });
            if let Some(resume) = ahead.resume {
                walk.go_to(resume);
                continue;
            }
        }
        return Scanned {
            end: walk.at,
            found,
            decision,
            gaps,
            skipped,
            last_epoch: walk.next.epoch,
            frames: walk.frames,
            durable_index_max: walk.durable_index_max,
            bytes_read: walk.window.bytes_read,
            unreadable: walk.window.unreadable,
            misdirected: walk.misdirected,
        };
    }
}

struct Walk<'a> {
    window: Window<'a>,
    expect: &'a Expectation,
    /// Frames end here at the latest.
    end: u32,
    at: Mark,
    next: Next,
    frames: u64,
    durable_index_max: LogIndex,
    misdirected: bool,
}

impl Walk<'_> {
    /// Takes frames as long as they are the next ones. Returns what follows them, and where a frame that is bad but whose
    /// header is right would end: nothing inside it is a frame.
    fn frames(&mut self, visit: &mut dyn FnMut(u32, &Frame<'_>)) -> (FrameCondition, Option<u32>) {
        loop {
            let position = self.at.position;
            let left = self.end.saturating_sub(position) as usize;
            if left < FRAME_HEADER_BYTES {
                // The writer leaves no room that a frame would need, so this says that the extent is full. Sealed at a place that
                // is not the end of a frame cannot happen: that place was after a frame when it was written.
                return (
                    if left == 0 || self.expect.sealed_at.is_none() {
                        FrameCondition::Sealed
                    } else {
                        FrameCondition::Bad
                    },
                    None,
                );
            }
            let bytes = self.window.get(position, FRAME_HEADER_BYTES);
            let whole = match check::header(bytes, &self.next) {
                Ok(header) => header.frame_bytes(),
                Err(found) => return (self.unless_unreadable(found, position, FRAME_HEADER_BYTES), None),
            };
            if whole > left {
                return (FrameCondition::Bad, None);
            }
            let behind = position + whole as u32;
            let Ok(frame) = Frame::checked(self.window.get(position, whole)) else {
                return (self.unless_unreadable(FrameCondition::Bad, position, whole), Some(behind));
            };
            visit(position, &frame);
            let header = frame.header();
            self.frames += 1;
            self.durable_index_max = self.durable_index_max.max(LogIndex(header.durable_index()));
            self.next.epoch = Some(LeaderEpoch(header.leader_epoch.get()));
            let here = LogIndex(header.index.get());
            let index = match frame.kind() {
                FrameKind::Padding => here,
                FrameKind::Batch | FrameKind::EpochStart | FrameKind::Configuration => here.next(),
            };
            let offset = Offset(header.next_offset());
            self.go_to(Mark { position: behind, index, offset, ..self.at });
        }
    }

    fn go_to(&mut self, mark: Mark) {
        self.at = mark;
        self.next.index = mark.index;
        self.next.offset = mark.offset;
    }

    /// Unreadable bytes are zero in memory, which proves nothing.
    fn unless_unreadable(&self, found: FrameCondition, position: u32, len: usize) -> FrameCondition {
        if self.window.is_unreadable(position..position + len as u32) {
            FrameCondition::Unreadable
        } else {
            found
        }
    }

    /// Where frames that follow end at the latest: at the write bound. If frames were found after that, the bound is worth nothing.
    fn search_end(&self) -> u32 {
        let bound = self.expect.write_bound;
        if self.at.position <= bound { self.end.min(bound) } else { self.end }
    }

    fn decide(&mut self, found: FrameCondition, skip: Option<u32>) -> (Decision, LookAhead) {
        if found == FrameCondition::Sealed {
            return (decide(found, false, Later::None), LookAhead::default());
        }
        if is_planted(Mutant::TruncateAtFirstBadChecksum) {
            return (Decision::Truncate { seal: false }, LookAhead::default());
        }
        self.misdirected |= found == FrameCondition::Misdirected;
        let sealed_behind = self.expect.sealed_at.is_some_and(|at| self.at.position < at);
        let hint = self.expect.durable_hint > self.at.index || sealed_behind;
        // A frame that belongs elsewhere may still say something of the one that is missing.
        let here = if found == FrameCondition::Misdirected { 0 } else { FRAME_ALIGN as u32 };
        let from = self.at.position + here;
        // Frames known to have been durable are looked for up to the end.
        let search_end = self.search_end();
        let window_end = self.at.position.saturating_add(self.expect.unacked_bytes_max).min(search_end);
        let to = if hint { search_end } else { window_end };
        let inside_until = skip.unwrap_or(from);
        let range = look_ahead::Range { from, to, inside_until, wants_proof: !hint };
        let mut ahead = look_ahead::look_ahead(&mut self.window, &self.next, &range);
        if found == FrameCondition::NewerVersion {
            ahead.itself = None;
        }
        self.durable_index_max = self.durable_index_max.max(ahead.durable_index_max);
        let decision = decide(found, hint, ahead.later);
        if matches!(decision, Decision::Rot | Decision::Hole)
            && ahead.resume.is_none()
            && ahead.itself.is_none()
            && to < search_end
        {
            // The decision remains; the log may go on further on.
            let range = look_ahead::Range { from: to, to: search_end, inside_until: to, wants_proof: false };
            return (decision, look_ahead::look_ahead(&mut self.window, &self.next, &range));
        }
        // An unreadable page in the window may hide frames that were in flight: they must not come back.
        let hidden = self.window.first_unreadable(self.at.position..to).is_some();
        match decision {
            Decision::End | Decision::Truncate { seal: false } if hidden => {
                (Decision::Truncate { seal: true }, ahead)
            }
            decision => (decision, ahead),
        }
    }
}

/// Whether a frame of this extent's incarnation within `unacked_bytes_max` after its start proves that the frame with `index`, of an
/// earlier extent of the partition, had been durable. For an extent that begins after a gap.
pub fn proves_durable(expect: &Expectation, bytes: &mut dyn ExtentBytes, index: LogIndex) -> Later {
    let end = expect.sealed_at.unwrap_or(expect.extent_bytes).min(expect.extent_bytes);
    let mut window = Window::new(bytes, end, expect.write_bound);
    let next = Next { offset: Offset(0), ..Next::of(expect, index) };
    let from = expect.start.position;
    let to = from.saturating_add(expect.unacked_bytes_max).min(end).min(expect.write_bound.max(from));
    let range = look_ahead::Range { from, to, inside_until: from, wants_proof: true };
    look_ahead::look_ahead(&mut window, &next, &range).later
}

/// Whether a frame of this extent's incarnation begins at or after a position, wherever the log ends. Reads everything from there on.
pub fn has_frames_from(expect: &Expectation, bytes: &mut dyn ExtentBytes, from: u32) -> bool {
    let end = expect.extent_bytes;
    let mut window = Window::new(bytes, end, end);
    let next = Next::of(expect, LogIndex(0));
    let range = look_ahead::Range { from, to: end, inside_until: from, wants_proof: false };
    let found = look_ahead::look_ahead(&mut window, &next, &range);
    found.later != Later::None || found.itself.is_some()
}
