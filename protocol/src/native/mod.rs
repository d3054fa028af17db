//! The native protocol: fixed little-endian headers, record batches and frames as they rest on disk.
//!
//! Every message is a [`WireHeader`] and a body. Field by field in `docs/wire-format.md`. The first message of a connection is a
//! [`Hello`], which names the shard the connection wants to live on; everything after it may be pipelined, and is
//! answered in request order except for what a subscription pushes.

mod header;
mod messages;

pub use header::{MessageKind, WIRE_HEADER_BYTES, WireHeader};
pub use messages::*;
