//! Free space of a store: a buddy allocator over its slabs.
//!
//! Blocks are powers of two, aligned to their size. The smallest block that fits is taken, the one lowest in the oldest slab
//! first: space that was used before is already written on disk, and written space is faster to write than fresh space.
//!
//! A free block is *ready*, or a *hole*: its space was returned to the file system. Only ready blocks are handed out. A hole is
//! allocated on the disk again before it is ready, so that writes into extents never need space.
//!
//! Only sound slabs are in here. Space in a slab that is missing, cut short or replaced is never handed out, so it cannot come
//! back either: releasing it does nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::layout::{Place, SlabId};

/// Free space of all slabs. Sizes are given as their binary logarithm.
#[derive(Debug)]
pub(crate) struct Allocator {
    ready: Buddies,
    holes: Buddies,
    slabs: BTreeMap<SlabId, SlabSpace>,
    slab_bytes: u64,
}

/// A slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlabSpace {
    bytes: u64,
    /// Neither ready nor holes.
    used: u64,
}

/// Whether the blocks of a slab have space on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backing {
    /// All of them.
    Whole,
    /// Not all of them; which ones is not known.
    Partial,
}

/// Space that was to be taken is not free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotFree;

impl Allocator {
    pub(crate) fn new(log2_min: u8) -> Self {
        let (ready, holes) = (Buddies::new(log2_min), Buddies::new(log2_min));
        Self { ready, holes, slabs: BTreeMap::new(), slab_bytes: 0 }
    }

    /// A new slab, all of it free. Its size is a power of two.
    pub(crate) fn add_slab(&mut self, slab: SlabId, bytes: u64, backing: Backing) {
        assert!(bytes.is_power_of_two());
        let log2 = bytes.ilog2() as u8;
        let before = self.slabs.insert(slab, SlabSpace { bytes, used: 0 });
        assert!(before.is_none(), "a slab is added once");
        let blocks = match backing {
            Backing::Whole => &mut self.ready,
            Backing::Partial => &mut self.holes,
        };
        blocks.release(Place { slab, at: 0 }, log2);
        self.slab_bytes += bytes;
    }

    /// Takes a block of this size.
    pub(crate) fn allocate(&mut self, log2: u8) -> Option<Place> {
        let place = self.ready.allocate(log2)?;
        self.slab(place).used += 1 << log2;
        Some(place)
    }

    /// Takes this very block, which the map of the store says is in use.
    pub(crate) fn take(&mut self, place: Place, log2: u8) -> Result<(), NotFree> {
        self.ready.take(place, log2).or_else(|NotFree| self.holes.take(place, log2))?;
        self.slab(place).used += 1 << log2;
        Ok(())
    }

    /// Whether a block of this size, or a larger one, is ready.
    pub(crate) fn has(&self, log2: u8) -> bool {
        self.ready.has(log2)
    }

    /// Whether a block of this size is ready without taking anything of the largest one.
    pub(crate) fn has_beside_largest(&self, log2: u8) -> bool {
        self.ready.has_beside_largest(log2)
    }

    /// The slabs that are free as a whole, with their sizes.
    pub(crate) fn free_slabs(&self) -> impl DoubleEndedIterator<Item = (SlabId, u64)> {
        self.slabs.iter().filter(|(_, space)| space.used == 0).map(|(slab, space)| (*slab, space.bytes))
    }

    /// Takes a slab out that is free as a whole.
    pub(crate) fn remove_slab(&mut self, slab: SlabId) {
        let space = self.slabs.remove(&slab).expect("the caller looked");
        assert!(space.used == 0, "only a free slab is taken out");
        let removed = self.ready.remove_slab(slab) + self.holes.remove_slab(slab);
        assert!(removed == space.bytes, "all of a free slab is free");
        self.slab_bytes -= space.bytes;
    }

    /// Size of the slab that was added last.
    pub(crate) fn newest_slab_bytes(&self) -> Option<u64> {
        self.slabs.values().next_back().map(|space| space.bytes)
    }

    /// The blocks that are handed out next, one of each size, and the slabs that are free as a whole.
    pub(crate) fn next_blocks(&self) -> impl Iterator<Item = Place> {
        let whole = self.free_slabs().map(|(slab, _)| Place { slab, at: 0 });
        self.ready.first_of_each_size().chain(self.holes.first_of_each_size()).chain(whole)
    }

    /// Takes a block back. One in a slab that is not in here stays out of use.
    pub(crate) fn release(&mut self, place: Place, log2: u8) {
        let Some(space) = self.slabs.get_mut(&place.slab) else { return };
        assert!(place.at + (1 << log2) <= space.bytes, "a block lies within its slab");
        space.used -= 1 << log2;
        self.ready.release(place, log2);
    }

    /// Takes a ready block out that becomes a hole: the last part, of at most `log2_max`, of the largest block if that has at least
    /// `log2_min`; of several blocks the one highest in the newest slab. It is in use until [`add_hole`](Self::add_hole).
    pub(crate) fn take_surplus(&mut self, log2_min: u8, log2_max: u8) -> Option<(Place, u8)> {
        let (block, log2) = self.ready.last_largest().filter(|(_, log2)| *log2 >= log2_min)?;
        let part = log2.min(log2_max);
        let place = Place { at: block.at + (1 << log2) - (1 << part), ..block };
        self.take(place, part).expect("it is part of a free block");
        Some((place, part))
    }

    /// Takes back a block that has no space on the disk now.
    pub(crate) fn add_hole(&mut self, place: Place, log2: u8) {
        self.slab(place).used -= 1 << log2;
        self.holes.release(place, log2);
    }

    /// Size of the smallest hole that holds a block of this size, or of the largest one if none does.
    pub(crate) fn hole_log2(&self, log2: u8) -> Option<u8> {
        self.holes.fitting(log2).or_else(|| self.holes.last_largest().map(|(_, log2)| log2))
    }

    /// Takes a block of this size out of a hole, in order to allocate it on the disk. It is in use until [`release`](Self::release) or
    /// [`add_hole`](Self::add_hole).
    pub(crate) fn take_hole(&mut self, log2: u8) -> Option<Place> {
        let place = self.holes.allocate(log2)?;
        self.slab(place).used += 1 << log2;
        Some(place)
    }

    /// Bytes that are ready.
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.ready.bytes
    }

    /// Bytes that are ready in one slab.
    pub(crate) fn ready_bytes_in(&self, slab: SlabId) -> u64 {
        self.ready.bytes_in(slab)
    }

    /// Bytes of holes.
    pub(crate) fn hole_bytes(&self) -> u64 {
        self.holes.bytes
    }

    /// Bytes that no extent uses.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.ready.bytes + self.holes.bytes
    }

    pub(crate) fn slab_bytes(&self) -> u64 {
        self.slab_bytes
    }

    fn slab(&mut self, place: Place) -> &mut SlabSpace {
        self.slabs.get_mut(&place.slab).expect("blocks are in slabs that are in here")
    }
}

/// Free blocks. Two of them that are buddies are one block.
#[derive(PartialEq, Eq, Debug)]
struct Buddies {
    log2_min: u8,
    /// Blocks of size `1 << (log2_min + i)`.
    free: Vec<BTreeSet<Place>>,
    bytes: u64,
}

impl Buddies {
    fn new(log2_min: u8) -> Self {
        Self { log2_min, free: Vec::new(), bytes: 0 }
    }

    fn allocate(&mut self, log2: u8) -> Option<Place> {
        let wanted = self.class(log2);
        let found = (wanted..self.free.len()).find(|class| !self.free[*class].is_empty())?;
        let place = self.free[found].pop_first().expect("the class is not empty");
        for class in (wanted..found).rev() {
            let upper = Place { at: place.at + self.class_bytes(class), ..place };
            self.free[class].insert(upper);
        }
        self.bytes -= 1 << log2;
        Some(place)
    }

    fn take(&mut self, place: Place, log2: u8) -> Result<(), NotFree> {
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
        self.bytes -= 1 << log2;
        Ok(())
    }

    fn has(&self, log2: u8) -> bool {
        self.fitting(log2).is_some()
    }

    fn has_beside_largest(&self, log2: u8) -> bool {
        let Some(largest) = self.free.iter().rposition(|class| !class.is_empty()) else { return false };
        let count = self.free[largest].len();
        let found = self.fitting(log2).map(|fitting| self.class(fitting));
        found.is_some_and(|found| found < largest || count > 1)
    }

    /// Size of the smallest block that is not smaller than this.
    fn fitting(&self, log2: u8) -> Option<u8> {
        let found = (self.class(log2)..self.free.len()).find(|class| !self.free[*class].is_empty())?;
        Some(self.log2_min + found as u8)
    }

    /// The largest block, of several the last one, and its size.
    fn last_largest(&self) -> Option<(Place, u8)> {
        let class = self.free.iter().rposition(|class| !class.is_empty())?;
        Some((*self.free[class].last()?, self.log2_min + class as u8))
    }

    fn first_of_each_size(&self) -> impl Iterator<Item = Place> {
        self.free.iter().filter_map(|class| class.first().copied())
    }

    fn release(&mut self, place: Place, log2: u8) {
        let mut block = place;
        let mut class = self.class(log2);
        self.bytes += 1 << log2;
        loop {
            if class >= self.free.len() {
                self.free.resize_with(class + 1, BTreeSet::new);
            }
            let buddy = Place { at: block.at ^ self.class_bytes(class), ..block };
            if !self.free[class].remove(&buddy) {
                break;
            }
            block.at = block.at.min(buddy.at);
            class += 1;
        }
        let new = self.free[class].insert(block);
        assert!(new, "a block is given back once");
    }

    /// The blocks of one slab, with their sizes in bytes.
    fn of_slab(&self, slab: SlabId) -> impl Iterator<Item = (Place, u64)> {
        let places = Place { slab, at: 0 }..=Place { slab, at: u64::MAX };
        let sizes = (0..self.free.len()).map(|class| self.class_bytes(class));
        self.free
            .iter()
            .zip(sizes)
            .flat_map(move |(class, bytes)| class.range(places.clone()).map(move |place| (*place, bytes)))
    }

    fn bytes_in(&self, slab: SlabId) -> u64 {
        self.of_slab(slab).map(|(_, bytes)| bytes).sum()
    }

    /// Forgets the blocks of a slab. Returns their bytes.
    fn remove_slab(&mut self, slab: SlabId) -> u64 {
        let blocks: Vec<(Place, u64)> = self.of_slab(slab).collect();
        for (place, bytes) in &blocks {
            let class = self.class(bytes.ilog2() as u8);
            self.free[class].remove(place);
            self.bytes -= bytes;
        }
        blocks.iter().map(|(_, bytes)| bytes).sum()
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
        alloc.add_slab(SlabId(0), 64, Backing::Whole);
        alloc.add_slab(SlabId(1), 128, Backing::Whole);
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
        alloc.add_slab(SlabId(0), 128, Backing::Whole);
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
        alloc.add_slab(SlabId(0), 64, Backing::Whole);
        alloc.release(place(3, 64), 5);
        assert_eq!(alloc.free_bytes(), 64);
        assert_eq!(alloc.allocate(6), Some(place(0, 0)));
        assert_eq!(alloc.allocate(4), None);
    }

    #[test]
    fn a_slab_that_is_free_as_a_whole_can_be_taken_out() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 64, Backing::Whole);
        alloc.add_slab(SlabId(1), 128, Backing::Whole);
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

    #[test]
    fn a_hole_is_not_handed_out_before_it_is_allocated_again() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 64, Backing::Whole);
        alloc.add_slab(SlabId(1), 128, Backing::Whole);
        assert_eq!(alloc.take_surplus(4, 6), Some((place(1, 64), 6)), "the end of the newest slab");
        assert_eq!(alloc.free_bytes(), 128);
        alloc.add_hole(place(1, 64), 6);
        assert_eq!(alloc.take_surplus(4, 7), Some((place(1, 0), 6)));
        alloc.add_hole(place(1, 0), 6);
        assert_eq!((alloc.ready_bytes(), alloc.hole_bytes(), alloc.free_bytes()), (64, 128, 192));
        assert!(alloc.has(6) && !alloc.has(7));
        assert_eq!(alloc.hole_log2(4), Some(7), "holes grow together");
        assert_eq!(alloc.take_hole(7), Some(place(1, 0)));
        assert!(!alloc.has(7), "it is being allocated");
        alloc.release(place(1, 0), 7);
        assert_eq!((alloc.allocate(7), alloc.hole_bytes()), (Some(place(1, 0)), 0));
        assert_eq!(alloc.take_surplus(7, 9), None, "no block is as large");
    }

    #[test]
    fn a_slab_of_which_a_part_is_holes_can_be_taken_out_and_found_again() {
        let mut alloc = Allocator::new(4);
        alloc.add_slab(SlabId(0), 64, Backing::Whole);
        alloc.add_slab(SlabId(1), 128, Backing::Whole);
        let (hole, log2) = alloc.take_surplus(4, 5).expect("all is free");
        assert_eq!(alloc.free_slabs().collect::<Vec<_>>(), [(SlabId(0), 64)], "a hole is being punched");
        alloc.add_hole(hole, log2);
        assert_eq!(alloc.ready_bytes_in(SlabId(1)), 96);
        alloc.remove_slab(SlabId(1));
        assert_eq!((alloc.free_bytes(), alloc.hole_bytes(), alloc.slab_bytes()), (64, 0, 64));
        alloc.add_slab(SlabId(1), 128, Backing::Partial);
        assert_eq!(alloc.take(place(1, 32), 4), Ok(()), "an extent is in it");
        assert_eq!((alloc.ready_bytes(), alloc.hole_bytes()), (64, 112));
        alloc.release(place(1, 32), 4);
        assert_eq!((alloc.ready_bytes(), alloc.hole_bytes()), (80, 112), "an extent has space");
    }

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap_and_all_space_comes_back(steps in prop::collection::vec((any::<bool>(), 4u8..9, any::<prop::sample::Index>()), 1..200)) {
            let mut alloc = Allocator::new(4);
            alloc.add_slab(SlabId(0), 256, Backing::Whole);
            alloc.add_slab(SlabId(1), 512, Backing::Whole);
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
                        let larger = usize::from(log2 - 4)..alloc.ready.free.len();
                        prop_assert!(larger.into_iter().all(|class| alloc.ready.free[class].is_empty()));
                    }
                } else if !used.is_empty() {
                    let (place, log2) = used.swap_remove(pick.index(used.len()));
                    alloc.release(place, log2);
                }
            }
            // As at a restart: everything in use is taken out of empty slabs.
            let mut again = Allocator::new(4);
            again.add_slab(SlabId(0), 256, Backing::Whole);
            again.add_slab(SlabId(1), 512, Backing::Whole);
            for (place, log2) in &used {
                prop_assert_eq!(again.take(*place, *log2), Ok(()));
            }
            prop_assert_eq!(again.free_bytes(), alloc.free_bytes());
            let blocks = |alloc: &Allocator| alloc.ready.free.iter().flatten().copied().collect::<Vec<_>>();
            prop_assert_eq!(blocks(&again), blocks(&alloc));
            for (place, log2) in used {
                alloc.release(place, log2);
            }
            prop_assert_eq!(alloc.free_bytes(), 768);
            prop_assert!(alloc.allocate(9).is_some());
        }
    }
}
