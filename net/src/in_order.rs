//! Sends replies in the order of their requests, regardless of the order in which they become ready.

use std::collections::VecDeque;

use highwater_protocol::limits::BULK_BYTES_MIN;

use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUEST_BYTES_MIN, REQUESTS_IN_FLIGHT_MAX, UNEXPECTED_BYTES_MAX};

/// Identifies the place of a reply in the order of replies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplySlot(u64);

/// A reply that is kept until it is the next to send.
pub trait Answer {
    /// Returns its size in memory, in bytes.
    fn bytes(&self) -> usize;
}

/// The requests of a connection in flight, in order, each with what its reply needs of it (`R`) and the reply (`A`) once it is known.
///
/// Memory may be reserved for a reply before it is known. Memory beyond the reservation is *unexpected*, and has a limit of its own that is
/// much lower: hundreds of short requests with long replies fit in one packet.
#[derive(Debug)]
pub struct InOrder<R, A> {
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<Slot<R, A>>,
    request_bytes: usize,
    /// The part of `request_bytes` that large requests hold.
    large_bytes: usize,
    reply_bytes: usize,
    /// Size of replies beyond what was reserved, in bytes.
    unexpected_bytes: usize,
}

#[derive(Debug)]
struct Slot<R, A> {
    request: R,
    request_bytes: usize,
    is_large: bool,
    /// Memory reserved for the reply; its size once it is known.
    reply_bytes: usize,
    unexpected_bytes: usize,
    answer: Option<A>,
}

impl<R, A> Default for InOrder<R, A> {
    fn default() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            request_bytes: 0,
            large_bytes: 0,
            reply_bytes: 0,
            unexpected_bytes: 0,
        }
    }
}

impl<R, A: Answer> InOrder<R, A> {
    /// Adds a request that holds `request_bytes` until it is answered, and reserves `reply_bytes` for its reply.
    pub(crate) fn push(&mut self, request: R, request_bytes: usize, reply_bytes: usize) -> ReplySlot {
        let slot = ReplySlot(self.first + self.slots.len() as u64);
        let request_bytes = request_bytes.max(REQUEST_BYTES_MIN);
        self.slots.push_back(Slot {
            request,
            request_bytes,
            is_large: false,
            reply_bytes,
            unexpected_bytes: 0,
            answer: None,
        });
        self.request_bytes += request_bytes;
        self.reply_bytes += reply_bytes;
        slot
    }

    /// Counts the request of a slot among the large ones if it was received with that many bytes.
    pub fn count_if_large(&mut self, slot: ReplySlot, received_bytes: usize) {
        let slot = slot.0.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize));
        if received_bytes >= BULK_BYTES_MIN
            && let Some(slot) = slot
            && !std::mem::replace(&mut slot.is_large, true)
        {
            self.large_bytes += slot.request_bytes;
        }
    }

    /// Sets the reply of a slot.
    pub fn fill(&mut self, slot: ReplySlot, answer: A) {
        let at = slot.0.checked_sub(self.first).expect("a slot is answered once");
        let slot = &mut self.slots[at as usize];
        assert!(slot.answer.is_none(), "a slot is answered once");
        let bytes = answer.bytes();
        slot.unexpected_bytes = bytes.saturating_sub(slot.reply_bytes);
        self.unexpected_bytes += slot.unexpected_bytes;
        self.reply_bytes = self.reply_bytes - slot.reply_bytes + bytes;
        slot.reply_bytes = bytes;
        slot.answer = Some(answer);
    }

    /// Removes the first request and its reply, if the reply is known.
    pub(crate) fn take(&mut self) -> Option<(R, A)> {
        self.slots.front()?.answer.as_ref()?;
        let Slot { request, request_bytes, is_large, reply_bytes, unexpected_bytes, answer } =
            self.slots.pop_front()?;
        self.first += 1;
        self.request_bytes -= request_bytes;
        if is_large {
            self.large_bytes -= request_bytes;
        }
        self.reply_bytes -= reply_bytes;
        self.unexpected_bytes -= unexpected_bytes;
        Some((request, answer?))
    }

    /// Returns whether the reply of this slot is the next to send.
    pub fn is_next(&self, slot: ReplySlot) -> bool {
        slot.0 == self.first
    }

    /// Returns whether a limit is reached, so that no further request may be added for now.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= REQUESTS_IN_FLIGHT_MAX
            || self.request_bytes + self.reply_bytes >= BYTES_IN_FLIGHT_MAX
            || self.unexpected_bytes >= UNEXPECTED_BYTES_MAX
    }

    /// Returns the number of requests in flight.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether no request is in flight.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the memory held by the requests in flight, in bytes.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// Returns the part of it that large requests hold.
    pub fn large_bytes(&self) -> usize {
        self.large_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = InOrder<char, u32>;

    /// An answer of so many bytes.
    impl Answer for u32 {
        fn bytes(&self) -> usize {
            *self as usize
        }
    }

    #[test]
    fn a_large_request_counts_as_such_until_its_answer_leaves() {
        let mut queue = Queue::default();
        let (small, large) = (queue.push('a', 1000, 0), queue.push('b', 2000, 0));
        queue.count_if_large(small, BULK_BYTES_MIN - 1);
        queue.count_if_large(large, BULK_BYTES_MIN);
        queue.count_if_large(large, BULK_BYTES_MIN);
        assert_eq!((queue.request_bytes(), queue.large_bytes()), (3000, 2000));
        queue.fill(large, 0);
        queue.fill(small, 0);
        assert_eq!((queue.take(), queue.large_bytes()), (Some(('a', 0)), 2000));
        assert_eq!((queue.take(), queue.large_bytes()), (Some(('b', 0)), 0));
        queue.count_if_large(large, BULK_BYTES_MIN);
        assert_eq!(queue.large_bytes(), 0, "it was answered");
    }

    #[test]
    fn answers_leave_in_the_order_of_their_requests() {
        let mut queue = Queue::default();
        let slots: Vec<_> = "abcd".chars().map(|name| queue.push(name, 1000, 5)).collect();
        queue.fill(slots[2], 2);
        queue.fill(slots[1], 1);
        assert_eq!(queue.take(), None);
        assert!(queue.is_next(slots[0]) && !queue.is_next(slots[1]));
        queue.fill(slots[0], 0);
        assert_eq!(
            [queue.take(), queue.take(), queue.take()],
            [Some(('a', 0)), Some(('b', 1)), Some(('c', 2))]
        );
        assert_eq!(queue.take(), None);
        assert_eq!((queue.len(), queue.request_bytes()), (1, 1000));
        queue.fill(slots[3], 3);
        assert_eq!(queue.take(), Some(('d', 3)));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_connection_is_full_by_requests_and_by_bytes() {
        let mut queue = Queue::default();
        for _ in 0..REQUESTS_IN_FLIGHT_MAX {
            assert!(!queue.is_full());
            queue.push('a', 0, 0);
        }
        assert!(queue.is_full());
        let mut queue = Queue::default();
        queue.push('a', BYTES_IN_FLIGHT_MAX - REQUEST_BYTES_MIN - 1, 0);
        assert!(!queue.is_full());
        queue.push('b', 0, 1);
        assert!(queue.is_full(), "a short request counts too");
    }

    #[test]
    fn answers_that_nobody_expected_to_be_long_fill_a_connection_until_they_leave() {
        let mut queue = Queue::default();
        let waits = queue.push('a', 0, 0);
        let mut held = 0;
        // As of a pipeline of requests for all topics behind one that waits.
        while !queue.is_full() {
            let slot = queue.push('b', 0, 0);
            queue.fill(slot, 260_000);
            held += 260_000;
        }
        assert!((UNEXPECTED_BYTES_MAX..UNEXPECTED_BYTES_MAX + 260_000).contains(&held), "{held} bytes");
        queue.fill(waits, 0);
        assert!(queue.take().is_some() && queue.is_full());
        assert!(queue.take().is_some() && !queue.is_full());
    }

    #[test]
    fn what_was_set_aside_for_an_answer_is_given_back_when_it_is_shorter() {
        let mut queue = Queue::default();
        let slot = queue.push('a', 0, BYTES_IN_FLIGHT_MAX);
        assert!(queue.is_full());
        queue.fill(slot, (UNEXPECTED_BYTES_MAX + 1) as u32);
        assert!(!queue.is_full(), "room was set aside for all of it");
        assert!(queue.take().is_some() && !queue.is_full());
        assert_eq!((queue.reply_bytes, queue.unexpected_bytes), (0, 0));
    }

    #[test]
    #[should_panic(expected = "a slot is answered once")]
    fn answering_twice_is_our_bug() {
        let mut queue = Queue::default();
        let slot = queue.push('a', 0, 0);
        queue.fill(slot, 0);
        queue.fill(slot, 0);
    }
}
