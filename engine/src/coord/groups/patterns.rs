//! Regular expressions over topic names.
//!
//! An expression has RE2's syntax and matches a topic if it matches the whole name. It is compiled into a deterministic automaton of bounded size,
//! so matching takes time linear in the length of the name. An expression that needs a larger automaton is rejected. The matches of an expression
//! are kept; its automaton is not.
//!
//! With many topics, matching every name takes longer than a turn allows. So it is done in slices, one expression after another. Groups with the
//! same expression share its matches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use highwater_protocol::topic::is_reserved_topic_name;
use regex_automata::dfa::dense::{self, DFA};
use regex_automata::dfa::{Automaton, StartKind};
use regex_automata::nfa::thompson;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

use super::limits::{
    MATCH_WORK_PER_AUTOMATON_BYTE, MATCH_WORK_PER_NAME, REGEX_BYTES_MAX, REGEX_COMPILED_BYTES_MAX,
    REGEX_COMPILING_BYTES_MAX, REGEXES_MAX, WORK_PER_TURN_MAX,
};
use super::topics::{TopicNumber, TopicNumbers};

/// The expression is invalid, or its automaton would be too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unusable;

/// The matched expressions, and the queue of expressions to match.
#[derive(Default, Debug)]
pub(super) struct Patterns {
    known: BTreeMap<String, Pattern>,
    /// Expressions to match. `matching` belongs to the first one.
    queue: VecDeque<String>,
    matching: Option<Matching>,
}

#[derive(Debug)]
struct Pattern {
    matches: Result<TopicNumbers, Unusable>,
    /// The version of the topics with which it was matched.
    version: u64,
}

/// The expression that is being matched.
#[derive(Debug)]
struct Matching {
    automaton: DFA<Vec<u32>>,
    matches: TopicNumbers,
    /// The version of the topics when matching began.
    version: u64,
    /// The last name that was compared.
    after: Option<String>,
}

impl Patterns {
    /// Returns the topics that an expression matches; `None` if it has not been matched yet.
    pub(super) fn matches(&self, regex: &str) -> Option<Result<&TopicNumbers, Unusable>> {
        self.known.get(regex).map(|pattern| pattern.matches.as_ref().map_err(|unusable| *unusable))
    }

    /// Returns the version of the topics with which an expression was matched; `u64::MAX` for an unusable expression, which stays unusable.
    pub(super) fn version(&self, regex: &str) -> Option<u64> {
        self.known.get(regex).map(|p| if p.matches.is_err() { u64::MAX } else { p.version })
    }

    /// Queues an expression to be matched again, unless it is queued already. Returns false if there are too many.
    pub(super) fn want(&mut self, regex: &str) -> bool {
        if self.queue.iter().skip(usize::from(self.matching.is_some())).any(|waiting| waiting == regex) {
            return true;
        }
        if !self.known.contains_key(regex) && self.known.len() + self.queue.len() >= REGEXES_MAX {
            return false;
        }
        self.queue.push_back(regex.to_owned());
        true
    }

    /// Drops the expressions that are not among these.
    pub(super) fn retain(&mut self, used: &BTreeSet<&str>) {
        self.known.retain(|regex, _| used.contains(regex.as_str()));
    }

    /// Removes a deleted topic from all matches.
    pub(super) fn forget(&mut self, topic: TopicNumber) {
        for pattern in self.known.values_mut() {
            if let Ok(matches) = &mut pattern.matches {
                matches.remove(topic);
            }
        }
        if let Some(matching) = &mut self.matching {
            matching.matches.remove(topic);
        }
    }

    /// Continues matching while there is `work` left. Returns whether more is left.
    pub(super) fn step(
        &mut self,
        names: &BTreeMap<String, TopicNumber>,
        version: u64,
        work: &mut usize,
    ) -> bool {
        while *work > 0
            && let Some(regex) = self.queue.front()
        {
            let mut matching = match self.matching.take() {
                Some(matching) => matching,
                None => match compile(regex) {
                    Ok(automaton) => {
                        let cost = automaton.memory_usage().saturating_mul(MATCH_WORK_PER_AUTOMATON_BYTE);
                        *work = work.saturating_sub(cost);
                        Matching { automaton, matches: TopicNumbers::default(), version, after: None }
                    }
                    Err(unusable) => {
                        *work = work.saturating_sub(WORK_PER_TURN_MAX);
                        self.finish(Err(unusable), version);
                        continue;
                    }
                },
            };
            if matching.step(names, work) {
                self.finish(Ok(matching.matches), matching.version);
            } else {
                self.matching = Some(matching);
            }
        }
        !self.queue.is_empty()
    }

    fn finish(&mut self, matches: Result<TopicNumbers, Unusable>, version: u64) {
        let Some(regex) = self.queue.pop_front() else { return };
        self.known.insert(regex, Pattern { matches, version });
    }
}

impl Matching {
    /// Matches more names while there is `work` left. Returns whether all names have been matched.
    fn step(&mut self, names: &BTreeMap<String, TopicNumber>, work: &mut usize) -> bool {
        let from = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (name, number) in names.range::<str, _>((from, Bound::Unbounded)) {
            if *work == 0 {
                return false;
            }
            *work = work.saturating_sub(MATCH_WORK_PER_NAME + name.len());
            // Expressions never match internal topics, which are read only by name: ".*" is not meant to include them.
            if !is_reserved_topic_name(name) && is_match(&self.automaton, name) {
                self.matches.insert(*number);
            }
            if *work == 0 {
                self.after = Some(name.clone());
            }
        }
        true
    }
}

/// Compiles an expression into an automaton that matches whole names.
fn compile(regex: &str) -> Result<DFA<Vec<u32>>, Unusable> {
    if regex.len() > REGEX_BYTES_MAX {
        return Err(Unusable);
    }
    // Names are ASCII, so an expression means the same without Unicode classes, and its automaton is far smaller. Only an expression that names a
    // Unicode class needs them.
    build(regex, false).or_else(|_| build(regex, true))
}

fn build(regex: &str, unicode: bool) -> Result<DFA<Vec<u32>>, Unusable> {
    let config = syntax::Config::new().unicode(unicode).utf8(false);
    // Parsed alone first, because an unbalanced parenthesis could close the group that is put around the expression.
    syntax::parse_with(regex, &config).map_err(|_| Unusable)?;
    dense::Builder::new()
        .syntax(config)
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(REGEX_COMPILING_BYTES_MAX)))
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::All)
                .dfa_size_limit(Some(REGEX_COMPILED_BYTES_MAX))
                .determinize_size_limit(Some(REGEX_COMPILING_BYTES_MAX)),
        )
        .build(&format!(r"\A(?:{regex})\z"))
        .map_err(|_| Unusable)
}

fn is_match(automaton: &DFA<Vec<u32>>, name: &str) -> bool {
    let Ok(mut state) = automaton.start_state(&start::Config::new().anchored(Anchored::Yes)) else {
        return false;
    };
    for byte in name.bytes() {
        state = automaton.next_state(state, byte);
        if automaton.is_dead_state(state) {
            return false;
        }
    }
    automaton.is_match_state(automaton.next_eoi_state(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(regex: &str, name: &str) -> Result<bool, Unusable> {
        compile(regex).map(|automaton| is_match(&automaton, name))
    }

    #[test]
    fn whole_names_are_matched() {
        for (regex, yes, no) in [
            ("orders", "orders", "orders-eu"),
            ("orders.*", "orders-eu", "my-orders"),
            ("a|bc", "bc", "abc"),
            (r"^\w+\.v\d$", "orders_1.v2", "orders.v22"),
            (r"(?i)team-(?:alpha|beta)", "TEAM-Beta", "team-"),
            (r"\p{Lu}\p{Ll}+", "Orders", "orders"),
            (r".*\bx\b.*", "a.x-b", "a_x-b"),
            (r"[^.]*", "abc", "a.c"),
            ("", "", "a"),
        ] {
            assert_eq!(matches(regex, yes), Ok(true), "{regex} {yes}");
            assert_eq!(matches(regex, no), Ok(false), "{regex} {no}");
        }
    }

    #[test]
    fn expressions_that_need_a_large_automaton_are_rejected() {
        for regex in ["[ab]*a[ab]{20}", "([ab]*a[ab]{100}|[ab]*b[ab]{99})", "(((a{100}){100}){100})"] {
            assert_eq!(compile(regex).err(), Some(Unusable), "{regex}");
        }
        let names: Vec<String> = (0..60).map(|n| format!("region-{n}.orders")).collect();
        assert_eq!(matches(&names.join("|"), "region-59.orders"), Ok(true), "many names fit");
    }

    #[test]
    fn matching_in_slices_finds_all_matches() {
        let names: BTreeMap<String, TopicNumber> =
            (0..5_000).map(|n| (format!("t{n}"), TopicNumber(n))).collect();
        let mut patterns = Patterns::default();
        assert!(patterns.want("t.*7") && patterns.want("t.*7") && patterns.want("t1"));
        let (mut slices, mut more) = (0, true);
        while more {
            more = patterns.step(&names, 1, &mut 1_000);
            slices += 1;
        }
        assert!(slices > 50, "{slices}");
        let found = patterns.matches("t.*7").expect("matched").expect("usable");
        assert_eq!(found.iter().count(), 500);
        assert_eq!(patterns.matches("t1").expect("matched").expect("usable").iter().count(), 1);
        assert_eq!(patterns.version("t1"), Some(1));
    }

    #[test]
    fn no_expression_matches_an_internal_topic() {
        let names = ["__consumer_offsets", "__mine"].map(str::to_owned);
        let names: BTreeMap<String, TopicNumber> = names.into_iter().zip((0..).map(TopicNumber)).collect();
        let mut patterns = Patterns::default();
        assert!(patterns.want(".*"));
        while patterns.step(&names, 1, &mut { WORK_PER_TURN_MAX }) {}
        let found = patterns.matches(".*").expect("matched").expect("usable");
        assert!(found.iter().eq([TopicNumber(1)]));
    }

    #[test]
    fn the_number_of_expressions_is_limited() {
        let mut patterns = Patterns::default();
        for n in 0..REGEXES_MAX {
            assert!(patterns.want(&format!("x{n}")));
        }
        assert!(!patterns.want("y"), "one too many");
        while patterns.step(&BTreeMap::new(), 1, &mut { WORK_PER_TURN_MAX }) {}
        assert!(!patterns.want("y") && patterns.want("x1"));
        patterns.retain(&BTreeSet::from(["x1"]));
        assert!(patterns.want("y"));
        assert!(patterns.matches("x2").is_none());
    }
}
