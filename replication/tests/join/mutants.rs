//! Planted bugs, each of which the random runs must find.
//!
//! `cargo test -p highwater-replication --features mutants --test join mutants`

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_replication::mutants::{Mutant, plant};

use crate::world::World;

fn found_within(mutant: Mutant, seeds: u64) {
    plant(Some(mutant));
    let fails = |seed: &u64| {
        catch_unwind(AssertUnwindSafe(|| World::new(*seed, 5).run())).map_or(true, |outcome| outcome.is_err())
    };
    let found = (0..seeds).find(fails);
    plant(None);
    println!("{mutant:?}: seed {found:?}");
    assert!(found.is_some(), "{mutant:?} was not found in {seeds} seeds");
}

#[test]
fn a_cluster_that_a_majority_founds_is_found() {
    found_within(Mutant::FoundedByMajority, 300);
}

#[test]
fn an_incarnation_that_is_used_again_is_found() {
    found_within(Mutant::IncarnationReused, 300);
}
