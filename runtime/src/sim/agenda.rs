//! What is going to happen, by time.

use std::collections::BTreeMap;

use crate::plane::Instant;

/// A queue by time; what is due at the same time leaves in the order it was put in.
pub(super) struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    next: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> Agenda<T> {
    pub(super) fn push(&mut self, due: Instant, what: T) {
        self.entries.insert((due, self.next), what);
        self.next += 1;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, what)| what)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.entries.retain(|_, what| keep(what));
    }
}
