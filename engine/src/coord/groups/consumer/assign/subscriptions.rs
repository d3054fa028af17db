//! Resolves the subscriptions of a group's members, in steps.
//!
//! Members that name the same topics form a *class*, and so do those with the same expression: there may be many members, and each may
//! subscribe to many topics. Members, subscriptions and topics may change between the steps. The result is then a mixture of old and new. That does no
//! harm, because every change also begins an epoch with its own assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::ops::Bound;
use std::rc::Rc;

use highwater_protocol::ids::TopicId;

use super::{Members, after};
use crate::coord::groups::limits::{
    ASSIGN_WORK_PER_COMPARED_NAME, ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER,
};
use crate::coord::groups::topics::{TopicNumber, Topics};
use crate::counters::Work;

/// Members, the topics that they subscribe to, and a hash of these topics.
#[derive(Debug)]
pub(in crate::coord::groups::consumer) struct Subscriptions {
    /// Sorted by id.
    pub(super) members: Vec<Candidate>,
    pub(super) classes: Vec<Class>,
    /// The existing topics with at least one subscriber.
    pub(super) topics: BTreeMap<TopicId, SubscribedTopic>,
    by_names: BTreeMap<Rc<BTreeSet<String>>, usize>,
    by_regex: BTreeMap<String, usize>,
    stage: Stage,
    hash: Fnv,
}

/// A member, as an assignor sees it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    /// The class of members that name the same topics, and the class of those with the same expression.
    pub(super) classes: (usize, Option<usize>),
}

#[derive(Debug)]
pub(super) struct Class {
    source: Source,
    /// The indexes of its members among all members.
    pub(super) members: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct SubscribedTopic {
    pub(super) partitions: u32,
    /// The classes that subscribe to it, in ascending order.
    pub(super) classes: Vec<usize>,
}

impl SubscribedTopic {
    /// Returns whether members of these classes subscribe to it.
    pub(super) fn is_subscribed_by(&self, (named, matched): (usize, Option<usize>)) -> bool {
        let has = |class: usize| self.classes.binary_search(&class).is_ok();
        has(named) || matched.is_some_and(has)
    }
}

/// What defines a class.
#[derive(Clone, Debug)]
enum Source {
    Names(Rc<BTreeSet<String>>),
    Regex(String),
}

#[derive(Debug)]
enum Stage {
    /// Puts the members after this one into classes.
    Members(Option<String>),
    /// Finds the topics of this class from this cursor on, then those of later classes.
    Topics(usize, Cursor),
    /// Hashes the topics after this one.
    Hash(Option<TopicId>),
    Done,
}

/// Where to continue among the topics of a class.
#[derive(Debug)]
enum Cursor {
    Start,
    AfterName(String),
    Number(TopicNumber),
}

impl Subscriptions {
    pub(in crate::coord::groups::consumer) fn new() -> Self {
        Self {
            members: Vec::new(),
            classes: Vec::new(),
            topics: BTreeMap::new(),
            by_names: BTreeMap::new(),
            by_regex: BTreeMap::new(),
            stage: Stage::Members(None),
            hash: Fnv::default(),
        }
    }

    /// Continues. Returns whether it is complete.
    pub(in crate::coord::groups::consumer) fn advance(
        &mut self,
        members: &Members,
        topics: &Topics,
        work: &mut Work,
    ) -> bool {
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Members(last) => match self.classify(members, last.as_deref(), work) {
                    Some(last) => {
                        self.stage = Stage::Members(Some(last));
                        return false;
                    }
                    None => Stage::Topics(0, Cursor::Start),
                },
                Stage::Topics(class, cursor) => match self.find_topics(topics, class, cursor, work) {
                    Some((class, cursor)) => {
                        self.stage = Stage::Topics(class, cursor);
                        return false;
                    }
                    None => Stage::Hash(None),
                },
                Stage::Hash(last) => match self.hash_topics(last, work) {
                    Some(last) => {
                        self.stage = Stage::Hash(Some(last));
                        return false;
                    }
                    None => Stage::Done,
                },
                Stage::Done => return true,
            };
        }
    }

    /// Returns the id of the member with this index.
    pub(in crate::coord::groups::consumer) fn id(&self, n: usize) -> &str {
        &self.members[n].id
    }

    /// Returns a hash of all topics with subscribers, with their partitions.
    pub(in crate::coord::groups::consumer) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Frees its memory in steps, because freeing much at once takes long. Returns whether the topics are freed.
    pub(in crate::coord::groups::consumer) fn clear(&mut self, work: &mut Work) -> bool {
        while !work.is_over() && self.topics.pop_first().is_some() {
            work.spend(ASSIGN_WORK_PER_ITEM);
        }
        self.topics.is_empty()
    }

    /// Puts the members after `last` into classes. Returns the last one if others follow.
    fn classify(&mut self, members: &Members, last: Option<&str>, work: &mut Work) -> Option<String> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        for (id, member) in members.range::<str, _>((from, Bound::Unbounded)) {
            if work.is_over()
                && let Some(last) = self.members.last()
            {
                return Some(last.id.clone());
            }
            // The lookup compares the names with those of existing classes.
            let compared = if self.by_names.is_empty() { 0 } else { member.topic_names.len() };
            work.spend(ASSIGN_WORK_PER_MEMBER + ASSIGN_WORK_PER_COMPARED_NAME * compared);
            let named = self.class_of_names(&member.topic_names);
            let matched = (!member.topic_regex.is_empty()).then(|| self.class_of_regex(&member.topic_regex));
            for class in [Some(named), matched].into_iter().flatten() {
                self.classes[class].members.push(self.members.len());
            }
            self.members.push(Candidate {
                id: id.clone(),
                instance: member.instance.clone(),
                classes: (named, matched),
            });
        }
        None
    }

    fn class_of_names(&mut self, names: &Rc<BTreeSet<String>>) -> usize {
        if let Some(class) = self.by_names.get(names) {
            return *class;
        }
        self.by_names.insert(Rc::clone(names), self.classes.len());
        self.add_class(Source::Names(Rc::clone(names)))
    }

    fn class_of_regex(&mut self, regex: &str) -> usize {
        if let Some(class) = self.by_regex.get(regex) {
            return *class;
        }
        self.by_regex.insert(regex.to_owned(), self.classes.len());
        self.add_class(Source::Regex(regex.to_owned()))
    }

    fn add_class(&mut self, source: Source) -> usize {
        self.classes.push(Class { source, members: Vec::new() });
        self.classes.len() - 1
    }

    /// Finds the topics of classes. Returns where to continue if it is not finished.
    fn find_topics(
        &mut self,
        topics: &Topics,
        first: usize,
        mut cursor: Cursor,
        work: &mut Work,
    ) -> Option<(usize, Cursor)> {
        for class in first..self.classes.len() {
            if work.is_over() {
                return Some((class, cursor));
            }
            let next = match self.classes[class].source.clone() {
                Source::Names(names) => self.find_named(topics, class, &names, &cursor, work),
                Source::Regex(regex) => self.find_matched(topics, class, &regex, &cursor, work),
            };
            match next {
                Some(cursor) => return Some((class, cursor)),
                None => cursor = Cursor::Start,
            }
        }
        None
    }

    fn find_named(
        &mut self,
        topics: &Topics,
        class: usize,
        names: &BTreeSet<String>,
        cursor: &Cursor,
        work: &mut Work,
    ) -> Option<Cursor> {
        let mut last = match cursor {
            Cursor::AfterName(name) => Some(name),
            _ => None,
        };
        let from = last.map_or(Bound::Unbounded, |name| Bound::Excluded(name.as_str()));
        for name in names.range::<str, _>((from, Bound::Unbounded)) {
            if work.is_over()
                && let Some(last) = last
            {
                return Some(Cursor::AfterName(last.clone()));
            }
            work.spend(ASSIGN_WORK_PER_ITEM);
            if let Some(topic) = topics.id(name) {
                self.add_topic(topics, topic, class);
            }
            last = Some(name);
        }
        None
    }

    fn find_matched(
        &mut self,
        topics: &Topics,
        class: usize,
        regex: &str,
        cursor: &Cursor,
        work: &mut Work,
    ) -> Option<Cursor> {
        let first = match cursor {
            Cursor::Number(number) => *number,
            _ => TopicNumber(0),
        };
        let Some(Ok(matched)) = topics.matches(regex) else { return None };
        for number in matched.iter_from(first) {
            if work.is_over() {
                return Some(Cursor::Number(number));
            }
            work.spend(ASSIGN_WORK_PER_ITEM);
            if let Some(topic) = topics.id_of(number) {
                self.add_topic(topics, topic, class);
            }
        }
        None
    }

    fn add_topic(&mut self, topics: &Topics, topic: TopicId, class: usize) {
        let Some(partitions) = topics.partitions(topic) else { return };
        let subscribed =
            self.topics.entry(topic).or_insert_with(|| SubscribedTopic { partitions, classes: Vec::new() });
        // A topic that was deleted and recreated meanwhile may have another name or number.
        if subscribed.classes.last() != Some(&class) {
            subscribed.classes.push(class);
        }
    }

    /// Hashes the topics after `last`. Returns the last one if others follow.
    fn hash_topics(&mut self, mut last: Option<TopicId>, work: &mut Work) -> Option<TopicId> {
        for (topic, subscribed) in self.topics.range((after(last), Bound::Unbounded)) {
            if work.is_over() && last.is_some() {
                return last;
            }
            work.spend(ASSIGN_WORK_PER_ITEM);
            self.hash.write(&topic.0);
            self.hash.write(&subscribed.partitions.to_be_bytes());
            last = Some(*topic);
        }
        None
    }
}

/// FNV-1a with 64 bits. It has no random key, because a hash is compared with one that was recorded before a restart.
#[derive(Debug)]
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
