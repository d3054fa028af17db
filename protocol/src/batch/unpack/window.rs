//! Buffer of decompressed bytes: history that later output may refer to, and output that was not consumed yet.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Largest buffer that is kept for the next batch, in bytes.
const RETAINED_BYTES_MAX: usize = 512 << 10;

/// Sliding window over the decompressed bytes.
///
/// ```text
///   | dropped later | history | unread |  room  |
///                           start     end   buf.len()
/// ```
#[derive(Default)]
pub(super) struct Window {
    /// Fully initialized, so that codecs can write into it.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    history_bytes: usize,
    /// Bytes written and since dropped.
    dropped: usize,
}

impl Window {
    /// Clears the window for another batch.
    pub(super) fn start(&mut self) {
        if self.buf.len() > RETAINED_BYTES_MAX {
            self.buf = Vec::new();
        }
        *self = Self { buf: core::mem::take(&mut self.buf), ..Self::default() };
    }

    /// Sets how far later output may refer back. Must be called before the output that does.
    pub(super) fn keep_history(&mut self, bytes: usize) {
        self.history_bytes = bytes;
    }

    /// Returns the number of bytes written since the start.
    pub(super) fn len(&self) -> usize {
        self.dropped.saturating_add(self.end)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buf.capacity()
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// Returns space for `bytes` bytes. [`Window::written`] sets how much of it was used.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.reserve(bytes);
        let end = self.end;
        self.buf.get_mut(end..end.saturating_add(bytes)).unwrap_or_default()
    }

    /// Returns up to `bytes_back` bytes of history, and space for `bytes` bytes.
    pub(super) fn room_with_history(&mut self, bytes_back: usize, bytes: usize) -> (&[u8], &mut [u8]) {
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

    /// Appends `bytes` bytes copied from `back` bytes before the end; source and destination may overlap. Returns false if there
    /// are fewer than `back` bytes.
    pub(super) fn repeat(&mut self, back: usize, bytes: usize) -> bool {
        if back == 0 || back > self.end {
            return false;
        }
        self.reserve(bytes);
        let (mut left, mut end) = (bytes, self.end);
        while left > 0 {
            // Bytes just copied can be copied again, so the run doubles.
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
        // Moving the retained bytes pays off only if at least as many can be dropped.
        if spare > 0 && spare >= self.end.saturating_sub(spare) {
            self.buf.copy_within(spare..self.end, 0);
            self.start = self.start.saturating_sub(spare);
            self.end = self.end.saturating_sub(spare);
            self.dropped = self.dropped.saturating_add(spare);
        }
        let need = self.end.saturating_add(bytes);
        if self.buf.len() < need {
            self.buf.resize(need.max(self.buf.len().saturating_mul(2).min(RETAINED_BYTES_MAX)), 0);
        }
    }
}
