//! Limits of the group coordinator, each with its unit in its name, and what can be configured.

use highwater_protocol::limits::GROUP_RECORD_BYTES_MAX;

use crate::limits::{GROUPS_BYTES_MAX, OFFSETS_BYTES_MAX};

/// Groups of a broker, those that only have offsets included.
pub const GROUPS_MAX: usize = 100_000;

/// Members of a group.
pub const GROUP_MEMBERS_MAX: usize = 10_000;

/// About what a group takes that is kept without members, apart from its names.
pub const GROUP_BYTES: usize = 64;

/// Bytes of a group's members, with their metadata and assignments.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// About how many bytes of records of a group are written in one batch. More are divided into several, except for a group of the classic
/// protocol, which is one record.
pub const BATCH_BYTES_SPLIT: usize = 1 << 20;

/// What a record takes in a batch besides its key and its value, at most.
pub const BATCH_BYTES_PER_RECORD: usize = 32;

const _: () = assert!(GROUP_BYTES_MAX + BATCH_BYTES_SPLIT <= GROUP_RECORD_BYTES_MAX);

/// Bytes of a name: of a group, a member, an instance, a protocol or a protocol type.
pub const NAME_BYTES_MAX: usize = 1 << 10;

/// UTF-16 units of what is kept with an offset; Kafka's `offset.metadata.max.bytes`, which counts the same.
pub const OFFSET_METADATA_UNITS_MAX: usize = 4096;

/// Bytes of a regular expression of a subscription.
pub const REGEX_BYTES_MAX: usize = 1 << 10;

/// Bytes of a regular expression's automaton. It is compiled again when topics have changed, so this also bounds the time for that.
pub const REGEX_COMPILED_BYTES_MAX: usize = 160 << 10;

/// Bytes that compiling one takes besides.
pub const REGEX_COMPILING_BYTES_MAX: usize = 256 << 10;

/// Different regular expressions of the members of a group.
pub const GROUP_REGEXES_MAX: usize = 64;

/// The same of all groups together. For each a bit is kept for every topic.
pub const REGEXES_MAX: usize = 1024;

/// Work of the coordinator in one turn, for what takes long: matching names with regular expressions, and assigning partitions. A unit is
/// about as much as a byte of a name to match, a nanosecond or two. Half as much may be done besides for requests that have waited, and as
/// much for assignments that take several turns. The last request of each may be over it: by compiling an expression, or by the slice of an
/// assignment that it begins.
pub const WORK_PER_TURN_MAX: usize = 500_000;

/// Groups and offsets that are listed, looked up or kept in one turn for requests about many of them; each takes about half a microsecond.
pub const LONG_ITEMS_PER_TURN_MAX: usize = 2048;

/// The same for one request, before it is another one's turn.
pub const LONG_ITEMS_PER_SLICE_MAX: usize = 512;

/// Partitions of a member that are described for one of these.
pub const DESCRIBED_PARTITIONS_PER_ITEM: usize = 64;

/// What a name counts for, apart from its bytes.
pub const MATCH_WORK_PER_NAME: usize = 32;

/// What compiling counts for, for each byte of the automaton.
pub const MATCH_WORK_PER_AUTOMATON_BYTE: usize = 15;

/// What assigning counts for, for each step that is little work: a class that wants a topic, a partition that stays.
pub const ASSIGN_WORK_PER_ITEM: usize = 64;

/// What it counts for, for each partition that is given to somebody.
pub const ASSIGN_WORK_PER_PARTITION: usize = 256;

/// What it counts for, for each member.
pub const ASSIGN_WORK_PER_MEMBER: usize = 512;

/// What it counts for, for each name of a member's that is compared with those of other members.
pub const ASSIGN_WORK_PER_COMPARED_NAME: usize = 8;

/// Work on the assignment of one group at once, when a heartbeat begins it; and on all that take longer, in one turn.
pub const ASSIGN_WORK_PER_SLICE_MAX: usize = WORK_PER_TURN_MAX / 2;

/// What leading a member to its target counts for, for each member that may have what it is meant to get.
pub const RECONCILE_WORK_PER_MEMBER: usize = 16;

/// How often members are to send heartbeats, at least, while their group's assignment is being made.
pub const ASSIGNING_HEARTBEAT_INTERVAL_MS: i32 = 500;

/// What can be configured about groups. Times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// How long an empty group waits for more members before its first generation.
    pub initial_rebalance_delay_ms: u64,
    /// The shortest session timeout a member of the classic protocol may ask for.
    pub session_timeout_min_ms: i32,
    /// The longest.
    pub session_timeout_max_ms: i32,
    /// How long a member that joins for the first time may wait for the others.
    pub new_member_join_timeout_ms: u64,
    /// Session timeout of members of the consumer protocol.
    pub consumer_session_timeout_ms: u64,
    /// How often they shall send heartbeats.
    pub consumer_heartbeat_interval_ms: i32,
    /// How long offsets are kept that nobody uses.
    pub offsets_retention_ms: i64,
    /// How often offsets are looked at for that.
    pub cleanup_interval_ms: u64,
    /// Members of a group.
    pub group_members_max: usize,
    /// Bytes of the offsets of all groups together; at most [`OFFSETS_BYTES_MAX`].
    pub offsets_bytes_max: usize,
    /// Bytes of the members of all groups together; at most [`GROUPS_BYTES_MAX`].
    pub members_bytes_max: usize,
    /// Bytes of the members of a group; at most [`GROUP_BYTES_MAX`].
    pub group_bytes_max: usize,
}

impl GroupConfig {
    /// Limits the members of a group so that its record fits a batch of this size.
    #[must_use]
    pub fn with_batches_of(self, batch_bytes_max: usize) -> Self {
        // An eighth is for the names of the group and of the member that comes last, and for what encodes them.
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
