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
//! A free buffer keeps its pages for reuse. When free buffers keep more than a limit, the pages of further freed buffers are
//! returned to the system: chunks of many sizes, each with one buffer in use, would otherwise hold many times the memory in use.
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
    let at = arena().take(capacity);
    NonNull::new(at as *mut u8).expect("address zero is never mapped")
}

/// Takes back memory that [`take`] returned for this capacity.
pub(super) fn give(ptr: NonNull<u8>, capacity: usize) {
    if capacity > CHUNKED_BYTES_MAX {
        return unmap(ptr, capacity);
    }
    // Outside the lock: returning memory to the system takes a while.
    let at = ptr.as_ptr() as usize;
    let keeps = arena().idle_bytes + capacity <= IDLE_BYTES_MAX.load(Ordering::Relaxed);
    if !keeps {
        // No other thread can get the buffer yet: it is marked free only afterwards.
        drop_pages(ptr, capacity);
    }
    let unmapped = arena().give(at, capacity, keeps);
    if let Some(chunk) = unmapped.and_then(|at| NonNull::new(at as *mut u8)) {
        unmap(chunk, CHUNK_BYTES);
    }
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
}

struct Chunk {
    /// One bit per buffer, set if it is free.
    free: u128,
    /// One bit per buffer, set if it is free and keeps its pages.
    kept: u128,
}

impl Arena {
    const fn new() -> Self {
        Self { chunks: BTreeMap::new(), partial: BTreeMap::new(), empty: Vec::new(), idle_bytes: 0 }
    }

    fn take(&mut self, capacity: usize) -> usize {
        let partial = self.partial.entry(capacity).or_default();
        let base = if let Some(base) = partial.last() {
            *base
        } else {
            let (base, kept_bytes) =
                self.empty.pop().unwrap_or_else(|| (map(CHUNK_BYTES).as_ptr() as usize, 0));
            // Which pages the chunk keeps is unknown, so assume that they are in the first buffers.
            let kept = all_free(capacity) & first_bits(kept_bytes.div_ceil(capacity));
            self.idle_bytes = self.idle_bytes - kept_bytes + kept.count_ones() as usize * capacity;
            self.chunks.insert(base, Chunk { free: all_free(capacity), kept });
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
