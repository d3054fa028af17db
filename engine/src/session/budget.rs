//! The memory of a shard for requests that were received and not answered.

/// Memory for requests that were not answered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RequestBytes {
    /// For those that came whole.
    pub(crate) whole: usize,
    /// For large ones that were let in and are coming.
    pub(crate) begun: usize,
}

impl RequestBytes {
    /// Both together.
    pub(crate) fn total(self) -> usize {
        self.whole.saturating_add(self.begun)
    }
}

/// The memory of a shard for requests that were received and not answered.
///
/// Only what can be finished without more memory counts: requests in flight and messages that were let in. So what is used
/// up always comes back. A large message takes its time to come, or never does, so what is set aside for one keeps only other large ones
/// waiting.
#[derive(Debug)]
pub(crate) struct Budget {
    used: RequestBytes,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: RequestBytes::default(), max }
    }

    /// Whether another request may be taken up.
    pub(crate) fn is_open(&self) -> bool {
        self.used.whole < self.max
    }

    /// Whether a large message may be let in, whatever its size: while something is left. One can be over what there is, and no
    /// other comes then until it was answered. If there had to be room for all of it, the largest would never come in: something is
    /// always in use, if only by the buffers of connections that are silent.
    pub(crate) fn admits(&self) -> bool {
        self.used() < self.max
    }

    /// What a connection has changes.
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
    fn memory_that_is_used_up_lets_nothing_in_until_it_comes_back() {
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
    fn memory_for_what_is_still_coming_keeps_only_large_messages_waiting() {
        let begun = RequestBytes { whole: 0, begun: 1000 };
        let mut budget = Budget::new(100);
        budget.recharge(RequestBytes::default(), begun);
        assert!(budget.is_open() && !budget.admits());
        budget.recharge(begun, RequestBytes { whole: 1000, begun: 0 });
        assert!(!budget.is_open(), "now it is there");
    }

    #[test]
    fn a_message_that_is_larger_than_the_budget_comes_in_beside_what_others_hold() {
        let silent = RequestBytes { whole: 0, begun: 10 };
        let mut budget = Budget::new(100);
        budget.recharge(RequestBytes::default(), silent);
        assert!(budget.admits());
        budget.recharge(silent, RequestBytes { whole: 0, begun: 1010 });
        assert!(!budget.admits(), "one at a time");
    }
}
