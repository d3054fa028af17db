//! Requests of members: checks the coordinator's limits, then passes them to their group.

use uuid::Uuid;

use highwater_protocol::ids::GroupEpoch;

use super::classic::{ClassicGroup, State, member_bytes};
use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::error::GroupError;
use super::limits::{GROUP_BYTES, NAME_BYTES_MAX};
use super::reply::{ConsumerHeartbeatReply, GroupReply, JoinReply, LeaveReply, SyncReply};
use super::request::{
    ConsumerHeartbeatRequest, HeartbeatRequest, JoinRequest, LeaveRequest, Now, SyncRequest, Token,
};

impl GroupCoordinator {
    pub(super) fn join(&mut self, now: Now, token: Token, request: JoinRequest, id: Uuid) {
        if let Err(error) = self.check_join(&request) {
            let reply = JoinReply::refused(&request.member, error);
            return self.reply_now(token, GroupReply::Join(reply));
        }
        let name = request.group.clone();
        let new_id = format!("{}-{id}", request.instance.as_deref().unwrap_or(&request.client.id));
        self.groups.entry(name.clone()).or_insert_with(|| Group::classic(&name, now));
        self.with(now, &name, |group, cx, _| {
            // A consumer group without members becomes a classic group.
            if let Kind::Consumer(before) = &group.kind {
                let since_ms = before.idle_since_ms().unwrap_or(now.wall_ms);
                group.kind =
                    Kind::Classic(Box::new(ClassicGroup::replace_consumer_group(cx, &name, since_ms)));
            }
            let Kind::Classic(group) = &mut group.kind else { unreachable!("replaced above") };
            group.join(cx, token, request, new_id);
        });
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        if request.group.is_empty() || request.group.len() > NAME_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        let mut protocols = request.protocols.iter().map(|(name, _)| name);
        if request.instance.as_ref().is_some_and(|i| i.is_empty() || i.len() > NAME_BYTES_MAX)
            || request.protocol_type.len() > NAME_BYTES_MAX
            || protocols.any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(GroupError::InvalidRequest);
        }
        let bounds = self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms;
        if !bounds.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.stalled {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let kind = self.groups.get(&request.group).map(|group| &group.kind);
        let instance = request.instance.as_deref();
        let bytes = member_bytes(&request.protocols, &request.client, instance);
        let more = match kind {
            Some(Kind::Classic(group)) => bytes.saturating_sub(group.bytes_of(&request.member, instance)),
            _ => bytes + GROUP_BYTES + request.group.len() + request.protocol_type.len(),
        };
        self.check_bytes(&request.group, more)?;
        match kind {
            None if !request.member.is_empty() => Err(GroupError::UnknownMemberId),
            None if !self.has_space() => Err(GroupError::GroupMaxSizeReached),
            Some(Kind::Consumer(group))
                if !group.is_empty() || request.protocols.is_empty() || request.protocol_type.is_empty() =>
            {
                Err(GroupError::InconsistentGroupProtocol)
            }
            Some(Kind::Consumer(_)) if !request.member.is_empty() => Err(GroupError::UnknownMemberId),
            _ => Ok(()),
        }
    }

    /// Checks whether a group's members may grow by `more` bytes. A request that does not grow them is always allowed.
    fn check_bytes(&self, group: &str, more: usize) -> Result<(), GroupError> {
        let of_group = self.groups.get(group).map_or(0, |group| group.bytes);
        let is_too_much = of_group + more > self.config.group_bytes_max
            || self.members_bytes + self.other_usage.members_bytes + more > self.config.members_bytes_max;
        if more > 0 && is_too_much {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, now: Now, token: Token, request: SyncRequest) {
        if let Err(error) = self.check_sync(&request) {
            return self.reply_now(token, GroupReply::Sync(SyncReply::refused(error)));
        }
        let name = request.group.clone();
        self.with(now, &name, |group, cx, _| {
            let Kind::Classic(group) = &mut group.kind else { unreachable!("checked above") };
            group.sync(cx, token, request);
        });
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let Some(Kind::Classic(group)) = self.groups.get(&request.group).map(|g| &g.kind) else {
            return Err(GroupError::UnknownMemberId);
        };
        // A stable group has its assignments. In any other state, the request would wait for a record or write one.
        if self.stalled && group.state() != State::Stable {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if request.assignments.is_empty() {
            return Ok(());
        }
        let assigned: usize = request.assignments.iter().map(|(_, a)| a.len()).sum();
        self.check_bytes(&request.group, assigned.saturating_sub(group.assignment_bytes()))
    }

    pub(super) fn heartbeat(&mut self, now: Now, token: Token, request: &HeartbeatRequest) {
        let refused = |error| GroupReply::Heartbeat(Some(error));
        if request.group.is_empty() {
            return self.reply_now(token, refused(GroupError::InvalidGroupId));
        }
        if !self.groups.contains_key(&request.group) {
            return self.reply_now(token, refused(GroupError::UnknownMemberId));
        }
        self.with(now, &request.group, |group, cx, _| {
            let error = match &mut group.kind {
                Kind::Classic(group) => {
                    group.heartbeat(cx, &request.member, request.instance.as_deref(), request.generation)
                }
                Kind::Consumer(_) => Some(GroupError::UnknownMemberId),
            };
            cx.reply(token, GroupReply::Heartbeat(error));
        });
    }

    pub(super) fn leave(&mut self, now: Now, token: Token, request: LeaveRequest) {
        if request.group.is_empty() {
            let reply = LeaveReply { error: Some(GroupError::InvalidGroupId), members: Vec::new() };
            return self.reply_now(token, GroupReply::Leave(reply));
        }
        if !self.groups.contains_key(&request.group) {
            let unknown = Some(GroupError::UnknownMemberId);
            let members = request.members.into_iter().map(|(id, instance)| (id, instance, unknown)).collect();
            return self.reply_now(token, GroupReply::Leave(LeaveReply { error: None, members }));
        }
        if self.stalled {
            let reply = LeaveReply { error: Some(GroupError::CoordinatorNotAvailable), members: Vec::new() };
            return self.reply_now(token, GroupReply::Leave(reply));
        }
        self.with(now, &request.group, |group, cx, _| {
            let reply = match &mut group.kind {
                Kind::Classic(group) => group.leave(cx, request.members),
                Kind::Consumer(group) => group.leave_members(cx, request.members),
            };
            cx.reply(token, GroupReply::Leave(reply));
        });
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &ConsumerHeartbeatRequest,
        id: Uuid,
    ) {
        let becomes_consumer = match self.check_consumer_heartbeat(request) {
            Ok(becomes_consumer) => becomes_consumer,
            Err(error) => {
                let mut reply = ConsumerHeartbeatReply::refused(&request.member, error);
                if error == GroupError::InvalidRequest {
                    reply.message = Some("the group name is empty, or a name or id is too long".to_owned());
                }
                return self.reply_now(token, GroupReply::ConsumerHeartbeat(reply));
            }
        };
        let name = request.group.clone();
        if !self.groups.contains_key(&name) {
            self.groups.insert(name.clone(), Group::classic(&name, now));
        }
        self.with(now, &name, |group, cx, topics| {
            let new_id = id.to_string();
            let reply = match &mut group.kind {
                Kind::Consumer(group) => group.heartbeat(cx, topics, request, new_id),
                Kind::Classic(_) => {
                    debug_assert!(becomes_consumer, "checked above");
                    let mut new = ConsumerGroup::new(&request.group);
                    let reply = new.heartbeat(cx, topics, request, new_id);
                    if reply.error.is_none() {
                        group.kind = Kind::Consumer(Box::new(new));
                    }
                    reply
                }
            };
            cx.reply(token, GroupReply::ConsumerHeartbeat(reply));
        });
    }

    /// Checks the request and whether the group is, or can become, a consumer group. Returns whether it becomes one.
    fn check_consumer_heartbeat(&self, request: &ConsumerHeartbeatRequest) -> Result<bool, GroupError> {
        if request.group.is_empty() || request.group.len() > NAME_BYTES_MAX {
            return Err(GroupError::InvalidRequest);
        }
        let is_too_long = |text: &String| text.len() > NAME_BYTES_MAX;
        if is_too_long(&request.member)
            || [&request.instance, &request.rack].into_iter().flatten().any(is_too_long)
        {
            return Err(GroupError::InvalidRequest);
        }
        let joins = request.epoch == GroupEpoch(0);
        let kind = self.groups.get(&request.group).map(|group| &group.kind);
        let changes = match kind {
            Some(Kind::Consumer(group)) => joins || group.would_change(request),
            _ => joins,
        };
        if self.stalled && changes {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        // A member that leaves needs no more memory.
        if !request.epoch.is_negative() {
            let more = match kind {
                Some(Kind::Consumer(group)) => group.growth(request),
                _ => ConsumerGroup::bytes_of_new(request) + GROUP_BYTES + request.group.len(),
            };
            self.check_bytes(&request.group, more)?;
        }
        match kind {
            None if !joins => Err(GroupError::GroupIdNotFound),
            None if !self.has_space() => Err(GroupError::GroupMaxSizeReached),
            Some(Kind::Consumer(_)) => Ok(false),
            // A classic group with members is not converted member by member.
            Some(Kind::Classic(group)) if !joins || !group.is_empty() => Err(GroupError::GroupIdNotFound),
            None | Some(Kind::Classic(_)) => Ok(true),
        }
    }
}
