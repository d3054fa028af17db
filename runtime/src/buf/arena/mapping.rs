//! Memory from the system: ranges of pages that are mapped, and unmapped as a whole.

use std::io::Error;
use std::ptr::NonNull;

/// Whether the kernel is asked for huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// Huge pages, if the system has any.
    Huge,
    /// What the system gives without being asked.
    Any,
}

/// Maps fresh zero bytes at a multiple of `align`, which is a multiple of the page size.
pub(super) fn map(bytes: usize, align: usize, pages: Pages) -> NonNull<u8> {
    let failed =
        |what: &str| -> ! { panic!("cannot {what} {bytes} bytes of memory: {}", Error::last_os_error()) };
    let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let whole = unsafe { libc::mmap(std::ptr::null_mut(), bytes + align, protection, kind, -1, 0) };
    if whole == libc::MAP_FAILED {
        failed("map");
    }
    let start = whole as usize;
    let from = start.next_multiple_of(align);
    for (at, len) in [(start, from - start), (from + bytes, start + align - from)] {
        // SAFETY: both ranges are whole pages of the mapping just made, and nothing refers to them.
        if len > 0 && unsafe { libc::munmap(at as *mut libc::c_void, len) } != 0 {
            failed("trim a mapping to");
        }
    }
    if pages == Pages::Huge {
        // SAFETY: the range is the mapping just made. If the kernel refuses, the pages are small, which is slower but correct.
        let _ = unsafe { libc::madvise(from as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    }
    NonNull::new(from as *mut u8).expect("address zero is never mapped")
}

/// Returns the pages of a buffer to the system. The buffer reads as zero bytes afterwards.
pub(super) fn drop_pages(ptr: NonNull<u8>, bytes: usize) {
    // SAFETY: whole pages of a mapping that we own and that is not in use.
    let result = unsafe { libc::madvise(ptr.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    assert_eq!(result, 0, "cannot return {bytes} bytes to the system: {}", Error::last_os_error());
}

/// Unmaps a mapping as a whole.
pub(super) fn unmap(ptr: NonNull<u8>, bytes: usize) {
    // SAFETY: a mapping made by `map`, with no buffer in use.
    let result = unsafe { libc::munmap(ptr.as_ptr().cast(), bytes) };
    assert_eq!(result, 0, "cannot unmap {bytes} bytes: {}", Error::last_os_error());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGN: usize = 2 << 20;

    #[test]
    fn a_buffer_whose_pages_were_returned_reads_as_zero() {
        let ptr = map(ALIGN, ALIGN, Pages::Huge);
        // SAFETY: just mapped, readable and writable; the slice is not used after the pages are returned.
        unsafe { std::slice::from_raw_parts_mut(ptr.as_ptr(), 1 << 20) }.fill(7);
        drop_pages(ptr, 512 << 10);
        // SAFETY: as above.
        let memory = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), 1 << 20) };
        assert!(
            memory[..512 << 10].iter().all(|byte| *byte == 0) && memory[512 << 10..].iter().all(|b| *b == 7)
        );
        unmap(ptr, ALIGN);
    }

    #[test]
    fn a_mapping_of_any_size_is_aligned_and_zero() {
        for (bytes, pages) in [(ALIGN, Pages::Huge), (ALIGN, Pages::Any), (9 << 20, Pages::Huge)] {
            let ptr = map(bytes, ALIGN, pages);
            assert_eq!(ptr.as_ptr() as usize % ALIGN, 0);
            // SAFETY: just mapped, readable and writable.
            let memory = unsafe { std::slice::from_raw_parts_mut(ptr.as_ptr(), bytes) };
            assert!(memory.iter().all(|byte| *byte == 0));
            memory.fill(1);
            unmap(ptr, bytes);
        }
    }
}
