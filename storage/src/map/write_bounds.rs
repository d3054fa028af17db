//! The write bounds that a map has: see [`crate::extent`], `bound`.

use std::collections::BTreeMap;

use super::ExtentEntry;
use crate::mutants::{Mutant, is_planted};

/// The write bounds in a map, by incarnation.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct WriteBounds(BTreeMap<u64, u32>);

impl WriteBounds {
    /// Notes a bound. A snapshot may have a later one already.
    pub(crate) fn note(&mut self, incarnation: u64, position: u32) {
        let bound = self.0.entry(incarnation).or_default();
        *bound = position.max(*bound);
    }

    pub(crate) fn append(&mut self, more: &mut Self) {
        self.0.append(&mut more.0);
    }

    pub(crate) fn forget(&mut self, incarnation: u64) {
        self.0.remove(&incarnation);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.iter().map(|(incarnation, position)| (*incarnation, *position))
    }

    /// Returns the bound of an extent.
    pub(crate) fn of(&self, extent: &ExtentEntry) -> u32 {
        let known = if is_planted(Mutant::TrustStaleBound) {
            self.0.range(..extent.incarnation).next_back().map(|(_, position)| *position)
        } else {
            self.0.get(&extent.incarnation).copied()
        };
        let end = 1 << extent.log2_bytes;
        known.map_or(end, |position| position.min(end))
    }
}

impl FromIterator<(u64, u32)> for WriteBounds {
    fn from_iter<T: IntoIterator<Item = (u64, u32)>>(bounds: T) -> Self {
        Self(bounds.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_bound_of_an_incarnation_counts_and_without_one_it_is_the_end_of_the_extent() {
        let entry = |incarnation| ExtentEntry {
            slab: 0,
            at: 0,
            log2_bytes: 16,
            version: 3,
            sequence: 1,
            generation: 0,
            incarnation,
            base_index: 0,
            base_offset: 0,
            leader_epoch: 0,
            has_gaps: false,
            created_ms: 0,
            sealed: None,
        };
        let mut bounds = WriteBounds::default();
        bounds.note(4, 9000);
        bounds.note(4, 8000);
        bounds.note(6, 1 << 20);
        assert_eq!([4, 5, 6].map(|n| bounds.of(&entry(n))), [9000, 1 << 16, 1 << 16]);
        bounds.forget(4);
        assert_eq!(bounds.of(&entry(4)), 1 << 16);
    }
}
