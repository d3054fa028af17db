//! The bookkeeping of an arena: which buffers of which chunks are free. Addresses are integers: it never accesses the memory.

use std::collections::{BTreeMap, BTreeSet};

use super::bits::{BITS, Bits};
use super::mapping::{Pages, map};

/// What an arena's chunks are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Size and alignment of a chunk, in bytes: at most [`BITS`] buffers of the smallest size.
    pub(super) chunk_bytes: usize,
    /// Chunks without a buffer in use that are kept for reuse.
    pub(super) empty_chunks_max: usize,
    /// Chunks that are mapped before new ones are huge pages: a few buffers of each size need no huge page each.
    pub(super) small_pages_chunks: usize,
}

/// The chunks of an arena.
pub(super) struct Arena {
    geometry: Geometry,
    pub(super) chunks: BTreeMap<usize, Chunk>,
    /// Partially used chunks, by capacity.
    partial: BTreeMap<usize, BTreeSet<usize>>,
    /// Mapped chunks without a buffer in use, each with the bytes of pages that it keeps.
    pub(super) empty: Vec<(usize, usize)>,
    /// Bytes of pages that free buffers keep.
    pub(super) idle_bytes: usize,
    /// When a buffer of a capacity was last taken, in buffers taken.
    last_taken: BTreeMap<usize, u64>,
    taken: u64,
}

/// What makes room for the pages of a freed buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing is needed.
    Enough,
    /// The pages of this buffer, which is not free any more: give it back without them.
    Buffer { at: usize, capacity: usize },
    /// There is none: no other size was unused for longer.
    Nothing,
}

pub(super) struct Chunk {
    capacity: usize,
    /// One bit per buffer, set if it is free.
    free: Bits,
    /// One bit per buffer, set if it is free and keeps its pages.
    kept: Bits,
}

impl Arena {
    pub(super) const fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            chunks: BTreeMap::new(),
            partial: BTreeMap::new(),
            empty: Vec::new(),
            idle_bytes: 0,
            last_taken: BTreeMap::new(),
            taken: 0,
        }
    }

    /// Returns the size of a chunk.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.geometry.chunk_bytes
    }

    /// Returns the address of a buffer of this capacity.
    pub(super) fn take(&mut self, capacity: usize) -> usize {
        self.taken += 1;
        self.last_taken.insert(capacity, self.taken);
        // The system maps downwards: this is the oldest chunk, so that the newest become empty.
        let partial = self.partial.get(&capacity).and_then(BTreeSet::last).copied();
        let base = partial.unwrap_or_else(|| self.add_chunk(capacity));
        let chunk = self.chunks.get_mut(&base).expect("a partial chunk is registered");
        let kept = chunk.kept.first();
        let slot = kept.or_else(|| chunk.free.first()).expect("a partial chunk has a free buffer");
        if kept.is_some() {
            self.idle_bytes -= capacity;
        }
        chunk.free.remove(slot);
        chunk.kept.remove(slot);
        if chunk.free.is_empty()
            && let Some(partial) = self.partial.get_mut(&capacity)
        {
            partial.remove(&base);
        }
        base + slot * capacity
    }

    /// Adds a chunk of free buffers, an empty one or a new one.
    fn add_chunk(&mut self, capacity: usize) -> usize {
        let Geometry { chunk_bytes, small_pages_chunks, .. } = self.geometry;
        let pages = if self.chunks.len() < small_pages_chunks { Pages::Any } else { Pages::Huge };
        let (base, kept_bytes) =
            self.empty.pop().unwrap_or_else(|| (map(chunk_bytes, chunk_bytes, pages).as_ptr() as usize, 0));
        // Which pages the chunk keeps is unknown, so assume that they are in the first buffers.
        let free = self.all_free(capacity);
        let kept = Bits::below(kept_bytes.div_ceil(capacity).min(free.len()));
        self.idle_bytes = self.idle_bytes - kept_bytes + kept.len() * capacity;
        self.chunks.insert(base, Chunk { capacity, free, kept });
        self.partial.entry(capacity).or_default().insert(base);
        base
    }

    fn all_free(&self, capacity: usize) -> Bits {
        let count = self.geometry.chunk_bytes / capacity;
        assert!(count <= BITS, "a chunk has a bit for each of its buffers");
        Bits::below(count)
    }

    /// Returns whose pages to return to the system so that a freed buffer of this capacity can keep its pages. Call it until it is enough, or nothing. Empty
    /// chunks keep theirs: they serve any capacity, and perhaps the next buffer.
    pub(super) fn make_room(&mut self, capacity: usize, idle_bytes_max: usize) -> Room {
        if self.idle_bytes + capacity <= idle_bytes_max {
            return Room::Enough;
        }
        if capacity > idle_bytes_max {
            return Room::Nothing;
        }
        let last_taken = |capacity: usize| self.last_taken.get(&capacity).copied().unwrap_or(0);
        let others =
            self.chunks.iter().filter(|(_, chunk)| !chunk.kept.is_empty() && chunk.capacity != capacity);
        let oldest = others.map(|(base, chunk)| (last_taken(chunk.capacity), *base)).min();
        let Some((_, base)) = oldest.filter(|(at, _)| *at < last_taken(capacity)) else {
            return Room::Nothing;
        };
        let chunk = self.chunks.get_mut(&base).expect("it was just found");
        let (capacity, slot) = (chunk.capacity, chunk.kept.first().expect("the filter says so"));
        chunk.free.remove(slot);
        chunk.kept.remove(slot);
        self.idle_bytes -= capacity;
        if chunk.free.is_empty()
            && let Some(partial) = self.partial.get_mut(&capacity)
        {
            partial.remove(&base);
        }
        Room::Buffer { at: base + slot * capacity, capacity }
    }

    /// Takes a buffer back, with or without its pages. Returns a chunk to unmap, if there is one.
    pub(super) fn give(&mut self, at: usize, capacity: usize, keeps: bool) -> Option<usize> {
        let base = at & !(self.geometry.chunk_bytes - 1);
        let slot = (at - base) / capacity;
        let all = self.all_free(capacity);
        let chunk = self.chunks.get_mut(&base).expect("every buffer lies in a chunk");
        let partial = self.partial.get_mut(&capacity).expect("the buffer was allocated with this capacity");
        assert!(!chunk.free.contains(slot), "a buffer is freed only once");
        if chunk.free.is_empty() {
            partial.insert(base);
        }
        chunk.free.insert(slot);
        if keeps {
            chunk.kept.insert(slot);
            self.idle_bytes += capacity;
        }
        if chunk.free != all {
            return None;
        }
        partial.remove(&base);
        let kept_bytes = chunk.kept.len() * capacity;
        self.chunks.remove(&base);
        if self.empty.len() < self.geometry.empty_chunks_max {
            self.empty.push((base, kept_bytes));
            return None;
        }
        self.idle_bytes -= kept_bytes;
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::super::LARGE;
    use super::super::mapping::unmap;
    use super::*;

    const CHUNK_BYTES: usize = LARGE.chunk_bytes;
    const EMPTY_CHUNKS_MAX: usize = LARGE.empty_chunks_max;
    const SIZE: usize = 256 << 10;

    fn pointer(at: usize) -> NonNull<u8> {
        NonNull::new(at as *mut u8).expect("mapped")
    }

    #[test]
    fn buffers_of_a_chunk_do_not_overlap_and_their_memory_is_reused() {
        let mut arena = Arena::new(LARGE);
        let capacity = (1 << 20) + (64 << 10);
        let per_chunk = CHUNK_BYTES / capacity;
        let taken: Vec<usize> = (0..=per_chunk * 2).map(|_| arena.take(capacity)).collect();
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] + capacity <= pair[1]));
        assert!(
            sorted.iter().all(|at| at % CHUNK_BYTES + capacity <= CHUNK_BYTES),
            "no buffer crosses the end of a chunk"
        );
        assert_eq!(arena.chunks.len(), 3);
        assert_eq!(arena.give(taken[5], capacity, true), None);
        assert_eq!(arena.idle_bytes, capacity);
        assert_eq!(arena.take(capacity), taken[5], "a free buffer is used before a new chunk");
        assert_eq!(arena.idle_bytes, 0);
        let mut unmapped = Vec::new();
        for at in &taken {
            unmapped.extend(arena.give(*at, capacity, true));
        }
        assert_eq!(
            arena.idle_bytes,
            EMPTY_CHUNKS_MAX * per_chunk * capacity,
            "only the chunks that are kept"
        );
        assert_eq!((arena.chunks.len(), arena.empty.len(), unmapped.len()), (0, EMPTY_CHUNKS_MAX, 1));
        let other = arena.take(512 << 10);
        assert_eq!(arena.empty.len(), EMPTY_CHUNKS_MAX - 1, "an empty chunk serves any capacity");
        assert!(arena.give(other, 512 << 10, true).is_none());
        for chunk in unmapped.into_iter().chain(arena.empty.drain(..).map(|(base, _)| base)) {
            unmap(pointer(chunk), CHUNK_BYTES);
        }
    }

    #[test]
    #[should_panic(expected = "a buffer is freed only once")]
    fn freeing_a_buffer_twice_is_detected() {
        let mut arena = Arena::new(LARGE);
        let (one, _other) = (arena.take(SIZE), arena.take(SIZE));
        arena.give(one, SIZE, true);
        arena.give(one, SIZE, true);
    }

    #[test]
    fn buffers_that_keep_their_pages_are_used_before_those_that_do_not() {
        let mut arena = Arena::new(LARGE);
        let taken: Vec<usize> = (0..6).map(|_| arena.take(SIZE)).collect();
        for (at, keeps) in [(taken[1], false), (taken[2], false), (taken[4], true)] {
            arena.give(at, SIZE, keeps);
        }
        assert_eq!(arena.idle_bytes, SIZE);
        assert_eq!(arena.take(SIZE), taken[4]);
        assert_eq!(arena.take(SIZE), taken[1]);
        assert_eq!(arena.idle_bytes, 0);
    }

    #[test]
    fn sizes_that_are_not_used_any_more_make_room_for_one_that_is() {
        let mut arena = Arena::new(LARGE);
        let (old, new) = (SIZE, 4 * SIZE);
        let idle_bytes_max = new + old;
        let olds: Vec<usize> = (0..8).map(|_| arena.take(old)).collect();
        let news = [arena.take(new), arena.take(new)];
        // One stays in use, so that their chunk does.
        for at in &olds[..5] {
            assert_eq!(arena.make_room(old, idle_bytes_max), Room::Enough);
            arena.give(*at, old, true);
        }
        assert_eq!(arena.idle_bytes, idle_bytes_max);
        assert_eq!(arena.make_room(old, idle_bytes_max), Room::Nothing, "there is no other size");
        for at in &olds[..4] {
            assert_eq!(arena.make_room(new, idle_bytes_max), Room::Buffer { at: *at, capacity: old });
            arena.give(*at, old, false);
        }
        assert_eq!(arena.make_room(new, idle_bytes_max), Room::Enough);
        arena.give(news[0], new, true);
        assert_eq!((arena.idle_bytes, arena.take(new)), (idle_bytes_max, news[0]));
        // From now on nothing is returned to the system.
        assert_eq!((arena.idle_bytes, arena.make_room(new, idle_bytes_max)), (old, Room::Enough));
        assert_eq!(arena.make_room(2 * idle_bytes_max, idle_bytes_max), Room::Nothing);
        for (base, _) in arena.chunks {
            unmap(pointer(base), CHUNK_BYTES);
        }
    }
}
