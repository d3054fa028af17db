//! Memory of buffers: chunks, each divided into buffers of one size.
//!
//! ```text
//!   chunk, at a multiple of its size
//!   +----------+----------+----------+-- .. --+-------+
//!   | buffer 0 | buffer 1 | buffer 2 |        | waste |      all of one capacity; one bit each says whether it is free
//!   +----------+----------+----------+-- .. --+-------+
//! ```
//!
//! Two arenas differ in the size of their chunks. A large batch in 4 KiB pages costs 256 page faults for each MiB when it is first written, and
//! pinning 256 pages each time a disk reads or writes it. In huge pages it costs one of each. The kernel gives huge pages only to ranges that
//! cover them completely, so buffers are carved out of chunks that are mapped, advised and unmapped as a whole. Small buffers come from
//! chunks because an allocator puts a header before each: of page-aligned pages, that header takes another page. Nobody has to clear fresh
//! memory either: the kernel has.
//!
//! A free buffer keeps its pages for reuse. When free buffers would keep more than a limit, pages are returned to the system: chunks of
//! many sizes, each with one buffer in use, would otherwise hold many times the memory in use. Of large buffers, those of the size that was not
//! used for the longest time go first. If the pages of the freed buffer went, a size that is in use would pay for the pages of each of its
//! buffers, because sizes that nobody uses any more have all that may be kept. Of small ones the freed one itself goes: threads keep those that
//! are in use in pools of their own.
//!
//! An arena serves all threads: a buffer is often dropped by another thread than the one that allocated it. At large sizes a lock costs nothing, and the
//! pools of threads are in front of it for small ones.

mod bits;
mod chunks;
mod mapping;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunks::{Arena, Geometry, Room};
use mapping::{Pages, drop_pages, map, unmap};

/// Chunks of large buffers.
const LARGE: Geometry = Geometry { chunk_bytes: 32 << 20, empty_chunks_max: 2, small_pages_chunks: 0 };

/// Chunks of small buffers. As long as there are few, they are not huge pages, so that a broker at rest stays small.
const SMALL: Geometry = Geometry { chunk_bytes: 2 << 20, empty_chunks_max: 4, small_pages_chunks: 16 };

/// Buffers of at least this size are large.
pub(super) const LARGE_BYTES_MIN: usize = 256 << 10;

/// Larger buffers are rare and are mapped individually.
const CHUNKED_BYTES_MAX: usize = 4 << 20;

/// Default for the bytes of pages that free large buffers keep; see [`set_idle_bytes_max`].
const IDLE_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// The same for small buffers.
const SMALL_IDLE_BYTES_MAX_DEFAULT: usize = 32 << 20;

static IDLE_BYTES_MAX: AtomicUsize = AtomicUsize::new(IDLE_BYTES_MAX_DEFAULT);
static SMALL_IDLE_BYTES_MAX: AtomicUsize = AtomicUsize::new(SMALL_IDLE_BYTES_MAX_DEFAULT);

/// Sets how many bytes of pages free large and small buffers may keep.
pub(super) fn set_idle_bytes_max(large: usize, small: usize) {
    IDLE_BYTES_MAX.store(large, Ordering::Relaxed);
    SMALL_IDLE_BYTES_MAX.store(small, Ordering::Relaxed);
}

static LARGE_ARENA: Mutex<Arena> = Mutex::new(Arena::new(LARGE));
static SMALL_ARENA: Mutex<Arena> = Mutex::new(Arena::new(SMALL));

/// Returns memory for a buffer of this capacity. It holds what the last owner left, or zero bytes.
pub(super) fn take(capacity: usize) -> NonNull<u8> {
    if capacity > CHUNKED_BYTES_MAX {
        return map(capacity, LARGE.chunk_bytes, Pages::Huge);
    }
    let arena = if capacity < LARGE_BYTES_MIN { &SMALL_ARENA } else { &LARGE_ARENA };
    pointer(lock(arena).take(capacity))
}

/// Takes back memory that [`take`] returned for this capacity.
pub(super) fn give(ptr: NonNull<u8>, capacity: usize) {
    if capacity > CHUNKED_BYTES_MAX {
        unmap(ptr, capacity);
    } else if capacity < LARGE_BYTES_MIN {
        give_small(ptr, capacity);
    } else {
        give_large(ptr, capacity);
    }
}

fn give_small(ptr: NonNull<u8>, capacity: usize) {
    let arena = lock(&SMALL_ARENA);
    if arena.idle_bytes + capacity <= SMALL_IDLE_BYTES_MAX.load(Ordering::Relaxed) {
        return give_back(arena, ptr, capacity, true);
    }
    drop(arena);
    give_without_pages(&SMALL_ARENA, ptr, capacity);
}

fn give_large(ptr: NonNull<u8>, capacity: usize) {
    let idle_bytes_max = IDLE_BYTES_MAX.load(Ordering::Relaxed);
    loop {
        let mut arena = lock(&LARGE_ARENA);
        match arena.make_room(capacity, idle_bytes_max) {
            Room::Enough => return give_back(arena, ptr, capacity, true),
            Room::Buffer { at, capacity } => {
                drop(arena);
                give_without_pages(&LARGE_ARENA, pointer(at), capacity);
            }
            Room::Nothing => {
                drop(arena);
                return give_without_pages(&LARGE_ARENA, ptr, capacity);
            }
        }
    }
}

/// Gives a buffer back that nobody else can get before its pages have been returned to the system, which takes a while: without the lock.
fn give_without_pages(arena: &Mutex<Arena>, ptr: NonNull<u8>, capacity: usize) {
    drop_pages(ptr, capacity);
    give_back(lock(arena), ptr, capacity, false);
}

fn give_back(mut arena: MutexGuard<'_, Arena>, ptr: NonNull<u8>, capacity: usize, keeps: bool) {
    let unmapped = arena.give(ptr.as_ptr() as usize, capacity, keeps);
    let chunk_bytes = arena.chunk_bytes();
    drop(arena);
    if let Some(chunk) = unmapped {
        unmap(pointer(chunk), chunk_bytes);
    }
}

fn pointer(at: usize) -> NonNull<u8> {
    NonNull::new(at as *mut u8).expect("address zero is never mapped")
}

fn lock(arena: &Mutex<Arena>) -> MutexGuard<'_, Arena> {
    arena.lock().unwrap_or_else(PoisonError::into_inner)
}
