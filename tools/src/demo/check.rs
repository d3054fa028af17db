//! What was read, compared with what was acknowledged.

use super::records;

/// The comparison, record by record.
pub(super) struct Check {
    /// Where each record was acknowledged, by its number.
    places: Vec<(u32, i64)>,
    seen: Vec<bool>,
    read: u64,
    findings: Findings,
}

/// What is wrong, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Findings {
    pub(super) acknowledged: u64,
    /// Acknowledged and not there.
    pub(super) lost: u64,
    /// There more than once.
    pub(super) duplicated: u64,
    /// Another key or value than was sent, or another partition or offset than was acknowledged.
    pub(super) changed: u64,
}

impl Findings {
    pub(super) fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.changed == 0
    }
}

impl Check {
    pub(super) fn new(places: Vec<(u32, i64)>) -> Self {
        let findings = Findings { acknowledged: places.len() as u64, ..Findings::default() };
        Self { seen: vec![false; places.len()], places, read: 0, findings }
    }

    /// A record was read. Within a partition they come in the order of their offsets, so whoever is at its offset is in its order.
    pub(super) fn note(&mut self, partition: u32, offset: i64, key: Option<&[u8]>, value: &[u8]) {
        self.read += 1;
        let number = records::number(value).filter(|n| (*n as usize) < self.places.len());
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
        if !is_as_sent || self.places[index] != (partition, offset) {
            self.findings.changed += 1;
        }
    }

    pub(super) fn read(&self) -> u64 {
        self.read
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
            check.note(*partition, *offset, Some(records::key(*n).as_bytes()), value.as_bytes());
        }
        check.findings()
    }

    #[test]
    fn everything_at_its_place_is_good_and_nothing_else() {
        let good = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, "")]);
        assert!(good.is_good() && good.acknowledged == 3, "{good:?}");
        let lost = check(&[(0, 0, 0, ""), (0, 1, 2, "")]);
        assert_eq!((lost.lost, lost.is_good()), (1, false));
        let twice = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, ""), (0, 2, 2, "")]);
        assert_eq!((twice.duplicated, twice.is_good()), (1, false));
        let swapped = check(&[(0, 1, 0, ""), (1, 0, 1, ""), (0, 0, 2, "")]);
        assert_eq!((swapped.changed, swapped.is_good()), (2, false));
        let changed = check(&[(0, 0, 0, "!"), (1, 0, 1, ""), (0, 1, 2, "")]);
        assert_eq!((changed.changed, changed.is_good()), (1, false));
        let strange = check(&[(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 2, ""), (0, 2, 77, "")]);
        assert_eq!((strange.changed, strange.is_good()), (1, false));
    }
}
