//! Checker of a log: records what was sent and acknowledged, and finds lost, duplicated, misplaced and reordered records.

use std::collections::BTreeMap;

/// Partition and offset of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Position {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
}

/// The records sent. Each record carries its number.
#[derive(Default)]
pub(crate) struct Checker {
    /// The acknowledged position of each record, if any, by number.
    sent: BTreeMap<u64, Option<Position>>,
    /// Number of acknowledged records.
    acknowledgements: usize,
}

/// Violations found, one line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations(pub(crate) Vec<String>);

impl Checker {
    pub(crate) fn sent(&mut self, number: u64) {
        let previous = self.sent.insert(number, None);
        assert!(previous.is_none(), "record {number} was sent twice by the test");
    }

    pub(crate) fn acknowledged(&mut self, number: u64, at: Position) {
        let record = self.sent.get_mut(&number).expect("only sent records are acknowledged");
        assert!(record.is_none(), "record {number} was acknowledged twice: {record:?} and {at:?}");
        *record = Some(at);
        self.acknowledgements += 1;
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.acknowledgements
    }

    /// Returns the records that were acknowledged, with their positions. Panics if any was not.
    pub(crate) fn into_acknowledged(self) -> Vec<(u64, Position)> {
        let sent = self.sent.into_iter();
        sent.map(|(number, at)| (number, at.unwrap_or_else(|| panic!("record {number} is not acknowledged"))))
            .collect()
    }

    /// Compares the records read, given as positions and numbers, with those sent and acknowledged.
    pub(crate) fn check(&self, read: &[(Position, u64)]) -> Violations {
        let mut violations = Vec::new();
        let mut found: BTreeMap<u64, Position> = BTreeMap::new();
        let mut next: BTreeMap<u32, i64> = BTreeMap::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (at, number) in read {
            let expected = next.entry(at.partition).or_insert(0);
            if at.offset != *expected {
                violations
                    .push(format!("partition {}: offset {} instead of {expected}", at.partition, at.offset));
            }
            *expected = at.offset + 1;
            if !self.sent.contains_key(number) {
                violations.push(format!("record {number} at {at:?} was never sent"));
            }
            if let Some(first) = found.insert(*number, *at) {
                violations.push(format!("record {number} was read twice: at {first:?} and {at:?}"));
            }
            if let Some(before) = last.insert(at.partition, *number)
                && before > *number
            {
                violations.push(format!("partition {}: record {number} after {before}", at.partition));
            }
        }
        for (number, acked) in self.sent.iter().filter_map(|(number, at)| at.map(|at| (number, at))) {
            match found.get(number) {
                None => violations.push(format!("record {number}, acknowledged at {acked:?}, is lost")),
                Some(at) if *at != acked => {
                    violations.push(format!("record {number}, acknowledged at {acked:?}, is at {at:?}"));
                }
                Some(_) => {}
            }
        }
        Violations(violations)
    }
}

impl Violations {
    pub(crate) fn assert_none(&self) {
        let shown: Vec<&str> = self.0.iter().take(20).map(String::as_str).collect();
        assert!(self.0.is_empty(), "{} violations:\n{}", self.0.len(), shown.join("\n"));
    }
}

fn at(partition: u32, offset: i64) -> Position {
    Position { partition, offset }
}

#[test]
fn the_checker_finds_each_kind_of_violation() {
    let mut checker = Checker::default();
    for number in 0..4 {
        checker.sent(number);
    }
    checker.acknowledged(0, at(0, 0));
    checker.acknowledged(1, at(0, 1));
    let good = [(at(0, 0), 0), (at(0, 1), 1), (at(1, 0), 2)];
    assert_eq!(checker.check(&good), Violations::default());
    for (read, word) in [
        (&good[..1], "is lost"),
        (&[(at(0, 0), 0), (at(0, 1), 2), (at(0, 2), 1)], "is at"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 1)], "twice"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 3), 2)], "instead of"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 9)], "never sent"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 3), (at(0, 3), 2)], "after"),
    ] {
        let violations = checker.check(read);
        assert!(violations.0.iter().any(|line| line.contains(word)), "{word}: {violations:?}");
    }
}
