//! Nodes without a cluster find or found one, whatever is lost on the way.
//!
//! `HIGHWATER_JOIN_SEEDS=100000 cargo test -p highwater-replication --test join` runs 100,000 seeds; `HIGHWATER_JOIN_SEEDS=7..8` runs seed 7 only.

mod admitting;
mod forming;
mod messages;
#[cfg(feature = "mutants")]
mod mutants;
mod world;
