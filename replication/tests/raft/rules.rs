//! One transcript for each rule: `rules/<name>.txt`.

use crate::transcripts::check;

macro_rules! rules {
    ($($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                check(stringify!($rule));
            }
        )*
    };
}

rules! {
    a_later_term_makes_a_follower_and_an_earlier_one_is_rejected
    a_voter_votes_once_a_term
    a_vote_leaves_when_it_is_durable
    a_voter_votes_for_logs_that_are_up_to_date
    a_pre_vote_changes_no_term
    a_leader_that_asks_for_votes_has_no_lease
    a_leader_that_is_deposed_ends_the_leases_of_its_followers
    a_node_whose_shard_did_not_have_the_partition_is_asked_again
    a_voter_ignores_candidates_while_its_leaders_lease_lasts
    a_leader_serves_when_an_entry_of_its_term_is_committed
    entries_of_earlier_terms_are_committed_by_one_of_the_leaders_own
    entries_are_accepted_after_one_that_matches
    only_conflicting_entries_are_cut_off
    a_follower_acknowledges_what_is_durable_and_the_leaders
    a_follower_commits_what_is_known_to_be_the_leaders
    entries_are_not_taken_in_a_term_that_could_be_forgotten
    a_leader_finds_where_the_logs_match
    a_leader_may_have_forgotten_the_epochs_of_committed_entries
    entries_that_are_refused_are_committed_when_they_come_again
    the_leaders_disk_is_one_vote
    learners_count_for_nothing
    a_joint_configuration_needs_both_majorities
    a_removed_leader_hands_over_when_the_change_is_committed
    leadership_is_handed_over_to_a_voter_with_the_whole_log
    a_leader_without_a_majority_in_reach_stops_leading
    a_follower_too_far_behind_restarts_where_the_leaders_log_begins
    a_peer_that_breaks_the_protocol_loses_its_channel
    a_report_of_the_disk_counts_up_to_a_cut_that_is_under_way
    a_hole_is_known_before_its_entries_are_reported_durable
    a_replica_with_a_hole_votes_and_does_not_lead
    a_replica_that_lost_its_end_votes_after_an_entry_of_a_later_term
    a_leader_that_hears_of_a_lost_end_begins_a_new_term
    a_wiped_replica_is_another_one
    an_acknowledgement_waits_for_min_insync_replicas
    a_single_voter_elects_itself_and_commits_what_is_durable
    a_replica_that_was_alone_leads_on_without_an_election
    a_replica_that_may_not_have_been_alone_does_not_resume
    a_replica_that_was_alone_sends_nothing_before_it_is_durably_not_alone
    a_leader_counts_what_a_majority_has_whoever_is_slow
}

#[test]
fn every_transcript_is_checked() {
    let source = include_str!("rules.rs");
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/raft/rules");
    for file in std::fs::read_dir(dir).expect("the transcripts are there") {
        let name = file.expect("readable").file_name().into_string().expect("UTF-8");
        let rule = name.strip_suffix(".txt").expect("a transcript");
        assert!(source.contains(&format!("    {rule}\n")), "{rule}");
    }
}
