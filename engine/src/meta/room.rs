//! The limit on topics and partitions, from the memory that a broker has for their metadata.

use crate::limits::ShardLimits;
use crate::units::mib;

/// What a batch has beside its record, at most.
const BATCH_OVERHEAD_BYTES: usize = 256;

/// The limit for topics and partitions together: an eighth of the broker's memory, see [`ShardLimits::metadata_bytes_max`].
#[derive(Clone, Copy, Debug)]
pub struct MetadataRoom {
    entries_max: usize,
    /// The log takes no larger batches.
    batch_bytes_max: usize,
}

impl MetadataRoom {
    /// Creates it from these limits.
    pub fn new(limits: &ShardLimits) -> Self {
        Self { entries_max: limits.metadata_entries_max(), batch_bytes_max: limits.store.payload_bytes_max }
    }

    /// Returns the largest batch that the log takes.
    pub fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max
    }

    /// Checks whether the log takes a record of this size.
    pub fn check_record(&self, bytes: usize) -> Result<(), String> {
        let (all, max) = (bytes + BATCH_OVERHEAD_BYTES, self.batch_bytes_max);
        if all <= max {
            return Ok(());
        }
        Err(format!(
            "the change takes a record of {bytes} bytes, and this broker takes batches of at most {max}: change less at once, or start it with a \
             larger --batch-bytes-max"
        ))
    }

    /// Checks whether `new` more topics and partitions fit. The error names the memory that they need.
    pub fn check(&self, there: usize, new: usize) -> Result<(), String> {
        let (all, max) = (there + new, self.entries_max);
        if all <= max {
            return Ok(());
        }
        Err(format!(
            "with --memory {} a broker keeps at most {max} topics and partitions, and this would make {all}, with those that are being deleted: \
             delete topics, or start it with --memory {} or more",
            memory_for(max),
            memory_for(all),
        ))
    }

    /// Returns the warning at the start of a broker with too many topics and partitions.
    pub fn warning(&self, there: usize) -> Option<String> {
        let max = self.entries_max;
        (there > max).then(|| {
            format!(
                "there are {there} topics and partitions, and with --memory {} a broker keeps at most {max}: all are served, the process takes more \
                 memory than it was given, and no more topics or partitions are created; start it with --memory {} or more, or delete topics",
                memory_for(max),
                memory_for(there),
            )
        })
    }
}

/// Returns the value of `--memory` that this many entries need.
fn memory_for(entries: usize) -> String {
    mib(ShardLimits::memory_bytes_for(entries).next_multiple_of(1 << 20))
}

#[cfg(test)]
mod tests {
    use highwater_protocol::limits::BATCH_BYTES_MAX_DEFAULT;

    use super::*;

    #[test]
    fn there_is_memory_for_one_entry_per_8_kib_and_the_error_says_what_more_needs() {
        let limits = ShardLimits::production(256 << 20, 2, 1, BATCH_BYTES_MAX_DEFAULT);
        let room = MetadataRoom::new(&limits);
        assert_eq!(room.check(0, 32_768), Ok(()));
        assert_eq!((room.check(32_767, 1), room.warning(32_768)), (Ok(()), None));
        let refused = room.check(32_767, 2).expect_err("it is one too many");
        for said in ["--memory 256MiB", "32768", "32769", "--memory 257MiB or more"] {
            assert!(refused.contains(said), "{refused}");
        }
        let warning = room.warning(100_000).expect("they are too many");
        assert!(warning.contains("100000") && warning.contains("--memory 782MiB or more"), "{warning}");
    }
}
