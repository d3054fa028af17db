//! Large requests are decoded one at a time.
//!
//! A request is decoded in one step, which takes some milliseconds if its lists have hundreds of thousands of entries. The following turns pay
//! that off, each a part of it. Until then no other large request is decoded, and these turns serve other clients.

use crate::counters::PerTurn;
use crate::limits::REQUEST_ENTRIES_PER_TURN;

/// List entries that were decoded and have not been paid off.
#[derive(Default, Debug)]
pub(crate) struct LargeRequests {
    owed: usize,
    /// Entries decoded per turn.
    counted: PerTurn,
}

impl LargeRequests {
    /// Returns whether a large request may be decoded.
    pub(crate) fn is_free(&self) -> bool {
        self.owed < REQUEST_ENTRIES_PER_TURN
    }

    /// Notes that this many entries were decoded.
    pub(crate) fn note(&mut self, entries: usize) {
        self.owed += entries;
        self.counted.add(entries);
    }

    /// Ends a turn, which pays off its part.
    pub(crate) fn end_turn(&mut self) {
        self.counted.end_turn();
        self.owed = self.owed.saturating_sub(REQUEST_ENTRIES_PER_TURN);
    }

    /// Returns the largest number of entries decoded in one turn so far.
    pub(crate) fn most(&self) -> usize {
        self.counted.most()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_request_is_paid_off_over_as_many_turns_as_its_size_is_worth() {
        let mut large = LargeRequests::default();
        large.note(REQUEST_ENTRIES_PER_TURN - 1);
        assert!(large.is_free(), "small ones do not wait");
        large.note(5 * REQUEST_ENTRIES_PER_TURN);
        for _ in 0..5 {
            assert!(!large.is_free());
            large.end_turn();
        }
        assert!(large.is_free());
        assert_eq!(large.most(), 6 * REQUEST_ENTRIES_PER_TURN - 1);
    }
}
