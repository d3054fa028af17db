//! Where records without a key or a partition go: they fill a batch of one partition, then a batch of another.
//!
//! The next partition is the next one that can send at once. So partitions that keep up get equal numbers of batches, however few records
//! those hold, and one that is slow or disconnected gets fewer instead of holding up records that could go elsewhere (compare KIP-794).

use std::time::Instant;

use highwater_protocol::batch::NewRecord;

use super::{Appended, NotAppended, ProducerCore};

/// Partitions that are looked at when records without a key move on: what a batch costs does not grow with the topic.
const STICKY_SEARCH_MAX: u32 = 64;

impl ProducerCore {
    /// Appends a record that has neither key nor partition. The one that does not fit into the batch goes to the next partition: begun
    /// in this one, its batch would leave with this record alone.
    pub(super) fn append_sticky(
        &mut self,
        record: &NewRecord<'_>,
        charge: usize,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, NotAppended> {
        let here = self.sticky_partition();
        if let Some(appended) = self.append_open(here, record, charge)? {
            return Ok(appended);
        }
        let closed = self.lanes[here as usize].close_open();
        if closed {
            self.mark_ready(here);
            self.advance_sticky();
        }
        let appended = self.append_to(self.sticky_partition(), record, charge, now)?;
        Ok(Appended { wake: appended.wake || closed, ..appended })
    }

    pub(super) fn sticky_partition(&self) -> u32 {
        self.sticky % self.partitions()
    }

    /// The partitions that records without a key may go to next, in their order, the present one last.
    fn next_partitions(&self) -> impl Iterator<Item = u32> + Clone + use<> {
        let (here, partitions) = (self.sticky_partition(), self.partitions());
        let others = (1..partitions.min(STICKY_SEARCH_MAX + 1)).map(move |step| (here + step) % partitions);
        others.chain([here])
    }

    /// Moves records without a key to the next partition that can send at once; if none can, to the one with the fewest batches to send.
    ///
    /// So each gets the same while all keep up, and one that is slow or away gets less.
    pub(super) fn advance_sticky(&mut self) {
        let mut next = self.next_partitions();
        let lane = |at: &u32| &self.lanes[*at as usize];
        let free = next.clone().find(|at| !lane(at).is_busy(&self.limits));
        let next = free.or_else(|| next.by_ref().min_by_key(|at| lane(at).backlog()));
        self.sticky = next.expect("the present one at least");
    }

    /// Moves records without a key away from a partition whose batch has to wait, if another one can send at once.
    pub(super) fn avoid_blocked(&mut self, at: u32) {
        let lane = |at: u32| &self.lanes[at as usize];
        if at != self.sticky_partition() || !lane(at).has_open() || !lane(at).is_busy(&self.limits) {
            return;
        }
        let mut free = self.next_partitions().filter(|at| !lane(*at).is_busy(&self.limits));
        // One that is connected rather than one that has to be tried.
        let next = free.clone().find(|at| lane(*at).is_routed()).or_else(|| free.next());
        self.sticky = next.unwrap_or(at);
    }
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
