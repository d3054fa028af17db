//! Large requests, read one at a time.
//!
//! A request is read in one go, which takes some milliseconds if its lists have hundreds of thousands of entries. What was read is paid off by
//! the turns that follow, a little by each, and until then no other large request is read: others are served in these turns.

use crate::counters::PerTurn;
use crate::limits::REQUEST_ENTRIES_PER_TURN;

/// Entries of requests' lists that were read and are not paid off.
#[derive(Default, Debug)]
pub(crate) struct LargeRequests {
    owed: usize,
    /// Entries that were read, turn by turn.
    counted: PerTurn,
}

impl LargeRequests {
    /// Whether a large request may be read.
    pub(crate) fn is_free(&self) -> bool {
        self.owed < REQUEST_ENTRIES_PER_TURN
    }

    /// So many entries were read.
    pub(crate) fn note(&mut self, entries: usize) {
        self.owed += entries;
        self.counted.add(entries);
    }

    /// A turn is over.
    pub(crate) fn end_turn(&mut self) {
        self.counted.end_turn();
        self.owed = self.owed.saturating_sub(REQUEST_ENTRIES_PER_TURN);
    }

    /// The most entries that were read in one turn so far.
    pub(crate) fn most(&self) -> usize {
        self.counted.most()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_large_request_as_many_turns_pass_as_it_would_have_taken() {
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
