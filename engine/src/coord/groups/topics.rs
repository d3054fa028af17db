//! The coordinator's view of topics: names, ids, partition counts, and matches of regular expressions.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicId;

use super::keyed::TopicNames;
use super::patterns::{Patterns, Unusable};

/// A small number that identifies a topic while it exists. Numbers of deleted topics are reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct TopicNumber(pub(super) u32);

/// A set of topics as a bitmap.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct TopicNumbers(Vec<u64>);

impl TopicNumbers {
    pub(super) fn insert(&mut self, TopicNumber(number): TopicNumber) {
        let word = number as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub(super) fn remove(&mut self, TopicNumber(number): TopicNumber) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    pub(super) fn contains(&self, TopicNumber(number): TopicNumber) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Returns the numbers from this one on, in ascending order.
    pub(super) fn iter_from(&self, TopicNumber(first): TopicNumber) -> impl Iterator<Item = TopicNumber> {
        let words = (0..).zip(&self.0).skip(first as usize / 64);
        let numbers = words.flat_map(|(word, bits)| {
            let is_in = move |bit: &u32| bits & 1 << bit != 0;
            (0..64).filter(is_in).map(move |bit| word * 64 + bit)
        });
        numbers.skip_while(move |number| *number < first).map(TopicNumber)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = TopicNumber> {
        self.iter_from(TopicNumber(0))
    }
}

/// All topics.
///
/// Invariant: all maps have the same topics.
#[derive(Default, Debug)]
pub(super) struct Topics {
    by_name: BTreeMap<String, TopicNumber>,
    by_id: BTreeMap<TopicId, Topic>,
    by_number: Vec<Option<TopicId>>,
    free: Vec<TopicNumber>,
    /// Increases with every change.
    version: u64,
    patterns: Patterns,
}

#[derive(Debug)]
struct Topic {
    name: String,
    partitions: u32,
    number: TopicNumber,
}

impl Topics {
    /// Adds a topic or updates its number of partitions.
    pub(super) fn insert(&mut self, id: TopicId, name: &str, partitions: u32) {
        if let Some(known) = self.by_id.get_mut(&id).filter(|known| known.name == name) {
            if known.partitions != partitions {
                known.partitions = partitions;
                self.version += 1;
            }
            return;
        }
        self.remove(id);
        if let Some(before) = self.by_name.get(name).and_then(|number| self.id_of(*number)) {
            self.remove(before);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.by_number.push(None);
            TopicNumber(self.by_number.len() as u32 - 1)
        });
        self.by_number[number.0 as usize] = Some(id);
        self.by_name.insert(name.to_owned(), number);
        self.by_id.insert(id, Topic { name: name.to_owned(), partitions, number });
        self.version += 1;
    }

    /// Removes a topic.
    pub(super) fn remove(&mut self, id: TopicId) {
        if let Some(Topic { name, number, .. }) = self.by_id.remove(&id) {
            self.by_name.remove(&name);
            self.by_number[number.0 as usize] = None;
            self.free.push(number);
            self.patterns.forget(number);
            self.version += 1;
        }
    }

    /// Returns the version of the topics, which increases with every change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).and_then(|number| self.id_of(*number))
    }

    pub(super) fn name(&self, id: TopicId) -> Option<&str> {
        self.by_id.get(&id).map(|topic| topic.name.as_str())
    }

    /// Returns a topic's number of partitions; `None` if the topic does not exist.
    pub(super) fn partitions(&self, id: TopicId) -> Option<u32> {
        self.by_id.get(&id).map(|topic| topic.partitions)
    }

    pub(super) fn id_of(&self, number: TopicNumber) -> Option<TopicId> {
        self.by_number.get(number.0 as usize).copied().flatten()
    }

    /// Returns the topics that a regular expression matches, as of [`Self::matched_version`]; `None` if it has not been matched yet.
    pub(super) fn matches(&self, regex: &str) -> Option<Result<&TopicNumbers, Unusable>> {
        self.patterns.matches(regex)
    }

    /// Returns whether a topic is among an expression's matches.
    pub(super) fn is_matched(&self, matches: &TopicNumbers, id: TopicId) -> bool {
        self.by_id.get(&id).is_some_and(|topic| matches.contains(topic.number))
    }

    /// Returns the version of the topics with which an expression has been matched; `None` if it has not been matched yet.
    pub(super) fn matched_version(&self, regex: &str) -> Option<u64> {
        self.patterns.version(regex)
    }

    /// Returns the expressions.
    pub(super) fn patterns(&mut self) -> &mut Patterns {
        &mut self.patterns
    }

    /// Continues matching expressions while there is `work` left. Returns whether more is left.
    pub(super) fn match_some(&mut self, work: &mut usize) -> bool {
        self.patterns.step(&self.by_name, self.version, work)
    }
}

impl TopicNames for Topics {
    fn name(&self, id: TopicId) -> Option<&str> {
        self.name(id)
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        self.id(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn matched(topics: &mut Topics, regex: &str) -> Vec<u8> {
        topics.patterns().want(regex);
        while topics.match_some(&mut 1_000_000) {}
        of(topics, regex)
    }

    fn of(topics: &Topics, regex: &str) -> Vec<u8> {
        let numbers = topics.matches(regex).expect("matched").expect("usable").iter();
        let mut ids: Vec<u8> = numbers.map(|n| topics.id_of(n).expect("it exists").0[0]).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_reused_number_identifies_the_new_topic_only() {
        let mut topics = Topics::default();
        topics.insert(id(1), "a", 1);
        topics.insert(id(2), "ab", 1);
        assert_eq!(matched(&mut topics, "a.*"), [1, 2]);
        topics.remove(id(1));
        topics.insert(id(3), "x", 1);
        assert_eq!(of(&topics, "a.*"), [2], "x reuses the number of a");
        topics.insert(id(4), "ab", 2);
        assert_eq!((topics.id("ab"), topics.partitions(id(2))), (Some(id(4)), None), "recreated");
        assert_eq!(matched(&mut topics, "a.*"), [4]);
        assert_eq!((topics.name(id(3)), topics.id("a")), (Some("x"), None));
    }
}
