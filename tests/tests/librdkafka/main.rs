//! librdkafka, the client below most languages' Kafka clients, against the real broker.
#![forbid(unsafe_code)]

mod support;

mod admin;
mod consume;
mod groups;
mod member;
mod offsets;
mod produce;
mod two_clients;
