//! Limits of compaction.

use std::time::Duration;

use highwater_protocol::limits::DECOMPRESSED_BYTES_ANY_RATIO;

/// Partitions that are looked at in one turn for whether compaction is due.
pub const COMPACTION_PARTITIONS_PER_SCAN_STEP: usize = 1024;

/// How often a pass of compaction may go on.
pub const COMPACTION_STEP_INTERVAL: Duration = Duration::from_millis(5);

/// Bytes of frames that a pass looks at in this interval, as far as they are not a single batch. It reads each dirty byte twice and each clean one
/// once, and writes what is left.
pub const COMPACTION_BYTES_PER_STEP: usize = 256 << 10;

/// What a pass of compaction has of the memory for what is on its way to clients, while it runs: one of so many parts. At most two thirds of
/// that are for the buffers of one batch, the rest for the keys.
pub const COMPACTION_PART_OF_SENDS: usize = 4;

/// Buffers of a batch's decompressed size that are in use at once: the records as they were, those that stay, and both forms of the new batch.
pub const COMPACTION_BUFFERS: usize = 4;

/// Buffers of frames that a pass has beside that: those that were read, and those that are written and about to be.
pub const COMPACTION_FRAME_BUFFERS: usize = 3;

/// Bytes of the decompressed records of one batch that is decompressed, filtered and compressed in one turn, however much memory there is. A larger one
/// is filtered in steps. What a producer may send at any ratio of compression is not above it.
pub const COMPACTION_DECOMPRESSED_BYTES_MAX: usize = DECOMPRESSED_BYTES_ANY_RATIO;

/// Bytes of memory of a pass, however much there is.
pub const COMPACTION_BYTES_MAX: usize = 128 << 20;
