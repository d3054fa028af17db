//! Limits of the replicas of partitions.

/// Ends of frames that are not acknowledged for which a partition keeps memory while it has none.
pub const MARKS_KEPT_MAX: usize = 64;

/// Bytes of frames in one message to another replica, unless a single frame is larger.
pub const PEER_READ_BYTES_MAX: usize = 1 << 20;
