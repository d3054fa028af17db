//! The bytes queued for a connection, in order.

use std::collections::VecDeque;

/// Whether queued bytes carry a charge of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charged {
    Yes,
    No,
}

/// Bytes on their way to a connection. Bytes of a read carry their own charge (see `read/charge.rs`); all others are counted here.
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
    /// Returns the number of queued bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of queued bytes without a charge of their own.
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

    /// Removes bytes that were sent. Returns how many of them had no charge of their own.
    pub(crate) fn pop(&mut self, bytes: usize) -> usize {
        assert!(bytes <= self.bytes, "{bytes} bytes were sent of {} in the queue", self.bytes);
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
    fn sent_bytes_are_removed_in_order_and_those_with_a_charge_are_not_counted_twice() {
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
