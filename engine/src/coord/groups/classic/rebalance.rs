//! Rebalancing of a classic group, from one generation to the next.

use super::{ClassicGroup, InitialDelay, Member, State};
use crate::coord::groups::effects::Context;
use crate::coord::groups::error::GroupError;
use crate::coord::groups::reply::{JoinReply, SyncReply};

impl ClassicGroup {
    pub(super) fn rebalance_or_complete(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Preparing {
            self.maybe_complete(cx);
        } else {
            self.prepare(cx);
        }
    }

    /// Starts a rebalance: all members have to rejoin.
    pub(super) fn prepare(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Completing {
            for member in self.members.values_mut() {
                member.assignment = bytes::Bytes::new();
                if let Some(token) = member.syncing.take() {
                    let deadline = cx.now.ms + member.session_timeout_ms.max(0) as u64;
                    member.deadline = Some(deadline);
                    self.alarm = Some(self.alarm.map_or(deadline, |alarm| alarm.min(deadline)));
                    cx.synced(token, SyncReply::refused(GroupError::RebalanceInProgress));
                }
            }
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        if self.state == State::Empty {
            let delay_ms = cx.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.initial = Some(InitialDelay { delay_ms, remaining_ms, newcomers: false });
            self.wait_for_joins(cx, delay_ms);
            self.transition(cx, State::Preparing);
            return;
        }
        self.transition(cx, State::Preparing);
        if self.have_all_joined() {
            self.complete(cx);
        } else {
            self.wait_for_joins(cx, self.rebalance_timeout_ms());
        }
    }

    pub(super) fn maybe_complete(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Preparing && self.initial.is_none() && self.have_all_joined() {
            self.complete(cx);
        }
    }

    fn wait_for_joins(&mut self, cx: &Context<'_>, ms: u64) {
        let deadline = cx.now.ms + ms;
        self.join_deadline = Some(deadline);
        self.arm(deadline);
    }

    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(Member::rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some())
    }

    /// Handles the end of the time to join.
    fn handle_join_deadline(&mut self, cx: &mut Context<'_>) {
        match &mut self.initial {
            Some(initial) if initial.newcomers && initial.remaining_ms != 0 => {
                let delay_ms = cx.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
                let remaining_ms = initial.remaining_ms.saturating_sub(initial.delay_ms);
                *initial = InitialDelay { delay_ms, remaining_ms, newcomers: false };
                self.wait_for_joins(cx, delay_ms);
            }
            _ => self.complete(cx),
        }
    }

    /// Starts the next generation. Dynamic members that have not joined are removed; static members stay.
    pub(super) fn complete(&mut self, cx: &mut Context<'_>) {
        self.join_deadline = None;
        self.initial = None;
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.joining.is_none() && m.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.remove(cx, &id);
        }
        if !self.elect() && !self.members.is_empty() {
            self.wait_for_joins(cx, self.rebalance_timeout_ms());
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.unsynced.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.transition(cx, State::Empty);
            self.persist(cx);
            return;
        }
        self.protocol = self.vote();
        self.transition(cx, State::Completing);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.joined(&id, self.is_leader(&id));
            let member = self.members.get_mut(&id).expect("a key of the map");
            member.is_new = false;
            if let Some(token) = member.joining.take() {
                cx.joined(token, reply);
            }
            self.renew_session(cx, &id);
            self.unsynced.insert(id);
        }
        let deadline = cx.now.ms + self.rebalance_timeout_ms();
        self.sync_deadline = Some(deadline);
        self.arm(deadline);
    }

    /// Elects a leader among the members that have joined, the current one if possible. Returns whether there is one.
    fn elect(&mut self) -> bool {
        if self.leader.as_ref().and_then(|l| self.members.get(l)).is_some_and(|m| m.joining.is_some()) {
            return true;
        }
        let Some((id, _)) = self.members.iter().find(|(_, m)| m.joining.is_some()) else { return false };
        self.leader = Some(id.clone());
        true
    }

    /// Returns the protocol that most members prefer among those that all support.
    pub(super) fn vote(&self) -> Option<String> {
        let (first, rest) = {
            let mut members = self.members.values();
            (members.next()?, members)
        };
        let rest: Vec<&Member> = rest.collect();
        let candidates: Vec<&str> = first
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| rest.iter().all(|m| m.metadata(name).is_some()))
            .collect();
        let votes = |candidate: &str| {
            let choice = |m: &Member| {
                m.protocols
                    .iter()
                    .find(|(n, _)| candidates.contains(&n.as_str()))
                    .is_some_and(|(n, _)| n == candidate)
            };
            self.members.values().filter(|m| choice(m)).count()
        };
        // `max_by_key` returns the last maximum; in reverse order, that is the first candidate with the most votes.
        candidates.iter().rev().max_by_key(|c| votes(c)).map(|c| (*c).to_owned())
    }

    /// Removes a member, and rejects its pending requests.
    pub(super) fn remove(&mut self, cx: &mut Context<'_>, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        cx.resized = true;
        if let Some(token) = member.joining {
            cx.joined(token, JoinReply::refused("", GroupError::UnknownMemberId));
        }
        if let Some(token) = member.syncing {
            cx.synced(token, SyncReply::refused(GroupError::UnknownMemberId));
        }
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        self.unsynced.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Returns whether members wait for others: JoinGroup requests for the next generation, or SyncGroup requests for the leader.
    pub(in crate::coord::groups) fn has_waiting_members(&self) -> bool {
        self.members.values().any(|member| member.joining.is_some() || member.syncing.is_some())
    }

    /// Rejects the pending requests of members that wait for others. They stay members, with a new session timeout.
    pub(in crate::coord::groups) fn reject_waiting_members(
        &mut self,
        cx: &mut Context<'_>,
        error: GroupError,
    ) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("a key of the map");
            let (joining, syncing) = (member.joining.take(), member.syncing.take());
            if let Some(token) = joining {
                cx.joined(token, JoinReply::refused(&id, error));
            }
            if let Some(token) = syncing {
                cx.synced(token, SyncReply::refused(error));
            }
            if joining.or(syncing).is_some() {
                self.renew_session(cx, &id);
            }
        }
    }

    /// Handles deadlines that have passed, and computes the next one.
    pub(in crate::coord::groups) fn handle_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.ms;
        let is_due = |at: &Option<u64>| at.is_some_and(|at| at <= now);
        let late: Vec<String> =
            self.members.iter().filter(|(_, m)| is_due(&m.deadline)).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.handle_session_deadline(cx, &id);
        }
        let expired: Vec<String> =
            self.pending.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in expired {
            self.pending.remove(&id);
            cx.resized = true;
            if self.state == State::Preparing && self.have_all_joined() {
                self.complete(cx);
            }
        }
        if is_due(&self.join_deadline) {
            self.handle_join_deadline(cx);
        }
        if is_due(&self.sync_deadline) {
            self.handle_sync_deadline(cx);
        }
        let sessions = self.members.values().filter_map(|m| m.deadline);
        let pending = self.pending.values().copied();
        self.alarm = sessions.chain(pending).chain(self.join_deadline).chain(self.sync_deadline).min();
    }

    fn handle_session_deadline(&mut self, cx: &mut Context<'_>, id: &str) {
        let now = cx.now.ms;
        // Removing another member may have answered this one's request and restarted its session.
        let Some(member) = self.members.get_mut(id).filter(|m| m.deadline.is_some_and(|at| at <= now)) else {
            return;
        };
        member.deadline = None;
        if member.is_exempt_from_expiry() {
            return;
        }
        self.remove(cx, id);
        match self.state {
            State::Stable | State::Completing => self.prepare(cx),
            State::Preparing if self.have_all_joined() => self.complete(cx),
            _ => {}
        }
    }

    /// Removes members that have joined but have not sent SyncGroup in time.
    fn handle_sync_deadline(&mut self, cx: &mut Context<'_>) {
        self.sync_deadline = None;
        if !matches!(self.state, State::Completing | State::Stable) || self.unsynced.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.unsynced) {
            self.remove(cx, &id);
        }
        self.prepare(cx);
    }
}
