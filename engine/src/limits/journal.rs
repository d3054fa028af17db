//! Limits of the journal of a store.

use std::ops::RangeInclusive;

use highwater_storage::StoreLimits;

/// The journal of a store has one part in this many of the bytes of its cache.
pub const JOURNAL_PART: u64 = 4;

/// The smallest and the largest journal of a store, in bytes.
pub const JOURNAL_BYTES: RangeInclusive<u64> = 1 << 20..=16 << 20;

/// The smallest and the largest `journal_tail_bytes_max` that a measurement of the disk leads to, in bytes.
pub const JOURNAL_TAIL_BYTES_MAX: RangeInclusive<u64> = 16 << 10..=256 << 10;

/// The largest `journal_tail_bytes_max` that can be configured, in bytes.
pub const JOURNAL_TAIL_BYTES_LIMIT: u64 = 1 << 20;

/// Returns the limit of what a partition writes to the journal in a round, on a disk that writes `break_even_bytes` sequentially in the time that one
/// more small write takes. Bytes in the journal are written twice, the second time in large writes.
pub fn journal_tail_bytes_max(break_even_bytes: Option<u64>) -> u64 {
    let Some(bytes) = break_even_bytes else { return StoreLimits::default().journal_tail_bytes_max };
    1 << bytes.clamp(*JOURNAL_TAIL_BYTES_MAX.start(), *JOURNAL_TAIL_BYTES_MAX.end()).ilog2()
}

/// Returns the size of a store's journal. The cache keeps what is in the journal until the extents have it too.
pub(super) fn journal_bytes(cache_bytes: u64) -> u64 {
    let bytes = cache_bytes / JOURNAL_PART;
    1 << bytes.clamp(*JOURNAL_BYTES.start(), *JOURNAL_BYTES.end()).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_expensive_small_writes_has_more_written_to_the_journal() {
        assert_eq!(journal_tail_bytes_max(None), 64 << 10);
        assert_eq!(journal_tail_bytes_max(Some(1)), 16 << 10);
        assert_eq!(journal_tail_bytes_max(Some(40 << 10)), 32 << 10);
        assert_eq!(journal_tail_bytes_max(Some(u64::MAX)), 256 << 10);
    }
}
