//! Planted bugs, each of which the simulation or the explorer must find. Proofs that find none prove nothing.
//!
//! `cargo test -p highwater-replication --features mutants --test raft mutants`

use std::panic::{AssertUnwindSafe, catch_unwind};

use highwater_replication::mutants::{Mutant, plant};

use crate::explorer::{self, Scope, explore};
use crate::simulation;

/// Maximum number of seeds before the simulation has to find a bug.
const SEEDS_MAX: u64 = 40_000;
/// Maximum number of states before the explorer has to find a bug.
const STATES_MAX: usize = 400_000;

/// Plants a bug, runs something, and returns what that returns.
fn planted<T>(mutant: Mutant, run: impl FnOnce() -> T) -> T {
    plant(Some(mutant));
    let result = catch_unwind(AssertUnwindSafe(run));
    plant(None);
    result.expect("proofs catch panics themselves")
}

/// Checks that the simulation finds a bug.
fn the_simulation_finds(mutant: Mutant) {
    let fails = |seed: &u64| {
        let run = catch_unwind(|| simulation::run(*seed));
        match run {
            Ok(Ok(_)) => false,
            Ok(Err(why)) => {
                println!("{mutant:?}: {}", why.split("; after").next().unwrap_or_default());
                true
            }
            Err(_) => {
                println!("{mutant:?}: seed {seed}: an assertion failed");
                true
            }
        }
    };
    let found = planted(mutant, || (0..SEEDS_MAX).find(fails));
    assert!(found.is_some(), "{mutant:?} was not found in {SEEDS_MAX} seeds");
}

/// Checks that the explorer finds a bug in a scope.
fn the_explorer_finds(mutant: Mutant, scope: fn() -> Scope) {
    let scope = scope();
    let explored = planted(mutant, || explore(&scope, STATES_MAX));
    let Some((why, path)) = explored.violation else {
        panic!("{mutant:?} was not found in {} states", explored.states);
    };
    println!("{mutant:?}: {} states, {} events: {why}", explored.states, path.len());
}

macro_rules! found_by_the_simulation {
    ($($name:ident: $mutant:ident)*) => {
        $(
            #[test]
            fn $name() {
                the_simulation_finds(Mutant::$mutant);
            }
        )*
    };
}

macro_rules! found_by_the_explorer {
    ($($name:ident: $mutant:ident in $scope:ident)*) => {
        $(
            #[test]
            fn $name() {
                the_explorer_finds(Mutant::$mutant, explorer::$scope);
            }
        )*
    };
}

mod random {
    use super::*;

    found_by_the_simulation! {
        committing_before_a_majority_is_found: CommitBeforeMajority
        committing_an_entry_of_an_earlier_term_by_counting_is_found: CommitEarlierTerm
        acknowledging_before_an_entry_is_durable_is_found: AckBeforeDurable
        acknowledging_what_is_not_the_leaders_is_found: AckUnverified
        committing_what_is_not_the_leaders_is_found: CommitUnverified
        a_vote_that_is_not_durable_is_found: VoteNotDurable
        voting_twice_in_a_term_is_found: VoteTwice
        voting_for_an_outdated_log_is_found: VoteForOutdatedLog
        following_a_stale_leader_is_found: FollowStaleLeader
        counting_a_stale_acknowledgement_is_found: CountStaleAck
        serving_before_an_entry_of_the_own_term_is_found: ServeBeforeOwnEntry
        cutting_off_without_a_conflict_is_found: TruncateWithoutConflict
        a_high_watermark_that_falls_is_found: HighWatermarkFalls
        counting_a_learner_is_found: LearnerCounted
        a_wiped_replica_that_votes_is_found: WipedReplicaVotes
        deciding_on_one_side_of_a_joint_configuration_is_found: JointOneSide
        keeping_a_configuration_that_was_cut_off_is_found: KeepTruncatedConfig
        a_damaged_replica_that_votes_is_found: DamagedReplicaVotes
        a_damaged_replica_that_leads_is_found: DamagedReplicaLeads
        ignoring_min_insync_replicas_is_found: IgnoreMinInsync
    }
}

mod exhaustive {
    use super::*;

    found_by_the_explorer! {
        committing_before_a_majority_is_found: CommitBeforeMajority in elections
        acknowledging_before_an_entry_is_durable_is_found: AckBeforeDurable in elections
        a_vote_that_is_not_durable_is_found: VoteNotDurable in elections
        voting_twice_in_a_term_is_found: VoteTwice in elections
        voting_for_an_outdated_log_is_found: VoteForOutdatedLog in elections
        following_a_stale_leader_is_found: FollowStaleLeader in two_leaders
        serving_before_an_entry_of_the_own_term_is_found: ServeBeforeOwnEntry in elections
        counting_a_learner_is_found: LearnerCounted in membership
        deciding_on_one_side_of_a_joint_configuration_is_found: JointOneSide in membership
        a_damaged_replica_that_votes_is_found: DamagedReplicaVotes in lost_end
        a_wiped_replica_that_votes_is_found: WipedReplicaVotes in wiped
    }
}

/// Checks that the transcript of a rule differs.
fn the_transcript_finds(mutant: Mutant, rule: &str) {
    let differs = planted(mutant, || catch_unwind(|| crate::transcripts::check(rule)).is_err());
    assert!(differs, "{mutant:?} was not found");
}

mod transcripts {
    use super::*;

    #[test]
    fn committing_an_entry_of_an_earlier_term_by_counting_is_found() {
        let rule = "entries_of_earlier_terms_are_committed_by_one_of_the_leaders_own";
        the_transcript_finds(Mutant::CommitEarlierTerm, rule);
    }

    #[test]
    fn acknowledging_what_is_not_the_leaders_is_found() {
        let rule = "a_follower_acknowledges_what_is_durable_and_the_leaders";
        the_transcript_finds(Mutant::AckUnverified, rule);
    }

    #[test]
    fn a_deposed_leader_whose_followers_keep_its_lease_is_found() {
        let rule = "a_leader_that_is_deposed_ends_the_leases_of_its_followers";
        the_transcript_finds(Mutant::DeposedLeaderKeepsLeases, rule);
    }

    #[test]
    fn reaching_a_wiped_replica_again_is_found() {
        the_transcript_finds(Mutant::WipedReplicaReached, "a_wiped_replica_is_another_one");
    }
}
