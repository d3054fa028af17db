//! Bugs are planted in the rules of compaction, and the model must find each of them.
//!
//! `cargo test -p highwater-storage --features mutants --test compaction mutants`

use highwater_storage::mutants::Mutant;

use crate::support::is_found;

fn is_found_by_the_model(mutant: Mutant) {
    is_found(mutant, crate::a_compacted_log_has_the_last_record_of_every_key_at_any_moment);
}

#[test]
fn keeping_the_first_record_of_a_key_is_found() {
    is_found_by_the_model(Mutant::KeepFirstRecord);
}

#[test]
fn taking_two_keys_for_the_same_is_found() {
    is_found_by_the_model(Mutant::CollideKeys);
}

#[test]
fn removing_records_whose_keys_are_not_in_the_index_is_found() {
    is_found_by_the_model(Mutant::SupersedeUnknownKeys);
}

#[test]
fn removing_tombstones_before_their_time_is_found() {
    is_found_by_the_model(Mutant::DropTombstoneEarly);
}

#[test]
fn dropping_the_last_batch_of_a_producer_because_it_is_empty_is_found() {
    is_found_by_the_model(Mutant::DropEmptyBatch);
}

#[test]
fn changing_the_offset_of_a_batch_is_found() {
    is_found_by_the_model(Mutant::MoveCompactedBatch);
}

#[test]
fn letting_tombstones_expire_whose_earlier_records_may_be_there_is_found() {
    is_found(
        Mutant::ExpireEveryTombstone,
        crate::a_batch_with_more_keys_than_the_index_holds_is_compacted_by_the_keys_that_fit,
    );
}

#[test]
fn removing_tombstones_behind_a_batch_that_cannot_be_read_is_found() {
    is_found(
        Mutant::IgnoreUnreadable,
        crate::a_damaged_batch_is_not_rewritten_and_the_pass_keeps_its_tombstones,
    );
}
