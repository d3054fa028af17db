//! Partitions without a leader, by the time at which they try to become one.
//!
//! The times are multiples of [`ELECTION_TICK`]: there are never more than a few, whatever the number of partitions, and those of one time ask for votes in
//! one message to each peer.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_runtime::plane::Instant;

use crate::limits::{ELECTION_JITTER_MAX, ELECTION_TICK, ELECTION_WAIT_MIN};
use crate::partition::PartitionId;

const TICK_NS: u64 = ELECTION_TICK.as_nanos() as u64;
const JITTER_NS: u64 = ELECTION_JITTER_MAX.as_nanos() as u64;

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Elections(BTreeMap<u64, Vec<PartitionId>>);

impl Elections {
    /// Lists a partition whose leader is lost, or that never had one.
    pub(super) fn add(&mut self, now: Instant, random: u64, id: PartitionId) {
        self.add_after(now, ELECTION_WAIT_MIN, random, id);
    }

    /// Lists a partition that has begun an election.
    pub(super) fn add_again(&mut self, now: Instant, random: u64, id: PartitionId) {
        // Long enough for two rounds of votes over a slow network and disk.
        self.add_after(now, ELECTION_WAIT_MIN * 2, random, id);
    }

    fn add_after(&mut self, now: Instant, wait: Duration, random: u64, id: PartitionId) {
        let due = now.after(wait + Duration::from_nanos(random % JITTER_NS));
        self.0.entry(due.0.div_ceil(TICK_NS)).or_default().push(id);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.first_key_value().map(|(tick, _)| Instant(tick * TICK_NS))
    }

    /// Takes a partition whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<PartitionId> {
        let mut first = self.0.first_entry().filter(|first| first.key() * TICK_NS <= now.0)?;
        let id = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use highwater_runtime::slab::Key;

    use super::*;

    #[test]
    fn partitions_share_a_few_times_and_none_is_early_or_lost() {
        let mut elections = Elections::default();
        let start = Instant(5_000_000_000);
        for index in 0..10_000 {
            let random = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            elections.add(start, random, PartitionId(Key { index, generation: 0 }));
        }
        assert!(elections.0.len() <= (JITTER_NS / TICK_NS) as usize + 2, "{} times", elections.0.len());
        let first = elections.next_deadline().expect("some are listed");
        assert!(first >= start.after(ELECTION_WAIT_MIN));
        assert_eq!(elections.pop(Instant(first.0 - 1)), None);
        let end = start.after(ELECTION_WAIT_MIN + ELECTION_JITTER_MAX + ELECTION_TICK);
        let mut all: Vec<_> = std::iter::from_fn(|| elections.pop(end)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), elections.next_deadline()), (10_000, None));
    }
}
