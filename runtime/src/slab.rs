//! Numbered places that are used again under a new generation, so that an old number never names a new thing.

/// Names a value of a [`Slab`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// A vector with holes that are filled again.
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    generation_mask: u32,
}

impl<T> Slab<T> {
    /// Generations wrap at this mask: as many bits as the number that is handed out has room for.
    pub(crate) const fn new(generation_mask: u32) -> Self {
        Self { places: Vec::new(), free: Vec::new(), generation_mask }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
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

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
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
        let c = slab.insert("c");
        assert_eq!(c.index, a.index);
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
