//! Which topics members want: names, and regular expressions over them.
//!
//! The expressions are in RE2's syntax, and match a topic if they match all of its name. What they match is found out when they
//! come into use and when topics have changed; matching takes time linear in the names. A compiled expression can take a megabyte
//! and more with the tables of its matches, so it is compiled each time and not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::rc::Rc;

use highwater_protocol::ids::TopicId;
use regex::{Regex, RegexBuilder};

use super::{ConsumerGroup, Member};
use crate::groups::error::GroupError;
use crate::groups::limits::{GROUP_REGEXES_MAX, REGEX_BYTES_MAX, REGEX_COMPILED_BYTES_MAX};
use crate::groups::topics::Topics;

/// The topics that a regular expression in use matches.
#[derive(Default, Debug)]
pub(super) struct Pattern {
    pub(super) topics: BTreeSet<TopicId>,
}

/// Compiles an expression that has to match a whole name.
fn compile(regex: &str) -> Result<Regex, GroupError> {
    if regex.len() > REGEX_BYTES_MAX {
        return Err(GroupError::InvalidRegularExpression);
    }
    let build = |regex: &str| {
        RegexBuilder::new(regex)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .map_err(|_| GroupError::InvalidRegularExpression)
    };
    // By itself first: it may have a parenthesis that closes the one put around it.
    build(regex)?;
    build(&format!(r"\A(?:{regex})\z"))
}

impl Pattern {
    fn new(regex: &str, topics: &Topics) -> Result<Self, GroupError> {
        let regex = compile(regex)?;
        let topics = topics.names().filter(|(name, _)| regex.is_match(name)).map(|(_, id)| id).collect();
        Ok(Self { topics })
    }
}

impl ConsumerGroup {
    /// Takes an expression into use.
    pub(super) fn use_regex(&mut self, regex: &str, topics: &Topics) -> Result<(), GroupError> {
        if regex.is_empty() || self.patterns.contains_key(regex) {
            return Ok(());
        }
        if self.patterns.len() >= GROUP_REGEXES_MAX {
            return Err(GroupError::GroupMaxSizeReached);
        }
        self.patterns.insert(regex.to_owned(), Pattern::new(regex, topics)?);
        Ok(())
    }

    /// A member does not use an expression any more. If nobody else does, it goes.
    pub(super) fn let_go_of_regex(&mut self, regex: &str) {
        if !self.members.values().any(|m| m.topic_regex == regex) {
            self.patterns.remove(regex);
        }
    }

    /// After a topic has changed: finds out again what expressions match, those of members that were restored included; lets
    /// go of those that nobody uses.
    pub(super) fn resolve_all(&mut self, topics: &Topics) {
        let used: BTreeSet<String> =
            self.members.values().map(|m| m.topic_regex.clone()).filter(|r| !r.is_empty()).collect();
        // One that was taken before is compiled again. If it cannot be, by a newer version, it matches nothing.
        let pattern_of = |regex: String| {
            let pattern = Pattern::new(&regex, topics).unwrap_or_default();
            (regex, pattern)
        };
        self.patterns = used.into_iter().map(pattern_of).collect();
    }

    /// Finds out what expressions match now, if topics have changed and no heartbeat has come since.
    pub(in crate::groups) fn catch_up(&mut self, topics: &Topics) {
        if self.has_new_topics(topics) {
            self.resolve_all(topics);
        }
    }

    /// The topics that a member wants and that are there.
    pub(super) fn wanted(&self, member: &Member, topics: &Topics) -> BTreeSet<TopicId> {
        let mut wanted: BTreeSet<TopicId> =
            member.topic_names.iter().filter_map(|name| topics.id(name)).collect();
        if let Some(pattern) = self.patterns.get(&member.topic_regex) {
            wanted.extend(&pattern.topics);
        }
        wanted
    }

    /// The same of all members, in their order: worked out once for those who want the same.
    pub(super) fn wanted_by_all<'a>(&'a self, topics: &Topics) -> Vec<Rc<BTreeSet<TopicId>>> {
        let mut known: BTreeMap<(&BTreeSet<String>, &str), Rc<BTreeSet<TopicId>>> = BTreeMap::new();
        let mut of = |member: &'a Member| {
            let said = (&member.topic_names, member.topic_regex.as_str());
            known.entry(said).or_insert_with(|| Rc::new(self.wanted(member, topics))).clone()
        };
        self.members.values().map(&mut of).collect()
    }

    /// A hash of all topics that anybody wants, with their partitions.
    pub(super) fn hash_topics(wanted: &[Rc<BTreeSet<TopicId>>], topics: &Topics) -> u64 {
        let mut all = BTreeSet::new();
        // Those who want the same share it.
        let mut seen = BTreeSet::new();
        for wanted in wanted.iter().filter(|wanted| seen.insert(Rc::as_ptr(wanted))) {
            all.extend(wanted.iter().copied());
        }
        // Fixed keys: it is compared with what was written down before a restart.
        let mut hash = Fnv::default();
        for topic in all {
            hash.write(&topic.0);
            hash.write(&topics.partitions(topic).unwrap_or(0).to_be_bytes());
        }
        hash.finish()
    }
}

/// FNV-1a with 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::effects::Context;
    use crate::groups::request::{ConsumerHeartbeatRequest, Now};
    use crate::groups::{GroupConfig, GroupError};

    fn join(group: &mut ConsumerGroup, member: &str, regex: String) -> Option<GroupError> {
        let request = ConsumerHeartbeatRequest {
            member: member.into(),
            rebalance_timeout_ms: 1,
            topic_regex: Some(regex),
            owned: Some(vec![]),
            ..ConsumerHeartbeatRequest::default()
        };
        let config = GroupConfig::default();
        let mut cx = Context::new(Now { ms: 0, wall_ms: 0 }, &config);
        group.heartbeat(&mut cx, &Topics::default(), &request, String::new()).error
    }

    #[test]
    fn expressions_that_nobody_uses_any_more_are_not_kept() {
        let mut group = ConsumerGroup::new("g");
        join(&mut group, "other", "shared".into());
        for n in 0..200 {
            assert_eq!(join(&mut group, "a", "shared".into()), None);
            assert_eq!(join(&mut group, "a", format!("x{n}")), None);
        }
        assert_eq!(group.patterns.keys().collect::<Vec<_>>(), ["shared", "x199"]);
        group.remove("a");
        assert_eq!(group.patterns.keys().collect::<Vec<_>>(), ["shared"]);
    }

    #[test]
    fn a_group_has_no_more_expressions_than_it_may() {
        let mut group = ConsumerGroup::new("g");
        for n in 0..GROUP_REGEXES_MAX {
            assert_eq!(join(&mut group, &n.to_string(), format!("x{n}")), None);
        }
        assert_eq!(join(&mut group, "more", "x".into()), Some(GroupError::GroupMaxSizeReached));
        assert_eq!(join(&mut group, "more", "x0".into()), None);
    }
}
