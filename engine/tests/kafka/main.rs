//! Tests of the Kafka listener, with a client built from the codec's client side.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/kafka.rs"]
mod wire;

mod addresses;
mod admin;
mod administration;
mod bounds;
mod client;
mod cold;
mod configs;
mod fetch;
mod full_disk;
mod group_offsets;
mod groups;
mod hostile;
mod large;
mod members;
mod metadata;
mod metadata_memory;
mod native_members;
mod offsets;
mod produce;
mod protocol;
mod records;
mod topic_rules;
mod transactions;
