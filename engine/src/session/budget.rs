//! The memory of a shard for requests that have not been answered.

/// Memory of requests that have not been answered, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RequestBytes {
    /// Requests that were received completely.
    pub(crate) whole: usize,
    /// The part of `whole` that large requests use.
    pub(crate) large: usize,
    /// Large requests that were admitted and are being received.
    pub(crate) begun: usize,
}

impl RequestBytes {
    /// Returns the sum of both.
    pub(crate) fn total(self) -> usize {
        self.whole.saturating_add(self.begun)
    }
}

/// The memory of a shard for requests that have not been answered.
///
/// It counts only what can be finished without more memory: requests in flight, and messages that were admitted. So memory in use is always
/// returned. A large message may arrive slowly, or never, so the memory reserved for one makes only other large messages wait.
///
/// Half of the memory is reserved for small requests: a large one may be decoded to more than all of the memory, and small ones do not wait until it
/// is answered.
#[derive(Debug)]
pub(crate) struct Budget {
    used: RequestBytes,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: RequestBytes::default(), max }
    }

    /// Returns the memory that large requests may use, but for the last one that was admitted.
    fn large_max(&self) -> usize {
        self.max / 2
    }

    /// Returns whether another request may be handled.
    pub(crate) fn is_open(&self) -> bool {
        let small = self.used.whole - self.used.large;
        small + self.used.large.min(self.large_max()) < self.max
    }

    /// Returns whether a large message of any size may be admitted: yes while any memory is left of what large ones may use. One message can exceed
    /// that; no other is admitted then until that one has been answered. If there had to be room for all of it, the largest message would never be
    /// admitted, because the buffers of silent connections always use some memory.
    pub(crate) fn admits(&self) -> bool {
        self.used.large + self.used.begun < self.large_max() && self.used() < self.max
    }

    /// Updates what one connection uses.
    pub(crate) fn recharge(&mut self, before: RequestBytes, after: RequestBytes) {
        self.used.whole = self.used.whole + after.whole - before.whole;
        self.used.large = self.used.large + after.large - before.large;
        self.used.begun = self.used.begun + after.begun - before.begun;
    }

    pub(crate) fn used(&self) -> usize {
        self.used.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small requests, large ones, and large ones that are being received.
    fn bytes(small: usize, large: usize, begun: usize) -> RequestBytes {
        RequestBytes { whole: small + large, large, begun }
    }

    #[test]
    fn nothing_is_admitted_while_all_memory_is_in_use() {
        let mut budget = Budget::new(100);
        budget.recharge(bytes(0, 0, 0), bytes(99, 0, 0));
        assert!(budget.is_open() && budget.admits());
        budget.recharge(bytes(99, 0, 0), bytes(100, 0, 0));
        assert!(!budget.is_open() && !budget.admits());
        budget.recharge(bytes(100, 0, 0), bytes(20, 0, 0));
        assert!(budget.is_open() && budget.admits());
        assert_eq!(budget.used(), 20);
    }

    #[test]
    fn memory_for_messages_being_received_makes_only_large_messages_wait() {
        let mut budget = Budget::new(100);
        budget.recharge(bytes(0, 0, 0), bytes(0, 0, 1000));
        assert!(budget.is_open() && !budget.admits());
        budget.recharge(bytes(0, 0, 1000), bytes(1000, 0, 0));
        assert!(!budget.is_open(), "it is complete now");
    }

    #[test]
    fn large_requests_leave_half_of_the_memory_to_small_ones() {
        let mut budget = Budget::new(100);
        budget.recharge(bytes(0, 0, 0), bytes(0, 49, 0));
        assert!(budget.is_open() && budget.admits());
        budget.recharge(bytes(0, 49, 0), bytes(49, 1000, 0));
        assert!(budget.is_open() && !budget.admits(), "one at a time");
        budget.recharge(bytes(49, 1000, 0), bytes(50, 1000, 0));
        assert!(!budget.is_open());
        budget.recharge(bytes(50, 1000, 0), bytes(99, 0, 0));
        assert!(budget.is_open() && budget.admits(), "small ones may use what large ones do not");
    }

    #[test]
    fn a_message_larger_than_the_budget_is_admitted_while_others_hold_memory() {
        let mut budget = Budget::new(100);
        budget.recharge(bytes(0, 0, 0), bytes(0, 0, 10));
        assert!(budget.admits());
        budget.recharge(bytes(0, 0, 10), bytes(0, 1000, 10));
        assert!(!budget.admits(), "one at a time");
    }
}
