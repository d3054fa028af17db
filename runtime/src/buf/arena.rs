//! Memory of large buffers: chunks of huge pages, each divided into buffers of one size.
//!
//! A 1 MiB batch in 4 KiB pages costs 256 page faults when it is first written, and pinning 256 pages each time a disk reads or
//! writes it. In huge pages it costs one of each. The kernel gives huge pages only to ranges that cover them completely, so buffers
//! are carved out of chunks that are mapped, advised and unmapped as a whole.
//!
//! ```text
//!   chunk, CHUNK_BYTES at a multiple of CHUNK_BYTES
//!   +----------+----------+----------+-- .. --+-------+
//!   | buffer 0 | buffer 1 | buffer 2 |        | waste |      all of one capacity; one bit each says whether it is free
//!   +----------+----------+----------+-- .. --+-------+
//! ```
//!
//! A free buffer keeps its pages for reuse. When free buffers would keep more than a limit, pages are returned to the system: chunks of
//! many sizes, each with one buffer in use, would otherwise hold many times the memory in use. Those of the size that was not used for
//! the longest time go first. If the pages of the freed buffer went, a size that is in use would pay for the pages of each of its
//! buffers, because sizes that nobody uses any more have all that may be kept.
//!
//! One arena serves all threads: a buffer is often dropped by another thread than the one that allocated it, and at these sizes a
//! lock costs nothing.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Size and alignment of a chunk, in bytes.
pub(super) const CHUNK_BYTES: usize = 32 << 20;

/// Buffers of at least this size come from chunks. A chunk has one bit per buffer, so its capacity is at most 128 buffers.
pub(super) const CHUNKED_BYTES_MIN: usize = 256 << 10;

/// Buffers of at most this size come from chunks. Larger ones are rare and are mapped individually.
pub(super) const CHUNKED_BYTES_MAX: usize = 4 << 20;

/// Chunks without a buffer in use that are kept for reuse.
const EMPTY_CHUNKS_MAX: usize = 2;

/// Default for the bytes of pages that free buffers keep; see [`set_idle_bytes_max`].
pub(super) const IDLE_BYTES_MAX_DEFAULT: usize = 64 << 20;

static IDLE_BYTES_MAX: AtomicUsize = AtomicUsize::new(IDLE_BYTES_MAX_DEFAULT);

/// Sets how many bytes of pages free buffers may keep.
pub(super) fn set_idle_bytes_max(bytes: usize) {
    IDLE_BYTES_MAX.store(bytes, Ordering::Relaxed);
}

const _: () = assert!(CHUNK_BYTES / CHUNKED_BYTES_MIN <= u128::BITS as usize);

static ARENA: Mutex<Arena> = Mutex::new(Arena::new());

/// Returns memory for a buffer of this capacity. It holds what the last owner left, or zero bytes.
pub(super) fn take(capacity: usize) -> NonNull<u8> {
    if capacity > CHUNKED_BYTES_MAX {
        return map(capacity);
    }
    pointer(arena().take(capacity))
}

/// Takes back memory that [`take`] returned for this capacity.
pub(super) fn give(ptr: NonNull<u8>, capacity: usize) {
    if capacity > CHUNKED_BYTES_MAX {
        return unmap(ptr, capacity);
    }
    let idle_bytes_max = IDLE_BYTES_MAX.load(Ordering::Relaxed);
    let keeps = loop {
        // Bound before it is matched: the lock is released. Returning memory to the system takes a while.
        let room = arena().make_room(capacity, idle_bytes_max);
        match room {
            Room::Enough => break true,
            Room::Buffer { at, capacity } => give_without_pages(pointer(at), capacity),
            Room::Nothing => break false,
        }
    };
    if keeps {
        give_back(ptr, capacity, true);
    } else {
        give_without_pages(ptr, capacity);
    }
}

/// Gives a buffer back that nobody else can get before its pages have been returned to the system.
fn give_without_pages(ptr: NonNull<u8>, capacity: usize) {
    drop_pages(ptr, capacity);
    give_back(ptr, capacity, false);
}

fn give_back(ptr: NonNull<u8>, capacity: usize, keeps: bool) {
    let unmapped = arena().give(ptr.as_ptr() as usize, capacity, keeps);
    if let Some(chunk) = unmapped {
        unmap(pointer(chunk), CHUNK_BYTES);
    }
}

fn pointer(at: usize) -> NonNull<u8> {
    NonNull::new(at as *mut u8).expect("address zero is never mapped")
}

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bookkeeping of the chunks. Addresses are integers: it never accesses the memory.
struct Arena {
    chunks: BTreeMap<usize, Chunk>,
    /// Partially used chunks, by capacity.
    partial: BTreeMap<usize, Vec<usize>>,
    /// Mapped chunks without a buffer in use, each with the bytes of pages that it keeps.
    empty: Vec<(usize, usize)>,
    /// Bytes of pages that free buffers keep.
    idle_bytes: usize,
    /// When a buffer of a capacity was last taken, in buffers taken.
    last_taken: BTreeMap<usize, u64>,
    taken: u64,
}

/// What makes room for the pages of a freed buffer.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// Nothing is needed.
    Enough,
    /// The pages of this buffer, which is not free any more: give it back without them.
    Buffer { at: usize, capacity: usize },
    /// There is none: no other size was unused for longer.
    Nothing,
}

struct Chunk {
    capacity: usize,
    /// One bit per buffer, set if it is free.
    free: u128,
    /// One bit per buffer, set if it is free and keeps its pages.
    kept: u128,
}

impl Arena {
    const fn new() -> Self {
        Self {
            chunks: BTreeMap::new(),
            partial: BTreeMap::new(),
            empty: Vec::new(),
            idle_bytes: 0,
            last_taken: BTreeMap::new(),
            taken: 0,
        }
    }

    fn take(&mut self, capacity: usize) -> usize {
        self.taken += 1;
        self.last_taken.insert(capacity, self.taken);
        let partial = self.partial.entry(capacity).or_default();
        let base = if let Some(base) = partial.last() {
            *base
        } else {
            let (base, kept_bytes) =
                self.empty.pop().unwrap_or_else(|| (map(CHUNK_BYTES).as_ptr() as usize, 0));
            // Which pages the chunk keeps is unknown, so assume that they are in the first buffers.
            let kept = all_free(capacity) & first_bits(kept_bytes.div_ceil(capacity));
            self.idle_bytes = self.idle_bytes - kept_bytes + kept.count_ones() as usize * capacity;
            self.chunks.insert(base, Chunk { capacity, free: all_free(capacity), kept });
            partial.push(base);
            base
        };
        let chunk = self.chunks.get_mut(&base).expect("a partial chunk is registered");
        let from = if chunk.kept == 0 { chunk.free } else { chunk.kept };
        let slot = from.trailing_zeros() as usize;
        if chunk.kept != 0 {
            self.idle_bytes -= capacity;
        }
        chunk.free &= !(1 << slot);
        chunk.kept &= !(1 << slot);
        if chunk.free == 0 {
            partial.pop();
        }
        base + slot * capacity
    }

    /// Returns whose pages to return to the system so that a freed buffer of this capacity can keep its pages. Call it until it is enough, or nothing. Empty
    /// chunks keep theirs: they serve any capacity, and perhaps the next buffer.
    fn make_room(&mut self, capacity: usize, idle_bytes_max: usize) -> Room {
        if self.idle_bytes + capacity <= idle_bytes_max {
            return Room::Enough;
        }
        if capacity > idle_bytes_max {
            return Room::Nothing;
        }
        let last_taken = |capacity: usize| self.last_taken.get(&capacity).copied().unwrap_or(0);
        let others = self.chunks.iter().filter(|(_, chunk)| chunk.kept != 0 && chunk.capacity != capacity);
        let oldest = others.map(|(base, chunk)| (last_taken(chunk.capacity), *base)).min();
        let Some((_, base)) = oldest.filter(|(at, _)| *at < last_taken(capacity)) else {
            return Room::Nothing;
        };
        let chunk = self.chunks.get_mut(&base).expect("it was just found");
        let (capacity, slot) = (chunk.capacity, chunk.kept.trailing_zeros() as usize);
        chunk.free &= !(1 << slot);
        chunk.kept &= !(1 << slot);
        self.idle_bytes -= capacity;
        if chunk.free == 0
            && let Some(partial) = self.partial.get_mut(&capacity)
        {
            partial.retain(|partial| *partial != base);
        }
        Room::Buffer { at: base + slot * capacity, capacity }
    }

    /// Takes a buffer back, with or without its pages. Returns a chunk to unmap, if there is one.
    fn give(&mut self, at: usize, capacity: usize, keeps: bool) -> Option<usize> {
        let base = at & !(CHUNK_BYTES - 1);
        let slot = (at - base) / capacity;
        let chunk = self.chunks.get_mut(&base).expect("every buffer lies in a chunk");
        let partial = self.partial.get_mut(&capacity).expect("the buffer was allocated with this capacity");
        assert_eq!(chunk.free & (1 << slot), 0, "a buffer is freed only once");
        if chunk.free == 0 {
            partial.push(base);
        }
        chunk.free |= 1 << slot;
        if keeps {
            chunk.kept |= 1 << slot;
            self.idle_bytes += capacity;
        }
        if chunk.free != all_free(capacity) {
            return None;
        }
        partial.retain(|partial| *partial != base);
        let kept_bytes = chunk.kept.count_ones() as usize * capacity;
        self.chunks.remove(&base);
        if self.empty.len() < EMPTY_CHUNKS_MAX {
            self.empty.push((base, kept_bytes));
            return None;
        }
        self.idle_bytes -= kept_bytes;
        Some(base)
    }
}

/// Returns a mask of the lowest `count` bits, or of all bits if there are fewer.
fn first_bits(count: usize) -> u128 {
    if count >= u128::BITS as usize { u128::MAX } else { (1 << count) - 1 }
}

fn all_free(capacity: usize) -> u128 {
    u128::MAX >> (u128::BITS as usize - CHUNK_BYTES / capacity)
}

/// Maps fresh zero bytes at a multiple of [`CHUNK_BYTES`], in huge pages if the system has any.
fn map(bytes: usize) -> NonNull<u8> {
    let failed = |what: &str| -> ! {
        panic!("cannot {what} {bytes} bytes of memory: {}", std::io::Error::last_os_error())
    };
    let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let whole = unsafe { libc::mmap(std::ptr::null_mut(), bytes + CHUNK_BYTES, protection, kind, -1, 0) };
    if whole == libc::MAP_FAILED {
        failed("map");
    }
    let start = whole as usize;
    let from = start.next_multiple_of(CHUNK_BYTES);
    for (at, len) in [(start, from - start), (from + bytes, start + CHUNK_BYTES - from)] {
        // SAFETY: both ranges are whole pages of the mapping just made, and nothing refers to them.
        if len > 0 && unsafe { libc::munmap(at as *mut libc::c_void, len) } != 0 {
            failed("trim a mapping to");
        }
    }
    // SAFETY: the range is the mapping just made. If the kernel refuses, the pages are small, which is slower but correct.
    let _ = unsafe { libc::madvise(from as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    NonNull::new(from as *mut u8).expect("address zero is never mapped")
}

/// Returns the pages of a buffer to the system. The buffer reads as zero bytes afterwards.
fn drop_pages(ptr: NonNull<u8>, bytes: usize) {
    // SAFETY: whole pages of a mapping that we own and that is not in use.
    let result = unsafe { libc::madvise(ptr.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    assert_eq!(result, 0, "cannot return {bytes} bytes to the system: {}", std::io::Error::last_os_error());
}

fn unmap(ptr: NonNull<u8>, bytes: usize) {
    // SAFETY: a mapping made by `map`, with no buffer in use.
    let result = unsafe { libc::munmap(ptr.as_ptr().cast(), bytes) };
    assert_eq!(result, 0, "cannot unmap {bytes} bytes: {}", std::io::Error::last_os_error());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_a_chunk_do_not_overlap_and_their_memory_is_reused() {
        let mut arena = Arena::new();
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
            unmap(NonNull::new(chunk as *mut u8).expect("mapped"), CHUNK_BYTES);
        }
    }

    #[test]
    #[should_panic(expected = "a buffer is freed only once")]
    fn freeing_a_buffer_twice_is_detected() {
        let mut arena = Arena::new();
        let (one, _other) = (arena.take(CHUNKED_BYTES_MIN), arena.take(CHUNKED_BYTES_MIN));
        arena.give(one, CHUNKED_BYTES_MIN, true);
        arena.give(one, CHUNKED_BYTES_MIN, true);
    }

    #[test]
    fn buffers_that_keep_their_pages_are_used_before_those_that_do_not() {
        let mut arena = Arena::new();
        let taken: Vec<usize> = (0..6).map(|_| arena.take(CHUNKED_BYTES_MIN)).collect();
        for (at, keeps) in [(taken[1], false), (taken[2], false), (taken[4], true)] {
            arena.give(at, CHUNKED_BYTES_MIN, keeps);
        }
        assert_eq!(arena.idle_bytes, CHUNKED_BYTES_MIN);
        assert_eq!(arena.take(CHUNKED_BYTES_MIN), taken[4]);
        assert_eq!(arena.take(CHUNKED_BYTES_MIN), taken[1]);
        assert_eq!(arena.idle_bytes, 0);
    }

    #[test]
    fn sizes_that_are_not_used_any_more_make_room_for_one_that_is() {
        let mut arena = Arena::new();
        let (old, new) = (CHUNKED_BYTES_MIN, 4 * CHUNKED_BYTES_MIN);
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

    #[test]
    fn a_buffer_whose_pages_were_returned_reads_as_zero() {
        let ptr = map(CHUNK_BYTES);
        // SAFETY: just mapped, readable and writable; the slice is not used after the pages are returned.
        unsafe { std::slice::from_raw_parts_mut(ptr.as_ptr(), 1 << 20) }.fill(7);
        drop_pages(ptr, 512 << 10);
        // SAFETY: as above.
        let memory = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), 1 << 20) };
        assert!(
            memory[..512 << 10].iter().all(|byte| *byte == 0) && memory[512 << 10..].iter().all(|b| *b == 7)
        );
        unmap(ptr, CHUNK_BYTES);
    }

    #[test]
    fn a_mapping_of_any_size_is_aligned_and_zero() {
        for bytes in [CHUNK_BYTES, 9 << 20] {
            let ptr = map(bytes);
            assert_eq!(ptr.as_ptr() as usize % CHUNK_BYTES, 0);
            // SAFETY: just mapped, readable and writable.
            let memory = unsafe { std::slice::from_raw_parts_mut(ptr.as_ptr(), bytes) };
            assert!(memory.iter().all(|byte| *byte == 0));
            memory.fill(1);
            unmap(ptr, bytes);
        }
    }
}
