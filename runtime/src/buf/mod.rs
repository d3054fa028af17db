//! Buffers for direct I/O: whole pages, page aligned, recycled.
//!
//! An [`AlignedBuf`] has one owner, which may write to it. [`freeze`](AlignedBuf::freeze) turns it into shared, immutable
//! [`Bytes`], which may be written to disk, sent to clients and cached at the same time. When the last reference is dropped, the
//! memory returns to the pool of the thread that dropped it or, if the buffer is large or the pool is full, to its chunk.

mod arena;

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Alignment and unit of direct I/O.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of small buffers that a thread's pool keeps, unless [`keep_idle`] sets another limit; more is returned to the arena.
pub const POOL_BYTES_MAX: usize = 32 << 20;

static POOL_BYTES: AtomicUsize = AtomicUsize::new(POOL_BYTES_MAX);

/// Sets how much memory free buffers of this process may keep for reuse. Half of it is for large buffers, a quarter for small ones, and a quarter is
/// divided among the pools of `threads` threads.
pub fn keep_idle(bytes: usize, threads: usize) {
    arena::set_idle_bytes_max(bytes / 2, bytes / 4);
    POOL_BYTES.store(bytes / 4 / threads.max(1), Ordering::Relaxed);
}

/// Buffers of at least this size are rounded to multiples of it; smaller ones to powers of two.
const CLASS_STEP: usize = 64 << 10;

/// Page-aligned whole pages with a single owner.
///
/// Invariant: `ptr` is valid for `capacity` initialised bytes, `len <= capacity`, both are multiples of [`PAGE_BYTES`].
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the memory is owned by this value alone, like a `Vec<u8>`'s.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Allocates at least `bytes` bytes, rounded up to whole pages. The content is zero bytes or what an earlier owner left.
    pub fn new(bytes: usize) -> Self {
        let len = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let capacity = class_bytes(len);
        let pooled = if is_large(capacity) { None } else { pool_take(capacity) };
        let ptr = pooled.unwrap_or_else(|| arena::take(capacity));
        Self { ptr, len, capacity }
    }

    /// Returns the bytes of memory that a buffer for this many bytes takes.
    pub const fn memory_bytes_for(bytes: usize) -> usize {
        class_bytes(if bytes == 0 { PAGE_BYTES } else { bytes.next_multiple_of(PAGE_BYTES) })
    }

    /// Returns the bytes that a buffer can hold if it may take at most this much memory.
    pub const fn bytes_within(memory_bytes: usize) -> usize {
        if memory_bytes < PAGE_BYTES {
            0
        } else if memory_bytes < CLASS_STEP {
            1 << memory_bytes.ilog2()
        } else {
            memory_bytes - memory_bytes % CLASS_STEP
        }
    }

    /// Returns the address of the bytes, without a reference to them: the kernel may be writing to some.
    pub(crate) fn memory(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Returns the bytes of memory that the buffer takes.
    pub fn memory_bytes(&self) -> usize {
        self.capacity
    }

    /// Like [`AlignedBuf::new`], but filled with zero bytes.
    pub fn zeroed(bytes: usize) -> Self {
        let mut buf = Self::new(bytes);
        buf.fill(0);
        buf
    }

    /// Drops the pages after the first `bytes`, rounded up to whole pages.
    pub fn truncate(&mut self, bytes: usize) {
        self.len = self.len.min(bytes.next_multiple_of(PAGE_BYTES));
    }

    /// Extends the buffer with zero bytes, copying the content if it has to move.
    pub fn grow(&mut self, bytes: usize) {
        let len = bytes.next_multiple_of(PAGE_BYTES);
        if len <= self.len {
            return;
        }
        let old = self.len;
        if len > self.capacity {
            let mut larger = Self::new(len);
            larger[..old].copy_from_slice(self);
            *self = larger;
        }
        self.len = len;
        self[old..].fill(0);
    }

    /// Makes the buffer shared and immutable, without a copy. The result keeps the alignment.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Like [`AlignedBuf::freeze`], but `gauge` counts the memory until the last slice of it is dropped.
    pub fn freeze_counted(self, gauge: &MemoryGauge) -> Bytes {
        gauge.0.fetch_add(self.capacity, Ordering::Relaxed);
        Bytes::from_owner(Counted { buf: self, gauge: gauge.clone() })
    }
}

/// Counts the memory of shared buffers wherever slices of them are held: in a cache, in a disk write, in the send queue of a slow
/// client.
#[derive(Clone, Default, Debug)]
pub struct MemoryGauge(Arc<AtomicUsize>);

impl MemoryGauge {
    /// Returns the bytes counted now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A shared buffer counted by a gauge.
struct Counted {
    buf: AlignedBuf,
    gauge: MemoryGauge,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.buf.capacity, Ordering::Relaxed);
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if is_large(self.capacity) {
            arena::give(self.ptr, self.capacity);
        } else {
            pool_put(self.ptr, self.capacity);
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the type's invariant.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the type's invariant, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).finish_non_exhaustive()
    }
}

const fn class_bytes(len: usize) -> usize {
    if len < CLASS_STEP { len.next_power_of_two() } else { len.next_multiple_of(CLASS_STEP) }
}

/// Returns whether the buffer is too large for the pools of threads.
fn is_large(capacity: usize) -> bool {
    capacity >= arena::LARGE_BYTES_MIN
}

/// Free buffers of one thread, by capacity.
struct Pool {
    free: Vec<(usize, Vec<NonNull<u8>>)>,
    bytes: usize,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (capacity, list) in self.free.drain(..) {
            for ptr in list {
                arena::give(ptr, capacity);
            }
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), bytes: 0 }) };
}

fn pool_take(capacity: usize) -> Option<NonNull<u8>> {
    POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let at = pool.free.binary_search_by_key(&capacity, |class| class.0).ok()?;
        let ptr = pool.free[at].1.pop()?;
        pool.bytes -= capacity;
        Some(ptr)
    })
    .ok()
    .flatten()
}

fn pool_put(ptr: NonNull<u8>, capacity: usize) {
    let kept = POOL
        .try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.bytes + capacity > POOL_BYTES.load(Ordering::Relaxed) {
                return false;
            }
            pool.bytes += capacity;
            match pool.free.binary_search_by_key(&capacity, |class| class.0) {
                Ok(at) => pool.free[at].1.push(ptr),
                Err(at) => pool.free.insert(at, (capacity, vec![ptr])),
            }
            true
        })
        .unwrap_or(false);
    if !kept {
        arena::give(ptr, capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_whole_aligned_pages_and_keep_their_content_when_they_grow() {
        for bytes in [1, 4096, 4097, 65536, 65537, 1 << 20, (1 << 20) + 64, 9 << 20] {
            let mut buf = AlignedBuf::zeroed(bytes);
            assert_eq!(buf.as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!(buf.len(), bytes.next_multiple_of(PAGE_BYTES));
            buf[0] = 7;
            let last = buf.len() - 1;
            buf[last] = 9;
            buf.grow(bytes * 3);
            assert_eq!((buf[0], buf[last]), (7, 9));
            assert!(buf[last + 1..].iter().all(|b| *b == 0), "new bytes are zero");
        }
    }

    #[test]
    fn a_frozen_buffer_keeps_its_address_and_returns_to_the_pool_of_the_dropping_thread() {
        let buf = AlignedBuf::new(128 << 10);
        let address = buf.as_ptr() as usize;
        let bytes = buf.freeze();
        assert_eq!(bytes.as_ptr() as usize, address);
        drop(bytes);
        assert_eq!(AlignedBuf::new(128 << 10).as_ptr() as usize, address);
        std::thread::spawn(move || {
            let other = AlignedBuf::new(128 << 10);
            assert_ne!(other.as_ptr() as usize, 0);
        })
        .join()
        .expect("the thread must not panic");
    }

    #[test]
    fn a_gauge_counts_a_buffer_until_its_last_slice_is_dropped() {
        let gauge = MemoryGauge::default();
        let whole = AlignedBuf::new(5000).freeze_counted(&gauge);
        let slice = whole.slice(10..20);
        assert_eq!(gauge.bytes(), 8192);
        drop(whole);
        assert_eq!(gauge.bytes(), 8192);
        drop(slice);
        assert_eq!(gauge.bytes(), 0);
    }

    #[test]
    fn the_memory_of_a_buffer_can_be_computed_in_advance() {
        for bytes in [0, 1, 4096, 4097, 9000, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 9 << 20] {
            let memory_bytes = AlignedBuf::new(bytes).memory_bytes();
            assert_eq!(memory_bytes, AlignedBuf::memory_bytes_for(bytes));
            assert_eq!(AlignedBuf::bytes_within(memory_bytes), memory_bytes);
            assert!(AlignedBuf::bytes_within(memory_bytes - 1) < memory_bytes);
            assert!(
                AlignedBuf::memory_bytes_for(AlignedBuf::bytes_within(memory_bytes + 1)) <= memory_bytes + 1
            );
        }
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let many: Vec<_> = (0..400).map(|_| AlignedBuf::new(128 << 10)).collect();
        drop(many);
        POOL.with(|pool| assert!(pool.borrow().bytes <= POOL_BYTES_MAX));
    }
}
