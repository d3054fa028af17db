//! A sorted map that is cheap to copy and to change: a copy shares everything with the original until one of them changes.

use std::ops::RangeInclusive;
use std::sync::Arc;

/// Maximum number of entries in a chunk. A change copies one chunk, if it is shared.
const CHUNK_ENTRIES_MAX: usize = 256;

/// See the [module](self). Invariant: no chunk is empty, and the keys rise through all chunks.
#[derive(Clone, Debug)]
pub(super) struct ChunkedMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

type Chunk<K, V> = Arc<Vec<(K, V)>>;

impl<K, V> Default for ChunkedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: Ord + Copy, V: Clone> ChunkedMap<K, V> {
    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(&chunk[at].1)
    }

    /// Adds an entry, or replaces the one with this key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let number = self.chunk_of(key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(number) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => chunk[at].1 = value,
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
            }
        }
        if chunk.len() > CHUNK_ENTRIES_MAX {
            let rest = chunk.split_off(CHUNK_ENTRIES_MAX / 2);
            chunks.insert(number + 1, Arc::new(rest));
        }
    }

    /// Removes the entries with these keys. Returns whether there were any.
    pub(super) fn remove_range(&mut self, keys: &RangeInclusive<K>) -> bool {
        let first = self.chunk_of(*keys.start());
        let is_in = |(key, _): &(K, V)| keys.contains(key);
        let last =
            self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(key, _)| key <= keys.end()));
        let has_any = |chunk: &Chunk<K, V>| chunk.iter().any(is_in);
        if first >= last || !self.chunks[first..last].iter().any(has_any) {
            return false;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        for chunk in &mut chunks[first..last] {
            let before = chunk.len();
            // Nothing of a chunk that goes as a whole is copied.
            if chunk.iter().all(is_in) {
                *chunk = Arc::default();
            } else if has_any(chunk) {
                Arc::make_mut(chunk).retain(|entry| !is_in(entry));
            }
            self.len -= before - chunk.len();
        }
        chunks.retain(|chunk| !chunk.is_empty());
        true
    }

    /// Returns the number of the chunk that has this key, or would.
    fn chunk_of(&self, key: K) -> usize {
        let later =
            self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| *first <= key));
        later.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(map: &ChunkedMap<u32, u32>, expected: &BTreeMap<u32, u32>) {
        let entries: Vec<_> = map.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        assert!(entries.into_iter().eq(expected.iter().map(|(key, value)| (*key, *value))));
        assert!(map.chunks.iter().all(|chunk| (1..=CHUNK_ENTRIES_MAX).contains(&chunk.len())));
        assert_eq!(map.len(), expected.len());
    }

    #[test]
    fn it_has_what_was_inserted_last_and_not_removed() {
        let (mut map, mut expected) = (ChunkedMap::default(), BTreeMap::new());
        for step in 0..20_000_u32 {
            let key = step.wrapping_mul(7919) % 3001;
            if step % 1000 == 999 {
                let keys = key..=key + step % 900;
                let any = expected.range(keys.clone()).next().is_some();
                assert_eq!(map.remove_range(&keys), any);
                expected.retain(|key, _| !keys.contains(key));
            } else {
                map.insert(key, step);
                expected.insert(key, step);
            }
            if step % 500 == 499 || step % 1000 == 0 {
                check(&map, &expected);
            }
            assert_eq!(map.get(key), expected.get(&key));
        }
        assert_eq!(map.get(3001), None);
        assert!(map.remove_range(&(0..=u32::MAX)) && !map.remove_range(&(0..=u32::MAX)));
        check(&map, &BTreeMap::new());
    }

    #[test]
    fn a_change_copies_one_chunk_and_is_not_visible_in_earlier_copies() {
        let mut map = ChunkedMap::default();
        for key in 0..20_000_u32 {
            map.insert(key, 0);
        }
        let before = map.clone();
        map.insert(300, 1);
        assert_eq!((before.get(300), map.get(300)), (Some(&0), Some(&1)));
        let pairs = before.chunks.iter().zip(map.chunks.iter());
        assert_eq!(pairs.filter(|(before, now)| !Arc::ptr_eq(before, now)).count(), 1);
    }
}
