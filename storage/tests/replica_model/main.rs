//! The log of one replica against a model of it: after appends, replication, commits, truncations, new starts, crashes and restarts in any order,
//! the log equals the model, it knows its epochs and producers, and nothing committed is ever truncated.

#[path = "../support/mod.rs"]
mod support;
mod world;

use highwater_runtime::sim::CrashPolicy;
use highwater_storage::DurableForm;
use proptest::prelude::*;
use support::CRASH_POLICIES;

use world::World;

#[derive(Clone, Debug)]
enum Op {
    /// Appends the next frame, as leader or from another replica.
    Append {
        bytes: usize,
        records: usize,
        is_bulk: bool,
        replicated: bool,
    },
    /// A frame from another replica, before which compaction has removed some there.
    AppendAfterGap {
        frames: u64,
        offsets: i64,
        bytes: usize,
    },
    /// Another leader takes over, with or without an epoch start.
    NewEpoch {
        by: i32,
        start: bool,
    },
    /// A frame that exists already, or of another epoch.
    Again {
        at: usize,
        other_epoch: bool,
    },
    /// Appends a configuration, as leader or from another replica.
    Configuration {
        bytes: usize,
        replicated: bool,
    },
    /// Sets the state of the replica.
    ReplicaState {
        by: i32,
    },
    Commit {
        up_to: usize,
    },
    Truncate {
        at: usize,
        wait: bool,
    },
    StartAt {
        ahead: u64,
    },
    NewProducerEpoch,
    LogStart {
        at: usize,
    },
    Read {
        from: usize,
        max_bytes: usize,
    },
    Turn,
    Steps(usize),
    Settle,
    Tick,
    Crash(CrashPolicy),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 1..300usize, 2 => 300..5000usize, 1 => 5000..30_000usize];
    let policy = prop::sample::select(&CRASH_POLICIES[..]);
    let append = (size, 1..4usize, any::<bool>(), any::<bool>());
    prop_oneof![
        30 => append.prop_map(|(bytes, records, is_bulk, replicated)| Op::Append { bytes, records, is_bulk, replicated }),
        3 => (0..5u64, 0..5i64, 1..3000usize).prop_map(|(frames, offsets, bytes)| Op::AppendAfterGap { frames, offsets, bytes }),
        4 => (1..3i32, any::<bool>()).prop_map(|(by, start)| Op::NewEpoch { by, start }),
        3 => (0..1000usize, any::<bool>()).prop_map(|(at, other_epoch)| Op::Again { at, other_epoch }),
        3 => (0..200usize, any::<bool>()).prop_map(|(bytes, replicated)| Op::Configuration { bytes, replicated }),
        3 => (1..3i32).prop_map(|by| Op::ReplicaState { by }),
        6 => (0..1000usize).prop_map(|up_to| Op::Commit { up_to }),
        6 => (0..1000usize, any::<bool>()).prop_map(|(at, wait)| Op::Truncate { at, wait }),
        1 => (0..50u64).prop_map(|ahead| Op::StartAt { ahead }),
        1 => Just(Op::NewProducerEpoch),
        2 => (0..1000usize).prop_map(|at| Op::LogStart { at }),
        3 => (0..1000usize, 1..40_000usize).prop_map(|(from, max_bytes)| Op::Read { from, max_bytes }),
        6 => Just(Op::Turn),
        6 => (1..8usize).prop_map(Op::Steps),
        3 => Just(Op::Settle),
        2 => Just(Op::Tick),
        3 => policy.prop_map(Op::Crash),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_with_durable_writes_does_what_the_model_says(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..150)) {
        World::new(seed, DurableForm::Dsync).run(&ops);
    }

    #[test]
    fn a_replica_with_one_sync_per_round_does_what_the_model_says(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..150)) {
        World::new(seed, DurableForm::SyncPerRound).run(&ops);
    }
}

/// Planted bugs, each of which the model must find: `cargo test -p highwater-storage --features mutants --test replica_model`.
#[cfg(feature = "mutants")]
mod mutants {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use highwater_storage::mutants::{Mutant, plant};
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// Maximum number of runs before a bug has to be found.
    const RUNS_MAX: u64 = 200;

    fn is_found(mutant: Mutant) {
        let mut runner = TestRunner::deterministic();
        let all = prop::collection::vec(op(), 1..150);
        let mut runs = (0..RUNS_MAX).map(|seed| {
            let ops = all.new_tree(&mut runner).expect("operations").current();
            plant(Some(mutant));
            let run = catch_unwind(AssertUnwindSafe(|| World::new(seed, DurableForm::Dsync).run(&ops)));
            plant(None);
            run.is_err()
        });
        let found = runs.position(|failed| failed);
        println!("{mutant:?}: run {found:?}");
        assert!(found.is_some(), "{mutant:?} was not found in {RUNS_MAX} runs");
    }

    #[test]
    fn truncating_below_the_commit_index_is_found() {
        is_found(Mutant::TruncateBelowCommit);
    }

    #[test]
    fn treating_a_restored_suffix_as_committed_is_found() {
        is_found(Mutant::CommitWhatIsFound);
    }

    #[test]
    fn taking_a_frame_behind_a_gap_that_nobody_told_of_is_found() {
        is_found(Mutant::TakeGapUnasked);
    }

    #[test]
    fn reporting_the_state_of_a_replica_before_it_is_durable_is_found() {
        is_found(Mutant::ReplicaStateNotDurable);
    }

    #[test]
    fn losing_the_configuration_at_the_start_of_a_log_with_its_extent_is_found() {
        is_found(Mutant::LoseTrimmedConfiguration);
    }

    #[test]
    fn keeping_the_configuration_of_a_truncated_suffix_is_found() {
        is_found(Mutant::KeepTruncatedConfiguration);
    }

    #[test]
    fn an_epoch_noted_one_frame_too_late_is_found() {
        is_found(Mutant::EpochIndexOffByOne);
    }
}
