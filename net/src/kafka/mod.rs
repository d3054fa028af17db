//! Kafka's protocol, the server's side: what arrives becomes requests that borrow from what was received, and answers become bytes.
//!
//! ```text
//!   bytes -> decoder -> header, gate (api) -> Request (messages, produce)
//!   answer (messages, fetch) -> head and pages -> replies -> bytes, in the order of the requests
//! ```
//!
//! Names of messages and fields are Kafka's own, and so is what they mean; where this broker gives a field a meaning of its own or
//! ignores it, docs/kafka-compatibility.md says so.

pub mod api;
mod conn;
mod decoder;
pub mod error;
pub mod fetch;
mod intake;
pub mod long;
pub mod messages;
pub mod produce;
mod replies;
mod request;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod schema;
pub mod wire;
mod wire_error;

#[cfg(test)]
mod tests;

pub use conn::{KafkaConn, KafkaOverdue};
pub use decoder::{Gate, KafkaDecoder, KafkaRefusal, KafkaStep};
pub use error::KafkaError;
pub use replies::{Behind, KafkaReplies, KafkaReply, Origin, response, response_of};
pub use request::{Header, Received, Request};
