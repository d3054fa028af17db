//! The topics that members subscribe to: names, and regular expressions over names ([`crate::coord::groups::patterns`]).

use std::collections::BTreeSet;

use highwater_protocol::ids::TopicId;

use super::{ConsumerGroup, Member};
use crate::coord::groups::error::GroupError;
use crate::coord::groups::limits::GROUP_REGEXES_MAX;
use crate::coord::groups::topics::{TopicNumbers, Topics};

/// The existing topics that a member subscribes to.
pub(super) struct Subscription<'a> {
    named: BTreeSet<TopicId>,
    matched: Option<&'a TopicNumbers>,
    topics: &'a Topics,
}

impl<'a> Subscription<'a> {
    pub(super) fn of(member: &Member, topics: &'a Topics) -> Self {
        Self {
            named: named(topics, &member.topic_names),
            matched: matches(topics, &member.topic_regex),
            topics,
        }
    }

    pub(super) fn contains(&self, topic: TopicId) -> bool {
        self.named.contains(&topic) || self.matched.is_some_and(|m| self.topics.is_matched(m, topic))
    }
}

/// Returns the existing topics with these names.
fn named(topics: &Topics, names: &BTreeSet<String>) -> BTreeSet<TopicId> {
    names.iter().filter_map(|name| topics.id(name)).collect()
}

fn matches<'a>(topics: &'a Topics, regex: &str) -> Option<&'a TopicNumbers> {
    if regex.is_empty() { None } else { topics.matches(regex)?.ok() }
}

impl ConsumerGroup {
    /// Checks whether a member may subscribe to an expression. It has been matched before, unless there was no memory for that.
    pub(super) fn check_regex(&self, regex: &str, topics: &Topics) -> Result<(), GroupError> {
        if regex.is_empty() || self.regexes.contains_key(regex) {
            return Ok(());
        }
        if self.regexes.len() >= GROUP_REGEXES_MAX {
            return Err(GroupError::GroupMaxSizeReached);
        }
        match topics.matches(regex) {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(GroupError::InvalidRegularExpression),
            None => Err(GroupError::GroupMaxSizeReached),
        }
    }

    /// Counts one more member with this expression.
    pub(super) fn count_regex(&mut self, regex: &str) {
        if !regex.is_empty() {
            *self.regexes.entry(regex.to_owned()).or_default() += 1;
        }
    }

    /// Counts one member fewer with this expression.
    pub(super) fn discount_regex(&mut self, regex: &str) {
        if let Some(count) = self.regexes.get_mut(regex) {
            *count -= 1;
            if *count == 0 {
                self.regexes.remove(regex);
            }
        }
    }

    /// Returns the expressions of its members.
    pub(in crate::coord::groups) fn regexes(&self) -> impl Iterator<Item = &str> {
        self.regexes.keys().map(String::as_str)
    }

    /// Returns whether all expressions have been matched, perhaps with an earlier version of the topics.
    pub(in crate::coord::groups) fn is_matched(&self, topics: &Topics) -> bool {
        self.regexes().all(|regex| topics.matched_version(regex).is_some())
    }

    /// Returns the version of the topics for which the members' subscriptions are resolved.
    pub(super) fn topics_known(&self, topics: &Topics) -> u64 {
        let matched = self.regexes().map(|regex| topics.matched_version(regex).unwrap_or(0));
        matched.fold(topics.version(), u64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coord::groups::effects::Context;
    use crate::coord::groups::request::{ConsumerHeartbeatRequest, Now};
    use crate::coord::groups::{GroupConfig, GroupError};

    fn join(group: &mut ConsumerGroup, member: &str, regex: String) -> Option<GroupError> {
        let mut topics = Topics::default();
        topics.patterns().want(&regex);
        while topics.match_some(&mut usize::MAX.clone()) {}
        let request = ConsumerHeartbeatRequest {
            member: member.into(),
            rebalance_timeout_ms: 1,
            topic_regex: Some(regex),
            owned: Some(vec![]),
            ..ConsumerHeartbeatRequest::default()
        };
        let config = GroupConfig::default();
        let mut cx = Context::new(Now { ms: 0, wall_ms: 0 }, &config);
        group.heartbeat(&mut cx, &topics, &request, String::new()).error
    }

    #[test]
    fn unused_expressions_are_dropped() {
        let mut group = ConsumerGroup::new("g");
        join(&mut group, "other", "shared".into());
        for n in 0..200 {
            assert_eq!(join(&mut group, "a", "shared".into()), None);
            assert_eq!(join(&mut group, "a", format!("x{n}")), None);
        }
        assert_eq!(group.regexes().collect::<Vec<_>>(), ["shared", "x199"]);
        group.remove("a");
        assert_eq!(group.regexes().collect::<Vec<_>>(), ["shared"]);
    }

    #[test]
    fn the_number_of_expressions_of_a_group_is_limited() {
        let mut group = ConsumerGroup::new("g");
        for n in 0..GROUP_REGEXES_MAX {
            assert_eq!(join(&mut group, &n.to_string(), format!("x{n}")), None);
        }
        assert_eq!(join(&mut group, "more", "x".into()), Some(GroupError::GroupMaxSizeReached));
        assert_eq!(join(&mut group, "more", "x0".into()), None);
    }

    #[test]
    fn an_expression_that_could_not_be_matched_for_lack_of_memory_is_rejected() {
        let group = ConsumerGroup::new("g");
        assert_eq!(group.check_regex("x", &Topics::default()), Err(GroupError::GroupMaxSizeReached));
    }
}
