//! Batches that wait for space, because the disk is behind or another slab is being created. The batches of a partition stay in the order of
//! arrival, whichever protocol they came by, and partitions take turns.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::ConnId;

use super::append::AppendRequest;

/// The batches of one store that wait for space.
#[derive(Default)]
pub(super) struct PendingAppends {
    by_partition: BTreeMap<TopicPartition, VecDeque<AppendRequest<'static>>>,
    /// The partitions, in the order of the next retry.
    turns: VecDeque<TopicPartition>,
}

impl PendingAppends {
    /// Returns whether batches of this partition wait. Later ones must not overtake them.
    pub(super) fn holds(&self, tp: TopicPartition) -> bool {
        !self.turns.is_empty() && self.by_partition.contains_key(&tp)
    }

    /// Adds a batch after those of its partition.
    pub(super) fn push(&mut self, request: AppendRequest<'static>) {
        let turns = &mut self.turns;
        let tp = request.tp;
        let batches = self.by_partition.entry(tp).or_insert_with(|| {
            turns.push_back(tp);
            VecDeque::new()
        });
        batches.push_back(request);
    }

    /// Retries the batches of each partition until `append` returns one. Partitions that got no space come first the next time, before those
    /// that got some.
    pub(super) fn retry(
        &mut self,
        mut append: impl FnMut(AppendRequest<'static>) -> Option<AppendRequest<'static>>,
    ) {
        let mut served = VecDeque::new();
        for _ in 0..self.turns.len() {
            let Some(tp) = self.turns.pop_front() else { break };
            let Some(batches) = self.by_partition.get_mut(&tp) else { continue };
            let before = batches.len();
            while let Some(batch) = batches.pop_front() {
                if let Some(batch) = append(batch) {
                    batches.push_front(batch);
                    break;
                }
            }
            if batches.is_empty() {
                self.by_partition.remove(&tp);
            } else if batches.len() < before {
                served.push_back(tp);
            } else {
                self.turns.push_back(tp);
            }
        }
        self.turns.append(&mut served);
    }

    /// Drops the batches of a partition whose replies a connection waits for.
    pub(super) fn forget(&mut self, tp: TopicPartition, conn: ConnId) {
        let Some(batches) = self.by_partition.get_mut(&tp) else { return };
        batches.retain(|request| request.reply_to.waiting_conn() != Some(conn));
        if batches.is_empty() {
            self.by_partition.remove(&tp);
            self.turns.retain(|other| *other != tp);
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionIndex, TopicId};

    use super::*;
    use crate::partition::append::sample_request;
    use crate::reply_to::{ReplyTo, RequestBatch, RequestId};

    fn tp(number: u32) -> TopicPartition {
        TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(number) }
    }

    fn request(partition: u32, number: u32) -> AppendRequest<'static> {
        let to = RequestBatch { shard: 0, request: RequestId(0), number };
        sample_request(tp(partition), ReplyTo::Kafka(to))
    }

    fn pending(batches: &[(u32, u32)]) -> PendingAppends {
        let mut pending = PendingAppends::default();
        for (partition, number) in batches {
            pending.push(request(*partition, *number));
        }
        pending
    }

    /// Retries with space for `space` batches. Returns the partition and number of those that were appended.
    fn take(pending: &mut PendingAppends, mut space: usize) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        pending.retry(|request| {
            if space == 0 {
                return Some(request);
            }
            space -= 1;
            let ReplyTo::Kafka(to) = request.reply_to else { panic!("{request:?}") };
            taken.push((request.tp.partition.0, to.number));
            None
        });
        taken
    }

    #[test]
    fn batches_of_a_partition_stay_in_order_and_partitions_take_turns() {
        let mut pending = pending(&[(3, 0), (1, 1), (3, 2), (1, 3), (2, 4), (3, 5)]);
        assert_eq!(take(&mut pending, 1), [(3, 0)]);
        assert_eq!(take(&mut pending, 3), [(1, 1), (1, 3), (2, 4)], "they got no space before");
        assert!(pending.holds(tp(3)) && !pending.holds(tp(1)) && !pending.holds(tp(2)));
        assert_eq!(take(&mut pending, 0), []);
        assert_eq!(take(&mut pending, 9), [(3, 2), (3, 5)]);
        assert!(pending.turns.is_empty() && !pending.holds(tp(3)));
    }

    #[test]
    fn only_the_batch_of_a_closed_connection_is_dropped() {
        let mut pending = pending(&[(1, 0)]);
        let native = |conn| ReplyTo::Native { conn: ConnId(conn), slot: None, id: 0 };
        pending.push(sample_request(tp(1), native(7)));
        pending.push(sample_request(tp(2), native(8)));
        pending.forget(tp(1), ConnId(7));
        pending.forget(tp(2), ConnId(8));
        assert!(pending.holds(tp(1)) && !pending.holds(tp(2)));
        assert_eq!(take(&mut pending, 9), [(1, 0)]);
    }
}
