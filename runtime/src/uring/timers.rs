//! Timers in order of expiry; those due at the same time in the order in which they were set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::plane::Instant;

pub(super) struct Timers<T> {
    heap: BinaryHeap<Reverse<Timer<T>>>,
    next: u64,
}

struct Timer<T> {
    at: Instant,
    sequence: u64,
    what: T,
}

impl<T> PartialEq for Timer<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl<T> Eq for Timer<T> {}

impl<T> PartialOrd for Timer<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Timer<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn set(&mut self, at: Instant, what: T) {
        self.heap.push(Reverse(Timer { at, sequence: self.next, what }));
        self.next += 1;
    }

    /// Returns when the next timer is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(timer)| timer.at)
    }

    /// Removes and returns the next timer if it is due and was set before `limit`. A timer that is set while others fire waits for
    /// the next turn.
    pub(super) fn pop_due(&mut self, now: Instant, limit: u64) -> Option<T> {
        let Reverse(timer) = self.heap.peek()?;
        if timer.at > now || timer.sequence >= limit {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer.what)
    }

    /// Returns the sequence number of the next timer that is set.
    pub(super) fn sequence(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_soonest_first_and_never_early() {
        let mut timers = Timers::new();
        for (at, what) in [(30, "c"), (10, "a"), (20, "b"), (10, "a2")] {
            timers.set(Instant(at), what);
        }
        let limit = timers.sequence();
        timers.set(Instant(0), "set later");
        assert_eq!(timers.next_at(), Some(Instant(0)));
        assert_eq!(
            timers.pop_due(Instant(20), limit),
            None,
            "a timer set after the limit waits for the next turn"
        );
        let limit = timers.sequence();
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop_due(Instant(20), limit)).collect();
        assert_eq!(fired, ["set later", "a", "a2", "b"]);
        assert_eq!(timers.next_at(), Some(Instant(30)));
    }
}
