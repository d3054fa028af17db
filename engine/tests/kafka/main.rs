//! The Kafka listener, by a client that is made from the codec's own other side.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod fetch;
mod metadata;
mod offsets;
mod produce;
mod protocol;
