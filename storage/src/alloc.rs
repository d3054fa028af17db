//! Free space of a store: a buddy allocator over its slabs.
//!
//! Blocks are powers of two, aligned to their size. The smallest block that fits is taken, the one lowest in the oldest slab
//! first: space that was used before is already written on disk, and written space is faster to write than fresh space.
//!
//! Only sound slabs are in here. Space in a slab that is missing, cut short or replaced is never handed out, so it cannot come
//! back either: releasing it does nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::layout::{Place, SlabId};

/// Free space of all slabs. Sizes are given as their binary logarithm.
#[derive(Debug)]
pub(crate) struct Allocator {
    log2_min: u8,
    /// Free blocks of size `1 << (log2_min + i)`.
    free: Vec<BTreeSet<Place>>,
    /// The slabs and their sizes.
    slabs: BTreeMap<SlabId, u64>,
    free_bytes: u64,
    slab_bytes: u64,
}

/// Space that was to be taken is not free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotFree;

impl Allocator {
    pub(crate) fn new(log2_min: u8) -> Self {
        Self { log2_min, free: Vec::new(), slabs: BTreeMap::new(), free_bytes: 0, slab_bytes: 0 }
    }

    /// A new slab, all of it free. Its size is a power of two.
    pub(crate) fn add_slab(&mut self, slab: SlabId, bytes: u64) {
        assert!(bytes.is_power_of_two());
        let log2 = bytes.ilog2() as u8;
        assert!(log2 >= self.log2_min, "a slab holds at least one extent");
        let classes = usize::from(log2 - self.log2_min) + 1;
        if self.free.len() < classes {
            self.free.resize_with(classes, BTreeSet::new);
        }
        let before = self.slabs.insert(slab, bytes);
        assert!(before.is_none(), "a slab is added once");
        self.free[classes - 1].insert(Place { slab, at: 0 });
        self.free_bytes += bytes;
        self.slab_bytes += bytes;
    }

    /// Takes a block of this size.
    pub(crate) fn allocate(&mut self, log2: u8) -> Option<Place> {
        let wanted = self.class(log2);
        let found = (wanted..self.free.len()).find(|class| !self.free[*class].is_empty())?;
        let place = self.free[found].pop_first().expect("the class is not empty");
        for class in (wanted..found).rev() {
            let upper = Place { at: place.at + self.class_bytes(class), ..place };
            self.free[class].insert(upper);
        }
        self.free_bytes -= 1 << log2;
        Some(place)
    }

    /// Takes this very block, which the map of the store says is in use.
    pub(crate) fn take(&mut self, place: Place, log2: u8) -> Result<(), NotFree> {
        if log2 < self.log2_min || log2 >= 64 || !place.at.is_multiple_of(1 << log2) {
            return Err(NotFree);
        }
        let wanted = self.class(log2);
        let holder = (wanted..self.free.len()).find_map(|class| {
            let start = Place { at: place.at & !(self.class_bytes(class) - 1), ..place };
            self.free[class].contains(&start).then_some((class, start))
        });
        let (found, mut block) = holder.ok_or(NotFree)?;
        self.free[found].remove(&block);
        for class in (wanted..found).rev() {
            let upper = Place { at: block.at + self.class_bytes(class), ..block };
            if place.at >= upper.at {
                self.free[class].insert(block);
                block = upper;
            } else {
                self.free[class].insert(upper);
            }
        }
        assert!(block == place, "splitting ends at the block wanted");
        self.free_bytes -= 1 << log2;
        Ok(())
    }

    /// Whether a block of this size, or a larger one, is free.
    pub(crate) fn has(&self, log2: u8) -> bool {
        self.free.iter().skip(self.class(log2)).any(|class| !class.is_empty())
    }

    /// The slabs that are free as a whole, with their sizes.
    pub(crate) fn free_slabs(&self) -> impl DoubleEndedIterator<Item = (SlabId, u64)> {
        let is_free = |slab: SlabId, bytes: u64| {
            self.free[self.class(bytes.ilog2() as u8)].contains(&Place { slab, at: 0 })
        };
        self.slabs
            .iter()
            .map(|(slab, bytes)| (*slab, *bytes))
            .filter(move |(slab, bytes)| is_free(*slab, *bytes))
    }

    /// Takes a slab out that is free as a whole.
    pub(crate) fn remove_slab(&mut self, slab: SlabId) {
        let bytes = self.slabs.remove(&slab).expect("the caller looked");
        let class = self.class(bytes.ilog2() as u8);
        let was_free = self.free[class].remove(&Place { slab, at: 0 });
        assert!(was_free, "only a free slab is taken out");
        self.free_bytes -= bytes;
        self.slab_bytes -= bytes;
    }

    /// Size of the slab that was added last.
    pub(crate) fn newest_slab_bytes(&self) -> Option<u64> {
        self.slabs.values().next_back().copied()
    }

    /// The blocks that are handed out next, one of each size, and the slabs that are free as a whole.
    pub(crate) fn next_blocks(&self) -> impl Iterator<Item = Place> {
        let whole = self.free_slabs().map(|(slab, _)| Place { slab, at: 0 });
        self.free.iter().filter_map(|class| class.first().copied()).chain(whole)
    }

    /// Takes a block back. One in a slab that is not in here stays out of use.
    pub(crate) fn release(&mut self, place: Place, log2: u8) {
        let Some(bytes) = self.slabs.get(&place.slab) else { return };
        assert!(place.at + (1 << log2) <= *bytes, "a block lies within its slab");
        let mut block = place;
        let mut class = self.class(log2);
        self.free_bytes += 1 << log2;
        loop {
            let buddy = Place { at: block.at ^ self.class_bytes(class), ..block };
            if class + 1 >= self.free.len() || !self.free[class].remove(&buddy) {
                break;
            }
            block.at = block.at.min(buddy.at);
            class += 1;
        }
        let new = self.free[class].insert(block);
        assert!(new, "a block is given back once");
        assert!(self.free_bytes <= self.slab_bytes);
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    pub(crate) fn slab_bytes(&self) -> u64 {
        self.slab_bytes
    }

    fn class(&self, log2: u8) -> usize {
        assert!(log2 >= self.log2_min, "no extent is smaller than the smallest");
        usize::from(log2 - self.log2_min)
    }

    fn class_bytes(&self, class: usize) -> u64 {
        1 << (usize::from(self.log2_min) + class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(slab: u32, at: u64) -> Place {
        Place { slab: SlabId(slab), at }
    }

    #[test]
    fn blocks_come_from_the_lowest_space_of_the_oldest_slab_and_grow_together_again() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 64);
        alloc.add_slab(SlabId(1), 128);
        assert_eq!(alloc.allocate(4), Some(place(0, 0)));
        assert_eq!(alloc.allocate(5), Some(place(0, 32)));
        assert_eq!(alloc.allocate(4), Some(place(0, 16)));
        assert_eq!(alloc.allocate(4), Some(place(1, 0)));
        alloc.release(place(0, 0), 4);
        alloc.release(place(0, 16), 4);
        assert_eq!(alloc.allocate(5), Some(place(0, 0)));
        alloc.release(place(1, 0), 4);
        assert_eq!(alloc.allocate(8), None);
    }

    #[test]
    fn a_block_that_is_in_use_cannot_be_taken_again() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 128);
        assert_eq!(alloc.take(place(0, 48), 4), Ok(()));
        assert_eq!(alloc.take(place(0, 48), 4), Err(NotFree));
        assert_eq!(alloc.take(place(0, 32), 5), Err(NotFree));
        assert_eq!(alloc.take(place(0, 40), 4), Err(NotFree), "not aligned");
        assert_eq!(alloc.take(place(1, 0), 4), Err(NotFree), "no such slab");
        assert_eq!(alloc.take(place(0, 64), 6), Ok(()));
        assert_eq!(alloc.free_bytes(), 48);
    }

    #[test]
    fn space_of_a_slab_that_is_not_there_is_never_handed_out() {
        let mut alloc = Allocator::new(4);
        alloc.release(place(3, 64), 5);
        assert_eq!((alloc.allocate(4), alloc.free_bytes()), (None, 0));
        alloc.add_slab(SlabId(0), 64);
        alloc.release(place(3, 64), 5);
        assert_eq!(alloc.free_bytes(), 64);
        assert_eq!(alloc.allocate(6), Some(place(0, 0)));
        assert_eq!(alloc.allocate(4), None);
    }

    #[test]
    fn a_slab_that_is_free_as_a_whole_can_be_taken_out() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 64);
        alloc.add_slab(SlabId(1), 128);
        let first = alloc.allocate(4).expect("there is space");
        assert_eq!(alloc.free_slabs().collect::<Vec<_>>(), [(SlabId(1), 128)]);
        alloc.remove_slab(SlabId(1));
        assert_eq!((alloc.free_bytes(), alloc.slab_bytes()), (48, 64));
        assert!(alloc.has(5) && !alloc.has(6));
        alloc.release(first, 4);
        assert_eq!(alloc.free_slabs().collect::<Vec<_>>(), [(SlabId(0), 64)]);
        alloc.remove_slab(SlabId(0));
        assert_eq!((alloc.allocate(4), alloc.newest_slab_bytes()), (None, None));
    }

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap_and_all_space_comes_back(steps in prop::collection::vec((any::<bool>(), 4u8..9, any::<prop::sample::Index>()), 1..200)) {
            let mut alloc = Allocator::new(4);
            alloc.add_slab(SlabId(0), 256);
            alloc.add_slab(SlabId(1), 512);
            let mut used: Vec<(Place, u8)> = Vec::new();
            for (take, log2, pick) in steps {
                if take {
                    if let Some(place) = alloc.allocate(log2) {
                        let end = place.at + (1 << log2);
                        prop_assert!(place.at.is_multiple_of(1 << log2));
                        for (other, other_log2) in &used {
                            let apart = other.slab != place.slab || other.at + (1 << other_log2) <= place.at || end <= other.at;
                            prop_assert!(apart);
                        }
                        used.push((place, log2));
                    } else {
                        let larger = usize::from(log2 - 4)..alloc.free.len();
                        prop_assert!(larger.into_iter().all(|class| alloc.free[class].is_empty()));
                    }
                } else if !used.is_empty() {
                    let (place, log2) = used.swap_remove(pick.index(used.len()));
                    alloc.release(place, log2);
                }
            }
            // As at a restart: everything in use is taken out of empty slabs.
            let mut again = Allocator::new(4);
            again.add_slab(SlabId(0), 256);
            again.add_slab(SlabId(1), 512);
            for (place, log2) in &used {
                prop_assert_eq!(again.take(*place, *log2), Ok(()));
            }
            prop_assert_eq!(again.free_bytes(), alloc.free_bytes());
            prop_assert_eq!(&again.free, &alloc.free);
            for (place, log2) in used {
                alloc.release(place, log2);
            }
            prop_assert_eq!(alloc.free_bytes(), 768);
            prop_assert!(alloc.allocate(9).is_some());
        }
    }
}
