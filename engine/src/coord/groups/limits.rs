//! Limits of the group coordinator, and its configuration.

use highwater_protocol::limits::GROUP_RECORD_BYTES_MAX;

use crate::limits::{GROUPS_BYTES_MAX, OFFSETS_BYTES_MAX};

/// Maximum number of groups of a broker, including those with only offsets.
pub const GROUPS_MAX: usize = 100_000;

/// Maximum number of members of a group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;

/// Approximate bytes of a group without members, apart from its names.
pub const GROUP_BYTES: usize = 64;

/// Maximum bytes of a group's members, with their metadata and assignments.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Approximate maximum bytes of a group's records in one batch. More records are split into several batches; a group of the classic protocol is
/// always one record.
pub const BATCH_BYTES_SPLIT: usize = 1 << 20;

/// Maximum bytes of a record in a batch, apart from its key and value.
pub const BATCH_BYTES_PER_RECORD: usize = 32;

const _: () = assert!(GROUP_BYTES_MAX + BATCH_BYTES_SPLIT <= GROUP_RECORD_BYTES_MAX);

/// Maximum bytes of a name: of a group, a member, an instance, a protocol or a protocol type.
pub const NAME_BYTES_MAX: usize = 1 << 10;

/// Maximum UTF-16 units of an offset's metadata. Kafka's `offset.metadata.max.bytes` also counts UTF-16 units.
pub const OFFSET_METADATA_UNITS_MAX: usize = 4096;

/// Maximum bytes of a subscription's regular expression.
pub const REGEX_BYTES_MAX: usize = 1 << 10;

/// Maximum bytes of a regular expression's automaton. It is compiled again after topics change, so this also bounds the time of compilation.
pub const REGEX_COMPILED_BYTES_MAX: usize = 160 << 10;

/// Maximum bytes of the NFA of a regular expression, and of the working memory to turn it into the automaton.
pub const REGEX_COMPILING_BYTES_MAX: usize = 256 << 10;

/// Maximum number of different regular expressions of a group's members.
pub const GROUP_REGEXES_MAX: usize = 64;

/// Maximum number of different regular expressions of all groups of a coordinator. Each takes a bit for every topic.
pub const REGEXES_MAX: usize = 1024;

/// Maximum work of the coordinator in one turn on expensive operations: matching topic names with regular expressions, and assigning partitions.
/// A unit is about the cost of matching a byte of a name: a nanosecond or two. Half as much again is allowed for deferred requests, and half as
/// much again for assignments that take several turns. The last request of each may exceed the limit by the compilation of an expression, or by
/// the slice of an assignment that it begins.
pub const WORK_PER_TURN_MAX: usize = 500_000;

/// Maximum number of groups and offsets that long requests list, look up or write in one turn. Each takes about half a microsecond.
pub const LONG_ITEMS_PER_TURN_MAX: usize = 2048;

/// Maximum number of items of one long request in a slice, before the next request gets a slice.
pub const LONG_ITEMS_PER_SLICE_MAX: usize = 512;

/// Partitions in a member's description that cost one item.
pub const DESCRIBED_PARTITIONS_PER_ITEM: usize = 64;

/// Work of matching a name, apart from its bytes.
pub const MATCH_WORK_PER_NAME: usize = 32;

/// Work of compiling a regular expression, for each byte of the automaton.
pub const MATCH_WORK_PER_AUTOMATON_BYTE: usize = 15;

/// Work of a small step of an assignment: a class that wants a topic, a partition that keeps its owner.
pub const ASSIGN_WORK_PER_ITEM: usize = 64;

/// Work of an assignment for each partition that gets an owner.
pub const ASSIGN_WORK_PER_PARTITION: usize = 256;

/// Work of an assignment for each member.
pub const ASSIGN_WORK_PER_MEMBER: usize = 512;

/// Work of an assignment for each subscribed name that is compared with those of other members.
pub const ASSIGN_WORK_PER_COMPARED_NAME: usize = 8;

/// Maximum work on a group's assignment in the heartbeat that begins it; and, per turn, on all assignments that take longer.
pub const ASSIGN_WORK_PER_SLICE_MAX: usize = WORK_PER_TURN_MAX / 2;

/// Work of reconciling a member that lacks partitions of its target, for each member of the group: each may still own some of them.
pub const RECONCILE_WORK_PER_MEMBER: usize = 16;

/// Maximum heartbeat interval of members while their group's assignment is being computed.
pub const ASSIGNING_HEARTBEAT_INTERVAL_MS: i32 = 500;

/// Configuration of the group coordinator. Times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// How long an empty group waits for more members before its first generation.
    pub initial_rebalance_delay_ms: u64,
    /// Minimum session timeout of a member of the classic protocol.
    pub session_timeout_min_ms: i32,
    /// Maximum session timeout of a member of the classic protocol.
    pub session_timeout_max_ms: i32,
    /// How long a member that joins for the first time may wait for the others.
    pub new_member_join_timeout_ms: u64,
    /// Session timeout of members of the consumer protocol.
    pub consumer_session_timeout_ms: u64,
    /// Heartbeat interval of members of the consumer protocol.
    pub consumer_heartbeat_interval_ms: i32,
    /// How long unused offsets are kept.
    pub offsets_retention_ms: i64,
    /// Interval between checks for expired offsets.
    pub cleanup_interval_ms: u64,
    /// Maximum number of members of a group.
    pub group_members_max: usize,
    /// Maximum bytes of the offsets of all groups together; at most [`OFFSETS_BYTES_MAX`].
    pub offsets_bytes_max: usize,
    /// Maximum bytes of the members of all groups together; at most [`GROUPS_BYTES_MAX`].
    pub members_bytes_max: usize,
    /// Maximum bytes of the members of a group; at most [`GROUP_BYTES_MAX`].
    pub group_bytes_max: usize,
}

impl GroupConfig {
    /// Limits the bytes of a group's members so that its record fits into a batch of this size.
    #[must_use]
    pub fn with_batches_of(self, batch_bytes_max: usize) -> Self {
        // Reserves an eighth for the names of the group and of the last member, and for the overhead of the encoding.
        let group_bytes_max = self.group_bytes_max.min(batch_bytes_max - batch_bytes_max / 8);
        Self { group_bytes_max, ..self }
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            new_member_join_timeout_ms: 300_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            cleanup_interval_ms: 600_000,
            group_members_max: GROUP_MEMBERS_MAX,
            offsets_bytes_max: OFFSETS_BYTES_MAX,
            members_bytes_max: GROUPS_BYTES_MAX,
            group_bytes_max: GROUP_BYTES_MAX,
        }
    }
}
