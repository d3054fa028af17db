//! Deferred requests: those whose regular expressions must be matched first, and heartbeats of the consumer protocol when the turn's work is used
//! up.
//!
//! ```text
//!   handle --> its expressions are matched, and work is left -------------------------> executed
//!          \-> otherwise --> Deferred --(run, once a turn: matching, then the requests)--^
//! ```
//!
//! Assignments that take more than one turn continue here as well (`consumer/assigning.rs`).
//!
//! A request waits for the version of the topics that is current when it arrives. Later heartbeats handle later changes. So a client that keeps
//! creating topics cannot delay a request forever.

use std::collections::BTreeSet;

use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::limits::{ASSIGN_WORK_PER_SLICE_MAX, WORK_PER_TURN_MAX};
use super::request::{GroupRequest, Now, Token};
use super::topics::Topics;

/// A deferred request.
#[derive(Debug)]
pub(super) struct Deferred {
    token: Token,
    request: GroupRequest,
    random: [u8; 16],
    regexes: Vec<String>,
    version: u64,
}

impl Deferred {
    fn is_ready(&self, topics: &Topics) -> bool {
        self.regexes.iter().all(|regex| topics.matched_version(regex).is_some_and(|v| v >= self.version))
    }
}

impl GroupCoordinator {
    /// Handles a request. [`Self::poll_reply`] returns the reply, possibly after requests of other members. `random` makes new member ids unique.
    pub fn handle(&mut self, now: Now, token: Token, request: GroupRequest, random: [u8; 16]) {
        let regexes = self.begin_matching(&request);
        let version = self.topics.version();
        let deferred = Deferred { token, request, random, regexes, version };
        if !deferred.regexes.is_empty() {
            self.topics.match_some(&mut self.work);
        }
        let has_work = self.work > 0 || !matches!(deferred.request, GroupRequest::ConsumerHeartbeat(_));
        if has_work && deferred.is_ready(&self.topics) {
            self.execute(now, token, deferred.request, random);
        } else {
            self.deferred.push_back(deferred);
        }
    }

    /// Matches regular expressions, executes deferred requests, and continues assignments and long requests. Call it once a turn. Returns whether
    /// more is left.
    pub fn run(&mut self, now: Now) -> bool {
        // Deferred requests get at least half a turn's work, however much the turn's new requests have used.
        self.work = self.work.max(WORK_PER_TURN_MAX / 2);
        let mut more = self.topics.match_some(&mut self.work);
        // Even if matching has used all work, requests that are ready and cheap are executed.
        self.work = self.work.max(1);
        let mut waiting = std::mem::take(&mut self.deferred);
        while self.work > 0
            && let Some(deferred) = waiting.pop_front()
        {
            if deferred.is_ready(&self.topics) {
                self.execute(now, deferred.token, deferred.request, deferred.random);
            } else {
                self.deferred.push_back(deferred);
            }
        }
        more |= !waiting.is_empty();
        self.deferred.append(&mut waiting);
        more |= self.continue_assigning(now);
        more |= self.run_long(now);
        self.work_done.end_turn();
        self.work = WORK_PER_TURN_MAX;
        more
    }

    /// Drops requests that have not been carried out to their ends: those for which `is_gone` returns true. They get no reply.
    ///
    /// All requests of a commit's line are for one group, and are dropped together.
    pub fn drop_requests(&mut self, is_gone: impl Fn(Token) -> bool) {
        self.deferred.retain(|deferred| !is_gone(deferred.token));
        self.long.retain(|long| !long.token().is_some_and(&is_gone));
    }

    /// Continues assignments, one slice of each group at a time. Returns whether more is left.
    fn continue_assigning(&mut self, now: Now) -> bool {
        if self.stalled {
            // Assignments write records.
            return false;
        }
        let mut left = ASSIGN_WORK_PER_SLICE_MAX;
        while left > 0
            && let Some(name) = self.assigning.pop_front()
        {
            let before = self.work_done.this_turn();
            // The group may have been deleted, or replaced by another one of the same name.
            let exists = self.groups.get(&name).is_some_and(|group| group.as_consumer().is_some());
            let more = exists
                && self.with(now, &name, |group, cx, topics| match &mut group.kind {
                    Kind::Classic(_) => false,
                    Kind::Consumer(group) => group.assign_some(cx, topics, left),
                });
            left = left.saturating_sub((self.work_done.this_turn() - before).max(1));
            if more {
                self.assigning.push_back(name);
            }
        }
        !self.assigning.is_empty()
    }

    /// Queues the regular expressions that a request needs for matching. Returns those to wait for, without those over the limit.
    fn begin_matching(&mut self, request: &GroupRequest) -> Vec<String> {
        let (name, new_regex) = match request {
            GroupRequest::ConsumerHeartbeat(request) if !request.epoch.is_negative() => {
                (&request.group, request.topic_regex.as_deref())
            }
            GroupRequest::DeleteOffsets(request) => (&request.group, None),
            _ => return Vec::new(),
        };
        let mut regexes: BTreeSet<String> =
            new_regex.filter(|regex| !regex.is_empty()).map(str::to_owned).into_iter().collect();
        if let Some(Kind::Consumer(group)) = self.groups.get(name).map(|group| &group.kind)
            && group.has_new_topics(&self.topics)
        {
            regexes.extend(group.regexes().map(str::to_owned));
        }
        let version = self.topics.version();
        regexes.retain(|regex| self.topics.matched_version(regex).is_none_or(|v| v < version));
        regexes.into_iter().filter(|regex| self.queue_regex(regex)).collect()
    }

    /// Queues a regular expression for matching. Returns false if there are too many, even after unused ones are dropped.
    fn queue_regex(&mut self, regex: &str) -> bool {
        if self.topics.patterns().want(regex) {
            return true;
        }
        self.drop_unused_regexes();
        self.topics.patterns().want(regex)
    }

    fn drop_unused_regexes(&mut self) {
        let of_groups = self.groups.values().filter_map(Group::as_consumer).flat_map(ConsumerGroup::regexes);
        let of_requests = self.deferred.iter().flat_map(|deferred| &deferred.regexes).map(String::as_str);
        let used: BTreeSet<&str> = of_groups.chain(of_requests).collect();
        self.topics.patterns().retain(&used);
    }
}
