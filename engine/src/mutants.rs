//! Bugs that can be planted, so that the simulations can be seen to find them.
//!
//! Without the feature `mutants` none can be: [`is_planted`] is `false` at compile time.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "the module is public with the feature only")
)]
pub enum Mutant {
    /// A producer is acknowledged when its batch is appended, not when it is durable.
    AckBeforeDurable,
    /// The high watermark falls by one record now and then.
    HighWatermarkFalls,
    /// The group coordinator replies before the record of what it replies is durable.
    ReplyBeforeRecordDurable,
    /// A batch is appended although the one before it, of the same producer, was rejected and will be sent again.
    RejectedBatchOvertaken,
    /// Some commits of offsets are acknowledged without a record in the log.
    OffsetCommitLost,
    /// The groups of a partition that this node coordinates again are not read: what is committed elsewhere is not known.
    ReturningGroupsNotRead,
    /// The groups of a partition that is coordinated elsewhere are not forgotten.
    GroupsKeptWhileElsewhere,
    /// A leader that was deposed acknowledges batches when the log of the next leader reaches their ends.
    DeposedLeaderAcknowledges,
    /// A replica answers requests about its partition although it does not lead, or does not know yet what is committed.
    FollowerAnswers,
    /// Readers get what is committed, on the replica's own disk or not.
    ReadableBeforeDurable,
    /// Readers get what is on a replica's own disk, committed or not.
    UncommittedIsReadable,
    /// Reads go up to the end of the log instead of the high watermark.
    FetchAboveHighWatermark,
    /// A partition begins an election although its leader's lease lasts.
    ElectionWhileLeaseLasts,
    /// The end of a session is not reported to the partitions, as if the next one renewed its leases.
    LeaseOutlivesSession,
    /// An acknowledgement is credited to the partition's neighbour.
    AckOfAnotherPartition,
    /// A message about a partition of another shard is dropped instead of refused.
    WrongShardNotRefused,
    /// The credit for received frames is not given back.
    CreditNeverReleased,
    /// A change of the metadata is published when it is appended to the log, not when it is durable.
    ChangePublishedBeforeDurable,
    /// A change of the metadata is published before all shards have prepared it.
    PublishedBeforePrepared,
    /// Records of the metadata are applied when they are in the log, committed or not.
    MetadataAppliedUncommitted,
    /// The last record of the metadata that was applied before a start is applied again.
    MetadataAppliedTwice,
    /// Requests to a controller that was deposed stay, and are answered when as many records are applied.
    DeposedControllerReplies,
    /// In the leader table, a statement in a lower epoch replaces one in a higher epoch.
    LowerEpochHolds,
    /// A node does not say again in a new session what it leads.
    LeadersNotToldAgain,
    /// What a node said in earlier sessions holds although it does not repeat it: for example, because its disk was wiped.
    OldStatementsHold,
    /// A node that joins is welcomed before its registration is committed.
    WelcomeBeforeCommitted,
}

highwater_runtime::planted_bugs!(Mutant);

/// Checks that a run with one of the first `seeds` seeds fails when a bug is planted.
#[cfg(all(test, feature = "mutants"))]
pub(crate) fn assert_found<T>(mutant: Mutant, seeds: u64, run: impl Fn(u64) -> T) {
    let fails = |seed: &u64| {
        plant(Some(mutant));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(*seed)));
        plant(None);
        outcome.is_err()
    };
    let found = (0..seeds).find(fails);
    println!("{mutant:?}: seed {found:?}");
    assert!(found.is_some(), "{mutant:?} was not found in {seeds} seeds");
}
