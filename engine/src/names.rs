//! Names that a request gives. There may be two hundred thousand, so that they are kept together: making and dropping a string for each of
//! them would take longer than a turn may.

use std::hash::Hash;

/// Names, one after the other in one piece of memory.
#[derive(Default, Debug)]
pub(crate) struct Names {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A name, by its number.
    pub(crate) fn get(&self, n: usize) -> &str {
        let begin = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin as usize..self.ends[n] as usize]
    }

    /// Returns the bytes of memory that they take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.text.len() + size_of_val(&self.ends[..])
    }

    pub(crate) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(u32::try_from(self.text.len()).expect("a request is not so large"));
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

/// Things that can all be compared with each other.
const FEW: usize = 64;

/// The things that have come up so far, by their numbers: each is told of once.
#[derive(Debug)]
pub(crate) struct Distinct {
    /// Numbers plus one, at the first free place from that of their hash on.
    table: Vec<u32>,
    keys: ahash::RandomState,
}

impl Distinct {
    /// For so many things. If these are many, their places depend on a number that no client knows: nobody can choose things that all
    /// have the same place.
    pub(crate) fn new(count: usize, random: impl FnOnce() -> u64) -> Self {
        let places = (2 * count).next_power_of_two();
        let seed = if count > FEW { random() } else { 0 };
        Self { table: vec![0; places], keys: ahash::RandomState::with_seeds(seed, 1, 2, 3) }
    }

    /// Whether nothing equal to `thing` has come up, which has the number `n`. There are no more of them than was announced.
    pub(crate) fn is_new(&mut self, n: usize, thing: &impl Hash, is_same: impl Fn(usize) -> bool) -> bool {
        let mask = self.table.len() - 1;
        let mut place = self.keys.hash_one(thing) as usize & mask;
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
    fn names_are_what_was_put_in_and_each_is_new_once() {
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
