//! Bugs are planted in compaction, and the tests must find each of them.
//!
//! `cargo test -p highwater-storage --features mutants --test compacting mutants`

use highwater_storage::mutants::Mutant;

use crate::support::is_found;

#[test]
fn keeping_the_first_record_of_a_key_is_found() {
    is_found(Mutant::KeepFirstRecord, crate::a_pass_keeps_the_last_value_of_each_key_and_makes_the_log_clean);
}

#[test]
fn taking_a_full_index_for_a_complete_one_is_found() {
    is_found(
        Mutant::TakeFullIndexForComplete,
        crate::a_log_with_more_keys_than_the_index_holds_is_compacted_in_several_passes,
    );
}

#[test]
fn missing_the_last_dirty_frame_is_found() {
    is_found(
        Mutant::MissLastDirtyFrame,
        crate::idle::the_last_extent_of_a_log_that_no_longer_grows_is_compacted_once_it_is_old_enough,
    );
}

#[test]
fn removing_tombstones_before_their_time_is_found() {
    is_found(Mutant::DropTombstoneEarly, crate::a_tombstone_is_removed_by_the_first_pass_after_its_retention);
}

#[test]
fn dropping_the_last_batch_of_a_log_is_found() {
    is_found(
        Mutant::DropLastOfLog,
        crate::idle::tombstones_at_the_end_of_a_log_that_no_longer_grows_go_after_their_time,
    );
}

#[test]
fn ignoring_the_least_age_is_found() {
    is_found(Mutant::IgnoreMinLag, crate::a_pass_is_due_by_dirty_ratio_or_by_age_and_young_records_wait);
}
