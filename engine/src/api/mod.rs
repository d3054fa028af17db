//! The broker's own requests, replies and errors, independent of any wire format.
//!
//! The adapters (`native/`, `kafka/`) translate between a protocol and these types. The controller, the coordinators and the owners of partitions
//! only know these.
//!
//! | | request | reply | handled by |
//! |---|---|---|---|
//! | topics, producer ids | [`ControllerRequest`] | `Result<`[`ControllerReply`]`, `[`ApiError`]`>` | shard 0 |
//! | groups | [`GroupRequest`](crate::coord::groups::GroupRequest) | `Result<`[`GroupReply`](crate::coord::groups::GroupReply)`, `[`ApiError`]`>` | each group's coordinator |
//! | partitions | [`PartitionQuery`] | [`PartitionAnswer`] | each partition's owner |
//!
//! The sender of a request names the reply by type: see [`ControllerCall`], [`PartitionCall`] and [`GroupCall`](crate::calls::GroupCall). A reply of another kind, which would be a
//! bug, fails that one request with [`ApiError::Internal`].

mod acks;
mod config_changes;
mod controller;
mod error;
mod node;
mod partitions;
mod requester;
mod ticket;

pub use acks::RequiredAcks;
pub use config_changes::{ConfigChange, ConfigChanges};
pub use controller::{
    AlterTopic, ConfigureTopic, ControllerCall, ControllerReply, ControllerRequest, CreateGroupsTopic,
    CreateTopic, CreatedTopic, DeleteTopic, DeleteTopicById, Join, RegisterNode, Replication,
    ReserveProducerIds,
};
pub use error::{ApiError, Service};
pub use node::{ClientAddress, Node, NodeProtocol, Reach};
pub use partitions::{
    CompactionDetails, DeleteRecords, Details, EpochEnd, EpochEnds, FoundEpochEnd, FoundOffset,
    FoundProducers, InEpoch, ListOffsets, LocatedOffset, NewStart, OffsetSpec, PartitionAnswer,
    PartitionCall, PartitionDetails, PartitionQuery, PassHistory, ProducerCounts, Producers,
};
pub use requester::Requester;
pub use ticket::Ticket;
