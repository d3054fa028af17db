//! The server side of Kafka's protocol: decodes received bytes into requests that borrow from them, and encodes responses.
//!
//! ```text
//!   bytes -> decoder -> header, gate (api) -> Request (messages, produce)
//!   response (messages, fetch) -> head and pages -> replies -> bytes, in the order of the requests
//! ```
//!
//! Messages and fields have Kafka's names and meanings. docs/kafka-compatibility.md lists the fields that this broker ignores or interprets
//! differently.

pub mod api;
mod conn;
mod decoder;
pub mod error;
pub mod fetch;
mod group_lists;
mod intake;
pub mod long;
pub mod messages;
pub mod produce;
mod replies;
mod request;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod schema;
pub mod topic_lists;
pub mod wire;
mod wire_error;

#[cfg(test)]
mod tests;

pub use conn::{KafkaConn, KafkaOverdue};
pub use decoder::{Gate, KafkaDecoder, KafkaProtocolViolation, KafkaStep};
pub use error::KafkaError;
pub use replies::{KafkaReplies, KafkaReply, Origin, ReplyTail, response, response_of};
pub use request::{Header, Received, Request};
