//! The consensus core as a whole: transcripts, an exhaustive exploration of small worlds, and a simulation with random events.
//!
//! `HIGHWATER_RAFT_SEEDS=100000 cargo test -p highwater-replication --test raft simulation` runs 100,000 seeds, `HIGHWATER_RAFT_SEEDS=7..8`
//! runs seed 7 only. A failure reports its seed. `HIGHWATER_PROOF=long` explores large scopes to their ends.

mod checks;
mod disk;
mod explorer;
mod many_terms;
mod memory;
#[cfg(feature = "mutants")]
mod mutants;
mod nonsense;
mod rules;
mod simulation;
mod transcripts;
mod world;
