//! Cluster metadata: topics, their configuration and where their partitions live.
//!
//! The controller writes [`Record`]s to a state log; [`Metadata`] is the state that they lead to. It is pure: no clock, no randomness, no I/O.

mod config_changes;
pub mod configs;
pub(crate) mod controller;
mod listed;
mod placement;
mod publish;
mod record;
mod room;
mod snapshot;
mod state;
mod targets;
mod topic;

pub use listed::Listed;
pub use placement::place;
pub use publish::{Opened, Publish};
pub use record::{DecodeRecordError, Record, TopicRecord};
pub use room::MetadataRoom;
pub use snapshot::SnapshotWriter;
pub use state::{ApplyError, Change, Deleting, Epochs, Metadata, PRODUCER_IDS_PER_BLOCK, RecoverError};
pub(crate) use targets::Targets;
pub use topic::Topic;
