//! The memory that a request is charged for until it is answered: one rule for both protocols.

use crate::limits::{HELD_BYTES_PER_BATCH, HELD_BYTES_PER_BYTE, HELD_BYTES_PER_GROUP};

/// What is kept of a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retained {
    /// This many batches, as received, and the state of each.
    Batches(usize),
    /// This many groups with the state of each, and the requested partitions of each by number.
    Groups(usize),
    /// Decoded names and lists, and the results for them.
    Lists,
}

/// Returns the memory that a request of `bytes` is charged for.
pub(crate) fn held_bytes(bytes: usize, retained: Retained) -> usize {
    match retained {
        // The charge of every request includes the state of one batch.
        Retained::Batches(count) => {
            bytes.saturating_add(count.saturating_sub(1).saturating_mul(HELD_BYTES_PER_BATCH))
        }
        Retained::Groups(count) => bytes.saturating_add(count.saturating_mul(HELD_BYTES_PER_GROUP)),
        Retained::Lists => bytes.saturating_mul(HELD_BYTES_PER_BYTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_once_and_lists_several_times() {
        assert_eq!(held_bytes(1 << 20, Retained::Batches(1)), 1 << 20);
        assert_eq!(held_bytes(1 << 20, Retained::Batches(3)), (1 << 20) + 2 * HELD_BYTES_PER_BATCH);
        assert_eq!(held_bytes(1000, Retained::Groups(7)), 1000 + 7 * HELD_BYTES_PER_GROUP);
        assert_eq!(held_bytes(1000, Retained::Lists), 1000 * HELD_BYTES_PER_BYTE);
        assert_eq!(held_bytes(usize::MAX, Retained::Lists), usize::MAX);
    }
}
