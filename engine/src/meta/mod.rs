//! Cluster metadata: nodes, topics, their configuration and where the replicas of their partitions are.
//!
//! A change is a [`Record`], which is the same on all nodes. What only concerns one node is beside it in that node's state log, `META`:
//!
//! ```text
//!   request --> checked against the tip --> Record --> __cluster_metadata --> committed
//!                                                                                |
//!                                        place: the stores of replicas on this node
//!                                                                                v
//!                                          META: Entry { offset, record, stores } --> durable --> Change, to every shard
//! ```
//!
//! [`Metadata`] is the state that the entries lead to. It is pure: no clock, no randomness, no I/O. It counts the records that were applied
//! ([`Metadata::next_offset`]), and each entry has its record's number: so a record that is applied twice, or left out, is an error and not another state.
//!
//! # The log
//!
//! In a cluster of one, `META` is the log: a record is committed when its entry is durable. From the second node on, the log is a partition that is replicated like
//! any other, [`METADATA_PARTITION`](highwater_protocol::topic::METADATA_PARTITION), and `META` has what is applied of it.
//!
//! - *Its beginning*: when another node has registered, the founder begins the log at the next offset of `META`, with a snapshot (`controller/log_snapshot.rs`), and
//!   then adds a replica. So there is nothing to convert when a directory is upgraded, and a node that stays alone pays for none of it.
//! - *Members*: every registered node has a replica, and the first three vote (`members.rs`). A node that joins begins with nothing and with the snapshot. It
//!   serves nobody before its own registration has arrived.
//! - *A start* serves clients with what `META` has, at once. Records after that are applied as it becomes known that they are committed.
//! - *Requests* may be sent to any node: shard 0 forwards those of its node to the one that leads (`forwarding.rs`).
//! - *A full disk*: `META` has a reserve to be rewritten with, and the partition one of a free extent in its store, which no other partition gets. So topics
//!   can be deleted, and the space that this frees makes up for the reserve first.
//! - *Trimming*: the log keeps every record. A later snapshot could take the place of what is before it.
//! - *Damage*: a replica whose log is damaged is one as of any other partition. If records that are committed and not applied cannot be read, the process
//!   ends: it cannot know what they were.
//!
//! | | who decides | where |
//! |---|---|---|
//! | topics, configurations, nodes of replicas, producer ids, nodes | the controller | [`Record`] |
//! | store of each replica on this node | this node, when it applies the record | [`Entry::Applied`] |
//! | space of deleted topics | this node | [`Entry::TopicGone`] |
//!
//! Invariant: entries of `META` are in the order of their records, without a gap.
//!
//! Invariant: the records in `META` are committed.
//!
//! Invariant: the store of a replica never changes while its topic exists.

mod assignment;
mod config_changes;
pub mod configs;
pub(crate) mod controller;
mod forwarding;
mod leadership;
mod listed;
mod log_topic;
mod members;
mod message;
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
pub(crate) use forwarding::{ForwardedReply, Forwarding, read_request, write_reply};
pub(crate) use leadership::Leadership;
pub use listed::Listed;
pub(crate) use log_topic::{METADATA_STORE, metadata_topic};
pub(crate) use members::next_config;
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
