//! The memory of a shard for requests that have not been answered.

/// Memory of requests that have not been answered, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RequestBytes {
    /// Requests that were received completely.
    pub(crate) whole: usize,
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
#[derive(Debug)]
pub(crate) struct Budget {
    used: RequestBytes,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: RequestBytes::default(), max }
    }

    /// Returns whether another request may be handled.
    pub(crate) fn is_open(&self) -> bool {
        self.used.whole < self.max
    }

    /// Returns whether a large message of any size may be admitted: yes while any memory is left. One message can exceed the budget; no other
    /// is admitted then until that one has been answered. If there had to be room for all of it, the largest message would never be admitted,
    /// because the buffers of silent connections always use some memory.
    pub(crate) fn admits(&self) -> bool {
        self.used() < self.max
    }

    /// Updates what one connection uses.
    pub(crate) fn recharge(&mut self, before: RequestBytes, after: RequestBytes) {
        self.used.whole = self.used.whole + after.whole - before.whole;
        self.used.begun = self.used.begun + after.begun - before.begun;
    }

    pub(crate) fn used(&self) -> usize {
        self.used.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_admitted_while_all_memory_is_in_use() {
        let whole = |whole| RequestBytes { whole, begun: 0 };
        let mut budget = Budget::new(100);
        budget.recharge(whole(0), whole(99));
        assert!(budget.is_open() && budget.admits());
        budget.recharge(whole(99), whole(100));
        assert!(!budget.is_open() && !budget.admits());
        budget.recharge(whole(100), whole(20));
        assert!(budget.is_open() && budget.admits());
        assert_eq!(budget.used(), 20);
    }

    #[test]
    fn memory_for_messages_being_received_makes_only_large_messages_wait() {
        let begun = RequestBytes { whole: 0, begun: 1000 };
        let mut budget = Budget::new(100);
        budget.recharge(RequestBytes::default(), begun);
        assert!(budget.is_open() && !budget.admits());
        budget.recharge(begun, RequestBytes { whole: 1000, begun: 0 });
        assert!(!budget.is_open(), "it is complete now");
    }

    #[test]
    fn a_message_larger_than_the_budget_is_admitted_while_others_hold_memory() {
        let silent = RequestBytes { whole: 0, begun: 10 };
        let mut budget = Budget::new(100);
        budget.recharge(RequestBytes::default(), silent);
        assert!(budget.admits());
        budget.recharge(silent, RequestBytes { whole: 0, begun: 1010 });
        assert!(!budget.admits(), "one at a time");
    }
}
