//! Receives the frames of a group's entry: small ones together, and each large one into pages of its own.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};

use super::limits::{LARGE_FRAME_BYTES_MIN, LEND_BYTES_MAX, SMALL_FRAMES_BYTES};

/// Received frames: whole ones, as their sender has them on disk.
#[derive(Debug)]
pub enum Frames {
    /// Some frames. They are copied into pages when they are appended.
    Small(Bytes),
    /// One large frame, at the start of pages of its own. Its batch stays where it is when it is appended.
    Large {
        /// The pages.
        pages: AlignedBuf,
        /// Bytes of the frame.
        bytes: usize,
    },
}

impl Frames {
    /// Returns the frames as bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large { pages, bytes } => pages.get(..*bytes).unwrap_or_default(),
        }
    }
}

/// Pages to receive into: from byte `filled` up to byte `end`.
#[derive(Debug)]
pub struct Lent {
    /// The pages.
    pub pages: AlignedBuf,
    /// Number of bytes already received.
    pub filled: usize,
    /// End of what is to be received.
    pub end: usize,
}

#[derive(Debug)]
enum Pages {
    Here(AlignedBuf),
    Lent { end: usize },
}

#[derive(Debug)]
struct Large {
    pages: Pages,
    filled: usize,
    /// Bytes of the frame.
    bytes: usize,
}

/// Receives the frames of one entry.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Bytes of the entry that have not arrived.
    left: usize,
    small: Vec<u8>,
    /// Where the current frame begins in `small`.
    frame_at: usize,
    /// Bytes of the current frame. 0: its header has not arrived.
    frame_bytes: usize,
    large: Option<Large>,
    done: Vec<Frames>,
}

impl Intake {
    pub(crate) fn new(frames_bytes: usize) -> Self {
        Self {
            left: frames_bytes,
            small: Vec::new(),
            frame_at: 0,
            frame_bytes: 0,
            large: None,
            done: Vec::new(),
        }
    }

    /// Returns whether all frames are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Returns the frames.
    pub(crate) fn finish(mut self) -> Vec<Frames> {
        self.flush();
        self.done
    }

    /// Consumes bytes from the front of `data`, until the entry is complete or `data` is empty.
    pub(crate) fn take(&mut self, data: &mut &[u8]) -> Result<(), FrameError> {
        while !data.is_empty() && self.left > 0 {
            if self.large.is_some() {
                self.take_large(data);
                continue;
            }
            let have = self.small.len().saturating_sub(self.frame_at);
            if self.frame_bytes > 0 {
                self.take_small(data, self.frame_bytes.saturating_sub(have));
            } else {
                let rest = FRAME_HEADER_BYTES.saturating_sub(have);
                if rest > self.left {
                    return Err(FrameError::Truncated { have: self.left, need: rest });
                }
                self.take_small(data, rest);
                self.begin_frame()?;
            }
            self.end_frame();
        }
        Ok(())
    }

    fn take_small(&mut self, data: &mut &[u8], want: usize) {
        let (now, rest) = data.split_at(want.min(data.len()));
        self.small.extend_from_slice(now);
        self.left = self.left.saturating_sub(now.len());
        *data = rest;
    }

    /// Looks at the header of a frame, once it is there.
    fn begin_frame(&mut self) -> Result<(), FrameError> {
        let head = self.small.get(self.frame_at..).unwrap_or_default();
        if head.len() < FRAME_HEADER_BYTES {
            return Ok(());
        }
        let bytes = FrameHeader::parse(head)?.0.frame_bytes();
        let rest = bytes.saturating_sub(FRAME_HEADER_BYTES);
        if rest > self.left {
            return Err(FrameError::Truncated { have: self.left, need: rest });
        }
        if rest < LARGE_FRAME_BYTES_MIN {
            self.frame_bytes = bytes;
            return Ok(());
        }
        // With space for the padding that follows the frame in the log, so that the batch need not be moved.
        let mut pages = AlignedBuf::new(bytes.saturating_add(PAGE_BYTES));
        pages.truncate(bytes);
        let head = self.small.split_off(self.frame_at);
        if let Some(place) = pages.get_mut(..FRAME_HEADER_BYTES) {
            place.copy_from_slice(&head);
        }
        self.flush();
        self.large = Some(Large { pages: Pages::Here(pages), filled: FRAME_HEADER_BYTES, bytes });
        Ok(())
    }

    /// Goes on to the next frame, if the current one is complete.
    fn end_frame(&mut self) {
        let have = self.small.len().saturating_sub(self.frame_at);
        if self.frame_bytes == 0 || have < self.frame_bytes {
            return;
        }
        self.frame_at = self.small.len();
        self.frame_bytes = 0;
        if self.small.len() >= SMALL_FRAMES_BYTES {
            self.flush();
        }
    }

    /// Hands on the small frames. All of them are complete.
    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.done.push(Frames::Small(Bytes::from(std::mem::take(&mut self.small))));
        }
        self.frame_at = 0;
    }

    fn take_large(&mut self, data: &mut &[u8]) {
        let Some(large) = &mut self.large else { return };
        let Pages::Here(pages) = &mut large.pages else {
            panic!("the plane receives into the pages that it was lent and nowhere else");
        };
        let take = data.len().min(large.bytes.saturating_sub(large.filled));
        let (now, rest) = data.split_at(take);
        let until = large.filled.saturating_add(take);
        if let Some(place) = pages.get_mut(large.filled..until) {
            place.copy_from_slice(now);
        }
        large.filled = until;
        self.left = self.left.saturating_sub(take);
        *data = rest;
        self.end_large();
    }

    fn end_large(&mut self) {
        let Some(large) = self.large.take_if(|large| large.filled == large.bytes) else { return };
        if let Pages::Here(pages) = large.pages {
            self.done.push(Frames::Large { pages, bytes: large.bytes });
        }
    }

    /// Lends the pages of a large frame, to receive the next part of it into them.
    pub(crate) fn lend(&mut self) -> Option<Lent> {
        let large = self.large.as_mut()?;
        let end = large.bytes.min(large.filled.saturating_add(LEND_BYTES_MAX));
        match std::mem::replace(&mut large.pages, Pages::Lent { end }) {
            Pages::Here(pages) => Some(Lent { pages, filled: large.filled, end }),
            lent @ Pages::Lent { .. } => {
                large.pages = lent;
                None
            }
        }
    }

    /// Takes back the pages once they are filled up to the end that [`lend`](Self::lend) gave.
    pub(crate) fn take_back(&mut self, pages: AlignedBuf) {
        let Some(large) = &mut self.large else { return };
        let Pages::Lent { end } = large.pages else { return };
        self.left = self.left.saturating_sub(end.saturating_sub(large.filled));
        large.pages = Pages::Here(pages);
        large.filled = end;
        self.end_large();
    }
}
