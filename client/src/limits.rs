//! Limits of the client: every queue, length and buffer whose size the caller does not set.

/// Maximum number of unreported failed records that a producer keeps. All failures are counted.
pub(crate) const FAILED_RECORDS_MAX: usize = 100;

/// Maximum total size of those records. They do not count against the producer's buffer.
pub(crate) const FAILED_RECORDS_BYTES_MAX: usize = 1 << 20;

/// Maximum number of unacknowledged batches for which a connection can still attribute a late rejection.
pub(crate) const UNACKNOWLEDGED_BATCHES_MAX: usize = 512;

/// Maximum number of topics that a producer sends to.
pub(crate) const PRODUCER_TOPICS_MAX: usize = 10_000;
