//! Placement of records without key and partition: they fill a batch of one partition, then a batch of another.
//!
//! The next partition is the next one that can send immediately. So partitions that keep up get equal numbers of
//! batches, however few records those hold, and a slow or disconnected partition gets fewer instead of delaying records
//! that could go elsewhere (compare KIP-794).

use std::time::Instant;

use highwater_protocol::batch::NewRecord;

use super::{Appended, NotAppended, ProducerCore};

/// Maximum number of partitions examined when records without a key move on, so that the cost of a batch does not grow
/// with the topic.
const STICKY_SEARCH_MAX: u32 = 64;

impl ProducerCore {
    /// Appends a record that has neither key nor partition. A record that does not fit into the open batch goes to the
    /// next partition: if it started a batch in this one, that batch would be sent with this record alone.
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

    /// Returns the candidates for records without a key, in order, the current partition last.
    fn next_partitions(&self) -> impl Iterator<Item = u32> + Clone + use<> {
        let (here, partitions) = (self.sticky_partition(), self.partitions());
        let others = (1..partitions.min(STICKY_SEARCH_MAX + 1)).map(move |step| (here + step) % partitions);
        others.chain([here])
    }

    /// Moves records without a key to the next partition that can send immediately, or else to the one with the fewest
    /// batches to send.
    ///
    /// So all partitions get the same share while they keep up, and a slow or disconnected one gets less.
    pub(super) fn advance_sticky(&mut self) {
        let mut next = self.next_partitions();
        let lane = |at: &u32| &self.lanes[*at as usize];
        let free = next.clone().find(|at| !lane(at).is_busy(&self.limits));
        let next = free.or_else(|| next.by_ref().min_by_key(|at| lane(at).backlog()));
        self.sticky = next.expect("the present one at least");
    }

    /// Moves records without a key away from a partition whose batch has to wait, if another partition can send
    /// immediately.
    pub(super) fn avoid_blocked(&mut self, at: u32) {
        let lane = |at: u32| &self.lanes[at as usize];
        if at != self.sticky_partition() || !lane(at).has_open() || !lane(at).is_busy(&self.limits) {
            return;
        }
        let mut free = self.next_partitions().filter(|at| !lane(*at).is_busy(&self.limits));
        // Prefer a partition that is connected.
        let next = free.clone().find(|at| lane(*at).is_routed()).or_else(|| free.next());
        self.sticky = next.unwrap_or(at);
    }
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
