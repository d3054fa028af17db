//! Compares the records read with those acknowledged.

use super::records;

/// The comparison, record by record.
pub(super) struct Check {
    /// Partition and offset of each acknowledged record, by record number.
    acknowledged: Vec<(u32, i64)>,
    /// Whether each record was read, by record number.
    seen: Vec<bool>,
    records_read: u64,
    findings: Findings,
}

/// Result of the comparison, as counts of records.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Findings {
    pub(super) acknowledged: u64,
    /// Acknowledged but not read.
    pub(super) lost: u64,
    /// Read more than once.
    pub(super) duplicated: u64,
    /// Read with a different key, value, partition or offset.
    pub(super) changed: u64,
}

impl Findings {
    pub(super) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.changed == 0
    }
}

impl Check {
    pub(super) fn new(acknowledged: Vec<(u32, i64)>) -> Self {
        let findings = Findings { acknowledged: acknowledged.len() as u64, ..Findings::default() };
        Self { seen: vec![false; acknowledged.len()], acknowledged, records_read: 0, findings }
    }

    /// Adds a record that was read. Partitions are read in offset order, so comparing offsets also checks the order of records.
    pub(super) fn add(&mut self, partition: u32, offset: i64, key: Option<&[u8]>, value: &[u8]) {
        self.records_read += 1;
        let number = records::number(value).filter(|n| (*n as usize) < self.acknowledged.len());
        let Some(n) = number else {
            self.findings.changed += 1;
            return;
        };
        let index = n as usize;
        if std::mem::replace(&mut self.seen[index], true) {
            self.findings.duplicated += 1;
            return;
        }
        let is_as_sent = key == Some(records::key(n).as_bytes()) && value == records::value(n).as_bytes();
        if !is_as_sent || self.acknowledged[index] != (partition, offset) {
            self.findings.changed += 1;
        }
    }

    pub(super) fn records_read(&self) -> u64 {
        self.records_read
    }

    pub(super) fn findings(&self) -> Findings {
        let lost = self.seen.iter().filter(|seen| !**seen).count() as u64;
        Findings { lost, ..self.findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: &[(u32, i64, u64, &str)]) -> Findings {
        let mut check = Check::new(vec![(0, 0), (1, 0), (0, 1)]);
        for (partition, offset, n, suffix) in read {
            let value = records::value(*n) + suffix;
            check.add(*partition, *offset, Some(records::key(*n).as_bytes()), value.as_bytes());
        }
        check.findings()
    }

    #[test]
    fn lost_duplicated_misplaced_changed_and_unknown_records_are_found() {
        let clean = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, "")]);
        assert!(clean.is_clean() && clean.acknowledged == 3, "{clean:?}");
        let lost = check(&[(0, 0, 0, ""), (0, 1, 2, "")]);
        assert_eq!((lost.lost, lost.is_clean()), (1, false));
        let duplicated = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, ""), (0, 2, 2, "")]);
        assert_eq!((duplicated.duplicated, duplicated.is_clean()), (1, false));
        let swapped = check(&[(0, 1, 0, ""), (1, 0, 1, ""), (0, 0, 2, "")]);
        assert_eq!((swapped.changed, swapped.is_clean()), (2, false));
        let changed = check(&[(0, 0, 0, "!"), (1, 0, 1, ""), (0, 1, 2, "")]);
        assert_eq!((changed.changed, changed.is_clean()), (1, false));
        let unknown = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, ""), (0, 2, 77, "")]);
        assert_eq!((unknown.changed, unknown.is_clean()), (1, false));
    }
}
