//! ConsumerGroupHeartbeat: a member joins, states its subscription and its partitions, and receives its assignment.

use std::rc::Rc;

use highwater_protocol::ids::GroupEpoch;

use super::member::{Member, partitions_of};
use super::subscription::Subscription;
use super::{Assignor, ConsumerGroup, JOINING, LEFT_TEMPORARILY};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::limits::{ASSIGNING_HEARTBEAT_INTERVAL_MS, GroupConfig};
use crate::coord::groups::reply::ConsumerHeartbeatReply;
use crate::coord::groups::request::ConsumerHeartbeatRequest;
use crate::coord::groups::topics::Topics;

impl ConsumerHeartbeatReply {
    /// Creates an error reply.
    pub(in crate::coord::groups) fn refused(member: &str, error: GroupError) -> Self {
        Self {
            error: Some(error),
            message: Some(error.to_string()),
            member: member.to_owned(),
            epoch: GroupEpoch(0),
            heartbeat_interval_ms: 0,
            is_settled: false,
            assignment: None,
        }
    }
}

/// Returns why a heartbeat is invalid in any state of the group, if it is.
fn invalid_reason(request: &ConsumerHeartbeatRequest) -> Option<&'static str> {
    let is_empty = |text: &Option<String>| text.as_deref() == Some("");
    if is_empty(&request.instance) || is_empty(&request.rack) {
        return Some("the instance id and the rack id must not be empty");
    }
    if request.epoch == LEFT_TEMPORARILY && request.instance.is_none() {
        return Some("only a static member may leave with epoch -2");
    }
    match request.epoch.0 {
        ..-2 => Some("the member epoch is less than -2"),
        1.. | -2..=-1 if request.member.is_empty() => Some("the member id is missing"),
        0 if request.rebalance_timeout_ms < 0 => Some("a member that joins must have a rebalance timeout"),
        0 if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
            Some("a member that joins must report an empty list of partitions")
        }
        0 if request.topic_names.is_none() && request.topic_regex.is_none() => {
            Some("a member that joins must subscribe to topic names or an expression")
        }
        _ => None,
    }
}

impl ConsumerGroup {
    /// Handles a heartbeat. `new_id` is the id of the member if it has none.
    pub(in crate::coord::groups) fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        topics: &Topics,
        request: &ConsumerHeartbeatRequest,
        new_id: String,
    ) -> ConsumerHeartbeatReply {
        if let Some(text) = invalid_reason(request) {
            let mut reply = ConsumerHeartbeatReply::refused(&request.member, GroupError::InvalidRequest);
            reply.message = Some(text.to_owned());
            return reply;
        }
        self.try_heartbeat(cx, topics, request, new_id)
            .unwrap_or_else(|error| ConsumerHeartbeatReply::refused(&request.member, error))
    }

    fn try_heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        topics: &Topics,
        request: &ConsumerHeartbeatRequest,
        new_id: String,
    ) -> Result<ConsumerHeartbeatReply, GroupError> {
        if request.assignor.as_deref().is_some_and(|name| Assignor::from_name(name).is_none()) {
            return Err(GroupError::UnsupportedAssignor);
        }
        if request.epoch.is_negative() {
            return self.leave(cx, request);
        }
        let id = if request.member.is_empty() { new_id } else { request.member.clone() };
        let predecessor = self.check_member(cx, &id, request)?;
        if let Some(regex) = &request.topic_regex {
            self.check_regex(regex, topics)?;
        }
        // The assignment in progress knows the member by its old id.
        let is_renamed = self.assigning.is_some() && predecessor.as_ref().is_some_and(|old_id| *old_id != id);
        if let Some(old_id) = predecessor {
            self.take_over(&old_id, &id);
        }
        let is_new = !self.members.contains_key(&id);
        let before = self.members.get(&id).cloned().unwrap_or_else(|| Member::new(request.client.clone()));
        let after = updated(&before, request);
        let subscription_changed =
            before.topic_names != after.topic_names || before.topic_regex != after.topic_regex;
        let preference_changed = before.assignor != after.assignor;
        let assignor_before = preference_changed.then(|| self.assignor());
        if is_new || after != before {
            if let Some(instance) = &after.instance {
                self.instances.insert(instance.clone(), id.clone());
            }
            self.count_regex(&after.topic_regex);
            if let Some(before) = self.members.insert(id.clone(), after) {
                self.discount_regex(&before.topic_regex);
            }
            self.changed.insert(id.clone());
        }
        let assignor_changed = assignor_before.is_some_and(|before| before != self.assignor());
        self.next_epoch(cx, topics, is_new || subscription_changed || assignor_changed || is_renamed);
        if subscription_changed || !self.members[&id].is_reconciled(self.target_epoch) {
            let subscription = Subscription::of(&self.members[&id], topics);
            if self.reconcile(cx, &id, subscription_changed, &subscription, request.owned.as_deref()) {
                self.start_revocation_timeout(cx.now, &id);
                self.changed.insert(id.clone());
            }
        }
        self.renew_session(cx, &id);
        self.persist(cx);
        let member = &self.members[&id];
        let is_full = request.rebalance_timeout_ms >= 0
            && (request.topic_names.is_some() || request.topic_regex.is_some())
            && request.owned.is_some();
        let with_assignment = request.epoch == JOINING || is_full || member.assigned != before.assigned;
        Ok(ConsumerHeartbeatReply {
            error: None,
            message: None,
            epoch: member.epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(cx.config),
            is_settled: self.epoch == self.target_epoch && member.is_reconciled(self.target_epoch),
            assignment: with_assignment.then(|| partitions_of(&member.assigned)),
            member: id,
        })
    }

    /// Returns the interval until the next heartbeat, in milliseconds. It is short if the member may get another assignment soon.
    fn heartbeat_interval_ms(&self, config: &GroupConfig) -> i32 {
        let interval = config.consumer_heartbeat_interval_ms;
        if self.assigning.is_some() { interval.min(ASSIGNING_HEARTBEAT_INTERVAL_MS) } else { interval }
    }

    /// Checks the ids and the epoch of a heartbeat. Returns the static member that the sender replaces, if any.
    fn check_member(
        &self,
        cx: &Context<'_>,
        id: &str,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<Option<String>, GroupError> {
        let instance = request.instance.as_ref();
        let holder =
            instance.and_then(|i| self.instances.get(i)).and_then(|id| self.members.get_key_value(id));
        let is_known = self.members.contains_key(id);
        if holder.is_none() && !is_known && self.members.len() >= cx.config.group_members_max {
            return Err(GroupError::GroupMaxSizeReached);
        }
        match (holder, request.epoch) {
            // The id already belongs to another member, which would be overwritten.
            (Some((holder, member)), JOINING)
                if member.epoch == LEFT_TEMPORARILY && holder != id && is_known =>
            {
                Err(GroupError::InvalidRequest)
            }
            (Some((holder, member)), JOINING) if member.epoch == LEFT_TEMPORARILY => Ok(Some(holder.clone())),
            (Some((holder, _)), JOINING) if holder == id => Ok(None),
            (Some(_), JOINING) => Err(GroupError::UnreleasedInstanceId),
            (Some((holder, _)), _) if holder != id => Err(GroupError::FencedInstanceId),
            (Some((_, member)), _) => check_epoch(member, request).map(|()| None),
            // Its current instance id would be left without a member.
            (None, JOINING)
                if instance.is_some() && self.members.get(id).is_some_and(|m| m.instance.is_some()) =>
            {
                Err(GroupError::InvalidRequest)
            }
            (None, JOINING) => Ok(None),
            (None, _) if request.instance.is_some() => Err(GroupError::UnknownMemberId),
            (None, _) => match self.members.get(id) {
                Some(member) => check_epoch(member, request).map(|()| None),
                None => Err(GroupError::UnknownMemberId),
            },
        }
    }

    /// Handles the return of a static member, perhaps with another id. It keeps its state.
    fn take_over(&mut self, old_id: &str, id: &str) {
        let mut member = self.members.remove(old_id).expect("an instance id belongs to a member");
        member.epoch = GroupEpoch(0);
        member.previous_epoch = GroupEpoch(0);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        if old_id != id {
            self.removed.insert(old_id.to_owned());
            self.changed.remove(old_id);
        }
        self.members.insert(id.to_owned(), member);
        self.changed.insert(id.to_owned());
    }

    /// Returns whether the heartbeat would change its member, or make it leave.
    pub(in crate::coord::groups) fn would_change(&self, request: &ConsumerHeartbeatRequest) -> bool {
        let member = self.members.get(&request.member);
        member.is_some_and(|member| request.epoch.is_negative() || updated(member, request) != *member)
    }

    /// Returns by how many bytes the heartbeat would increase the memory of its member.
    pub(in crate::coord::groups) fn growth(&self, request: &ConsumerHeartbeatRequest) -> usize {
        let holder = || self.instances.get(request.instance.as_ref()?).and_then(|id| self.members.get(id));
        let member = self.members.get(&request.member).or_else(holder);
        member.map_or_else(|| Self::bytes_of_new(request), |member| member.growth(request))
    }

    /// Returns the approximate memory, in bytes, of a member that joins with this heartbeat.
    pub(in crate::coord::groups) fn bytes_of_new(request: &ConsumerHeartbeatRequest) -> usize {
        let member = Member::new(request.client.clone());
        request.member.len() + member.bytes() + member.growth(request)
    }
}

/// Checks the epoch of a member. A member that missed a reply still has the previous epoch; that is accepted if it owns only what it was assigned.
fn check_epoch(member: &Member, request: &ConsumerHeartbeatRequest) -> Result<(), GroupError> {
    let missed_reply = || {
        request.epoch == member.previous_epoch
            && request.epoch < member.epoch
            && request.owned.as_ref().is_some_and(|owned| member.is_assigned_all(owned))
    };
    if request.epoch == member.epoch || missed_reply() { Ok(()) } else { Err(GroupError::FencedMemberEpoch) }
}

/// Returns the member updated by the heartbeat.
fn updated(before: &Member, request: &ConsumerHeartbeatRequest) -> Member {
    let mut after = before.clone();
    after.client = request.client.clone();
    if request.instance.is_some() {
        after.instance.clone_from(&request.instance);
    }
    if request.rack.is_some() {
        after.rack.clone_from(&request.rack);
    }
    if request.rebalance_timeout_ms >= 0 {
        after.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.topic_names {
        after.topic_names = Rc::new(names.iter().cloned().collect());
    }
    if let Some(regex) = &request.topic_regex {
        after.topic_regex.clone_from(regex);
    }
    if request.assignor.is_some() {
        after.assignor.clone_from(&request.assignor);
    }
    after
}
