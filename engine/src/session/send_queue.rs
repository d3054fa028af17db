//! What is queued for a connection, in its order.

use std::collections::VecDeque;

/// Whether bytes that are queued are charged for by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charged {
    Yes,
    No,
}

/// Bytes that are on their way to a connection. Those that a read holds are charged for by themselves (see `read/charge.rs`); the others are
/// counted here.
#[derive(Default, Debug)]
pub(crate) struct SendQueue {
    bytes: usize,
    uncharged: usize,
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    bytes: usize,
    charged: Charged,
}

impl SendQueue {
    /// All bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those that nobody else counts.
    pub(crate) fn uncharged(&self) -> usize {
        self.uncharged
    }

    pub(crate) fn push(&mut self, bytes: usize, charged: Charged) {
        self.bytes += bytes;
        self.uncharged += if charged == Charged::Yes { 0 } else { bytes };
        match self.runs.back_mut() {
            Some(last) if last.charged == charged => last.bytes += bytes,
            _ => self.runs.push_back(Run { bytes, charged }),
        }
    }

    /// So many bytes have left. Returns how many of them were counted here.
    pub(crate) fn pop(&mut self, bytes: usize) -> usize {
        assert!(bytes <= self.bytes, "{bytes} bytes have left of {}", self.bytes);
        self.bytes -= bytes;
        let (mut left, before) = (bytes, self.uncharged);
        while left > 0
            && let Some(first) = self.runs.front_mut()
        {
            let part = left.min(first.bytes);
            left -= part;
            first.bytes -= part;
            self.uncharged -= if first.charged == Charged::Yes { 0 } else { part };
            if first.bytes == 0 {
                self.runs.pop_front();
            }
        }
        before - self.uncharged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_taken_off_in_order_and_what_is_charged_elsewhere_is_not_counted_twice() {
        let mut queue = SendQueue::default();
        for (bytes, charged) in [(10, Charged::No), (5, Charged::No), (1000, Charged::Yes), (20, Charged::No)]
        {
            queue.push(bytes, charged);
        }
        assert_eq!((queue.bytes(), queue.uncharged(), queue.runs.len()), (1035, 35, 3));
        assert_eq!(queue.pop(12), 12);
        assert_eq!(queue.pop(1000), 3);
        assert_eq!((queue.bytes(), queue.uncharged()), (23, 20));
        assert_eq!(queue.pop(23), 20);
        assert_eq!((queue.bytes(), queue.uncharged(), queue.runs.len()), (0, 0, 0));
    }
}
