//! Bugs that can be planted, so that the proofs can be seen to find them.
//!
//! Without the feature `mutants` none can be: [`is_planted`] is `false` at compile time.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "the module is public with the feature only")
)]
pub enum Mutant {
    /// One voter fewer than a majority commits.
    CommitBeforeMajority,
    /// Entries of earlier terms are committed by counting their copies.
    CommitEarlierTerm,
    /// A replica acknowledges what it has appended, durable or not.
    AckBeforeDurable,
    /// A follower acknowledges what is durable, whether or not it is known to be the leader's.
    AckUnverified,
    /// A follower commits up to the leader's commit end, whether or not its log is known to be the leader's.
    CommitUnverified,
    /// Messages leave before (term, vote) is durable.
    VoteNotDurable,
    /// A replica votes for any number of candidates in a term.
    VoteTwice,
    /// A replica votes for candidates whose log is not up to date.
    VoteForOutdatedLog,
    /// A replica follows leaders of earlier terms.
    FollowStaleLeader,
    /// A leader counts acknowledgements of earlier terms.
    CountStaleAck,
    /// A leader serves before an entry of its term is committed.
    ServeBeforeOwnEntry,
    /// A follower cuts off what is after the entries of a message, whether or not it conflicts.
    TruncateWithoutConflict,
    /// The commit end follows the leader's, also backwards.
    HighWatermarkFalls,
    /// Learners count towards majorities.
    LearnerCounted,
    /// A replica whose disk was wiped votes and acknowledges under its old identity.
    WipedReplicaVotes,
    /// A session with a node whose disk was wiped counts as one with the replica that was there before.
    WipedReplicaReached,
    /// In a joint configuration, a majority of the new voters decides alone.
    JointOneSide,
    /// A configuration stays in effect although its entry was cut off.
    KeepTruncatedConfig,
    /// A leader that is deposed says so to nobody.
    DeposedLeaderKeepsLeases,
    /// A replica that has lost the end of its log votes as before.
    DamagedReplicaVotes,
    /// A replica with a hole in its log becomes a candidate.
    DamagedReplicaLeads,
    /// Entries are acknowledged with fewer copies than `min.insync.replicas`.
    IgnoreMinInsync,
    /// A channel accepts messages of another session.
    OldSessionAccepted,
    /// Handles are used again in a session.
    HandleReused,
    /// Partitions that lag go first, and use all of the credit.
    LaggingStarvesTail,
    /// Credit for released frames is dropped if other credit waits to be granted.
    CreditNotReturned,
    /// An acknowledgement is dropped if it does not fit into an open batch.
    AckLost,
    /// A cluster is founded when a majority of the seeds are without one.
    FoundedByMajority,
    /// A node with an emptied disk joins under the incarnation that it had.
    IncarnationReused,
}

highwater_runtime::planted_bugs!(Mutant);
