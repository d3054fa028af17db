//! A slab: values in numbered entries that are reused with a new generation, so that an old key never refers to a new value.

/// Identifies a value in a [`Slab`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Key {
    /// Number of the entry.
    pub index: u32,
    /// Generation: how often the entry was used before.
    pub generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// A vector with free entries that are reused.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    generation_mask: u32,
}

impl<T> Slab<T> {
    /// Creates an empty slab. Generations wrap at this mask, which has as many bits as the caller can store.
    pub const fn new(generation_mask: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), generation_mask }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of entries, used and free: every index is lower.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the key of the value in an entry. For iterating while the slab changes.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        let entry = self.entries.get(index)?;
        entry.value.as_ref().map(|_| Key { index: index as u32, generation: entry.generation })
    }

    /// Iterates over the values by entry.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| entry.value.as_ref())
    }

    /// Returns the key that the next [`insert`](Self::insert) returns.
    pub fn next_key(&self) -> Key {
        match self.free.last() {
            Some(index) => Key { index: *index, generation: self.entries[*index as usize].generation },
            None => Key { index: self.entries.len() as u32, generation: 0 },
        }
    }

    /// Returns a key that refers to no value, now or later (until its generation comes round again).
    pub fn unused_key(&mut self) -> Key {
        let key = self.next_key();
        if self.free.is_empty() {
            self.free.push(key.index);
            self.entries.push(Entry { generation: 0, value: None });
        }
        let entry = &mut self.entries[key.index as usize];
        entry.generation = entry.generation.wrapping_add(1) & self.generation_mask;
        key
    }

    /// Stores a value in a free entry.
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            debug_assert!(entry.value.is_none());
            entry.value = Some(value);
            return Key { index, generation: entry.generation };
        }
        let index = u32::try_from(self.entries.len()).expect("far fewer than 2^32 entries");
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    /// Returns the value with this key, if it still exists.
    pub fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// Returns the value with this key for modification, if it still exists.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Removes the value with this key, if it still exists. The entry is reused with another key.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1) & self.generation_mask;
        self.free.push(key.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_reused_but_its_old_key_finds_nothing() {
        let mut slab = Slab::new(u32::MAX);
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        let next = slab.next_key();
        let c = slab.insert("c");
        assert_eq!((c.index, c), (a.index, next));
        assert_eq!((slab.key_at(0), slab.key_at(1), slab.key_at(2)), (Some(c), Some(b), None));
        assert_eq!((slab.entry_count(), slab.values().copied().collect::<Vec<_>>()), (2, vec!["c", "b"]));
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&"b"), Some(&"c")));
        assert_eq!(slab.len(), 2);
        assert!(slab.get_mut(a).is_none());
    }

    #[test]
    fn an_unused_key_never_finds_a_value() {
        let mut slab = Slab::new(u32::MAX);
        let first = slab.unused_key();
        let a = slab.insert("a");
        slab.remove(a);
        let second = slab.unused_key();
        let b = slab.insert("b");
        assert_eq!((slab.get(first), slab.get(second), slab.get(b)), (None, None, Some(&"b")));
        assert_eq!((slab.len(), slab.entry_count()), (1, 1));
        assert!(![first, second, a].contains(&b) && first != second);
    }

    #[test]
    fn generations_stay_within_their_mask() {
        let mut slab = Slab::new(1);
        for _ in 0..5 {
            let key = slab.insert(());
            assert!(key.generation <= 1);
            slab.remove(key);
        }
    }
}
