//! Commits and reads of a group's offsets.

use std::collections::BTreeMap;

use highwater_protocol::ids::{GroupEpoch, TopicId};

use super::coordinator::{Group, GroupCoordinator, Kind};
use super::error::GroupError;
use super::limits::{NAME_BYTES_MAX, OFFSET_METADATA_UNITS_MAX};
use super::long::FetchAt;
use super::offsets::GroupOffsets;
use super::record::{CommitsRecord, FOREVER, OffsetRecord, Record};
use super::reply::{CommitOutcome, FetchReply};
use super::request::{CommitRequest, CommittedPartition, FetchRequest, Now};
use super::topics::Topics;
use crate::mutants::{Mutant, is_planted};

impl GroupCoordinator {
    /// Commits `offsets`, a part of the request's offsets. Returns the sequence number of the record that must be durable before the reply, and the
    /// outcome of each offset.
    pub(super) fn commit_offsets(
        &mut self,
        now: Now,
        request: &CommitRequest,
        offsets: Vec<CommittedPartition>,
    ) -> (u64, Vec<CommitOutcome>) {
        if let Err(error) = self.check_commit(request, &offsets) {
            return (0, offsets.iter().map(|o| (o.topic, o.partition, Some(error))).collect());
        }
        let name = request.group.clone();
        self.groups.entry(name.clone()).or_insert_with(|| Group::classic(&name, now));
        let (more, topics, outcomes) = self.with(now, &name, |group, cx, topics| {
            let checked = match &mut group.kind {
                Kind::Classic(g) => g
                    .check_commit(cx, &request.member, request.instance.as_deref(), request.generation)
                    .map(|()| false),
                Kind::Consumer(g) => {
                    g.check_commit(&request.member, GroupEpoch(request.generation), request.knows_epochs)
                }
            };
            let mut accepted: BTreeMap<TopicId, Vec<OffsetRecord>> = BTreeMap::new();
            let mut outcomes = Vec::with_capacity(offsets.len());
            for of in offsets {
                let outcome = checked.and_then(|one_by_one| {
                    check_partition(topics, &of)?;
                    match &group.kind {
                        Kind::Consumer(g) if one_by_one => {
                            g.check_commit_of(&request.member, GroupEpoch(request.generation), &of)
                        }
                        _ => Ok(()),
                    }
                });
                outcomes.push((of.topic, of.partition, outcome.err()));
                if outcome.is_ok() {
                    accepted.entry(of.topic).or_default().push(OffsetRecord {
                        partition: of.partition.0,
                        leader_epoch: of.leader_epoch.0,
                        offset: of.offset.0,
                        committed_ms: if request.forever { FOREVER } else { now.wall_ms },
                        metadata: of.metadata,
                    });
                }
            }
            let mut more = 0;
            let mut taken = Vec::with_capacity(accepted.len());
            for (topic, offsets) in accepted {
                taken.push(topic);
                let record = CommitsRecord { group: name.clone(), topic: topic.0, offsets };
                more += group.offsets.take(record.clone());
                let is_lost = is_planted(Mutant::OffsetCommitLost) && now.ms.is_multiple_of(3);
                if !is_lost {
                    cx.records.push(Record::Commits(record));
                }
            }
            (more, taken, outcomes)
        });
        for topic in topics {
            self.add_holder(topic, &name);
        }
        self.offsets_bytes = self.offsets_bytes.saturating_add_signed(more);
        (self.groups.get(&name).map_or(0, Group::last_seq), outcomes)
    }

    fn check_commit(
        &self,
        request: &CommitRequest,
        offsets: &[CommittedPartition],
    ) -> Result<(), GroupError> {
        if request.group.len() > NAME_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        if self.stalled {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.groups.contains_key(&request.group) {
            match (request.generation, request.knows_epochs) {
                (0.., true) => return Err(GroupError::GroupIdNotFound),
                (0.., false) => return Err(GroupError::IllegalGeneration),
                _ if !self.has_space() => return Err(GroupError::InvalidCommitOffsetSize),
                _ => {}
            }
        }
        let none = GroupOffsets::default();
        let kept = self.groups.get(&request.group).map_or(&none, |group| &group.offsets);
        let more = kept.growth(offsets, request.group.len());
        if more > 0
            && self.offsets_bytes + self.other_usage.offsets_bytes + more > self.config.offsets_bytes_max
        {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        Ok(())
    }

    /// Reads at most `count_max` offsets of a group, from `at` on. Returns the sequence number of the record that must be durable before the reply
    /// (an offset must not go back after a crash), the number of lookups, and whether the request is complete.
    pub(super) fn find_offsets(
        &self,
        request: &FetchRequest,
        at: &mut FetchAt,
        reply: &mut FetchReply,
        count_max: usize,
    ) -> (u64, usize, bool) {
        let Some(group) = self.groups.get(&request.group) else { return (self.last_record(), 0, true) };
        reply.error = match (&group.kind, &request.member) {
            (Kind::Consumer(group), Some((member, epoch))) => group.check_fetch(member, *epoch).err(),
            _ => None,
        };
        if reply.error.is_some() {
            reply.offsets.clear();
            return (group.last_seq(), 0, true);
        }
        let before = reply.offsets.len();
        let Some(wanted) = &request.partitions else {
            reply.offsets.extend(group.offsets.all_after(at.after).take(count_max));
            if let Some(last) = reply.offsets.last() {
                at.after = Some((last.topic, last.partition));
            }
            let count = reply.offsets.len() - before;
            return (group.last_seq(), count, count < count_max);
        };
        let mut count = 0;
        while count < count_max
            && let Some((topic, partitions)) = wanted.get(at.topic)
        {
            let some = partitions.iter().skip(at.partition).take(count_max - count);
            count += some.len();
            at.partition += some.len();
            reply.offsets.extend(some.filter_map(|partition| group.offsets.of(*topic, *partition)));
            if at.partition == partitions.len() {
                (at.topic, at.partition) = (at.topic + 1, 0);
                count += 1;
            }
        }
        (group.last_seq(), count, at.topic == wanted.len())
    }
}

impl Group {
    /// Returns whether a member subscribes to a topic.
    pub(super) fn reads(&self, topics: &Topics, topic: TopicId) -> bool {
        match &self.kind {
            Kind::Classic(group) => group.is_subscribed(topics, topic),
            Kind::Consumer(group) => group.is_subscribed(topics, topic),
        }
    }
}

fn check_partition(topics: &Topics, of: &CommittedPartition) -> Result<(), GroupError> {
    if topics.partitions(of.topic).is_none_or(|count| of.partition.0 >= count) {
        return Err(GroupError::UnknownTopicOrPartition);
    }
    if of.metadata.encode_utf16().count() > OFFSET_METADATA_UNITS_MAX {
        return Err(GroupError::OffsetMetadataTooLarge);
    }
    Ok(())
}
