//! The listener side: what arrives on a connection becomes requests, and what is answered becomes bytes.
//!
//! Everything here is sans-IO. Bytes and time go in by method calls, requests and replies come out; nobody here knows topics, stores
//! or sockets. A shard keeps one [`NativeConn`] per connection.
//!
//! Invariant: nothing is allocated on the claim of a length; a peer that says nonsense is told so once and dropped.
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
pub use decoder::{Decoder, Lent, Refusal, Step};
pub use in_order::{Answer, InOrder, SlotId};
pub use pieces::{Entries, LongAnswer, PIECE_BYTES, Pieces, WrongLength};
pub use replies::{Popped, Reply, ReplyQueue};
pub use request::{Batch, Produce, Received, Request};
