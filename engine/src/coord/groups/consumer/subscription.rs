//! Which topics members want: names, and regular expressions over them ([`crate::coord::groups::patterns`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::rc::Rc;

use highwater_protocol::ids::TopicId;

use super::{ConsumerGroup, Member};
use crate::coord::groups::error::GroupError;
use crate::coord::groups::limits::{ASSIGN_WORK_PER_CLASS, ASSIGN_WORK_PER_PARTITION, GROUP_REGEXES_MAX};
use crate::coord::groups::topics::{TopicNumbers, Topics};

/// The topics that a member wants and that are there.
#[derive(Clone)]
pub(super) struct Wants<'a> {
    named: Rc<BTreeSet<TopicId>>,
    matched: Option<&'a TopicNumbers>,
    topics: &'a Topics,
}

impl<'a> Wants<'a> {
    pub(super) fn of(member: &Member, topics: &'a Topics) -> Self {
        Self {
            named: Rc::new(named(topics, &member.topic_names)),
            matched: matches(topics, &member.topic_regex),
            topics,
        }
    }

    pub(super) fn contains(&self, topic: TopicId) -> bool {
        self.named.contains(&topic) || self.matched.is_some_and(|m| self.topics.is_matched(m, topic))
    }
}

/// Those of these names that are topics.
fn named(topics: &Topics, names: &BTreeSet<String>) -> BTreeSet<TopicId> {
    names.iter().filter_map(|name| topics.id(name)).collect()
}

fn matches<'a>(topics: &'a Topics, regex: &str) -> Option<&'a TopicNumbers> {
    if regex.is_empty() { None } else { topics.matches(regex)?.ok() }
}

/// What all members of a group want. Members who want the same are a class, which is worked out once: there may be many members, and many
/// topics that each of them wants.
pub(super) struct Subscriptions<'a> {
    /// What each member wants, in their order.
    pub(super) wants: Vec<Wants<'a>>,
    /// The members of each class, by their place in that order.
    pub(super) classes: Vec<Vec<usize>>,
    /// The classes of each member: of those who name the same topics, and of those who have the same expression.
    pub(super) classes_of: Vec<(usize, Option<usize>)>,
    /// The topics that anybody wants, each with its number of partitions and the classes that want it.
    pub(super) topics: BTreeMap<TopicId, (u32, Vec<usize>)>,
}

impl<'a> Subscriptions<'a> {
    /// Members, given by the names and the expression that they subscribe to.
    pub(super) fn new<'m>(
        topics: &'a Topics,
        members: impl Iterator<Item = (&'m BTreeSet<String>, &'m str)>,
    ) -> Self {
        let mut all =
            Self { wants: Vec::new(), classes: Vec::new(), classes_of: Vec::new(), topics: BTreeMap::new() };
        let mut by_names: BTreeMap<&BTreeSet<String>, (usize, Rc<BTreeSet<TopicId>>)> = BTreeMap::new();
        let mut by_regex: BTreeMap<&str, usize> = BTreeMap::new();
        for (n, (names, regex)) in members.enumerate() {
            let (named_class, named) = by_names.entry(names).or_insert_with(|| {
                let named = named(topics, names);
                (all.add_class(topics, named.iter().copied()), Rc::new(named))
            });
            all.classes[*named_class].push(n);
            let matched = matches(topics, regex);
            let matched_class = matched.map(|matches| {
                *by_regex.entry(regex).or_insert_with(|| {
                    all.add_class(topics, matches.iter().filter_map(|number| topics.id_of(number)))
                })
            });
            if let Some(class) = matched_class {
                all.classes[class].push(n);
            }
            all.classes_of.push((*named_class, matched_class));
            all.wants.push(Wants { named: Rc::clone(named), matched, topics });
        }
        all
    }

    fn add_class(&mut self, topics: &Topics, wanted: impl Iterator<Item = TopicId>) -> usize {
        let class = self.classes.len();
        self.classes.push(Vec::new());
        for topic in wanted {
            if let Some(partitions) = topics.partitions(topic) {
                self.topics.entry(topic).or_insert((partitions, Vec::new())).1.push(class);
            }
        }
        class
    }

    /// What working this out counts for, and assigning by it.
    pub(super) fn work(&self) -> usize {
        let of = |(partitions, classes): &(u32, Vec<usize>)| {
            *partitions as usize * ASSIGN_WORK_PER_PARTITION + classes.len() * ASSIGN_WORK_PER_CLASS
        };
        self.topics.values().map(of).sum()
    }

    /// A hash of all topics that anybody wants, with their partitions.
    pub(super) fn hash(&self) -> u64 {
        // Fixed keys: it is compared with what was written down before a restart.
        let mut hash = Fnv::default();
        for (topic, (partitions, _)) in &self.topics {
            hash.write(&topic.0);
            hash.write(&partitions.to_be_bytes());
        }
        hash.finish()
    }
}

impl ConsumerGroup {
    /// Whether a member may subscribe to an expression. It has been matched before this is asked, if there was space for it.
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

    /// One more member has this expression.
    pub(super) fn count_regex(&mut self, regex: &str) {
        if !regex.is_empty() {
            *self.regexes.entry(regex.to_owned()).or_default() += 1;
        }
    }

    /// One member fewer has it.
    pub(super) fn discount_regex(&mut self, regex: &str) {
        if let Some(count) = self.regexes.get_mut(regex) {
            *count -= 1;
            if *count == 0 {
                self.regexes.remove(regex);
            }
        }
    }

    /// The expressions of its members.
    pub(in crate::coord::groups) fn regexes(&self) -> impl Iterator<Item = &str> {
        self.regexes.keys().map(String::as_str)
    }

    /// What all members want.
    pub(super) fn wanted_by_all<'a>(&self, topics: &'a Topics) -> Subscriptions<'a> {
        Subscriptions::new(topics, self.members.values().map(|m| (&m.topic_names, m.topic_regex.as_str())))
    }

    /// Whether all expressions have been matched, if not with the topics of this moment.
    pub(in crate::coord::groups) fn is_matched(&self, topics: &Topics) -> bool {
        self.regexes().all(|regex| topics.matched_version(regex).is_some())
    }

    /// The version of the topics that what is known of its members' wishes goes by.
    pub(super) fn topics_known(&self, topics: &Topics) -> u64 {
        let matched = self.regexes().map(|regex| topics.matched_version(regex).unwrap_or(0));
        matched.fold(topics.version(), u64::min)
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
    fn expressions_that_nobody_uses_any_more_are_not_kept() {
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
    fn a_group_has_no_more_expressions_than_it_may() {
        let mut group = ConsumerGroup::new("g");
        for n in 0..GROUP_REGEXES_MAX {
            assert_eq!(join(&mut group, &n.to_string(), format!("x{n}")), None);
        }
        assert_eq!(join(&mut group, "more", "x".into()), Some(GroupError::GroupMaxSizeReached));
        assert_eq!(join(&mut group, "more", "x0".into()), None);
    }

    #[test]
    fn an_expression_that_has_not_been_matched_for_want_of_space_is_refused() {
        let group = ConsumerGroup::new("g");
        assert_eq!(group.check_regex("x", &Topics::default()), Err(GroupError::GroupMaxSizeReached));
    }
}
