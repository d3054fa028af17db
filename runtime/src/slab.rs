//! Numbered places that are used again under a new generation, so that an old number never names a new thing.

/// Names a value of a [`Slab`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Key {
    /// Its place.
    pub index: u32,
    /// How often the place was used before it.
    pub generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// A vector with holes that are filled again.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    generation_mask: u32,
}

impl<T> Slab<T> {
    /// Generations wrap at this mask: as many bits as the number that is handed out has room for.
    pub const fn new(generation_mask: u32) -> Self {
        Self { places: Vec::new(), free: Vec::new(), generation_mask }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places, with and without a value: every index is below this.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The key of the value at a place. For walks over all values that change the slab, or pause, on the way.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        let place = self.places.get(index)?;
        place.value.as_ref().map(|_| Key { index: index as u32, generation: place.generation })
    }

    /// All values, by place.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    /// The key that the next [`insert`](Self::insert) returns.
    pub fn next_key(&self) -> Key {
        match self.free.last() {
            Some(index) => Key { index: *index, generation: self.places[*index as usize].generation },
            None => Key { index: self.places.len() as u32, generation: 0 },
        }
    }

    /// Puts a value into a free place.
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            debug_assert!(place.value.is_none());
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        let index = u32::try_from(self.places.len()).expect("far fewer than 2^32 places");
        self.places.push(Place { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    /// The value of this key, if it is still there.
    pub fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// Takes the value of this key out, if it is still there. Its place is used again under another key.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1) & self.generation_mask;
        self.free.push(key.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_but_its_old_key_finds_nothing() {
        let mut slab = Slab::new(u32::MAX);
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        let next = slab.next_key();
        let c = slab.insert("c");
        assert_eq!((c.index, c), (a.index, next));
        assert_eq!((slab.key_at(0), slab.key_at(1), slab.key_at(2)), (Some(c), Some(b), None));
        assert_eq!((slab.places(), slab.values().copied().collect::<Vec<_>>()), (2, vec!["c", "b"]));
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&"b"), Some(&"c")));
        assert_eq!(slab.len(), 2);
        assert!(slab.get_mut(a).is_none());
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
