//! The last offset of each key in a section of a log.

use std::fmt;

use highwater_protocol::ids::Offset;
use siphasher::sip128::SipHasher24;

use crate::mac::MacKey;
use crate::mutants::{Mutant, is_planted};

/// Memory of the index per slot, in bytes. At most three quarters of the slots are used.
pub const KEY_BYTES: usize = size_of::<Slot>();

/// Fewest slots of an index.
const SLOTS_MIN: usize = 16;

/// Hash of a key in two halves, and its last offset plus one. All zero: free.
type Slot = [u64; 3];

const FREE: Slot = [0; 3];

/// An index from keys to the offsets of their last records, in bounded memory.
///
/// It stores hashes of keys: 128 bits of SipHash-2-4 under a secret of the store. Two keys with the same hash would lose the records of one; that is
/// as unlikely as guessing the secret, and a client that does not know it cannot search for such keys.
///
/// The table is allocated once and never grows, so no turn has to move it.
pub struct KeyIndex {
    hasher: SipHasher24,
    slots: Vec<Slot>,
    used: usize,
    end: Offset,
}

/// The index has no room for another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the key index is full")]
pub struct Full;

impl KeyIndex {
    /// Creates an index of the log from `start` on, for up to `keys` different keys as far as they fit `bytes_max` bytes.
    pub fn new(key: MacKey, start: Offset, keys: u64, bytes_max: usize) -> Self {
        let wanted = keys.saturating_mul(4).div_ceil(3).saturating_add(1);
        let slots = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes_max / KEY_BYTES).max(SLOTS_MIN);
        let hasher = SipHasher24::new_with_key(&key.for_key_index());
        // Zeroed memory, which the system provides page by page as it is written.
        Self { hasher, slots: vec![FREE; slots], used: 0, end: start }
    }

    /// Returns the offset up to which every record has been noted. [`Cleaner`](super::Cleaner) leaves batches at or above it alone.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Returns the number of keys.
    pub fn keys(&self) -> usize {
        self.used
    }

    /// Returns the memory of the index, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * KEY_BYTES
    }

    /// Returns the offset of the last record noted with this key.
    pub fn last(&self, key: &[u8]) -> Option<Offset> {
        let (_, [.., last]) = self.find(self.hash(key));
        last.checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// Notes a record with this key at this offset.
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let hash = self.hash(key);
        let (at, slot) = self.find(hash);
        let last = offset.0 as u64 + 1;
        if slot == FREE {
            if self.used >= self.keys_max() {
                return Err(Full);
            }
            self.used += 1;
        }
        let last =
            if slot != FREE && is_planted(Mutant::KeepFirstRecord) { slot[2] } else { last.max(slot[2]) };
        self.slots[at] = [hash[0], hash[1], last];
        Ok(())
    }

    /// Declares that all records below `end` have been noted.
    pub(super) fn advance(&mut self, end: Offset) {
        assert!(end >= self.end, "a log is noted in order");
        self.end = end;
    }

    fn keys_max(&self) -> usize {
        self.slots.len() * 3 / 4
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = self.hasher.hash(key);
        if is_planted(Mutant::CollideKeys) { [hash.h1 >> 60, 1] } else { [hash.h1, hash.h2] }
    }

    /// Returns the slot with this hash, or the free one where it belongs.
    fn find(&self, hash: [u64; 2]) -> (usize, Slot) {
        let slots = self.slots.len();
        let mut at = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        loop {
            let slot = self.slots[at];
            if slot == FREE || (slot[0], slot[1]) == (hash[0], hash[1]) {
                return (at, slot);
            }
            at += 1;
            if at == slots {
                at = 0;
            }
        }
    }
}

impl fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIndex").field("keys", &self.used).field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn index(keys: u64, bytes_max: usize) -> KeyIndex {
        KeyIndex::new(MacKey([7; 16]), Offset(0), keys, bytes_max)
    }

    #[test]
    fn an_index_knows_the_last_offset_of_every_key_until_it_is_full() {
        let mut index = index(u64::MAX, 1000 * KEY_BYTES);
        assert_eq!((index.memory_bytes(), index.keys_max()), (1000 * KEY_BYTES, 750));
        let mut model = HashMap::new();
        for n in 0..3000_i64 {
            let key = (n % 750).to_be_bytes();
            assert_eq!(index.note(&key, Offset(n)), Ok(()));
            model.insert(key, Offset(n));
        }
        assert_eq!(index.note(b"one more", Offset(3000)), Err(Full));
        assert_eq!(index.note(&5_i64.to_be_bytes(), Offset(3001)), Ok(()), "the key is there already");
        model.insert(5_i64.to_be_bytes(), Offset(3001));
        for (key, last) in &model {
            assert_eq!(index.last(key), Some(*last));
        }
        assert_eq!((index.last(b"one more"), index.keys()), (None, 750));
    }

    #[test]
    fn the_first_offset_and_the_empty_key_are_like_any_other() {
        let mut index = index(1, 1 << 20);
        index.note(b"", Offset(0)).expect("there is room");
        assert_eq!((index.last(b""), index.last(b"\0")), (Some(Offset(0)), None));
    }

    #[test]
    fn an_index_takes_no_more_memory_than_the_keys_need() {
        for keys in [0, 1, 11, 12, 13, 100, 10_000] {
            let index = index(keys, usize::MAX);
            assert!(index.keys_max() as u64 >= keys, "{keys}");
            assert!(index.memory_bytes() <= (keys as usize * 2 + SLOTS_MIN) * KEY_BYTES, "{keys}");
        }
    }
}
