//! Requests that wait until regular expressions have been matched.
//!
//! ```text
//!   handle --> names only, or matched with the topics there are --------------------> carried out
//!          \-> expressions to match: a slice at once --(not done)--> Deferred --(run, once a turn)--^
//! ```
//!
//! A request waits for the version of the topics that there is when it comes. Later changes are for later heartbeats: a client that creates
//! topics all the time keeps nobody waiting for ever.

use std::collections::BTreeSet;

use super::consumer::ConsumerGroup;
use super::coordinator::{Group, GroupCoordinator, Kind};
use super::limits::MATCH_WORK_PER_TURN_MAX;
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
            self.topics.match_some(&mut self.match_work);
        }
        if deferred.may_go_on(&self.topics) {
            self.carry_out(now, token, deferred.request, random);
        } else {
            self.deferred.push_back(deferred);
        }
    }

    /// To be called once a turn: goes on matching expressions, and carries out the requests that waited for it. True if more is left.
    pub fn run(&mut self, now: Now) -> bool {
        self.match_work = MATCH_WORK_PER_TURN_MAX;
        let more = self.topics.match_some(&mut self.match_work);
        for _ in 0..self.deferred.len() {
            let Some(deferred) = self.deferred.pop_front() else { break };
            if deferred.may_go_on(&self.topics) {
                self.carry_out(now, deferred.token, deferred.request, deferred.random);
            } else {
                self.deferred.push_back(deferred);
            }
        }
        more
    }

    /// Begins to have matched what a request needs. Gives the expressions that it has to wait for: not those for which there is no space.
    fn begin_matching(&mut self, request: &GroupRequest) -> Vec<String> {
        let (name, said) = match request {
            GroupRequest::ConsumerHeartbeat(request) if request.epoch >= 0 => {
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
        if !regexes.is_empty() && self.topics.patterns().is_nearly_full() {
            self.forget_unused_regexes();
        }
        regexes.into_iter().filter(|regex| self.topics.patterns().want(regex)).collect()
    }

    fn forget_unused_regexes(&mut self) {
        let of_groups = self.groups.values().filter_map(Group::as_consumer).flat_map(ConsumerGroup::regexes);
        let of_requests = self.deferred.iter().flat_map(|deferred| &deferred.regexes).map(String::as_str);
        let used: BTreeSet<&str> = of_groups.chain(of_requests).collect();
        self.topics.patterns().retain(&used);
    }
}
