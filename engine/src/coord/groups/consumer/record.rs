//! The records of a group of the consumer protocol. Each has the members that have changed.

use std::ops::Bound;
use std::rc::Rc;

use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::ConsumerGroup;
use super::member::{Assigned, Member, MemberState};
use crate::coord::groups::effects::Context;
use crate::coord::groups::limits::GROUP_BYTES;
use crate::coord::groups::record::{AssignedRecord, ConsumerMemberRecord, ConsumerRecord, Record};
use crate::coord::groups::request::{Client, Now};

impl ConsumerGroup {
    /// Persists what has changed since the last call.
    pub(super) fn persist(&mut self, cx: &mut Context<'_>) {
        let changed = std::mem::take(&mut self.changed);
        let removed = std::mem::take(&mut self.removed);
        let is_needed = !changed.is_empty() || !removed.is_empty();
        if is_needed {
            for id in &changed {
                self.count_bytes(id);
            }
            self.empty_since_ms =
                self.members.is_empty().then(|| self.empty_since_ms.unwrap_or(cx.now.wall_ms));
            let members = changed.iter().filter_map(|id| Some(to_record(id, self.members.get(id)?)));
            cx.persist(Record::Consumer(ConsumerRecord {
                removed: removed.into_iter().collect(),
                ..self.record(members.collect())
            }));
        }
    }

    /// Recounts the memory of a member.
    fn count_bytes(&mut self, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        let bytes = id.len() + member.bytes();
        let before = std::mem::replace(&mut member.counted_bytes, bytes);
        self.members_bytes = self.members_bytes - before + bytes;
    }

    fn record(&self, members: Vec<ConsumerMemberRecord>) -> ConsumerRecord {
        ConsumerRecord {
            group: self.name.clone(),
            epoch: self.epoch.0,
            target_epoch: self.target_epoch.0,
            topics_hash: self.topics_hash,
            removed: Vec::new(),
            members,
            empty_since_ms: self.empty_since_ms,
        }
    }

    /// Returns, for a snapshot, the group with the members after `after`, up to about `bytes_max`; their number of bytes; and the last of these
    /// members if others follow.
    pub(in crate::coord::groups) fn to_record_after(
        &self,
        after: Option<&str>,
        bytes_max: usize,
    ) -> (ConsumerRecord, usize, Option<String>) {
        let mut bytes = GROUP_BYTES + self.name.len();
        let mut records: Vec<ConsumerMemberRecord> = Vec::new();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (id, member) in self.members.range::<str, _>((from, Bound::Unbounded)) {
            if bytes >= bytes_max
                && let Some(last) = records.last()
            {
                let last = Some(last.member.clone());
                return (self.record(records), bytes, last);
            }
            bytes += id.len() + member.bytes();
            records.push(to_record(id, member));
        }
        (self.record(records), bytes, None)
    }

    /// Applies a record. Session timeouts start with [`Self::resume`].
    pub(in crate::coord::groups) fn apply(&mut self, now: Now, record: ConsumerRecord) {
        self.epoch = GroupEpoch(record.epoch);
        self.target_epoch = GroupEpoch(record.target_epoch);
        self.topics_hash = record.topics_hash;
        for id in record.removed {
            if let Some(member) = self.members.remove(&id) {
                self.members_bytes -= member.counted_bytes;
                self.discount_regex(&member.topic_regex);
                self.forget_instance(&id, &member);
            }
        }
        for m in record.members {
            // Earlier versions let a member change its instance id.
            if let Some(before) = self.members.remove(&m.member) {
                self.members_bytes -= before.counted_bytes;
                self.discount_regex(&before.topic_regex);
                self.forget_instance(&m.member, &before);
            }
            if let Some(instance) = &m.instance {
                self.instances.insert(instance.clone(), m.member.clone());
            }
            self.count_regex(&m.topic_regex);
            let id = m.member.clone();
            self.members.insert(id.clone(), from_record(m));
            self.count_bytes(&id);
        }
        // Earlier versions did not record the time. Offsets should expire too late rather than too early.
        self.empty_since_ms = self.members.is_empty().then(|| record.empty_since_ms.unwrap_or(now.wall_ms));
    }
}

fn to_record(id: &str, m: &Member) -> ConsumerMemberRecord {
    ConsumerMemberRecord {
        member: id.to_owned(),
        instance: m.instance.clone(),
        rack: m.rack.clone(),
        client_id: m.client.id.clone(),
        client_host: m.client.host.clone(),
        rebalance_timeout_ms: m.rebalance_timeout_ms,
        topic_names: m.topic_names.iter().cloned().collect(),
        topic_regex: m.topic_regex.clone(),
        assignor: m.assignor.clone(),
        epoch: m.epoch.0,
        previous_epoch: m.previous_epoch.0,
        state: match m.state {
            MemberState::Stable => 0,
            MemberState::Revoking => 1,
            MemberState::Waiting => 2,
        },
        assigned: assigned_to_record(&m.assigned),
        revoking: assigned_to_record(&m.revoking),
        target: m.target.iter().map(|(t, p)| (t.0, p.iter().map(|n| n.0).collect())).collect(),
    }
}

fn from_record(m: ConsumerMemberRecord) -> Member {
    let mut member = Member::new(Client { id: m.client_id, host: m.client_host });
    member.instance = m.instance;
    member.rack = m.rack;
    member.rebalance_timeout_ms = m.rebalance_timeout_ms;
    member.topic_names = Rc::new(m.topic_names.into_iter().collect());
    member.topic_regex = m.topic_regex;
    member.assignor = m.assignor;
    member.epoch = GroupEpoch(m.epoch);
    member.previous_epoch = GroupEpoch(m.previous_epoch);
    member.state = match m.state {
        1 => MemberState::Revoking,
        2 => MemberState::Waiting,
        _ => MemberState::Stable,
    };
    member.assigned = assigned_from_record(m.assigned);
    member.revoking = assigned_from_record(m.revoking);
    let target = m.target.into_iter();
    member.target = target.map(|(t, p)| (TopicId(t), p.into_iter().map(PartitionIndex).collect())).collect();
    member
}

fn assigned_to_record(assigned: &Assigned) -> Vec<AssignedRecord> {
    assigned.iter().map(|(t, p)| (t.0, p.iter().map(|(n, e)| (n.0, e.0)).collect())).collect()
}

fn assigned_from_record(assigned: Vec<AssignedRecord>) -> Assigned {
    let assigned = assigned.into_iter();
    assigned
        .map(|(t, p)| (TopicId(t), p.into_iter().map(|(n, e)| (PartitionIndex(n), GroupEpoch(e))).collect()))
        .collect()
}
