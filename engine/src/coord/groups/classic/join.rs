//! JoinGroup: new members, members that rejoin, and static members that replace their predecessor.

use super::{ClassicGroup, Member, State};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::reply::{JoinReply, JoinedMember, SyncReply};
use crate::coord::groups::request::{JoinRequest, Token};

impl JoinReply {
    /// Creates an error reply.
    pub(in crate::coord::groups) fn refused(member: &str, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member: member.to_owned(),
            members: Vec::new(),
        }
    }
}

impl ClassicGroup {
    /// Handles JoinGroup. `new_id` is the id of the member if it has none yet.
    pub(in crate::coord::groups) fn join(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: JoinRequest,
        new_id: String,
    ) {
        if !self.accepts(cx, &request.member) {
            self.pending.remove(&request.member);
            return cx.joined(token, JoinReply::refused("", GroupError::GroupMaxSizeReached));
        }
        if !self.supports(&request) {
            let reply = JoinReply::refused(&request.member, GroupError::InconsistentGroupProtocol);
            return cx.joined(token, reply);
        }
        cx.resized = true;
        if request.member.is_empty() {
            self.join_new(cx, token, request, new_id);
        } else {
            self.join_known(cx, token, request);
        }
    }

    /// Returns whether the limit on members allows this one to join.
    fn accepts(&self, cx: &Context<'_>, member: &str) -> bool {
        let max = cx.config.group_members_max;
        match self.state {
            State::Empty => self.pending.len() < max || self.pending.contains_key(member),
            State::Preparing => {
                self.members.get(member).is_some_and(|m| m.joining.is_some())
                    || self.members.values().filter(|m| m.joining.is_some()).count() < max
            }
            State::Completing | State::Stable => {
                self.members.contains_key(member) || self.members.len() < max
            }
        }
    }

    /// Returns whether the member's protocol type is the group's, and it supports a protocol that all other members support.
    fn supports(&self, request: &JoinRequest) -> bool {
        if self.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let common = |name: &str| self.members.values().all(|m| m.metadata(name).is_some());
        self.protocol_type.as_deref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|(name, _)| common(name))
    }

    fn join_new(&mut self, cx: &mut Context<'_>, token: Token, request: JoinRequest, new_id: String) {
        if let Some(instance) = &request.instance {
            match self.instances.get(instance).cloned() {
                Some(old_id) => self.replace_static(cx, token, &request, &old_id, &new_id),
                None => self.add(cx, token, request, new_id),
            }
        } else if request.requires_member_id {
            let deadline = cx.now.ms + request.session_timeout_ms.max(0) as u64;
            self.pending.insert(new_id.clone(), deadline);
            self.arm(deadline);
            cx.joined(token, JoinReply::refused(&new_id, GroupError::MemberIdRequired));
        } else {
            self.add(cx, token, request, new_id);
        }
    }

    fn join_known(&mut self, cx: &mut Context<'_>, token: Token, request: JoinRequest) {
        let id = request.member.clone();
        if request.instance.is_none() && self.pending.remove(&id).is_some() {
            return self.add(cx, token, request, id);
        }
        if let Err(error) = self.check_member(&id, request.instance.as_deref()) {
            return cx.joined(token, JoinReply::refused(&id, error));
        }
        let is_unchanged = self.members[&id].protocols == request.protocols;
        match self.state {
            State::Completing if is_unchanged => {
                cx.joined(token, self.joined(&id, self.is_leader(&id)));
            }
            State::Stable if is_unchanged && !self.is_leader(&id) => {
                cx.joined(token, self.joined(&id, false));
            }
            State::Preparing | State::Completing | State::Stable => {
                self.update(cx, &id, &request, token);
                self.rebalance_or_complete(cx);
            }
            State::Empty => cx.joined(token, JoinReply::refused(&id, GroupError::UnknownMemberId)),
        }
    }

    fn add(&mut self, cx: &mut Context<'_>, token: Token, request: JoinRequest, id: String) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if let Some(initial) = &mut self.initial {
            initial.newcomers = true;
        }
        if let Some(instance) = &request.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        let deadline = cx.now.ms + cx.config.new_member_join_timeout_ms;
        self.arm(deadline);
        let member = Member {
            instance: request.instance,
            client: request.client,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: bytes::Bytes::new(),
            joining: Some(token),
            syncing: None,
            is_new: true,
            deadline: Some(deadline),
        };
        self.members.insert(id, member);
        self.rebalance_or_complete(cx);
    }

    /// Updates a member, which then waits for the next generation.
    fn update(&mut self, cx: &mut Context<'_>, id: &str, request: &JoinRequest, token: Token) {
        let member = self.members.get_mut(id).expect("the caller checked that it is a member");
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        if let Some(earlier) = member.joining.replace(token) {
            // The client has resent the request on another connection, so nobody reads this reply.
            cx.joined(earlier, JoinReply::refused(id, GroupError::RebalanceInProgress));
        }
    }

    /// Handles the restart of a static member that does not know its id: it gets a new one, and its predecessor is fenced.
    fn replace_static(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
        old_id: &str,
        new_id: &str,
    ) {
        let old_leader = self.leader.clone();
        let mut member = self.members.remove(old_id).expect("an instance id belongs to a member");
        if let Some(token) = member.joining.take() {
            cx.joined(token, JoinReply::refused(old_id, GroupError::FencedInstanceId));
        }
        if let Some(token) = member.syncing.take() {
            cx.synced(token, SyncReply::refused(GroupError::FencedInstanceId));
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), new_id.to_owned());
        }
        if self.unsynced.remove(old_id) {
            self.unsynced.insert(new_id.to_owned());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        member.client = request.client.clone();
        // The deadline for a first join does not apply to it, and it need not send heartbeats while it waits for others.
        member.is_new = false;
        self.members.insert(new_id.to_owned(), member);
        self.update(cx, new_id, request, token);
        self.renew_session(cx, new_id);
        match self.state {
            State::Stable if self.protocol == self.vote() => {
                self.persist(cx);
                let member = self.members.get_mut(new_id).expect("inserted above");
                member.joining = None;
                let is_leader = self.is_leader(new_id);
                let mut reply = self.joined(new_id, is_leader && request.can_skip_assignment);
                if request.can_skip_assignment {
                    reply.skip_assignment = is_leader;
                } else {
                    // With its predecessor's id as the leader, this member acts as a follower and only requests its assignment.
                    reply.leader = old_leader.unwrap_or_default();
                }
                cx.joined(token, reply);
            }
            State::Stable => self.rebalance_or_complete(cx),
            State::Completing => self.prepare(cx),
            State::Preparing => self.maybe_complete(cx),
            State::Empty => unreachable!("an empty group has no static members"),
        }
    }

    /// Returns the reply to a member of the current generation.
    pub(super) fn joined(&self, id: &str, with_members: bool) -> JoinReply {
        let protocol = self.protocol.as_deref().unwrap_or("");
        // Every member gets such a reply: iterating over all members in each would take quadratic time.
        let members = with_members.then_some(&self.members).into_iter().flatten();
        let members = members.map(|(id, m)| JoinedMember {
            member: id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(protocol).cloned().unwrap_or_default(),
        });
        JoinReply {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member: id.to_owned(),
            members: members.collect(),
        }
    }
}
