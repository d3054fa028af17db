//! SyncGroup: the leader sends the assignments, the other members wait for them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, State};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::reply::SyncReply;
use crate::coord::groups::request::{SyncRequest, Token};

impl SyncReply {
    /// Creates an error reply.
    pub(in crate::coord::groups) fn refused(error: GroupError) -> Self {
        Self { error: Some(error), protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

impl ClassicGroup {
    pub(in crate::coord::groups) fn sync(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: SyncRequest,
    ) {
        if let Err(error) = self.check_sync(&request) {
            return cx.synced(token, SyncReply::refused(error));
        }
        let id = request.member;
        match self.state {
            State::Preparing | State::Empty => {
                cx.synced(token, SyncReply::refused(GroupError::RebalanceInProgress));
            }
            State::Completing => {
                let member = self.members.get_mut(&id).expect("checked above");
                if let Some(earlier) = member.syncing.replace(token) {
                    // The client has resent the request on another connection, so nobody reads this reply.
                    cx.synced(earlier, SyncReply::refused(GroupError::RebalanceInProgress));
                }
                self.mark_synced(&id);
                if self.is_leader(&id) {
                    self.assign(cx, request.assignments.into_iter().collect());
                }
            }
            State::Stable => {
                self.mark_synced(&id);
                cx.synced(token, self.synced(&self.members[&id].assignment));
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member, request.instance.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |expected: &Option<String>, actual: &Option<String>| expected.is_some() && expected != actual;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn mark_synced(&mut self, id: &str) {
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }

    /// Stores the leader's assignments, and answers waiting members. A member that the leader left out gets an empty assignment.
    fn assign(&mut self, cx: &mut Context<'_>, mut assignments: BTreeMap<String, Bytes>) {
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
        }
        self.transition(cx, State::Stable);
        self.persist(cx);
        let waiting: Vec<String> =
            self.members.iter().filter(|(_, m)| m.syncing.is_some()).map(|(id, _)| id.clone()).collect();
        for id in waiting {
            let member = self.members.get_mut(&id).expect("a key of the map");
            let (token, assignment) = (member.syncing.take(), member.assignment.clone());
            self.renew_session(cx, &id);
            cx.synced(token.expect("filtered above"), self.synced(&assignment));
        }
    }

    fn synced(&self, assignment: &Bytes) -> SyncReply {
        SyncReply {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.clone(),
        }
    }
}
