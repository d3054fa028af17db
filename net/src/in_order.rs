//! Answers leave in the order of their requests, whatever the order in which they became ready.

use std::collections::VecDeque;

use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUEST_BYTES_MIN, REQUESTS_IN_FLIGHT_MAX};

/// A request's place in the order of answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(u64);

/// The requests of a connection that have not been answered, in their order: of each, what its answer needs of it, and the answer.
#[derive(Debug)]
pub struct InOrder<R, A> {
    /// Number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot<R, A>>,
    request_bytes: usize,
    reply_bytes: usize,
}

#[derive(Debug)]
struct Slot<R, A> {
    request: R,
    request_bytes: usize,
    reply_bytes: usize,
    answer: Option<A>,
}

impl<R, A> Default for InOrder<R, A> {
    fn default() -> Self {
        Self { first: 0, slots: VecDeque::new(), request_bytes: 0, reply_bytes: 0 }
    }
}

impl<R, A> InOrder<R, A> {
    /// A place for the answer to a request that holds `request_bytes` until it is answered, and then may hold `reply_bytes`.
    pub(crate) fn push(&mut self, request: R, request_bytes: usize, reply_bytes: usize) -> SlotId {
        let slot = SlotId(self.first + self.slots.len() as u64);
        let request_bytes = request_bytes.max(REQUEST_BYTES_MIN);
        self.slots.push_back(Slot { request, request_bytes, reply_bytes, answer: None });
        self.request_bytes += request_bytes;
        self.reply_bytes += reply_bytes;
        slot
    }

    /// The answer of a slot is known.
    pub fn fill(&mut self, slot: SlotId, answer: A) {
        let at = slot.0.checked_sub(self.first).expect("a slot is answered once");
        let slot = &mut self.slots[at as usize];
        assert!(slot.answer.is_none(), "a slot is answered once");
        slot.answer = Some(answer);
    }

    /// Takes the answer whose turn it is, if it is known.
    pub(crate) fn take(&mut self) -> Option<(R, A)> {
        self.slots.front()?.answer.as_ref()?;
        let Slot { request, request_bytes, reply_bytes, answer } = self.slots.pop_front()?;
        self.first += 1;
        self.request_bytes -= request_bytes;
        self.reply_bytes -= reply_bytes;
        Some((request, answer?))
    }

    /// Whether no further request may be taken up for now.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= REQUESTS_IN_FLIGHT_MAX
            || self.request_bytes + self.reply_bytes >= BYTES_IN_FLIGHT_MAX
    }

    /// Requests that have not been answered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether everything has been answered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that the requests in flight hold.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = InOrder<char, u32>;

    #[test]
    fn answers_leave_in_the_order_of_their_requests() {
        let mut queue = Queue::default();
        let slots: Vec<_> = "abcd".chars().map(|name| queue.push(name, 1000, 5)).collect();
        queue.fill(slots[2], 2);
        queue.fill(slots[1], 1);
        assert_eq!(queue.take(), None);
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
    #[should_panic(expected = "a slot is answered once")]
    fn answering_twice_is_our_bug() {
        let mut queue = Queue::default();
        let slot = queue.push('a', 0, 0);
        queue.fill(slot, 0);
        queue.fill(slot, 0);
    }
}
