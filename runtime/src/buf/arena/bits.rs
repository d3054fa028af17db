//! A set of small numbers: which buffers of a chunk are free.

/// Numbers that fit.
pub(super) const BITS: usize = 512;

const WORDS: usize = BITS / u64::BITS as usize;

/// A set of numbers below [`BITS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    /// No number.
    pub(super) const EMPTY: Self = Self([0; WORDS]);

    /// The numbers below `count`, at most [`BITS`].
    pub(super) fn below(count: usize) -> Self {
        let mut bits = Self::EMPTY;
        for (at, word) in bits.0.iter_mut().enumerate() {
            *word = match count.saturating_sub(at * 64) {
                0 => 0,
                some @ 1..64 => (1 << some) - 1,
                _ => u64::MAX,
            };
        }
        bits
    }

    /// The least number.
    pub(super) fn first(&self) -> Option<usize> {
        let at = self.0.iter().position(|word| *word != 0)?;
        Some(at * 64 + self.0[at].trailing_zeros() as usize)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    pub(super) fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(super) fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_below_a_count_are_its_members() {
        for count in [0, 1, 63, 64, 65, 128, 500, 511, BITS] {
            let bits = Bits::below(count);
            assert_eq!((bits.len(), bits.is_empty()), (count, count == 0));
            assert!((0..BITS).all(|number| bits.contains(number) == (number < count)));
        }
    }

    #[test]
    fn members_come_and_go() {
        let mut bits = Bits::EMPTY;
        assert_eq!(bits.first(), None);
        for number in [300, 64, 511, 63] {
            bits.insert(number);
        }
        for number in [63, 64, 300, 511] {
            assert_eq!(bits.first(), Some(number));
            bits.remove(number);
        }
        assert!(bits.is_empty());
    }
}
