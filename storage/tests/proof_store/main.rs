//! The proofs of the store, on a simulated disk.
//!
//! 1. [`replay`]: every image that a power cut could have left of recorded random work is recovered and compared.
//! 2. [`faults`]: every block of every file is damaged in every way, and the outcome is compared with the expected decision.
//!    [`files`]: every file is missing, empty, truncated at every page, extended, or replaced by another one.
//! 3. [`forged`]: a record holds the bytes of a frame, and the frame around it is damaged in every bit of its header.
//! 4. `mutants`: planted bugs, each of which the proofs must find:
//!    `cargo test -p highwater-storage --features mutants --test proof_store mutants`.
//!
//! `cargo test -p highwater-storage --test proof_store` runs a short version. `HIGHWATER_PROOF=long` recovers at least 10,000 crash
//! images and damages blocks in more ways:
//! `HIGHWATER_PROOF=long cargo test --release -p highwater-storage --test proof_store`.

mod faults;
mod files;
mod forged;
mod inspecting;
mod model;
#[cfg(feature = "mutants")]
mod mutants;
mod node;
mod replay;
mod workload;

/// Returns whether the long version is requested.
fn is_long() -> bool {
    std::env::var("HIGHWATER_PROOF").is_ok_and(|value| value == "long")
}
