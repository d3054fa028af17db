//! The committed offsets of a group.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use highwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::record::{CommitsRecord, FOREVER, OffsetRecord};
use super::request::CommittedPartition;

/// Approximate bytes of an offset in a snapshot, without its metadata.
const OFFSET_BYTES: usize = 40;
/// Approximate bytes of a group's entry for a topic, without the group's name.
const TOPIC_BYTES: usize = 64;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Committed {
    offset: Offset,
    leader_epoch: LeaderEpoch,
    at_ms: i64,
    metadata: String,
}

/// The offsets of a group, by topic and partition.
///
/// Invariant: every topic has at least one offset.
#[derive(Default, Debug)]
pub(super) struct GroupOffsets {
    by_topic: BTreeMap<TopicId, BTreeMap<PartitionIndex, Committed>>,
}

/// Returns the approximate bytes of an offset with this metadata.
fn offset_bytes(metadata: &str) -> usize {
    OFFSET_BYTES + metadata.len()
}

impl GroupOffsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Returns the approximate bytes of the offsets in a snapshot. The group's name has `name_bytes`.
    pub(super) fn bytes(&self, name_bytes: usize) -> usize {
        self.by_topic
            .values()
            .map(|p| TOPIC_BYTES + name_bytes + p.values().map(|c| offset_bytes(&c.metadata)).sum::<usize>())
            .sum()
    }

    /// Returns an upper bound of the bytes that committing these offsets would add.
    pub(super) fn growth(&self, offsets: &[CommittedPartition], name_bytes: usize) -> usize {
        let growth_of = |of: &CommittedPartition| {
            let after = offset_bytes(&of.metadata);
            match self.by_topic.get(&of.topic) {
                None => after + TOPIC_BYTES + name_bytes,
                Some(p) => {
                    after.saturating_sub(p.get(&of.partition).map_or(0, |c| offset_bytes(&c.metadata)))
                }
            }
        };
        offsets.iter().map(growth_of).sum()
    }

    /// Adds or replaces offsets. Returns the change in bytes.
    pub(super) fn take(&mut self, record: CommitsRecord) -> isize {
        if record.offsets.is_empty() {
            return 0;
        }
        let of_topic = self.by_topic.entry(TopicId(record.topic)).or_default();
        let mut more = if of_topic.is_empty() { (TOPIC_BYTES + record.group.len()) as isize } else { 0 };
        for o in record.offsets {
            more += offset_bytes(&o.metadata) as isize;
            let committed = Committed {
                offset: Offset(o.offset),
                leader_epoch: LeaderEpoch(o.leader_epoch),
                at_ms: o.committed_ms,
                metadata: o.metadata,
            };
            if let Some(old) = of_topic.insert(PartitionIndex(o.partition), committed) {
                more -= offset_bytes(&old.metadata) as isize;
            }
        }
        more
    }

    /// Removes a topic. Returns the bytes freed.
    pub(super) fn remove_topic(&mut self, topic: TopicId, name_bytes: usize) -> usize {
        let Some(of_topic) = self.by_topic.remove(&topic) else { return 0 };
        TOPIC_BYTES + name_bytes + of_topic.values().map(|c| offset_bytes(&c.metadata)).sum::<usize>()
    }

    /// Removes partitions of a topic. Returns the bytes freed.
    pub(super) fn remove(
        &mut self,
        topic: TopicId,
        partitions: &[PartitionIndex],
        name_bytes: usize,
    ) -> usize {
        let Some(of_topic) = self.by_topic.get_mut(&topic) else { return 0 };
        let removed = partitions.iter().filter_map(|partition| of_topic.remove(partition));
        let mut bytes = removed.map(|c| offset_bytes(&c.metadata)).sum();
        if of_topic.is_empty() {
            self.by_topic.remove(&topic);
            bytes += TOPIC_BYTES + name_bytes;
        }
        bytes
    }

    /// Returns whether the group has offsets in a topic.
    pub(super) fn has_topic(&self, topic: TopicId) -> bool {
        self.by_topic.contains_key(&topic)
    }

    pub(super) fn has(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.by_topic.get(&topic).is_some_and(|p| p.contains_key(&partition))
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.by_topic.keys().copied()
    }

    pub(super) fn of(&self, topic: TopicId, partition: PartitionIndex) -> Option<CommittedPartition> {
        Some(to_reply(topic, partition, self.by_topic.get(&topic)?.get(&partition)?))
    }

    /// Returns the offsets after this partition, by topic and partition.
    pub(super) fn all_after(
        &self,
        after: Option<(TopicId, PartitionIndex)>,
    ) -> impl Iterator<Item = CommittedPartition> {
        self.after(after).map(|(topic, partition, committed)| to_reply(topic, partition, committed))
    }

    fn after(
        &self,
        after: Option<(TopicId, PartitionIndex)>,
    ) -> impl Iterator<Item = (TopicId, PartitionIndex, &Committed)> {
        let first = after.map_or(TopicId([0; 16]), |(topic, _)| topic);
        self.by_topic.range(first..).flat_map(move |(topic, partitions)| {
            let from = match after {
                Some((first, partition)) if first == *topic => Bound::Excluded(partition),
                _ => Bound::Unbounded,
            };
            partitions.range((from, Bound::Unbounded)).map(|(n, committed)| (*topic, *n, committed))
        })
    }

    /// Returns the partitions of a topic that have offsets.
    pub(super) fn partitions(&self, topic: TopicId) -> Vec<u32> {
        self.by_topic.get(&topic).into_iter().flat_map(BTreeMap::keys).map(|partition| partition.0).collect()
    }

    /// Returns the first partitions with offsets, at most `count_max`.
    pub(super) fn first(&self, count_max: usize) -> Vec<(TopicId, Vec<PartitionIndex>)> {
        by_topic(self.after(None).map(|(topic, partition, _)| (topic, partition)).take(count_max))
    }

    /// Returns at most `count_max` partitions whose offsets have been unused since `before_ms` or earlier. An offset is unused since its commit or
    /// since `idle_since_ms`, whichever is later. Offsets in subscribed topics and those kept forever never expire.
    pub(super) fn expired(
        &self,
        before_ms: i64,
        idle_since_ms: Option<i64>,
        is_subscribed: impl Fn(TopicId) -> bool,
        count_max: usize,
    ) -> Vec<(TopicId, Vec<PartitionIndex>)> {
        let is_expired =
            |c: &Committed| c.at_ms != FOREVER && idle_since_ms.unwrap_or(c.at_ms).max(c.at_ms) <= before_ms;
        let (is_expired, is_subscribed) = (&is_expired, &is_subscribed);
        let of_topics = self.by_topic.iter().flat_map(move |(topic, partitions)| {
            let expired = partitions.iter().filter(move |(_, committed)| is_expired(committed));
            let is_kept = LazyCell::new(move || is_subscribed(*topic));
            expired.filter(move |_| !*is_kept).map(|(partition, _)| (*topic, *partition))
        });
        by_topic(of_topics.take(count_max))
    }

    /// Returns the offsets after `after` as records of a group, of about `bytes_max` bytes but at least one offset; their approximate bytes; and
    /// their last partition, if others follow.
    pub(super) fn records_after(
        &self,
        group: &str,
        after: Option<(TopicId, PartitionIndex)>,
        bytes_max: usize,
    ) -> (Vec<CommitsRecord>, usize, Option<(TopicId, PartitionIndex)>) {
        let mut records: Vec<CommitsRecord> = Vec::new();
        let (mut bytes, mut last) = (0, None);
        for (topic, partition, committed) in self.after(after) {
            if bytes >= bytes_max && last.is_some() {
                return (records, bytes, last);
            }
            if records.last().is_none_or(|record| record.topic != topic.0) {
                bytes += TOPIC_BYTES + group.len();
                records.push(CommitsRecord { group: group.to_owned(), topic: topic.0, offsets: Vec::new() });
            }
            bytes += offset_bytes(&committed.metadata);
            last = Some((topic, partition));
            records.last_mut().expect("pushed above").offsets.push(OffsetRecord {
                partition: partition.0,
                leader_epoch: committed.leader_epoch.0,
                offset: committed.offset.0,
                committed_ms: committed.at_ms,
                metadata: committed.metadata.clone(),
            });
        }
        (records, bytes, None)
    }
}

/// Groups partitions by topic. The partitions of a topic must be adjacent.
fn by_topic(
    partitions: impl Iterator<Item = (TopicId, PartitionIndex)>,
) -> Vec<(TopicId, Vec<PartitionIndex>)> {
    let mut topics: Vec<(TopicId, Vec<PartitionIndex>)> = Vec::new();
    for (topic, partition) in partitions {
        match topics.last_mut() {
            Some((last, of_topic)) if *last == topic => of_topic.push(partition),
            _ => topics.push((topic, vec![partition])),
        }
    }
    topics
}

fn to_reply(topic: TopicId, partition: PartitionIndex, c: &Committed) -> CommittedPartition {
    CommittedPartition {
        topic,
        partition,
        offset: c.offset,
        leader_epoch: c.leader_epoch,
        metadata: c.metadata.clone(),
    }
}
