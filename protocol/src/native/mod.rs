//! The native protocol: fixed little-endian headers, and record batches and frames in their format on disk.
//!
//! Every message is a [`WireHeader`] and a body; `docs/wire-format.md` describes each field. The first message of a connection is a
//! [`Hello`], which names the shard that should own the connection. Everything after it may be pipelined. Replies come in the order
//! of the requests, except for what a subscription pushes.
//!
//! [`Body`] encodes and decodes bodies; [`message`], [`empty_message`], [`error_message`] and their `put_*` forms make complete
//! messages. On the data path, [`produce_head`] or [`data_head`] makes a fixed head, and the batch or the frames are sent from
//! where they are.
//!
//! ```
//! use highwater_protocol::native::{Body, DeleteTopicRequest, MessageKind, WIRE_HEADER_BYTES, WireHeader, message};
//!
//! let request = DeleteTopicRequest { name: "orders".into() };
//! let bytes = message(7, &request);
//! let header = WireHeader::parse(&bytes).unwrap();
//! assert_eq!(header.kind(), Some(MessageKind::DeleteTopic));
//! assert_eq!(DeleteTopicRequest::decode(&bytes[WIRE_HEADER_BYTES..]), Ok(request));
//! ```

mod codec;
mod codec_data;
mod codec_groups;
mod codec_stats;
mod codec_topics;
mod header;
mod message;
mod messages;
mod messages_groups;
mod reader;

pub use codec::Body;
pub use header::{MessageKind, WIRE_HEADER_BYTES, WireHeader};
pub use message::{
    DATA_HEAD_BYTES, PRODUCE_HEAD_BYTES, data_head, empty_message, error_message, error_text, message,
    produce_head, put_empty, put_error, put_message,
};
pub use messages::*;
pub use messages_groups::*;
pub use reader::{DecodeError, Reader};
