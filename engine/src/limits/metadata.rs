//! Limits of the cluster's metadata.

use highwater_storage::state_log::PAYLOAD_BYTES_MAX;

/// Bytes of the metadata of all topics together. A snapshot of it is one payload of a state log.
pub const METADATA_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(2 * METADATA_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Bytes of memory that the metadata of a partition or of a topic is charged: what every shard keeps of it.
pub const METADATA_BYTES_PER_ENTRY: u64 = 1 << 10;

/// Nodes of a cluster.
pub const NODES_MAX: usize = 1000;

/// Replicas of each partition of a topic that is created without a number, unless there are fewer nodes.
pub const REPLICAS_DEFAULT: usize = 3;

/// Partitions of a broker, however much memory it has.
pub const PARTITIONS_MAX: usize = 1 << 20;
