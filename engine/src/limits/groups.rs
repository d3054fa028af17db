//! Limits of the coordinators of groups as a component of a shard.

/// Requests that the coordinators of a shard hold while they read what was kept of their groups.
pub const HELD_GROUP_REQUESTS_MAX: usize = 4096;

/// Groups that are restored in one turn when a shard starts, or changes that are carried over from the log of an earlier build.
pub const GROUPS_RESTORED_PER_TURN_MAX: usize = 256;

/// Bytes of a batch of records about groups, unless one change alone takes more.
pub const GROUP_BATCH_BYTES_MAX: usize = 256 << 10;

/// Bytes of frames about groups that are read and applied in one turn when a shard starts, unless one frame alone is larger.
pub const GROUP_LOAD_BYTES_MAX: usize = 128 << 10;
/// The memory for that, unless one frame alone takes more.
pub const GROUP_LOAD_MEMORY_BYTES_MAX: usize = 1 << 20;
