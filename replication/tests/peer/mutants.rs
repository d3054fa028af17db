//! Planted bugs, each of which a test must find. Tests that find none prove nothing.
//!
//! `cargo test -p highwater-replication --features mutants --test peer mutants`

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_replication::mutants::{Mutant, plant};

use crate::{flow, liveness, order, random_cluster};

/// Plants a bug, runs something, and returns what that returns; `None`: an assertion failed.
fn planted<T>(mutant: Mutant, run: impl FnOnce() -> T) -> Option<T> {
    plant(Some(mutant));
    let result = catch_unwind(AssertUnwindSafe(run));
    plant(None);
    result.ok()
}

/// Checks that one of so many seeds finds a bug.
fn found_by(mutant: Mutant, seeds: u64, run: impl Fn(u64) -> Result<(), String>) {
    let fails = |seed: &u64| match planted(mutant, || run(*seed)) {
        Some(Ok(())) => false,
        Some(Err(why)) => {
            println!("{mutant:?}: {}", why.chars().take(200).collect::<String>());
            true
        }
        None => {
            println!("{mutant:?}: seed {seed}: an assertion failed");
            true
        }
    };
    assert!((0..seeds).any(|seed| fails(&seed)), "{mutant:?} was not found in {seeds} seeds");
}

#[test]
fn a_heartbeat_of_an_old_session_that_renews_a_lease_is_found() {
    assert!(!liveness::an_old_session_counts(true));
    assert_eq!(planted(Mutant::OldSessionAccepted, || liveness::an_old_session_counts(true)), Some(true));
}

#[test]
fn an_acknowledgement_of_an_old_session_that_counts_is_found() {
    assert_eq!(planted(Mutant::OldSessionAccepted, || liveness::an_old_session_counts(false)), Some(true));
}

#[test]
fn an_acknowledgement_that_is_credited_to_another_partition_is_found() {
    let reached = || liveness::an_acknowledgement_reaches_another_partition();
    assert!(!reached());
    assert_eq!(planted(Mutant::HandleReused, reached), Some(true));
}

#[test]
fn random_messages_find_handles_that_are_used_again() {
    found_by(Mutant::HandleReused, 200, |seed| order::run(seed).map(|_| ()));
}

#[test]
fn a_lagging_partition_that_takes_all_credit_is_found() {
    assert_eq!(flow::rounds_without_credit_at_the_tail(), 0);
    let waited = planted(Mutant::LaggingStarvesTail, flow::rounds_without_credit_at_the_tail);
    println!("waited for {waited:?} of 200 rounds");
    assert!(waited.is_none_or(|rounds| rounds > 20), "{waited:?}");
}

#[test]
fn credit_that_is_not_returned_is_found() {
    found_by(Mutant::CreditNotReturned, 5, |seed| {
        let (_, credit) = flow::transfer(seed);
        if credit >= 150_000 { Ok(()) } else { Err(format!("{credit} bytes of credit are left")) }
    });
    found_by(Mutant::CreditNotReturned, 200, |seed| order::run(seed).map(|_| ()));
}

#[test]
fn a_lost_acknowledgement_is_found() {
    found_by(Mutant::AckLost, 200, |seed| order::run(seed).map(|_| ()));
}

#[test]
fn replicas_get_stuck_when_acknowledgements_are_lost() {
    found_by(Mutant::AckLost, 100, |seed| random_cluster::run(seed).map(|_| ()));
}
