//! Remembers every record that was sent and every acknowledgement, and finds what a broker made of them.

use std::collections::BTreeMap;

/// Where the broker said a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct At {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
}

/// What was sent: records are numbered, and each carries its number.
#[derive(Default)]
pub(crate) struct Checker {
    /// By number: acknowledged where, if it was.
    sent: BTreeMap<u64, Option<At>>,
    /// How many of them were acknowledged.
    acknowledgements: usize,
}

/// What was found wrong, one line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict(pub(crate) Vec<String>);

impl Checker {
    pub(crate) fn sent(&mut self, number: u64) {
        let twice = self.sent.insert(number, None);
        assert!(twice.is_none(), "the test numbers its records");
    }

    pub(crate) fn acknowledged(&mut self, number: u64, at: At) {
        let record = self.sent.get_mut(&number).expect("only what was sent is acknowledged");
        assert!(record.is_none(), "record {number} was acknowledged twice: {record:?} and {at:?}");
        *record = Some(at);
        self.acknowledgements += 1;
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.acknowledgements
    }

    /// Compares with everything that was read: where, and which number.
    pub(crate) fn judge(&self, read: &[(At, u64)]) -> Verdict {
        let mut wrong = Vec::new();
        let mut found: BTreeMap<u64, At> = BTreeMap::new();
        let mut next: BTreeMap<u32, i64> = BTreeMap::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (at, number) in read {
            let expected = next.entry(at.partition).or_insert(0);
            if at.offset != *expected {
                wrong.push(format!(
                    "partition {}: offset {} where {expected} was due",
                    at.partition, at.offset
                ));
            }
            *expected = at.offset + 1;
            if !self.sent.contains_key(number) {
                wrong.push(format!("record {number} at {at:?} was never sent"));
            }
            if let Some(first) = found.insert(*number, *at) {
                wrong.push(format!("record {number} is there twice: {first:?} and {at:?}"));
            }
            if let Some(before) = last.insert(at.partition, *number)
                && before > *number
            {
                wrong.push(format!("partition {}: record {number} behind {before}", at.partition));
            }
        }
        for (number, said) in self.sent.iter().filter_map(|(number, at)| at.map(|at| (number, at))) {
            match found.get(number) {
                None => wrong.push(format!("record {number}, acknowledged at {said:?}, is lost")),
                Some(at) if *at != said => {
                    wrong.push(format!("record {number}, acknowledged at {said:?}, is at {at:?}"));
                }
                Some(_) => {}
            }
        }
        Verdict(wrong)
    }
}

impl Verdict {
    pub(crate) fn assert_clean(&self) {
        let shown: Vec<&str> = self.0.iter().take(20).map(String::as_str).collect();
        assert!(self.0.is_empty(), "{} violations:\n{}", self.0.len(), shown.join("\n"));
    }
}

fn at(partition: u32, offset: i64) -> At {
    At { partition, offset }
}

/// A checker that finds nothing proves nothing: each kind of wrong is found.
#[test]
fn the_checker_finds_each_kind_of_wrong() {
    let mut checker = Checker::default();
    for number in 0..4 {
        checker.sent(number);
    }
    checker.acknowledged(0, at(0, 0));
    checker.acknowledged(1, at(0, 1));
    let good = [(at(0, 0), 0), (at(0, 1), 1), (at(1, 0), 2)];
    assert_eq!(checker.judge(&good), Verdict::default());
    for (read, word) in [
        (&good[..1], "is lost"),
        (&[(at(0, 0), 0), (at(0, 1), 2), (at(0, 2), 1)], "is at"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 1)], "twice"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 3), 2)], "was due"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 9)], "never sent"),
        (&[(at(0, 0), 0), (at(0, 1), 1), (at(0, 2), 3), (at(0, 3), 2)], "behind"),
    ] {
        let verdict = checker.judge(read);
        assert!(verdict.0.iter().any(|line| line.contains(word)), "{word}: {verdict:?}");
    }
}
