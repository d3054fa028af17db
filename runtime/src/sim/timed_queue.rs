//! A queue of future events, by time.

use std::collections::BTreeMap;

use crate::plane::Instant;

/// A queue by time; entries that are due at the same time leave in the order in which they were added.
pub(super) struct TimedQueue<T> {
    entries: BTreeMap<(Instant, u64), T>,
    next: u64,
}

impl<T> Default for TimedQueue<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> TimedQueue<T> {
    pub(super) fn push(&mut self, due: Instant, entry: T) {
        self.entries.insert((due, self.next), entry);
        self.next += 1;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, entry)| entry)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.entries.retain(|_, entry| keep(entry));
    }
}
