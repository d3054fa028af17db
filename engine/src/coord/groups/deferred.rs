//! Requests that are not carried out at once: those whose regular expressions have to be matched, and members' heartbeats when the turn
//! has done enough.
//!
//! ```text
//!   handle --> everything it needs is known, and work is left ---------------------> carried out
//!          \-> else --> Deferred --(run, once a turn: slices of matching, then these)--^
//! ```
//!
//! Assignments that take longer go on here as well (`consumer/assigning.rs`).
//!
//! A request waits for the version of the topics that there is when it comes. Later changes are for later heartbeats: a client that creates
//! topics all the time keeps nobody waiting for ever.

use std::collections::BTreeSet;

use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::limits::{ASSIGN_WORK_PER_SLICE_MAX, WORK_PER_TURN_MAX};
use super::request::{GroupRequest, Now, Token};
use super::topics::Topics;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Deferred {
    token: Token,
    request: GroupRequest,
    random: [u8; 16],
    regexes: Vec<String>,
    version: u64,
}

impl Deferred {
    fn may_go_on(&self, topics: &Topics) -> bool {
        self.regexes.iter().all(|regex| topics.matched_version(regex).is_some_and(|v| v >= self.version))
    }
}

impl GroupCoordinator {
    /// Takes a request. Its reply comes out of [`Self::poll_reply`], now or when others have done their part. `random` makes member
    /// ids that nobody else has.
    pub fn handle(&mut self, now: Now, token: Token, request: GroupRequest, random: [u8; 16]) {
        let regexes = self.begin_matching(&request);
        let version = self.topics.version();
        let deferred = Deferred { token, request, random, regexes, version };
        if !deferred.regexes.is_empty() {
            self.topics.match_some(&mut self.work);
        }
        let has_work = self.work > 0 || !matches!(deferred.request, GroupRequest::ConsumerHeartbeat(_));
        if has_work && deferred.may_go_on(&self.topics) {
            self.carry_out(now, token, deferred.request, random);
        } else {
            self.deferred.push_back(deferred);
        }
    }

    /// To be called once a turn: goes on matching expressions, and carries out the requests that waited for it. True if more is left.
    pub fn run(&mut self, now: Now) -> bool {
        // Half a turn is theirs, whatever was done at once.
        self.work = self.work.max(WORK_PER_TURN_MAX / 2);
        let mut more = self.topics.match_some(&mut self.work);
        // Matching does not use up the turns of those who wait for nothing else.
        self.work = self.work.max(1);
        let mut waiting = std::mem::take(&mut self.deferred);
        while self.work > 0
            && let Some(deferred) = waiting.pop_front()
        {
            if deferred.may_go_on(&self.topics) {
                self.carry_out(now, deferred.token, deferred.request, deferred.random);
            } else {
                self.deferred.push_back(deferred);
            }
        }
        more |= !waiting.is_empty();
        self.deferred.append(&mut waiting);
        more |= self.continue_assigning(now);
        more |= self.run_long(now);
        self.counted.end_turn();
        self.work = WORK_PER_TURN_MAX;
        more
    }

    /// Goes on with assignments, each for a slice of its own before it is another group's turn. True if more is left.
    fn continue_assigning(&mut self, now: Now) -> bool {
        if self.stalled {
            // They would write records.
            return false;
        }
        let mut left = ASSIGN_WORK_PER_SLICE_MAX;
        while left > 0
            && let Some(name) = self.assigning.pop_front()
        {
            let before = self.counted.this_turn();
            // The group may be gone, or another one of that name.
            let is_there = self.groups.get(&name).is_some_and(|group| group.as_consumer().is_some());
            let more = is_there
                && self.with(now, &name, |group, cx, topics| match &mut group.kind {
                    Kind::Classic(_) => false,
                    Kind::Consumer(group) => group.assign_some(cx, topics, left),
                });
            left = left.saturating_sub((self.counted.this_turn() - before).max(1));
            if more {
                self.assigning.push_back(name);
            }
        }
        !self.assigning.is_empty()
    }

    /// Begins to have matched what a request needs. Gives the expressions that it has to wait for: not those for which there is no space.
    fn begin_matching(&mut self, request: &GroupRequest) -> Vec<String> {
        let (name, said) = match request {
            GroupRequest::ConsumerHeartbeat(request) if !request.epoch.is_negative() => {
                (&request.group, request.topic_regex.as_deref())
            }
            GroupRequest::DeleteOffsets(request) => (&request.group, None),
            _ => return Vec::new(),
        };
        let mut regexes: BTreeSet<String> =
            said.filter(|regex| !regex.is_empty()).map(str::to_owned).into_iter().collect();
        if let Some(Kind::Consumer(group)) = self.groups.get(name).map(|group| &group.kind)
            && group.has_new_topics(&self.topics)
        {
            regexes.extend(group.regexes().map(str::to_owned));
        }
        let version = self.topics.version();
        regexes.retain(|regex| self.topics.matched_version(regex).is_none_or(|v| v < version));
        regexes.into_iter().filter(|regex| self.want_regex(regex)).collect()
    }

    /// Has an expression matched. False if there are too many, even without those that nobody uses.
    fn want_regex(&mut self, regex: &str) -> bool {
        if self.topics.patterns().want(regex) {
            return true;
        }
        self.forget_unused_regexes();
        self.topics.patterns().want(regex)
    }

    fn forget_unused_regexes(&mut self) {
        let of_groups = self.groups.values().filter_map(Group::as_consumer).flat_map(ConsumerGroup::regexes);
        let of_requests = self.deferred.iter().flat_map(|deferred| &deferred.regexes).map(String::as_str);
        let used: BTreeSet<&str> = of_groups.chain(of_requests).collect();
        self.topics.patterns().retain(&used);
    }
}
