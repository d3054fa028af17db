//! Memory for direct I/O in huge pages, which need the fewest lookups in the kernel.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Size and alignment of a huge page.
const HUGE_BYTES: usize = 2 << 20;

/// Initialised bytes that start at a huge page's boundary and occupy huge pages exclusively.
///
/// Invariant: `ptr` is valid for `layout.size()` initialised bytes, and `bytes` is at most that.
pub(super) struct Pages {
    ptr: NonNull<u8>,
    bytes: usize,
    layout: Layout,
}

// SAFETY: the memory is owned by this value alone, like a `Vec<u8>`'s.
unsafe impl Send for Pages {}

impl Pages {
    pub(super) fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1).next_multiple_of(HUGE_BYTES), HUGE_BYTES)
            .expect("buffers are far below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        // SAFETY: advice on memory that only this value owns; it changes no content. Without huge pages the kernel refuses, which
        // is only slower.
        let _ = unsafe { libc::madvise(ptr.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        let mut pages = Self { ptr, bytes, layout };
        // Fill with a pattern, so that the disk cannot optimise for zeros, and all pages are mapped before the measurement.
        for (n, byte) in pages.iter_mut().enumerate() {
            *byte = (n as u8) ^ ((n >> 8) as u8).wrapping_mul(31);
        }
        pages
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the type's invariant.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the type's invariant, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.bytes) }
    }
}
