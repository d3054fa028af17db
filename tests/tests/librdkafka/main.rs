//! Tests with librdkafka, on which most languages' Kafka clients are based, against a broker in this process.
#![forbid(unsafe_code)]

mod support;

mod admin;
mod consume;
mod groups;
mod member;
mod offsets;
mod produce;
mod two_clients;
