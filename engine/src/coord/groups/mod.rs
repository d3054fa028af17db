//! The group coordinator: assigns partitions to members of groups, and keeps committed offsets.
//!
//! [`GroupCoordinator`] is a pure state machine for groups of Kafka's classic protocol and of its consumer protocol (KIP-848), with their offsets. A
//! named consumer of the native protocol is a group with only offsets. It gets time and randomness with each request, and does no I/O:
//!
//! ```text
//!   handle(now, token, request) ---> poll_batch() ----> the caller's log ---> handle_durable(seq)
//!                               \                                              |
//!                                `--> (waits for other members) ----------------+--> poll_reply(): token, reply
//! ```
//!
//! Invariant: every token gets exactly one reply, after everything it reports is durable. While the disk is full and nothing can become durable,
//! the reply becomes an error and is sent at once (`stalled.rs`).

mod admin;
mod batches;
mod classic;
mod commits;
mod consumer;
mod consumer_protocol;
mod coordinator;
mod deferred;
mod deleting;
mod describe;
mod effects;
mod error;
mod keyed;
pub mod limits;
mod long;
mod membership;
mod offsets;
mod patterns;
mod record;
mod recover;
mod reply;
mod request;
mod snapshot;
mod stalled;
#[cfg(test)]
mod tests;
mod topics;

pub use batches::GroupBatch;
pub use coordinator::GroupCoordinator;
pub use error::GroupError;
pub use keyed::Replay;
pub use limits::GroupConfig;
pub use record::GroupsError;
pub use reply::{
    CommitOutcome, ConsumerHeartbeatReply, DescribedConsumerGroup, DescribedConsumerMember, DescribedGroup,
    DescribedMember, FetchReply, GroupReply, JoinReply, JoinedMember, LeaveReply, ListedGroup, SyncReply,
};
pub use request::{
    Client, CommitRequest, CommittedPartition, ConsumerHeartbeatRequest, DeleteOffsetsRequest, FetchRequest,
    GroupRequest, HeartbeatRequest, JoinRequest, LeaveRequest, ListRequest, Now, SyncRequest, Token,
};
pub use snapshot::SnapshotCursor;
