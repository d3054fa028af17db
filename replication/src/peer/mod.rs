//! Peer channels: the protocol between shards of two nodes, as pure state machines.
//!
//! A [`Channel`] is one connection between shard i of node A and shard j of node B, for all partitions that have a replica on both. It has no sockets, clock or
//! randomness: bytes, times and random numbers go in, bytes and events come out. `docs/wire-format.md` describes every byte.
//!
//! ```text
//!                 events, messages, frames                      raft::Replica of each partition
//!            <------------------------------  Channel  <------------------------------------------
//!   bytes    handshake, session, handles         |      messages, frames that are sent as they are
//!   ------>  checksums, decoding, credit         |
//!   <------  batches of the turn  <--------------+
//! ```
//!
//! # Why it is like this
//!
//! - *Batches*: what a turn has to say to a peer is a few messages: one group with the entries of all partitions and their frames, one list of
//!   acknowledgements, one of everything else (`outbox.rs`). The cost of a round does not grow with the number of partitions that are silent.
//! - *Handles*: a partition is a 32-bit number, valid for one session and one direction, never used twice (`handles.rs`). An acknowledgement is three bytes (`acks.rs`).
//! - *Frames as on disk*: a frame leaves from the pages of the log without a copy, and a large one is received into pages of its own, from which it goes to
//!   the follower's disk (`intake.rs`). Its header is the first 64 bytes of the pages, where the follower writes its own.
//! - *Checksums*: an acknowledgement that was damaged on the way could lose a record, and the checksum of TCP is weak. Every message has a CRC-32C; frames have their own.
//! - *Sessions*: each connection is another session, with a random number from both sides, and a message carries a tag of it and its number. A message of an earlier
//!   session, a missing one and a doubled one end the channel. So a heartbeat of an old session cannot renew a lease, and its acknowledgements count for nothing.
//! - *Credit and turns*: a receiver limits the frames that it has in memory (`credit.rs`), a sender queues positions and not bytes (`flow.rs`).
//! - *Leases belong to channels*: an established channel is the lease of all leaders behind it. It ends once, by [`Event::PeerLost`], after silence or with
//!   the connection, and never comes back: a new session has to be established. There is no event and no timer for a partition.
//!
//! # Who connects
//!
//! The smaller (node, shard) opens the connection, when its [`Dialer`] says so. A connection that was lost on one side only may still be there on the other when
//! the next one arrives; [`judge`] decides by the number of the attempt, and the owner closes the connection that is replaced with [`Goodbye::Replaced`].

mod acks;
mod body;
mod channel;
mod control;
mod credit;
mod dialing;
mod error;
mod flow;
mod group;
mod handles;
mod header;
mod hello;
mod intake;
mod leaders;
pub mod limits;
mod outbox;
mod receive;
mod window;

pub use body::Route;
pub use channel::{Channel, Event, Incoming, Peer, RemoteHandle, Repair, Settings};
pub use dialing::Dialer;
pub use error::{CloseReason, Goodbye, PeerError};
pub use flow::{Offer, Source};
pub(crate) use header::put_message;
pub use header::{Kind, PEER_HEADER_BYTES, PeerHeader};
pub(crate) use hello::take_first;
pub use hello::{Attempt, HELLO_MAGIC, Hello, HelloReply, Local, PeerShard, Refusal, Session, judge};
pub use intake::{Frames, Lent};
pub use leaders::{LeaderNews, LeaderStatement};
pub use window::Window;
