//! Proof 4: planted bugs, each of which the other proofs must find. A proof that finds none proves nothing.
//!
//! `cargo test -p highwater-storage --features mutants --test proof_store mutants`
//!
//! Planted bugs of replication are found by the model of a replica (`tests/replica_model`) and by rewritten extents (`tests/replica`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_storage::mutants::{Mutant, plant};

use crate::replay::{Effort, Tried, run_seed};
use crate::{faults, forged};

/// Maximum number of seeds before a bug has to be found.
const SEEDS_MAX: u64 = 40;

/// Replays crash images with this bug planted. Returns the finding and the number of seeds.
fn replay_finds(mutant: Mutant) {
    let effort = Effort { seeds: SEEDS_MAX, lives: 3, steps: 300, mixtures: 2, one_in: 4 };
    plant(Some(mutant));
    let found = (0..effort.seeds).find_map(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| run_seed(seed, effort, &mut Tried::default())));
        match run {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("seed {seed}: an assertion failed")),
        }
    });
    plant(None);
    println!("{mutant:?}: {}", found.as_deref().unwrap_or("not found"));
    assert!(found.is_some(), "{mutant:?} was not found in {SEEDS_MAX} seeds");
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    replay_finds(Mutant::AckBeforeSync);
}

#[test]
fn writing_before_a_stale_tail_is_found() {
    replay_finds(Mutant::WriteBeforeStaleTail);
}

#[test]
fn ignoring_the_incarnation_is_found() {
    replay_finds(Mutant::IgnoreIncarnation);
}

#[test]
fn forgetting_a_producers_last_batches_is_found() {
    replay_finds(Mutant::DedupForgets);
}

#[test]
fn truncating_below_the_commit_index_is_found() {
    replay_finds(Mutant::TruncateBelowCommit);
}

#[test]
fn forgetting_a_truncation_is_found() {
    replay_finds(Mutant::ForgetTruncation);
}

#[test]
fn reporting_the_state_of_a_replica_before_it_is_durable_is_found() {
    replay_finds(Mutant::ReplicaStateNotDurable);
}

#[test]
fn losing_the_configuration_at_the_start_of_a_log_with_its_extent_is_found() {
    replay_finds(Mutant::LoseTrimmedConfiguration);
}

#[test]
fn keeping_the_configuration_of_a_truncated_suffix_is_found() {
    replay_finds(Mutant::KeepTruncatedConfiguration);
}

#[test]
fn acknowledging_before_the_journal_has_a_record_is_found() {
    replay_finds(Mutant::AckBeforeJournal);
}

#[test]
fn acknowledging_a_journal_entry_before_an_earlier_one_is_durable_is_found() {
    replay_finds(Mutant::AckJournalOutOfOrder);
}

#[test]
fn trimming_the_journal_before_the_extents_are_synced_is_found() {
    replay_finds(Mutant::TrimBeforeSync);
}

#[test]
fn replaying_an_earlier_era_of_the_journal_is_found() {
    replay_finds(Mutant::ReplayEarlierEras);
}

#[test]
fn replaying_the_journal_into_reused_space_is_found() {
    replay_finds(Mutant::ReplayIntoAnyLife);
}

#[test]
fn returning_space_before_the_map_knows_that_it_is_free_is_found() {
    replay_finds(Mutant::PunchBeforeFreed);
}

#[test]
fn treating_every_recovered_frame_as_committed_is_found() {
    replay_finds(Mutant::CommitWhatIsFound);
}

#[test]
fn recording_a_write_bound_after_the_write_that_passes_it_is_found() {
    replay_finds(Mutant::BoundAfterWrite);
}

#[test]
fn writing_before_the_write_bound_is_durable_is_found() {
    replay_finds(Mutant::WriteBeforeBound);
}

#[test]
fn trusting_the_write_bound_of_an_earlier_use_of_the_space_is_found() {
    replay_finds(Mutant::TrustStaleBound);
}

#[test]
fn forgetting_write_bounds_at_a_start_is_found() {
    replay_finds(Mutant::ForgetBound);
}

#[test]
fn accepting_a_frame_without_its_code_is_found() {
    plant(Some(Mutant::BelieveWithoutMac));
    let run = catch_unwind(forged::run);
    plant(None);
    assert!(run.is_err(), "the attack did not find it");
}

#[test]
fn truncating_at_the_first_bad_checksum_is_found() {
    plant(Some(Mutant::TruncateAtFirstBadChecksum));
    let run = catch_unwind(|| faults::run(faults::End::KilledIdle));
    plant(None);
    assert!(run.is_err(), "the fault table did not find it");
}
