//! Batches that wait for room in front of the disk: those of a partition in the order in which they came, and partitions in turns.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::TopicPartition;

use crate::message::Append;

/// The batches of a store that wait.
#[derive(Default)]
pub(in crate::shard) struct Waiting {
    of: BTreeMap<TopicPartition, VecDeque<Append>>,
    /// The partitions, in the order in which they are tried.
    turns: VecDeque<TopicPartition>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether batches of this partition wait: others must not overtake them.
    pub(super) fn holds(&self, tp: TopicPartition) -> bool {
        self.of.contains_key(&tp)
    }

    /// Behind those of its partition.
    pub(super) fn push(&mut self, append: Append) {
        let turns = &mut self.turns;
        let tp = append.tp;
        let of = self.of.entry(tp).or_insert_with(|| {
            turns.push_back(tp);
            VecDeque::new()
        });
        of.push_back(append);
    }

    /// Tries the batches of each partition until one is given back. Partitions that had some of the room wait behind those that had
    /// none: next time it is the turn of these.
    pub(super) fn retry(&mut self, mut append: impl FnMut(Append) -> Option<Append>) {
        let mut served = VecDeque::new();
        for _ in 0..self.turns.len() {
            let Some(tp) = self.turns.pop_front() else { break };
            let Some(batches) = self.of.get_mut(&tp) else { continue };
            let before = batches.len();
            while let Some(batch) = batches.pop_front() {
                if let Some(batch) = append(batch) {
                    batches.push_front(batch);
                    break;
                }
            }
            if batches.is_empty() {
                self.of.remove(&tp);
            } else if batches.len() < before {
                served.push_back(tp);
            } else {
                self.turns.push_back(tp);
            }
        }
        self.turns.append(&mut served);
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionIndex, Timestamp, TopicId};
    use highwater_protocol::native::Acks;

    use super::*;
    use crate::message::{OwnedBatch, ProducedFor, RequestId};
    use crate::shard::Checked;

    fn tp(number: u32) -> TopicPartition {
        TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(number) }
    }

    fn waiting(batches: &[(u32, u32)]) -> Waiting {
        let mut waiting = Waiting::default();
        for (partition, number) in batches {
            let to = ProducedFor { shard: 0, request: RequestId(0), number: *number };
            let batch = OwnedBatch::Small(Vec::new());
            let checked = Checked { max_timestamp: Timestamp(0) };
            waiting.push(Append { to, tp: tp(*partition), acks: Acks::All, batch, checked });
        }
        waiting
    }

    /// Partition and number of those that were taken; there is room for so many.
    fn take(waiting: &mut Waiting, mut room: usize) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        waiting.retry(|append| {
            if room == 0 {
                return Some(append);
            }
            room -= 1;
            taken.push((append.tp.partition.0, append.to.number));
            None
        });
        taken
    }

    #[test]
    fn batches_of_a_partition_stay_in_order_and_partitions_take_turns() {
        let mut waiting = waiting(&[(3, 0), (1, 1), (3, 2), (1, 3), (2, 4), (3, 5)]);
        assert_eq!(take(&mut waiting, 1), [(3, 0)]);
        assert_eq!(take(&mut waiting, 3), [(1, 1), (1, 3), (2, 4)], "the others had none of the room");
        assert!(waiting.holds(tp(3)) && !waiting.holds(tp(1)) && !waiting.holds(tp(2)));
        assert_eq!(take(&mut waiting, 0), []);
        assert_eq!(take(&mut waiting, 9), [(3, 2), (3, 5)]);
        assert!(waiting.is_empty() && !waiting.holds(tp(3)));
    }
}
