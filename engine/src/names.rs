//! The names in a request. There may be two hundred thousand, so they are stored in one buffer: allocating and freeing a string for each would
//! take longer than a turn may.

use std::hash::Hash;

/// A list of names in one buffer.
#[derive(Default, Debug)]
pub(crate) struct Names {
    text: String,
    /// The end of each name.
    ends: Vec<u32>,
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns name `n`.
    pub(crate) fn get(&self, n: usize) -> &str {
        let begin = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin as usize..self.ends[n] as usize]
    }

    /// Returns the bytes of memory that the names use.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.text.len() + size_of_val(&self.ends[..])
    }

    pub(crate) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(u32::try_from(self.text.len()).expect("a request is smaller than 4 GiB"));
    }
}

impl<'n> FromIterator<&'n str> for Names {
    fn from_iter<I: IntoIterator<Item = &'n str>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            all.push(name);
        }
        all
    }
}

/// Up to this many items, collisions are harmless: each can be compared with all others.
const FEW: usize = 64;

/// Finds duplicates among numbered items: a hash set that stores only the numbers.
#[derive(Debug)]
pub(crate) struct Distinct {
    /// Open addressing with linear probing. Each entry is an item's number plus one, or zero.
    table: Vec<u32>,
    keys: ahash::RandomState,
}

impl Distinct {
    /// Creates a set for up to `count` items. If these are many, the hash has a random seed, so that no client can choose items that collide.
    pub(crate) fn new(count: usize, random: impl FnOnce() -> u64) -> Self {
        let places = (2 * count).next_power_of_two();
        let seed = if count > FEW { random() } else { 0 };
        Self { table: vec![0; places], keys: ahash::RandomState::with_seeds(seed, 1, 2, 3) }
    }

    /// Adds item number `n`. Returns false if an equal one was added before. `is_same` compares it with an earlier item by number.
    pub(crate) fn is_new(&mut self, n: usize, item: &impl Hash, is_same: impl Fn(usize) -> bool) -> bool {
        let mask = self.table.len() - 1;
        let mut place = self.keys.hash_one(item) as usize & mask;
        loop {
            match self.table[place] {
                0 => {
                    self.table[place] = n as u32 + 1;
                    return true;
                }
                taken if is_same(taken as usize - 1) => return false,
                _ => place = (place + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_returned_as_they_were_added_and_each_is_new_once() {
        for count in [0, 1, 2, 3, 1000] {
            let all: Vec<String> = (0..count).map(|n| "x".repeat(n % 7) + &(n / 3).to_string()).collect();
            let names: Names = all.iter().map(String::as_str).collect();
            assert_eq!(names.len(), count);
            assert!((0..count).all(|n| names.get(n) == all[n]));
            let mut distinct = Distinct::new(count, || 7);
            let mut seen = std::collections::BTreeSet::new();
            for n in 0..count {
                let is_new = distinct.is_new(n, &names.get(n), |other| names.get(other) == names.get(n));
                assert_eq!(is_new, seen.insert(names.get(n)), "{n} of {count}");
            }
        }
    }
}
