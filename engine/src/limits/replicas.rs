//! Limits of the replicas of partitions, and of the channels between nodes. Those of one channel are in `highwater_replication::peer::limits`.

use std::time::Duration;

/// Ends of frames that are not acknowledged for which a partition keeps memory while it has none.
pub const MARKS_KEPT_MAX: usize = 64;

/// Channels of a shard to shards of other nodes.
pub const PEER_LINKS_MAX: usize = 2048;

const _: () = assert!(PEER_LINKS_MAX <= highwater_runtime::plane::OUTGOING_CONNECTIONS_MAX);

/// Connections to the listener for other nodes whose hello has not arrived, on one shard.
pub const PEER_GREETINGS_MAX: usize = 256;

/// Bytes that a connection to another node has taken and not sent, from which on it gets no more.
pub const PEER_SOCKET_BYTES_MAX: usize = 4 << 20;

/// Time until a connection to the listener for other nodes gets the answer to its request to join: the registration has to be committed.
pub const PEER_JOIN_TIME: Duration = Duration::from_secs(10);

/// Time without a channel to a node until it is missed, so that another disk can take its place.
pub const NODE_MISSED_AFTER: Duration = Duration::from_secs(5);

/// Messages of other replicas that are handled in one turn. The rest follows in the next turn.
pub const PEER_EVENTS_PER_TURN_MAX: usize = 4096;

/// Entries of the table of partitions that are visited in one turn when a node was lost or can be reached again.
pub const PEER_PARTITIONS_PER_TURN_MAX: usize = 1024;

/// Replicas that are looked at in one turn because there is something to send to them.
pub const PEER_SENDS_PER_TURN_MAX: usize = 4096;

/// Partitions that begin an election in one turn.
pub const ELECTIONS_PER_TURN_MAX: usize = 1024;

/// Shortest time between the end of a leader's lease and an election. A connection that was reset is back within it. A leader that is silent has had
/// [`SILENCE_DEFAULT`](highwater_replication::peer::limits::SILENCE_DEFAULT) before its lease ended.
pub const ELECTION_WAIT_MIN: Duration = Duration::from_millis(150);

/// Random part of that time, so that the replicas of a partition do not all ask for votes at once.
pub const ELECTION_JITTER_MAX: Duration = Duration::from_millis(300);

/// Elections are due at multiples of this time: those of many partitions share a message.
pub const ELECTION_TICK: Duration = Duration::from_millis(16);

/// How long a leader's disk may stand still while entries are committed that it lacks, before another replica leads.
pub const DISK_LAG_MAX: Duration = Duration::from_secs(1);

/// Time in which another replica may take over leadership that is handed to it, before the leader goes on.
pub const TRANSFER_TIME_MAX: Duration = Duration::from_secs(1);

/// Time until a replica is sent to again whose node did not have the partition.
pub const PEER_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Partitions of a shard whose leadership is reported to shard 0 in one turn.
pub const LEADERS_REPORTED_PER_TURN_MAX: usize = 1024;

/// Partitions that another node is told in one turn that this one leads, beside what changes: a new session begins with all of them.
pub const LEADERS_TOLD_PER_TURN_MAX: usize = 1024;

/// Time without a session with a node after which the node counts as offline. A connection that was reset is back before it.
pub const NODE_OFFLINE_AFTER: Duration = Duration::from_millis(500);

/// Committed entries that a replica may lack and stay in sync. It is in sync again when it lacks no more than an eighth of them.
pub const IN_SYNC_ENTRIES_MAX: u64 = 4096;
