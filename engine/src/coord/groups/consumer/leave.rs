//! Members of the consumer protocol that leave, for good or, if they are static, temporarily.

use highwater_protocol::ids::GroupEpoch;

use super::member::{Member, MemberState};
use super::{ConsumerGroup, LEFT_TEMPORARILY};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::reply::{ConsumerHeartbeatReply, LeaveReply};
use crate::coord::groups::request::ConsumerHeartbeatRequest;

impl ConsumerGroup {
    /// Handles a heartbeat with the epoch −1 or −2.
    pub(super) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatReply, GroupError> {
        let id = &request.member;
        if let Some(instance) = &request.instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if holder != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get_mut(id).ok_or(GroupError::UnknownMemberId)?;
        if request.epoch == LEFT_TEMPORARILY {
            // Its partitions stay assigned to it until its session ends.
            member.epoch = LEFT_TEMPORARILY;
            member.state = MemberState::Stable;
            member.revoking.clear();
            member.revoke_deadline = None;
            member
                .assigned
                .values_mut()
                .flat_map(|p| p.values_mut())
                .for_each(|epoch| *epoch = GroupEpoch(0));
            self.changed.insert(id.clone());
        } else {
            self.remove(id);
            self.epoch = self.epoch.next();
        }
        self.persist(cx);
        Ok(ConsumerHeartbeatReply {
            error: None,
            message: None,
            member: id.clone(),
            epoch: request.epoch,
            heartbeat_interval_ms: 0,
            is_settled: true,
            assignment: None,
        })
    }

    /// Handles LeaveGroup, with which an administrator removes members.
    pub(in crate::coord::groups) fn leave_members(
        &mut self,
        cx: &mut Context<'_>,
        members: Vec<(String, Option<String>)>,
    ) -> LeaveReply {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut left = false;
        for (id, instance) in members {
            let holder = instance.as_ref().map(|i| self.instances.get(i).cloned());
            let found = match holder {
                Some(None) => Err(GroupError::UnknownMemberId),
                Some(Some(holder)) if !id.is_empty() && holder != id => Err(GroupError::FencedInstanceId),
                Some(Some(holder)) => Ok(holder),
                None => self.members.contains_key(&id).then(|| id.clone()).ok_or(GroupError::UnknownMemberId),
            };
            if let Ok(id) = &found {
                self.remove(id);
                left = true;
            }
            outcomes.push((id, instance, found.err()));
        }
        if left {
            self.epoch = self.epoch.next();
            self.persist(cx);
        }
        LeaveReply { error: None, members: outcomes }
    }

    /// Removes a member; its partitions become free. The caller begins a new epoch.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        self.members_bytes -= member.counted_bytes;
        self.forget_instance(id, &member);
        self.discount_regex(&member.topic_regex);
        self.changed.remove(id);
        self.removed.insert(id.to_owned());
        // The topics with subscribers may be fewer now.
        self.topics_seen = None;
    }

    /// Removes the instance id of a member.
    pub(super) fn forget_instance(&mut self, id: &str, member: &Member) {
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|holder| holder == id)
        {
            self.instances.remove(instance);
        }
    }
}
