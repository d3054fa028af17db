//! A node without a cluster: it joins one, or founds it, before its broker starts.
//!
//! ```text
//!   empty directory, seeds --> Joining, on one shard --- founder or member ---> identity --> broker
//!                               |            ^
//!                    asks the seeds       answers other nodes that join
//! ```
//!
//! [`Joining`] is a shard's application: it connects the pure [`Joiner`](highwater_replication::join::Joiner), which has the rules, with the network. It listens at the
//! address for other nodes only, because the nodes of a new cluster wait for each other: clients are refused until the broker starts.
//!
//! Nothing is written meanwhile. The id of the disk is already durable, so a process that ends in the middle asks again with the same id and gets the same answer.

mod app;
mod asking;
mod guests;
mod progress;

pub use app::{JoinEnd, Joining, OnJoined};
