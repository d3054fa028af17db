//! A partition on its owner: its durable and committed ends and the pending acknowledgements; and the table of partitions.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset, Timestamp, TopicPartition};
use highwater_replication::Quorum;
use highwater_runtime::slab::{Key, Slab};
use highwater_storage::{Bounds, PartitionSlot};

use crate::api::{PassHistory, RequiredAcks};
use crate::meta::Topic;
use crate::mutants::{Mutant, is_planted};
use crate::partition::{ReaderId, Waiter};
use crate::reply_to::ReplyTo;

/// Identifies a partition of this shard. Refers to nothing once the partition is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PartitionId(pub(crate) Key);

/// A pending acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    pub(crate) reply_to: ReplyTo,
    /// Offset after the batch's last record.
    pub(crate) end: Offset,
    pub(crate) base_offset: Offset,
    /// [`NO_TIMESTAMP`](highwater_protocol::batch::NO_TIMESTAMP) unless the broker stamped the batch.
    pub(crate) log_append_time: Timestamp,
}

pub(crate) struct Partition {
    pub(crate) tp: TopicPartition,
    pub(crate) topic: Arc<Topic>,
    /// Index of the store on this shard.
    pub(crate) store: usize,
    pub(crate) slot: PartitionSlot,
    pub(crate) epoch: LeaderEpoch,
    /// The first frame of the epoch has not been appended yet.
    pub(crate) epoch_start_due: bool,
    /// The broker's log has reported damage that readers found.
    pub(crate) damage_logged: bool,
    /// Compaction found damage. It is not tried again.
    pub(crate) compaction_failed: bool,
    /// The passes of compaction so far, if there was one.
    pub(crate) pass_history: Option<Box<PassHistory>>,
    /// Readers that have read everything and wait for more.
    pub(crate) waiters: BTreeSet<Waiter>,
    /// Native readers.
    pub(crate) readers: BTreeSet<ReaderId>,
    quorum: Quorum,
    /// Durable ends that are not committed: index and offset.
    marks: VecDeque<(LogIndex, Offset)>,
    durable_end: Offset,
    high_watermark: Offset,
    until_committed: VecDeque<Ack>,
    until_durable: VecDeque<Ack>,
}

impl Partition {
    /// A partition that this node leads, as recovered by its store.
    pub(crate) fn new(
        tp: TopicPartition,
        topic: Arc<Topic>,
        store: usize,
        slot: PartitionSlot,
        bounds: &Bounds,
        me: NodeId,
    ) -> Self {
        let epoch = bounds.last_epoch.unwrap_or(LeaderEpoch(0));
        // What the store found is committed once it is durable: this node is the only voter.
        let term_start = if bounds.epoch_is_new { bounds.durable_index } else { LogIndex(0) };
        Self {
            tp,
            topic,
            store,
            slot,
            epoch,
            epoch_start_due: bounds.epoch_is_new,
            damage_logged: false,
            compaction_failed: false,
            pass_history: None,
            waiters: BTreeSet::new(),
            readers: BTreeSet::new(),
            quorum: Quorum::new([me], epoch, term_start, bounds.durable_index),
            marks: VecDeque::new(),
            durable_end: bounds.durable_end,
            high_watermark: bounds.durable_end,
            until_committed: VecDeque::new(),
            until_durable: VecDeque::new(),
        }
    }

    /// Returns the offset after the last record that is committed: the end for readers.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Returns the offset after the last record that may be read. `append_end` is the end of the log in memory.
    pub(crate) fn readable_end(&self, append_end: impl FnOnce() -> Offset) -> Offset {
        if is_planted(Mutant::FetchAboveHighWatermark) { append_end() } else { self.high_watermark }
    }

    /// Queues an acknowledgement until `acks` is satisfied. Returns true if it is already, as for a batch that was sent again.
    pub(crate) fn wait(&mut self, acks: RequiredAcks, ack: Ack) -> bool {
        let (reached, queue) = match acks {
            RequiredAcks::All => (self.high_watermark, &mut self.until_committed),
            RequiredAcks::Leader | RequiredAcks::None => (self.durable_end, &mut self.until_durable),
        };
        if ack.end <= reached || is_planted(Mutant::AckBeforeDurable) {
            return true;
        }
        queue.push_back(ack);
        false
    }

    /// Handles progress of a replica. Returns whether the high watermark moved.
    pub(crate) fn handle_durable(
        &mut self,
        me: NodeId,
        from: NodeId,
        index: LogIndex,
        offset: Offset,
    ) -> bool {
        if from == me {
            assert!(offset >= self.durable_end, "what is durable stays durable");
            self.durable_end = offset;
            self.marks.push_back((index, offset));
        }
        let Some(committed) = self.quorum.handle_durable(from, index) else { return false };
        let before = self.high_watermark;
        while let Some((_, offset)) = self.marks.pop_front_if(|(index, _)| *index <= committed) {
            self.high_watermark = offset;
        }
        if is_planted(Mutant::HighWatermarkFalls) && index.0.is_multiple_of(8) {
            self.high_watermark = Offset(before.0.saturating_sub(1));
        }
        self.high_watermark > before
    }

    /// Takes an acknowledgement that can be sent.
    pub(crate) fn pop_acked(&mut self) -> Option<Ack> {
        let (durable, committed) = (self.durable_end, self.high_watermark);
        self.until_durable
            .pop_front_if(|ack| ack.end <= durable)
            .or_else(|| self.until_committed.pop_front_if(|ack| ack.end <= committed))
    }

    /// Lists a reader that has read up to `seen` as waiting. Returns false, and does not list it, if there is more already.
    pub(crate) fn wait_for_more(&mut self, waiter: Waiter, seen: Offset) -> bool {
        let waits = self.high_watermark <= seen;
        if waits {
            self.waiters.insert(waiter);
        }
        waits
    }

    /// Takes all pending acknowledgements.
    pub(crate) fn take_acks(&mut self) -> impl Iterator<Item = Ack> {
        self.until_durable.drain(..).chain(self.until_committed.drain(..))
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.topic.name, self.tp.partition)
    }
}

/// The partitions of a shard.
pub(super) struct Table {
    all: Slab<Box<Partition>>,
    by_tp: HashMap<TopicPartition, PartitionId, ahash::RandomState>,
    by_slot: HashMap<(usize, PartitionSlot), PartitionId, ahash::RandomState>,
}

impl Table {
    pub(crate) fn new() -> Self {
        // Fixed keys: the same run has the same order everywhere. The keys are the broker's own ids, not a client's choice.
        let state = || ahash::RandomState::with_seeds(1, 2, 3, 4);
        Self {
            all: Slab::new(u32::MAX),
            by_tp: HashMap::with_hasher(state()),
            by_slot: HashMap::with_hasher(state()),
        }
    }

    pub(crate) fn insert(&mut self, partition: Partition) -> PartitionId {
        let (tp, slot) = (partition.tp, (partition.store, partition.slot));
        let id = PartitionId(self.all.insert(Box::new(partition)));
        self.by_tp.insert(tp, id);
        self.by_slot.insert(slot, id);
        id
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Box<Partition>> {
        let partition = self.all.remove(id.0)?;
        self.by_tp.remove(&partition.tp);
        self.by_slot.remove(&(partition.store, partition.slot));
        Some(partition)
    }

    pub(crate) fn find(&self, tp: TopicPartition) -> Option<PartitionId> {
        self.by_tp.get(&tp).copied()
    }

    pub(crate) fn of_slot(&self, store: usize, slot: PartitionSlot) -> Option<PartitionId> {
        self.by_slot.get(&(store, slot)).copied()
    }

    /// The number of entries, for iterating while partitions come and go.
    pub(crate) fn entry_count(&self) -> usize {
        self.all.entry_count()
    }

    /// The partition in an entry.
    pub(crate) fn id_at(&self, at: usize) -> Option<PartitionId> {
        self.all.key_at(at).map(PartitionId)
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.all.get(id.0).map(|partition| &**partition)
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.all.get_mut(id.0).map(|partition| &mut **partition)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use highwater_protocol::ids::{PartitionIndex, TopicId};
    use highwater_storage::LogPoint;

    use super::*;
    use crate::meta::configs::TopicConfig;
    use crate::reply_to::{RequestBatch, RequestId};

    const ME: NodeId = NodeId(0);

    fn partition(durable: i64, epoch_is_new: bool) -> Partition {
        let topic = Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            stores: vec![],
            configs: BTreeMap::new(),
            config: TopicConfig::resolve(&BTreeMap::new()).expect("defaults"),
        };
        let bounds = Bounds {
            log_start: Offset(0),
            durable_end: Offset(durable),
            append_end: Offset(durable),
            durable_index: LogIndex(durable as u64),
            append_index: LogIndex(durable as u64),
            commit: LogPoint { index: LogIndex(durable as u64), offset: Offset(durable) },
            bytes: 0,
            faulty: false,
            last_epoch: Some(LeaderEpoch(5)),
            epoch_is_new,
        };
        let tp = TopicPartition { topic: topic.id, partition: PartitionIndex(0) };
        Partition::new(tp, Arc::new(topic), 0, PartitionSlot(Key::default()), &bounds, ME)
    }

    fn ack(number: u32, end: i64) -> Ack {
        Ack {
            reply_to: to(number),
            end: Offset(end),
            base_offset: Offset(end - 1),
            log_append_time: Timestamp(-1),
        }
    }

    fn to(number: u32) -> ReplyTo {
        ReplyTo::Kafka(RequestBatch { shard: 0, request: RequestId(0), number })
    }

    #[test]
    fn producers_are_acknowledged_in_order_once_their_batches_are_committed() {
        let mut p = partition(10, false);
        assert_eq!(p.high_watermark(), Offset(10));
        assert!(!p.wait(RequiredAcks::All, ack(0, 12)));
        assert!(!p.wait(RequiredAcks::All, ack(1, 15)));
        assert!(p.wait(RequiredAcks::All, ack(2, 9)), "sent again, and committed long ago");
        assert_eq!(p.pop_acked(), None);
        assert!(p.handle_durable(ME, ME, LogIndex(11), Offset(12)));
        assert_eq!(p.pop_acked().map(|a| a.reply_to), Some(to(0)));
        assert_eq!(p.pop_acked(), None);
        assert!(p.handle_durable(ME, ME, LogIndex(12), Offset(15)));
        assert_eq!(p.pop_acked().map(|a| a.reply_to), Some(to(1)));
    }

    #[test]
    fn after_lost_frames_a_new_epoch_begins_and_commits_nothing_before_its_first_frame() {
        let mut p = partition(10, true);
        assert_eq!((p.epoch, p.epoch_start_due), (LeaderEpoch(5), true));
        assert!(!p.wait(RequiredAcks::All, ack(0, 11)));
        assert!(!p.wait(RequiredAcks::Leader, ack(1, 10 + 1)));
        assert!(!p.handle_durable(ME, ME, LogIndex(11), Offset(10)), "the epoch's first frame has no record");
        assert!(p.handle_durable(ME, ME, LogIndex(12), Offset(11)));
        assert_eq!(p.pop_acked().map(|a| a.reply_to), Some(to(1)));
        assert_eq!(p.pop_acked().map(|a| a.reply_to), Some(to(0)));
    }
}
