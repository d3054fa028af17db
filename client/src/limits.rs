//! Limits of the client: every queue, length and buffer that the caller does not set.

/// Maximum number of records that a producer keeps of those that failed and that nobody has asked about. All are counted.
pub(crate) const FAILED_RECORDS_MAX: usize = 100;

/// Maximum size of those records. They are kept beside the producer's buffer, which has room again for others.
pub(crate) const FAILED_RECORDS_BYTES_MAX: usize = 1 << 20;

/// Maximum number of batches without acknowledgement that a connection can still assign a refusal to after they left.
pub(crate) const UNACKNOWLEDGED_BATCHES_MAX: usize = 512;

/// Maximum number of topics that a producer sends to.
pub(crate) const PRODUCER_TOPICS_MAX: usize = 10_000;
