//! Peer channels over connections that deliver bytes in any pieces, late, or not at all.
//!
//! `HIGHWATER_PEER_SEEDS=10000 cargo test -p highwater-replication --test peer random` runs 10,000 seeds of the channel's own simulation and of replicas that
//! talk over channels; `HIGHWATER_PEER_SEEDS=7..8` runs seed 7 only. A failure reports its seed.

#[path = "../raft/checks.rs"]
mod checks;
mod cluster;
#[path = "../raft/disk.rs"]
mod disk;
mod flow;
mod golden;
mod handshake;
mod liveness;
#[cfg(feature = "mutants")]
mod mutants;
mod nonsense;
mod order;
mod pipe;
mod random_cluster;
mod samples;
#[expect(dead_code, reason = "shared with the tests of the consensus core, which use all of it")]
#[path = "../raft/world.rs"]
mod world;
