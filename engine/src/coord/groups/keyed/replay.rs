//! Conversion of keys and values to records.

use std::collections::BTreeMap;

use highwater_protocol::batch::{BatchError, BatchView};
use highwater_protocol::group_records::{
    ClassicMember, ConsumerGroupMemberMetadata, ConsumerGroupMetadata, CurrentMemberAssignment,
    CurrentPartitions, GroupMetadata, Key, OffsetCommit, TargetAssignmentMember, Value, decode,
};
use highwater_protocol::ids::TopicId;

use super::TopicNames;
use crate::coord::groups::record::{
    AssignedRecord, ClassicMemberRecord, ClassicRecord, CommitsRecord, ConsumerMemberRecord, ConsumerRecord,
    GroupsError, OffsetRecord, Record,
};
use crate::coord::groups::request::Now;

/// Collects the last value of every key while a log is read.
#[derive(Default, Debug)]
pub struct Replay {
    groups: BTreeMap<String, GroupReplay>,
}

/// A group as restored from the log.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::coord::groups) struct Replayed {
    /// Its name.
    pub(in crate::coord::groups) group: String,
    /// The records that restore it.
    pub(in crate::coord::groups) records: Vec<Record>,
    /// Partitions with offsets in topics that have been deleted or recreated, by the topic's name. They need tombstones.
    pub(in crate::coord::groups) stale: Vec<(String, Vec<u32>)>,
}

/// The last values of a group's keys.
#[derive(Default, Debug)]
struct GroupReplay {
    /// Whether the last protocol written is the consumer protocol.
    is_consumer: bool,
    classic: Option<GroupMetadata>,
    consumer: Option<ConsumerGroupMetadata>,
    target_epoch: i32,
    members: BTreeMap<String, MemberReplay>,
    /// By the topic's name and the partition.
    offsets: BTreeMap<String, BTreeMap<u32, OffsetCommit>>,
}

/// The last values of the keys of a consumer group's member.
#[derive(Default, Debug)]
struct MemberReplay {
    subscription: Option<ConsumerGroupMemberMetadata>,
    target: Option<TargetAssignmentMember>,
    current: Option<CurrentMemberAssignment>,
}

impl Replay {
    /// Applies the next batch of the log, whose checksum the caller has checked. Ignores control batches, which have no records of groups.
    pub fn apply_batch(&mut self, batch: &BatchView<'_>) -> Result<(), GroupsError> {
        if batch.header().is_control() {
            return Ok(());
        }
        let mut scratch = Vec::new();
        let unreadable = |error: BatchError| GroupsError::from_text(error.to_string());
        for record in batch.records(&mut scratch).map_err(unreadable)? {
            let record = record.map_err(unreadable)?;
            let Some(key) = record.key else { continue };
            self.apply(key, record.value)?;
        }
        Ok(())
    }

    /// Applies the next record of the log.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), GroupsError> {
        let record = decode(key, value).map_err(|error| GroupsError::from_text(error.to_string()))?;
        let Some((key, value)) = record else { return Ok(()) };
        let name = key.group();
        if value.is_none() && !self.groups.contains_key(name) {
            return Ok(());
        }
        let name = name.to_owned();
        let group = self.groups.entry(name.clone()).or_default();
        group.set(key, value)?;
        if group.is_empty() {
            self.groups.remove(&name);
        }
        Ok(())
    }

    /// Removes and returns the next group. Call it after all records have been applied.
    pub(in crate::coord::groups) fn pop_group(
        &mut self,
        now: Now,
        topics: &impl TopicNames,
    ) -> Option<Replayed> {
        let (name, group) = self.groups.pop_first()?;
        Some(group.finish(now, name, topics))
    }
}

impl GroupReplay {
    fn set(&mut self, key: Key, value: Option<Value>) -> Result<(), GroupsError> {
        match (key, value) {
            (Key::OffsetCommit { topic, partition, .. }, value) => {
                let Ok(partition) = u32::try_from(partition) else {
                    return Err(GroupsError::from_text(format!(
                        "an offset has the invalid partition {partition}"
                    )));
                };
                match value {
                    Some(Value::OffsetCommit(value)) => {
                        self.offsets.entry(topic).or_default().insert(partition, value);
                    }
                    _ => self.remove_offset(&topic, partition),
                }
            }
            (Key::GroupMetadata { .. }, Some(Value::GroupMetadata(value))) => {
                self.is_consumer = false;
                self.classic = Some(value);
            }
            (Key::GroupMetadata { .. }, _) => self.classic = None,
            (Key::ConsumerGroupMetadata { .. }, Some(Value::ConsumerGroupMetadata(value))) => {
                self.is_consumer = true;
                self.consumer = Some(value);
            }
            (Key::ConsumerGroupMetadata { .. }, _) => self.consumer = None,
            (Key::TargetAssignmentMetadata { .. }, value) => {
                self.target_epoch = match value {
                    Some(Value::TargetAssignmentMetadata(value)) => value.epoch,
                    _ => 0,
                };
            }
            (Key::ConsumerGroupMemberMetadata { member, .. }, value) => self.set_member(&member, |m| {
                m.subscription = match value {
                    Some(Value::ConsumerGroupMemberMetadata(value)) => Some(value),
                    _ => None,
                };
            }),
            (Key::TargetAssignmentMember { member, .. }, value) => self.set_member(&member, |m| {
                m.target = match value {
                    Some(Value::TargetAssignmentMember(value)) => Some(value),
                    _ => None,
                };
            }),
            (Key::CurrentMemberAssignment { member, .. }, value) => self.set_member(&member, |m| {
                m.current = match value {
                    Some(Value::CurrentMemberAssignment(value)) => Some(value),
                    _ => None,
                };
            }),
            // Expressions are matched again after a restart, and Kafka has not written a group's topics since version 4.1.
            (Key::RegularExpression { .. } | Key::ConsumerGroupPartitionMetadata { .. }, _) => {}
        }
        Ok(())
    }

    fn set_member(&mut self, id: &str, set: impl FnOnce(&mut MemberReplay)) {
        let member = self.members.entry(id.to_owned()).or_default();
        set(member);
        if member.subscription.is_none() && member.target.is_none() && member.current.is_none() {
            self.members.remove(id);
        }
    }

    fn remove_offset(&mut self, topic: &str, partition: u32) {
        if let Some(of_topic) = self.offsets.get_mut(topic) {
            of_topic.remove(&partition);
            if of_topic.is_empty() {
                self.offsets.remove(topic);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.classic.is_none()
            && self.consumer.is_none()
            && self.target_epoch == 0
            && self.members.is_empty()
            && self.offsets.is_empty()
    }

    fn finish(self, now: Now, group: String, topics: &impl TopicNames) -> Replayed {
        let (mut records, mut stale) = (Vec::new(), Vec::new());
        match (self.is_consumer, self.consumer, self.classic) {
            (true, Some(consumer), _) | (false, Some(consumer), None) => {
                let members = self.members.into_iter().filter_map(|(id, member)| member.finish(id)).collect();
                records.push(Record::Consumer(ConsumerRecord {
                    group: group.clone(),
                    epoch: consumer.epoch,
                    target_epoch: self.target_epoch,
                    topics_hash: consumer.metadata_hash.cast_unsigned(),
                    removed: Vec::new(),
                    members,
                    empty_since_ms: consumer.empty_since_ms,
                }));
            }
            (_, _, Some(classic)) => records.push(Record::Classic(classic_record(now, &group, classic))),
            (_, None, None) => {}
        }
        for (topic, partitions) in self.offsets {
            let id = topics.id(&topic);
            let (mut offsets, mut gone) = (Vec::with_capacity(partitions.len()), Vec::new());
            for (partition, value) in partitions {
                // Kafka did not write ids before version 4.1.
                let is_current = id.is_some_and(|id| value.topic_id == id.0 || value.topic_id == [0; 16]);
                if is_current {
                    offsets.push(offset_record(partition, value));
                } else {
                    gone.push(partition);
                }
            }
            if !gone.is_empty() {
                stale.push((topic, gone));
            }
            if let Some(TopicId(topic)) = id
                && !offsets.is_empty()
            {
                records.push(Record::Commits(CommitsRecord { group: group.clone(), topic, offsets }));
            }
        }
        Replayed { group, records, stale }
    }
}

impl MemberReplay {
    /// Returns the member; `None` if its subscription is missing.
    fn finish(self, member: String) -> Option<ConsumerMemberRecord> {
        let subscription = self.subscription?;
        let current = self.current.unwrap_or(CurrentMemberAssignment {
            epoch: 0,
            previous_epoch: 0,
            state: 0,
            assigned: Vec::new(),
            revoking: Vec::new(),
        });
        let target = self.target.map(|target| target.partitions).unwrap_or_default();
        let target = target
            .into_iter()
            .map(|of| (of.topic_id, of.partitions.into_iter().map(i32::cast_unsigned).collect()));
        Some(ConsumerMemberRecord {
            member,
            instance: subscription.instance,
            rack: subscription.rack,
            client_id: subscription.client_id,
            client_host: subscription.client_host,
            rebalance_timeout_ms: subscription.rebalance_timeout_ms,
            topic_names: subscription.topic_names,
            topic_regex: subscription.topic_regex.unwrap_or_default(),
            assignor: subscription.assignor,
            epoch: current.epoch,
            previous_epoch: current.previous_epoch,
            state: u8::try_from(current.state).unwrap_or(0),
            assigned: assigned(current.assigned, current.epoch),
            revoking: assigned(current.revoking, current.epoch),
            target: target.collect(),
        })
    }
}

/// Returns partitions with the epochs in which they were assigned. Unknown epochs become `epoch`, the member's.
fn assigned(partitions: Vec<CurrentPartitions>, epoch: i32) -> Vec<AssignedRecord> {
    let of_topic = partitions.into_iter().map(|of| {
        let epochs = of.epochs.unwrap_or_else(|| vec![epoch; of.partitions.len()]);
        (of.topic_id, of.partitions.into_iter().map(i32::cast_unsigned).zip(epochs).collect())
    });
    of_topic.collect()
}

fn offset_record(partition: u32, value: OffsetCommit) -> OffsetRecord {
    OffsetRecord {
        partition,
        leader_epoch: value.leader_epoch,
        offset: value.offset,
        committed_ms: value.commit_timestamp,
        metadata: value.metadata,
    }
}

fn classic_record(now: Now, group: &str, value: GroupMetadata) -> ClassicRecord {
    let protocol = value.protocol;
    ClassicRecord {
        group: group.to_owned(),
        protocol_type: (!value.protocol_type.is_empty()).then_some(value.protocol_type),
        generation: value.generation,
        leader: value.leader,
        since_ms: if value.state_timestamp < 0 { now.wall_ms } else { value.state_timestamp },
        members: value.members.into_iter().map(|m| classic_member(m, protocol.as_deref())).collect(),
        protocol,
    }
}

fn classic_member(m: ClassicMember, chosen: Option<&str>) -> ClassicMemberRecord {
    let protocols = if m.protocols.is_empty() {
        chosen.map(|name| (name.to_owned(), m.subscription)).into_iter().collect()
    } else {
        let metadata = |of: Option<Vec<u8>>| of.unwrap_or_else(|| m.subscription.clone());
        m.protocols.into_iter().map(|of| (of.name, metadata(of.metadata))).collect()
    };
    ClassicMemberRecord {
        member: m.member,
        instance: m.instance,
        client_id: m.client_id,
        client_host: m.client_host,
        rebalance_timeout_ms: if m.rebalance_timeout_ms < 0 {
            m.session_timeout_ms
        } else {
            m.rebalance_timeout_ms
        },
        session_timeout_ms: m.session_timeout_ms,
        protocols,
        assignment: m.assignment,
    }
}
