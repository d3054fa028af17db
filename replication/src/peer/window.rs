//! What of a partition is on its way to a replica, or there and not acknowledged.

use std::collections::VecDeque;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::limits::{WINDOW_BYTES_MAX, WINDOW_SENDS_MAX};

/// Frames of one partition that were sent and are not acknowledged, in bytes.
///
/// Acknowledgements name log ends; the window knows how many bytes were sent up to each end. It is empty in another term, and when the replica rejects
/// entries: what was sent before will not be acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    term: LeaderEpoch,
    /// Ends of what was sent, in order, each with the bytes after the end before it.
    sends: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { term: LeaderEpoch(0), sends: VecDeque::new(), bytes: 0 }
    }
}

impl Window {
    /// Returns the bytes that are not acknowledged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the bytes that may be sent now. A frame that is larger may be sent if there are any.
    pub fn room(&self) -> usize {
        WINDOW_BYTES_MAX.saturating_sub(self.bytes)
    }

    /// Notes that entries up to `end` were sent in a term.
    pub fn sent(&mut self, term: LeaderEpoch, end: LogIndex, bytes: usize) {
        if term != self.term {
            self.clear();
            self.term = term;
        }
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        let full = self.sends.len() >= WINDOW_SENDS_MAX;
        match self.sends.back_mut() {
            // Counted together, and acknowledged with the last of them.
            Some(last) if full || last.0 >= end => {
                *last = (end.max(last.0), last.1 + bytes);
            }
            _ => self.sends.push_back((end, bytes)),
        }
    }

    /// Notes that the replica has everything before `end`, as it says in a term.
    pub fn acknowledged(&mut self, term: LeaderEpoch, end: LogIndex) {
        if term != self.term {
            return;
        }
        while let Some((_, bytes)) = self.sends.pop_front_if(|(sent, _)| *sent <= end) {
            self.bytes -= bytes;
        }
        if self.sends.is_empty() {
            // An idle partition keeps no memory.
            self.sends = VecDeque::new();
        }
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.sends = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: LeaderEpoch = LeaderEpoch(3);

    #[test]
    fn what_is_acknowledged_leaves_the_window() {
        let mut window = Window::default();
        for end in 1..=10 {
            window.sent(TERM, LogIndex(end * 10), 100);
        }
        window.acknowledged(TERM, LogIndex(35));
        assert_eq!(window.bytes(), 700);
        window.acknowledged(LeaderEpoch(2), LogIndex(100));
        assert_eq!(window.bytes(), 700, "an acknowledgement of another term");
        window.acknowledged(TERM, LogIndex(100));
        assert_eq!((window.bytes(), window.room()), (0, WINDOW_BYTES_MAX));
    }

    #[test]
    fn another_term_begins_with_an_empty_window() {
        let mut window = Window::default();
        window.sent(TERM, LogIndex(10), WINDOW_BYTES_MAX + 1);
        assert_eq!(window.room(), 0);
        window.sent(LeaderEpoch(4), LogIndex(5), 7);
        assert_eq!(window.bytes(), 7);
    }

    #[test]
    fn the_memory_of_a_window_is_limited_and_no_byte_is_lost() {
        let mut window = Window::default();
        for end in 1..=10_000 {
            window.sent(TERM, LogIndex(end), 3);
        }
        assert!(window.sends.len() <= WINDOW_SENDS_MAX);
        assert_eq!(window.bytes(), 30_000);
        window.acknowledged(TERM, LogIndex(9_999));
        assert!(window.bytes() > 0, "the last one is missing");
        window.acknowledged(TERM, LogIndex(10_000));
        assert_eq!(window.bytes(), 0);
    }
}
