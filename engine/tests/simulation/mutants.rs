//! Planted bugs, each of which the simulation must find. A simulation that finds none proves nothing.
//!
//! `cargo test -p highwater-engine --features mutants --test simulation mutants`

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_engine::mutants::{Mutant, plant};

use crate::{cluster, joining, published, rejected, reported, run};

/// Maximum number of seeds before a bug has to be found.
const SEEDS_MAX: u64 = 40;

/// Returns whether `check` fails with this bug planted.
fn fails(mutant: Mutant, check: impl FnOnce()) -> bool {
    plant(Some(mutant));
    let result = catch_unwind(AssertUnwindSafe(check));
    plant(None);
    result.is_err()
}

/// Checks that the whole simulation finds the bug.
fn the_simulation_finds(mutant: Mutant) {
    let found = (0..SEEDS_MAX).find(|seed| {
        fails(mutant, || {
            run::run(*seed);
        })
    });
    println!("{mutant:?}: seed {found:?}");
    assert!(found.is_some(), "{mutant:?} was not found in {SEEDS_MAX} seeds");
}

#[test]
fn acknowledging_before_a_batch_is_durable_is_found() {
    the_simulation_finds(Mutant::AckBeforeDurable);
}

#[test]
fn a_high_watermark_that_falls_is_found() {
    the_simulation_finds(Mutant::HighWatermarkFalls);
}

#[test]
fn replying_before_a_groups_record_is_durable_is_found() {
    the_simulation_finds(Mutant::ReplyBeforeRecordDurable);
}

#[test]
fn losing_an_offset_commit_is_found() {
    the_simulation_finds(Mutant::OffsetCommitLost);
}

#[test]
fn reading_above_the_high_watermark_is_found() {
    the_simulation_finds(Mutant::FetchAboveHighWatermark);
}

#[test]
fn overtaking_a_rejected_batch_is_found_through_both_protocols() {
    assert!(fails(Mutant::RejectedBatchOvertaken, rejected::native), "native");
    assert!(fails(Mutant::RejectedBatchOvertaken, rejected::kafka), "Kafka");
    assert!(fails(Mutant::RejectedBatchOvertaken, rejected::kafka_unknown_partition), "unknown partition");
    assert!(fails(Mutant::RejectedBatchOvertaken, rejected::kafka_deleted_partition), "deleted topic");
}

#[test]
fn publishing_changes_before_they_are_durable_is_found() {
    assert!(fails(Mutant::ChangePublishedBeforeDurable, reported::changes_are_durable));
}

#[test]
fn publishing_partitions_before_their_owners_know_them_is_found() {
    assert!(fails(Mutant::PublishedBeforePrepared, published::at_a_start), "at a start");
    assert!(fails(Mutant::PublishedBeforePrepared, published::of_new_topics), "new topics");
}

#[test]
fn applying_records_of_the_metadata_before_they_are_committed_is_found() {
    assert!(fails(Mutant::MetadataAppliedUncommitted, || cluster::leader_is_cut_off(0)));
}

#[test]
fn applying_a_record_of_the_metadata_twice_after_a_start_is_found() {
    assert!(fails(Mutant::MetadataAppliedTwice, || cluster::leader_is_killed(0)));
}

#[test]
fn a_reply_of_a_controller_that_was_deposed_is_found() {
    assert!(fails(Mutant::DeposedControllerReplies, || cluster::leader_is_cut_off(0)));
}

#[test]
fn welcoming_a_node_before_its_registration_is_committed_is_found() {
    assert!(fails(Mutant::WelcomeBeforeCommitted, joining::welcomes_are_durable));
}
