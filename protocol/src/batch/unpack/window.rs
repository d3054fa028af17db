//! Decompressed bytes: those that later ones may refer back to, and those that nobody has taken yet.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Bytes of a buffer that is kept for the next batch.
const KEPT_BYTES_MAX: usize = 512 << 10;

/// See the module's doc.
///
/// ```text
///   | dropped later | history | unread |  room  |
///                           start     end   buf.len()
/// ```
#[derive(Default)]
pub(super) struct Window {
    /// Initialized all through, so that codecs can write into it.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    history_bytes: usize,
    /// Bytes that were written and dropped.
    dropped: usize,
}

impl Window {
    /// Begins anew.
    pub(super) fn start(&mut self) {
        if self.buf.len() > KEPT_BYTES_MAX {
            self.buf = Vec::new();
        }
        *self = Self { buf: core::mem::take(&mut self.buf), ..Self::default() };
    }

    /// What is written from now on refers back over `bytes` at most. Whoever refers back says so before it writes.
    pub(super) fn keep_history(&mut self, bytes: usize) {
        self.history_bytes = bytes;
    }

    /// Bytes written since the start.
    pub(super) fn len(&self) -> usize {
        self.dropped.saturating_add(self.end)
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// Room for this many bytes; [`Window::written`] tells how much of it was used.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.reserve(bytes);
        let end = self.end;
        self.buf.get_mut(end..end.saturating_add(bytes)).unwrap_or_default()
    }

    /// The same, with up to `bytes_back` bytes of what was written last.
    pub(super) fn room_behind(&mut self, bytes_back: usize, bytes: usize) -> (&[u8], &mut [u8]) {
        self.reserve(bytes);
        let (before, room) = self.buf.split_at_mut_checked(self.end).unwrap_or_default();
        let back = before.get(before.len().saturating_sub(bytes_back)..).unwrap_or_default();
        (back, room.get_mut(..bytes).unwrap_or_default())
    }

    pub(super) fn written(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(self.buf.len());
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.written(bytes.len());
    }

    /// Repeats `bytes` bytes from `back` bytes ago; they may overlap with what is written. False: there are not that many.
    pub(super) fn repeat(&mut self, back: usize, bytes: usize) -> bool {
        if back == 0 || back > self.end {
            return false;
        }
        self.reserve(bytes);
        let (mut left, mut end) = (bytes, self.end);
        while left > 0 {
            // What was just repeated can be repeated with it: the run doubles.
            let from = end.saturating_sub(back);
            let run = left.min(back);
            self.buf.copy_within(from..from.saturating_add(run), end);
            end = end.saturating_add(run);
            left = left.saturating_sub(run);
        }
        self.end = end;
        true
    }

    fn reserve(&mut self, bytes: usize) {
        let spare = self.start.saturating_sub(self.history_bytes);
        // Moving what is kept costs as much as it is large: only when as much again can be dropped.
        if spare > 0 && spare >= self.end.saturating_sub(spare) {
            self.buf.copy_within(spare..self.end, 0);
            self.start = self.start.saturating_sub(spare);
            self.end = self.end.saturating_sub(spare);
            self.dropped = self.dropped.saturating_add(spare);
        }
        let need = self.end.saturating_add(bytes);
        if self.buf.len() < need {
            self.buf.resize(need.max(self.buf.len().saturating_mul(2).min(KEPT_BYTES_MAX)), 0);
        }
    }
}
