//! Gaps between frames.

use highwater_protocol::frame::FRAME_HEADER_BYTES;

use crate::layout::PAGE_BYTES;

/// Bytes of padding that bring this position to the start of a page: none, or at least a frame header's.
pub(crate) fn padding_bytes(position: usize) -> usize {
    match position.next_multiple_of(PAGE_BYTES) - position {
        0 => 0,
        rest if rest < FRAME_HEADER_BYTES => rest + PAGE_BYTES,
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_a_page_and_always_has_room_for_its_header() {
        for position in (0..3 * PAGE_BYTES).step_by(8) {
            let padding = padding_bytes(position);
            assert!((position + padding).is_multiple_of(PAGE_BYTES));
            assert!(padding == 0 || padding >= FRAME_HEADER_BYTES);
            assert!(padding <= crate::limits::PADDING_BYTES_MAX);
        }
    }
}
