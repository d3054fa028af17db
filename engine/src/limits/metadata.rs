//! Limits of the cluster's metadata.

use highwater_replication::peer::limits::BODY_BYTES_MAX;
use highwater_replication::raft::REPLICAS_MAX;
use highwater_storage::state_log::PAYLOAD_BYTES_MAX;

/// Bytes of the metadata of all topics together. A snapshot of it is one payload of a state log.
pub const METADATA_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(2 * METADATA_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Bytes of memory that the metadata of a partition or of a topic is charged: what every shard keeps of it.
pub const METADATA_BYTES_PER_ENTRY: u64 = 1 << 10;

/// Nodes of a cluster: each has a replica of the metadata's log.
pub const NODES_MAX: usize = REPLICAS_MAX;

/// Nodes that vote about the metadata.
pub const METADATA_VOTERS_MAX: usize = 3;

const _: () = assert!(METADATA_VOTERS_MAX % 2 == 1, "one more has no use");

/// Replicas of each partition of a topic that is created without a number, unless there are fewer nodes.
pub const REPLICAS_DEFAULT: usize = 3;

/// Partitions of a broker, however much memory it has.
pub const PARTITIONS_MAX: usize = 1 << 20;

/// Bytes of the log of the metadata that are read and applied in one turn, unless one record alone is larger.
pub const METADATA_LOAD_BYTES_MAX: usize = 128 << 10;
/// The memory for that, unless one record alone takes more.
pub const METADATA_LOAD_MEMORY_BYTES_MAX: usize = 1 << 20;

/// Bytes of a batch of records of the metadata, unless one record alone takes more.
pub const METADATA_BATCH_BYTES_MAX: usize = 256 << 10;

/// Requests to the controller that wait while it starts.
pub const HELD_CONTROLLER_REQUESTS_MAX: usize = 10_000;

/// Requests of this node that are with the controller on another node.
pub const FORWARDED_REQUESTS_MAX: usize = 10_000;

/// Requests of other nodes to the controller that have no reply.
pub const REMOTE_REQUESTS_MAX: usize = 4 * FORWARDED_REQUESTS_MAX;

/// Bytes of a request to the controller on another node.
pub const CONTROLLER_BYTES_MAX: usize = BODY_BYTES_MAX;

/// Partitions whose leaders a node knows. Of further ones it knows none.
pub const LEADERS_MAX: usize = 2 * PARTITIONS_MAX;
