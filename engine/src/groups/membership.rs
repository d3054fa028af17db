//! Requests of members: checked for what concerns the coordinator as a whole, then passed to their group.

use uuid::Uuid;

use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::error::GroupError;
use super::limits::{GROUP_BYTES_MAX, GROUPS_BYTES_MAX, NAME_BYTES_MAX};
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
            // A group of the consumer protocol that has no members any more becomes one of the classic protocol.
            if let Kind::Consumer(before) = &group.kind {
                let since_ms = before.idle_since_ms().unwrap_or(now.wall_ms);
                group.kind = Kind::Classic(Box::new(ClassicGroup::succeed(cx, &name, since_ms)));
            }
            let Kind::Classic(group) = &mut group.kind else { unreachable!("made sure of above") };
            group.join(cx, token, request, new_id);
        });
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        if request.group.is_empty() || request.group.len() > NAME_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        if request.instance.as_ref().is_some_and(|i| i.is_empty() || i.len() > NAME_BYTES_MAX) {
            return Err(GroupError::InvalidRequest);
        }
        let bounds = self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms;
        if !bounds.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.stalled {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let says: usize = request.protocols.iter().map(|(name, m)| name.len() + m.len()).sum();
        let about = says + request.client.id.len() + request.instance.as_ref().map_or(0, String::len);
        self.check_bytes(&request.group, about)?;
        match self.groups.get(&request.group).map(|group| &group.kind) {
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

    /// Whether a group's members may take so much more.
    fn check_bytes(&self, group: &str, more: usize) -> Result<(), GroupError> {
        let of_group = self.groups.get(group).map_or(0, |group| group.bytes);
        if of_group + more > GROUP_BYTES_MAX || self.members_bytes + more > GROUPS_BYTES_MAX {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, now: Now, token: Token, request: SyncRequest) {
        let assigned = request.assignments.iter().map(|(id, a)| id.len() + a.len()).sum();
        let error = if request.group.is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !matches!(self.groups.get(&request.group).map(|g| &g.kind), Some(Kind::Classic(_))) {
            Some(GroupError::UnknownMemberId)
        } else if self.stalled && !request.assignments.is_empty() {
            Some(GroupError::CoordinatorNotAvailable)
        } else {
            self.check_bytes(&request.group, assigned).err()
        };
        if let Some(error) = error {
            return self.reply_now(token, GroupReply::Sync(SyncReply::refused(error)));
        }
        let name = request.group.clone();
        self.with(now, &name, |group, cx, _| {
            let Kind::Classic(group) = &mut group.kind else { unreachable!("made sure of above") };
            group.sync(cx, token, request);
        });
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
                    reply.message = Some("a name or an id is empty or too long".to_owned());
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

    /// Whether the group becomes one of the consumer protocol.
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
        let joins = request.epoch == 0;
        if joins && self.stalled {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let names: usize = request.topic_names.iter().flatten().map(|name| name.len() + 32).sum();
        let texts = [&request.topic_regex, &request.instance, &request.rack, &request.assignor];
        let about: usize = names + texts.into_iter().flatten().map(String::len).sum::<usize>();
        if joins || about > 0 {
            self.check_bytes(&request.group, about + request.member.len() + request.client.id.len())?;
        }
        match self.groups.get(&request.group).map(|group| &group.kind) {
            None if !joins => Err(GroupError::GroupIdNotFound),
            None if !self.has_space() => Err(GroupError::GroupMaxSizeReached),
            Some(Kind::Consumer(_)) => Ok(false),
            // A live group of the classic protocol is not taken over member by member.
            Some(Kind::Classic(group)) if !joins || !group.is_empty() => Err(GroupError::GroupIdNotFound),
            None | Some(Kind::Classic(_)) => Ok(true),
        }
    }
}
