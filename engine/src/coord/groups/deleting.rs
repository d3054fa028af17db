//! Deletion of groups and offsets, by request or because they have expired. It is done in slices, because every deleted offset needs a tombstone.

use std::collections::VecDeque;
use std::ops::Bound;
use std::vec::IntoIter;

use highwater_protocol::group_records::Key;
use highwater_protocol::ids::{PartitionIndex, TopicId};

use super::coordinator::{GroupCoordinator, Kind};
use super::effects::WaitFor;
use super::error::GroupError;
use super::keyed::Written;
use super::long::{Long, Slice};
use super::record::Record;
use super::reply::{CommitOutcome, GroupReply};
use super::request::{DeleteOffsetsRequest, Now, Token};

/// A request to delete groups.
#[derive(Debug)]
pub(super) struct DeletingGroups {
    pub(super) token: Token,
    groups: IntoIter<String>,
    /// The group that is being deleted, while it still has offsets.
    current: Option<String>,
    outcomes: Vec<(String, Option<GroupError>)>,
}

/// A request to delete offsets of a group.
#[derive(Debug)]
pub(super) struct DeletingOffsets {
    pub(super) token: Token,
    group: String,
    topics: VecDeque<(TopicId, VecDeque<PartitionIndex>)>,
    outcomes: Vec<CommitOutcome>,
}

/// Offsets in a deleted topic that are no longer in memory and need tombstones.
#[derive(Debug)]
pub(super) struct StaleOffsets {
    group: String,
    topic: String,
    partitions: Vec<u32>,
}

/// Offsets of a group, by topic.
type Offsets = Vec<(TopicId, Vec<PartitionIndex>)>;

impl GroupCoordinator {
    pub(super) fn delete(&mut self, now: Now, token: Token, groups: Vec<String>) {
        let outcomes = Vec::with_capacity(groups.len());
        let deleting = DeletingGroups { token, groups: groups.into_iter(), current: None, outcomes };
        self.begin(now, Long::Delete(deleting));
    }

    pub(super) fn delete_groups_some(
        &mut self,
        now: Now,
        mut of: DeletingGroups,
        items: usize,
    ) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items {
            let Some(name) = of.current.take().or_else(|| of.groups.next()) else {
                self.reply_after_all(of.token, GroupReply::Delete(of.outcomes));
                return (None, spent);
            };
            spent += 1;
            let error = match self.groups.get(&name) {
                None => Some(GroupError::GroupIdNotFound),
                Some(group) if !group.is_empty() => Some(GroupError::NonEmptyGroup),
                Some(_) if self.stalled => Some(GroupError::CoordinatorNotAvailable),
                Some(group) => {
                    let written = group.written();
                    let offsets = group.offsets.first(items - spent);
                    spent += self.remove_offsets(now, &name, offsets);
                    if self.groups.get(&name).is_some_and(|group| !group.offsets.is_empty()) {
                        of.current = Some(name);
                        continue;
                    }
                    tracing::info!(group = name, "group deleted");
                    self.delete_empty(&name, written);
                    None
                }
            };
            of.outcomes.push((name, error));
        }
        (Some(Long::Delete(of)), spent)
    }

    pub(super) fn delete_offsets(&mut self, now: Now, token: Token, request: DeleteOffsetsRequest) {
        let topics = request.partitions.into_iter().map(|(topic, partitions)| (topic, partitions.into()));
        let (group, topics) = (request.group, topics.collect());
        let deleting = DeletingOffsets { token, group, topics, outcomes: Vec::new() };
        self.begin(now, Long::DeleteOffsets(deleting));
    }

    pub(super) fn delete_offsets_some(
        &mut self,
        now: Now,
        mut of: DeletingOffsets,
        items: usize,
    ) -> (Slice, usize) {
        let error = match self.groups.get(&of.group).map(|group| &group.kind) {
            // The group may be gone because earlier slices deleted all its offsets.
            None if of.outcomes.is_empty() => Some(GroupError::GroupIdNotFound),
            _ if self.stalled => Some(GroupError::CoordinatorNotAvailable),
            Some(Kind::Classic(group)) => group.check_delete_offsets(),
            None | Some(Kind::Consumer(_)) => None,
        };
        if let Some(error) = error {
            self.reply_now(of.token, GroupReply::DeleteOffsets(Err(error)));
            return (None, 1);
        }
        let mut spent = 0;
        let mut deleted: Offsets = Vec::new();
        while spent < items
            && let Some((topic, partitions)) = of.topics.front_mut()
        {
            spent += 1;
            let topic = *topic;
            let group = self.groups.get(&of.group);
            let is_read = group.is_some_and(|group| group.reads(&self.topics, topic));
            let error = is_read.then_some(GroupError::GroupSubscribedToTopic);
            let some: Vec<_> = partitions.drain(..partitions.len().min(items - spent)).collect();
            spent += some.len();
            of.outcomes.extend(some.iter().map(|partition| (topic, *partition, error)));
            let had = some.into_iter().filter(|p| group.is_some_and(|g| g.offsets.has(topic, *p)));
            let had: Vec<_> = had.collect();
            if error.is_none() && !had.is_empty() {
                tracing::info!(group = of.group, %topic, partitions = ?had, "offsets of a group deleted");
                deleted.push((topic, had));
            }
            if partitions.is_empty() {
                of.topics.pop_front();
            }
        }
        self.remove_offsets(now, &of.group, deleted);
        if !of.topics.is_empty() {
            return (Some(Long::DeleteOffsets(of)), spent);
        }
        let reply = GroupReply::DeleteOffsets(Ok(of.outcomes));
        if self.groups.contains_key(&of.group) {
            self.with(now, &of.group, |_, cx, _| cx.replies.push((of.token, reply, WaitFor::AllRecords)));
        } else {
            self.reply_after_all(of.token, reply);
        }
        (None, spent)
    }

    /// Removes offsets of a group and writes tombstones. Returns their number.
    fn remove_offsets(&mut self, now: Now, name: &str, offsets: Offsets) -> usize {
        if offsets.is_empty() {
            return 0;
        }
        let count = offsets.iter().map(|(_, partitions)| partitions.len()).sum();
        let (bytes, emptied) = self.with(now, name, |group, cx, _| {
            let (mut bytes, mut emptied) = (0, Vec::new());
            for (topic, partitions) in offsets {
                bytes += group.offsets.remove(topic, &partitions, name.len());
                emptied.extend((!group.offsets.has_topic(topic)).then_some(topic));
                cx.records.push(Record::offsets_deleted(name, topic, &partitions));
            }
            (bytes, emptied)
        });
        self.offsets_bytes -= bytes;
        for topic in emptied {
            self.remove_holder(topic, name);
        }
        count
    }

    /// Deletes a group without members and offsets, and writes tombstones for the records that the log has of it.
    fn delete_empty(&mut self, name: &str, written: Written) {
        self.remove(name);
        self.append(&Record::GroupDeleted(name.to_owned()), written);
    }

    /// Begins to delete expired offsets, and groups without members and offsets.
    pub(super) fn clean_up(&mut self, now: Now) {
        if !self.stalled && !self.long.iter().any(|long| matches!(long, Long::CleanUp(_))) {
            self.begin(now, Long::CleanUp(None));
        }
    }

    /// Continues the cleanup with the groups after `after`.
    pub(super) fn clean_up_some(
        &mut self,
        now: Now,
        mut after: Option<String>,
        items: usize,
    ) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items && !self.stalled {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let Some((name, _)) = self.groups.range::<str, _>((from, Bound::Unbounded)).next() else {
                debug_assert!(self.offset_accounting_is_correct(), "incremental accounting equals a recount");
                return (None, spent);
            };
            let name = name.clone();
            spent += 1;
            let count_max = (items - spent).max(1);
            let count = self.expire_some(now, &name, count_max);
            spent += count;
            if count < count_max {
                self.delete_if_unused(&name);
                after = Some(name);
            }
        }
        ((!self.stalled).then_some(Long::CleanUp(after)), spent)
    }

    /// Deletes at most `count_max` expired offsets of a group. Returns their number.
    fn expire_some(&mut self, now: Now, name: &str, count_max: usize) -> usize {
        let before_ms = now.wall_ms - self.config.offsets_retention_ms;
        let topics = &self.topics;
        let Some(group) = self.groups.get(name) else { return 0 };
        let (may_expire, idle_since_ms) = match &group.kind {
            Kind::Classic(g) => (g.offsets_may_expire(), g.idle_since_ms()),
            // Matches are as of the last heartbeat. After a restart, they are unknown until the next one.
            Kind::Consumer(g) => (g.is_matched(topics), g.idle_since_ms()),
        };
        if !may_expire {
            return 0;
        }
        let is_subscribed = |topic| group.reads(topics, topic);
        let expired = group.offsets.expired(before_ms, idle_since_ms, is_subscribed, count_max);
        self.remove_offsets(now, name, expired)
    }

    fn delete_if_unused(&mut self, name: &str) {
        let Some(group) = self.groups.get(name) else { return };
        let is_deserted = match &group.kind {
            Kind::Classic(g) => g.is_deserted(),
            Kind::Consumer(g) => g.is_empty(),
        };
        if is_deserted && group.offsets.is_empty() {
            tracing::info!(group = name, "group removed: it has no members and its offsets have expired");
            self.delete_empty(name, group.written());
        }
    }

    /// Queues tombstones for a group's offsets in a deleted topic. The offsets are no longer in memory.
    pub(super) fn add_stale_offsets(&mut self, group: &str, topic: &str, partitions: Vec<u32>) {
        if self.stale.is_empty() {
            self.long.push_back(Long::WriteTombstones);
        }
        self.stale.push_back(StaleOffsets { group: group.to_owned(), topic: topic.to_owned(), partitions });
    }

    /// Writes tombstones for offsets in deleted topics. Skips partitions in which the group has offsets of a newer topic of the same name: the keys
    /// are the same.
    pub(super) fn write_some_tombstones(&mut self, items: usize) -> (Slice, usize) {
        let mut spent = 0;
        while spent < items
            && let Some(mut stale) = self.stale.pop_front()
        {
            spent += 1;
            let count = stale.partitions.len().min(items - spent);
            let some = stale.partitions.split_off(stale.partitions.len() - count);
            spent += count;
            let newer = self.topics.id(&stale.topic);
            let offsets = self.groups.get(&stale.group).map(|group| &group.offsets);
            let is_kept = |partition| {
                newer.is_some_and(|id| {
                    offsets.is_some_and(|offsets| offsets.has(id, PartitionIndex(partition)))
                })
            };
            let keys = some.into_iter().filter(|partition| !is_kept(*partition));
            let tombstones = keys.map(|partition| (Key::offset(&stale.group, &stale.topic, partition), None));
            let tombstones: Vec<_> = tombstones.collect();
            self.append_keyed(&stale.group, &tombstones);
            if !stale.partitions.is_empty() {
                self.stale.push_front(stale);
            }
        }
        ((!self.stale.is_empty()).then_some(Long::WriteTombstones), spent)
    }
}
