//! A part of an extent in memory, read in large pieces.

use std::ops::Range;

use highwater_runtime::buf::{AlignedBuf, PAGE_BYTES};

use super::ExtentBytes;

/// Bytes of the first read: most scans begin near the end of a log and need no more.
const READ_BYTES_FIRST: usize = 64 << 10;

/// Bytes of one read at most, unless a frame needs more.
const READ_BYTES_MAX: usize = 1 << 20;

/// Room for a piece that has been read and the next one.
const BUFFER_BYTES: usize = 2 * READ_BYTES_MAX;

/// A sliding view of an extent. Positions are the extent's. Unreadable pages are zero bytes here, and listed.
pub(super) struct Window<'a> {
    source: &'a mut dyn ExtentBytes,
    /// Nothing from here on is read.
    end: u32,
    /// Nothing is expected from here on: it is read only if it is asked for.
    likely_end: u32,
    buf: AlignedBuf,
    /// Position of the first byte in `buf`; on a page.
    from: u32,
    filled: usize,
    read_bytes: usize,
    /// Positions of pages that cannot be read, ascending.
    pub(super) unreadable: Vec<u32>,
    pub(super) bytes_read: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(source: &'a mut dyn ExtentBytes, end: u32, likely_end: u32) -> Self {
        Self {
            source,
            end,
            likely_end: likely_end.min(end),
            buf: AlignedBuf::new(PAGE_BYTES),
            from: 0,
            filled: 0,
            read_bytes: READ_BYTES_FIRST,
            unreadable: Vec::new(),
            bytes_read: 0,
        }
    }

    /// The bytes from `at` on: at least `len` of them, fewer only at the end of the extent.
    pub(super) fn get(&mut self, at: u32, len: usize) -> &[u8] {
        let wanted = (self.end.saturating_sub(at) as usize).min(len);
        let held = self.from..self.from + self.filled as u32;
        if !(held.contains(&at) && (held.end - at) as usize >= wanted) && wanted > 0 {
            self.fill(at, wanted);
        }
        let start = at.saturating_sub(self.from) as usize;
        self.buf[..self.filled].get(start..).unwrap_or_default()
    }

    /// Whether a page of these bytes could not be read.
    pub(super) fn is_unreadable(&self, range: Range<u32>) -> bool {
        self.first_unreadable(range).is_some()
    }

    /// The first unreadable page that touches these bytes.
    pub(super) fn first_unreadable(&self, range: Range<u32>) -> Option<u32> {
        let first = range.start - range.start % PAGE_BYTES as u32;
        let at = self.unreadable.partition_point(|page| *page < first);
        self.unreadable.get(at).copied().filter(|page| *page < range.end)
    }

    fn fill(&mut self, at: u32, wanted: usize) {
        let first = at - at % PAGE_BYTES as u32;
        let held_end = self.from + self.filled as u32;
        if (self.from..held_end).contains(&first) {
            let start = (first - self.from) as usize;
            self.buf.copy_within(start..self.filled, 0);
            self.filled -= start;
        } else {
            self.filled = 0;
        }
        self.from = first;
        let wanted = (at - first) as usize + wanted;
        let room = wanted.max(self.filled + self.read_bytes).next_multiple_of(PAGE_BYTES);
        if room > self.buf.len() {
            let mut larger = AlignedBuf::new(room.max(if self.read_bytes == READ_BYTES_MAX {
                BUFFER_BYTES
            } else {
                room
            }));
            larger[..self.filled].copy_from_slice(&self.buf[..self.filled]);
            self.buf = larger;
        }
        while self.filled < wanted {
            let position = self.from + self.filled as u32;
            let left = (self.end.saturating_sub(position) as usize).next_multiple_of(PAGE_BYTES);
            let likely = match self.likely_end.checked_sub(position) {
                None | Some(0) => wanted - self.filled,
                Some(likely) => likely as usize,
            };
            let len = self.read_bytes.min(likely.next_multiple_of(PAGE_BYTES));
            let len = len.min(left).min(self.buf.len() - self.filled);
            if len == 0 {
                break;
            }
            self.read(position, len);
            self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        }
    }

    /// Reads the next piece; page by page if it cannot be read as a whole.
    fn read(&mut self, position: u32, len: usize) {
        let to = self.filled..self.filled + len;
        self.filled += len;
        self.bytes_read += len as u64;
        if matches!(self.source.read_at(position, &mut self.buf[to.clone()]), Ok(n) if n == len) {
            return;
        }
        for (n, page) in self.buf[to].chunks_mut(PAGE_BYTES).enumerate() {
            let at = position + (n * PAGE_BYTES) as u32;
            if !matches!(self.source.read_at(at, page), Ok(n) if n == page.len()) {
                page.fill(0);
                if let Err(place) = self.unreadable.binary_search(&at) {
                    self.unreadable.insert(place, at);
                }
            }
        }
    }
}
