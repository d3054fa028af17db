//! Cluster metadata: nodes, topics, their configuration and where the replicas of their partitions are.
//!
//! A change is a [`Record`], which is the same on all nodes. What only concerns one node is beside the records in its own state log, `META`:
//!
//! ```text
//!   request --> checked against the tip --> Record --> metadata log --> committed
//!                                                                          |
//!                                        place: the stores of replicas on this node
//!                                                                          v
//!                                          META: Entry { offset, record, stores } --> durable --> Change, to every shard
//! ```
//!
//! [`Metadata`] is the state that the entries lead to. It is pure: no clock, no randomness, no I/O. It counts the records that were applied
//! ([`Metadata::next_offset`]), and each entry has its record's number: so a record that is applied twice, or left out, is an error and not another state.
//!
//! | | who decides | where |
//! |---|---|---|
//! | topics, configurations, nodes of replicas, producer ids, nodes | the controller | [`Record`] |
//! | store of each replica on this node | this node, when it applies the record | [`Entry::Applied`] |
//! | space of deleted topics | this node | [`Entry::TopicGone`] |
//!
//! Invariant: entries of `META` are in the order of their records, without a gap.
//!
//! Invariant: the store of a replica never changes while its topic exists.

mod assignment;
mod config_changes;
pub mod configs;
pub(crate) mod controller;
mod listed;
mod node;
mod placement;
mod publish;
mod record;
mod room;
mod snapshot;
mod spread;
mod state;
mod targets;
mod topic;

pub use crate::api::{ClientAddress, Node, NodeProtocol};
pub use assignment::Assignment;
pub use listed::Listed;
pub use node::Nodes;
pub use placement::place;
pub use publish::{Opened, Publish};
pub use record::{DecodeRecordError, Entry, NodeRecord, Record, ReplicasRecord, TopicRecord};
pub use room::MetadataRoom;
pub use snapshot::SnapshotWriter;
pub use spread::{Candidate, NodeLoad, spread};
pub use state::{ApplyError, Change, Deleting, Epochs, Metadata, PRODUCER_IDS_PER_BLOCK, RecoverError};
pub(crate) use targets::Targets;
pub use topic::Topic;
