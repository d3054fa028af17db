//! Conversion of records to keys and values.

use highwater_protocol::group_records::{
    ClassicMember, ConsumerGroupMemberMetadata, ConsumerGroupMetadata, CurrentMemberAssignment,
    CurrentPartitions, GroupMetadata, Key, OffsetCommit, OtherProtocol, TargetAssignmentMember,
    TargetAssignmentMetadata, TargetPartitions, Value,
};
use highwater_protocol::ids::TopicId;

use super::{KeyedRecord, TopicNames, Written};
use crate::coord::groups::record::{
    AssignedRecord, ClassicMemberRecord, ClassicRecord, CommitsRecord, ConsumerMemberRecord, ConsumerRecord,
    Record,
};

/// Converts a record to keys and values, to be written in this order. `written` is the kind of records that the log already has of the group. Skips
/// offsets in unknown topics, and [`Record::TopicDeleted`], which concerns many groups.
pub(in crate::coord::groups) fn records_of(
    record: &Record,
    written: Written,
    topics: &impl TopicNames,
) -> Vec<KeyedRecord> {
    let mut out = Vec::new();
    match record {
        Record::Commits(commits) => offsets_to(&mut out, commits, topics),
        Record::TopicDeleted(_) => {}
        Record::OffsetsDeleted(group, topic, partitions) => {
            if let Some(topic) = topics.name(TopicId(*topic)) {
                out.extend(partitions.iter().map(|partition| (Key::offset(group, topic, *partition), None)));
            }
        }
        Record::Classic(group) => {
            if written == Written::Consumer {
                add_tombstones(&mut out, &group.group, written);
            }
            let key = Key::GroupMetadata { group: group.group.clone() };
            out.push((key, Some(Value::GroupMetadata(classic_value(group)))));
        }
        Record::Consumer(group) => {
            if written == Written::Classic {
                add_tombstones(&mut out, &group.group, written);
            }
            consumer_to(&mut out, group);
        }
        Record::GroupDeleted(group) => add_tombstones(&mut out, group, written),
        Record::Snapshot(snapshot) => {
            for commits in &snapshot.commits {
                offsets_to(&mut out, commits, topics);
            }
            for group in &snapshot.classic {
                let key = Key::GroupMetadata { group: group.group.clone() };
                out.push((key, Some(Value::GroupMetadata(classic_value(group)))));
            }
            for group in &snapshot.consumer {
                consumer_to(&mut out, group);
            }
        }
    }
    out
}

/// Adds tombstones for the protocol records of a group without members.
fn add_tombstones(out: &mut Vec<KeyedRecord>, group: &str, written: Written) {
    let group = group.to_owned();
    match written {
        Written::OffsetsOnly => {}
        Written::Classic => out.push((Key::GroupMetadata { group }, None)),
        Written::Consumer => {
            out.push((Key::TargetAssignmentMetadata { group: group.clone() }, None));
            out.push((Key::ConsumerGroupMetadata { group }, None));
        }
    }
}

fn offsets_to(out: &mut Vec<KeyedRecord>, commits: &CommitsRecord, topics: &impl TopicNames) {
    let Some(topic) = topics.name(TopicId(commits.topic)) else { return };
    out.extend(commits.offsets.iter().map(|o| {
        let value = OffsetCommit {
            offset: o.offset,
            leader_epoch: o.leader_epoch,
            metadata: o.metadata.clone(),
            commit_timestamp: o.committed_ms,
            expire_timestamp: -1,
            topic_id: commits.topic,
        };
        (Key::offset(&commits.group, topic, o.partition), Some(Value::OffsetCommit(value)))
    }));
}

fn classic_value(group: &ClassicRecord) -> GroupMetadata {
    GroupMetadata {
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        generation: group.generation,
        protocol: group.protocol.clone(),
        leader: group.leader.clone(),
        state_timestamp: group.since_ms,
        members: group.members.iter().map(|m| classic_member(m, group.protocol.as_deref())).collect(),
    }
}

fn classic_member(m: &ClassicMemberRecord, chosen: Option<&str>) -> ClassicMember {
    let of_chosen = m.protocols.iter().position(|(name, _)| Some(name.as_str()) == chosen);
    let subscription = of_chosen.map(|at| m.protocols[at].1.clone()).unwrap_or_default();
    let is_only_one = of_chosen.is_some() && m.protocols.len() == 1;
    let protocols = m.protocols.iter().enumerate().map(|(at, (name, metadata))| OtherProtocol {
        name: name.clone(),
        metadata: (of_chosen != Some(at)).then(|| metadata.clone()),
    });
    ClassicMember {
        member: m.member.clone(),
        instance: m.instance.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        rebalance_timeout_ms: m.rebalance_timeout_ms,
        session_timeout_ms: m.session_timeout_ms,
        subscription,
        assignment: m.assignment.clone(),
        protocols: if is_only_one { Vec::new() } else { protocols.collect() },
    }
}

/// Adds the changes of a consumer group. The group epoch comes first and the epoch of the target assignment last: if only a prefix is written, the
/// group epoch is ahead of the target's, so the group computes a new assignment.
fn consumer_to(out: &mut Vec<KeyedRecord>, record: &ConsumerRecord) {
    let group = || record.group.clone();
    let value = ConsumerGroupMetadata {
        epoch: record.epoch,
        metadata_hash: record.topics_hash.cast_signed(),
        empty_since_ms: record.empty_since_ms,
    };
    out.push((Key::ConsumerGroupMetadata { group: group() }, Some(Value::ConsumerGroupMetadata(value))));
    for member in &record.removed {
        let member = || member.clone();
        out.push((Key::CurrentMemberAssignment { group: group(), member: member() }, None));
        out.push((Key::TargetAssignmentMember { group: group(), member: member() }, None));
        out.push((Key::ConsumerGroupMemberMetadata { group: group(), member: member() }, None));
    }
    for m in &record.members {
        let member = || m.member.clone();
        let key = Key::ConsumerGroupMemberMetadata { group: group(), member: member() };
        out.push((key, Some(Value::ConsumerGroupMemberMetadata(subscription(m)))));
        let target = m.target.iter().map(|(topic, partitions)| TargetPartitions {
            topic_id: *topic,
            partitions: partitions.iter().map(|p| *p as i32).collect(),
        });
        let key = Key::TargetAssignmentMember { group: group(), member: member() };
        let target = TargetAssignmentMember { partitions: target.collect() };
        out.push((key, Some(Value::TargetAssignmentMember(target))));
        let current = CurrentMemberAssignment {
            epoch: m.epoch,
            previous_epoch: m.previous_epoch,
            state: m.state as i8,
            assigned: current(&m.assigned),
            revoking: current(&m.revoking),
        };
        let key = Key::CurrentMemberAssignment { group: group(), member: member() };
        out.push((key, Some(Value::CurrentMemberAssignment(current))));
    }
    let target = TargetAssignmentMetadata { epoch: record.target_epoch, timestamp: 0 };
    let key = Key::TargetAssignmentMetadata { group: group() };
    out.push((key, Some(Value::TargetAssignmentMetadata(target))));
}

fn subscription(m: &ConsumerMemberRecord) -> ConsumerGroupMemberMetadata {
    ConsumerGroupMemberMetadata {
        instance: m.instance.clone(),
        rack: m.rack.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        topic_names: m.topic_names.clone(),
        topic_regex: (!m.topic_regex.is_empty()).then(|| m.topic_regex.clone()),
        rebalance_timeout_ms: m.rebalance_timeout_ms,
        assignor: m.assignor.clone(),
        classic: None,
    }
}

fn current(assigned: &[AssignedRecord]) -> Vec<CurrentPartitions> {
    let of_topic = assigned.iter().map(|(topic, partitions)| CurrentPartitions {
        topic_id: *topic,
        partitions: partitions.iter().map(|(partition, _)| *partition as i32).collect(),
        epochs: Some(partitions.iter().map(|(_, epoch)| *epoch).collect()),
    });
    of_topic.collect()
}
