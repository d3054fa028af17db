//! The server side of the native protocol and of Kafka's: decodes received bytes into requests, and encodes replies.
//!
//! Everything here is sans-IO: bytes and time are arguments of methods, requests and replies are return values. This crate does not know
//! topics, stores or sockets. A shard has one [`NativeConn`] or [`kafka::KafkaConn`] per connection.
//!
//! Invariant: no allocation trusts a length from the peer. A peer that violates the protocol gets one error, and its connection is closed.
#![forbid(unsafe_code)]

mod conn;
mod credit;
mod decoder;
mod in_order;
pub mod kafka;
pub mod limits;
mod pieces;
mod replies;
mod request;

pub use conn::{NativeConn, Overdue};
pub use credit::CreditLine;
pub use decoder::{Decoder, Lent, ProtocolViolation, Step};
pub use in_order::{Answer, InOrder, ReplySlot};
pub use pieces::{Entries, LongAnswer, PIECE_BYTES, Pieces, WrongLength};
pub use replies::{Popped, Reply, ReplyQueue};
pub use request::{Batch, Produce, Received, Request};
