//! A member of a group of the consumer protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::Target;
use crate::coord::groups::request::{Client, ConsumerHeartbeatRequest};

/// Approximate memory of a member without its variable-length parts, in bytes.
const MEMBER_BYTES: usize = 256;

/// Partitions by topic, each with the epoch in which it was assigned.
pub(super) type Assigned = BTreeMap<TopicId, BTreeMap<PartitionIndex, GroupEpoch>>;

/// The progress of a member towards its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MemberState {
    /// It owns what its epoch assigns to it.
    Stable,
    /// It has been asked to revoke partitions, and stays in its epoch until it has.
    Revoking,
    /// It waits for partitions that other members still own.
    Waiting,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) rack: Option<String>,
    pub(super) client: Client,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topic_names: Rc<BTreeSet<String>>,
    /// Empty if there is none.
    pub(super) topic_regex: String,
    pub(super) assignor: Option<String>,
    pub(super) epoch: GroupEpoch,
    pub(super) previous_epoch: GroupEpoch,
    pub(super) state: MemberState,
    pub(super) assigned: Assigned,
    pub(super) revoking: Assigned,
    pub(super) target: Target,
    pub(super) session_deadline: Option<u64>,
    pub(super) revoke_deadline: Option<u64>,
    /// Approximate memory of the member and its id when it was last persisted, in bytes.
    pub(super) counted_bytes: usize,
}

impl Member {
    pub(super) fn new(client: Client) -> Self {
        Self {
            instance: None,
            rack: None,
            client,
            rebalance_timeout_ms: -1,
            topic_names: Rc::new(BTreeSet::new()),
            topic_regex: String::new(),
            assignor: None,
            epoch: GroupEpoch(0),
            previous_epoch: GroupEpoch(0),
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
            target: Target::new(),
            session_deadline: None,
            revoke_deadline: None,
            counted_bytes: 0,
        }
    }

    pub(super) fn is_reconciled(&self, target_epoch: GroupEpoch) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    pub(super) fn set_epoch(&mut self, epoch: GroupEpoch) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    /// Returns whether all partitions in `owned` are assigned to it.
    pub(super) fn is_assigned_all(&self, owned: &[(TopicId, Vec<PartitionIndex>)]) -> bool {
        owned.iter().all(|(topic, partitions)| {
            let of_topic = self.assigned.get(topic);
            partitions.iter().all(|p| of_topic.is_some_and(|of_topic| of_topic.contains_key(p)))
        })
    }

    /// Returns by how many bytes this heartbeat would increase its memory.
    pub(super) fn growth(&self, request: &ConsumerHeartbeatRequest) -> usize {
        let mut before = self.client.id.len() + self.client.host.len();
        let mut after = request.client.id.len() + request.client.host.len();
        let regex = Some(self.topic_regex.as_str());
        let texts = [
            (&request.instance, self.instance.as_deref()),
            (&request.rack, self.rack.as_deref()),
            (&request.topic_regex, regex),
        ];
        for (new, old) in texts {
            if let Some(new) = new {
                before += old.map_or(0, str::len);
                after += new.len();
            }
        }
        if let Some(names) = &request.topic_names
            && !names.iter().all(|name| self.topic_names.contains(name))
        {
            before += names_bytes(self.topic_names.iter());
            after += names_bytes(names);
        }
        after.saturating_sub(before)
    }

    pub(super) fn bytes(&self) -> usize {
        let names = names_bytes(self.topic_names.iter());
        let assigned = |a: &Assigned| a.values().map(|p| 32 + 8 * p.len()).sum::<usize>();
        let target: usize = self.target.values().map(|p| 32 + 4 * p.len()).sum();
        MEMBER_BYTES
            + names
            + self.topic_regex.len()
            + self.client.id.len()
            + self.client.host.len()
            + [&self.instance, &self.rack].into_iter().flatten().map(String::len).sum::<usize>()
            + assigned(&self.assigned)
            + assigned(&self.revoking)
            + target
    }
}

fn names_bytes<'a>(names: impl IntoIterator<Item = &'a String>) -> usize {
    names.into_iter().map(|name| name.len() + 32).sum()
}

/// Returns the partitions without their epochs.
pub(super) fn partitions_of(assigned: &Assigned) -> Vec<(TopicId, Vec<PartitionIndex>)> {
    assigned.iter().map(|(topic, p)| (*topic, p.keys().copied().collect())).collect()
}
