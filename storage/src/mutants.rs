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
    /// A write that only the disk's cache has counts as durable.
    AckBeforeSync,
    /// A log ends at the first frame whose checksum is wrong, whatever follows.
    TruncateAtFirstBadChecksum,
    /// A frame of an earlier incarnation of an extent passes for one of this incarnation.
    IgnoreIncarnation,
    /// After a truncation the log continues before the discarded frames.
    WriteBeforeStaleTail,
    /// Producers' last batches are not restored from the frames.
    DedupForgets,
    /// A frame that was found by searching is believed whatever its code.
    BelieveWithoutMac,
    /// An epoch is noted one frame after where it begins.
    EpochIndexOffByOne,
    /// When the map is rebuilt, an extent stays in place of the one that was rewritten from it.
    PreferOldGeneration,
    /// Frames may be missing between any two frames.
    AcceptGap,
    /// A frame of another replica is appended whatever is missing before it.
    TakeGapUnasked,
    /// Everything that recovery finds counts as committed.
    CommitWhatIsFound,
    /// The end of a log is cut off wherever it is asked.
    TruncateBelowCommit,
    /// The state of a replica counts as durable when it is recorded.
    ReplicaStateNotDurable,
    /// The configuration in effect at the start of a log is forgotten with its frame.
    LoseTrimmedConfiguration,
    /// A configuration stays although its frame was cut off.
    KeepTruncatedConfiguration,
    /// The map is not told that the end of a log was cut off.
    ForgetTruncation,
    /// A record counts as durable when its entry of the journal is handed to the disk.
    AckBeforeJournal,
    /// An entry of the journal counts as durable before the entries before it.
    AckJournalOutOfOrder,
    /// Entries of the journal are forgotten when their bytes were written to the extents, not when these are durable.
    TrimBeforeSync,
    /// Entries of earlier eras of the journal are applied too.
    ReplayEarlierEras,
    /// A piece of the journal is applied whoever uses the space now.
    ReplayIntoAnyLife,
    /// A rewritten extent takes the place of others before its frames are durable.
    SwapBeforeSync,
    /// A rewritten extent does not say that frames may be missing in it.
    ForgetGapFlag,
    /// The space of extents that were replaced is used again before the map knows durably that it is free.
    FreeReplacedAtOnce,
    /// Space is returned to the file system before the map knows durably that it is free.
    PunchBeforeFreed,
    /// Frames of a freed extent are returned to the file system while its header may still be there.
    PunchFramesFirst,
    /// A reader that was in an extent goes on in the one that has taken its place, as if nothing had moved.
    ReadReplacedExtent,
    /// The last batch of a producer is not shown to the filter as such.
    DropLastOfProducer,
    /// A write bound is recorded when the frames that pass it are durable.
    BoundAfterWrite,
    /// Frames are written as soon as a write bound after them is recorded, not when it is durable.
    WriteBeforeBound,
    /// The write bound of an earlier incarnation passes for that of an extent.
    TrustStaleBound,
    /// After a start, extents are taken to be bounded by their ends only.
    ForgetBound,
    /// The last batch of a log is not shown to the filter as such.
    DropLastOfLog,
    /// Compaction keeps the first record of a key instead of the last.
    KeepFirstRecord,
    /// Keys with a part of their hash in common pass for the same key.
    CollideKeys,
    /// A key that is not in the index counts as one with a later record.
    SupersedeUnknownKeys,
    /// A full index counts as one of the whole dirty section.
    TakeFullIndexForComplete,
    /// The last frame of the dirty section is not read.
    MissLastDirtyFrame,
    /// Compaction removes tombstones before their horizon.
    DropTombstoneEarly,
    /// Tombstones whose earlier records may not all be gone get a horizon too.
    ExpireEveryTombstone,
    /// Tombstones expire although a batch before them could not be read.
    IgnoreUnreadable,
    /// A batch of which no record stays is dropped, also if it is the last of its producer.
    DropEmptyBatch,
    /// A batch of which some records are removed begins at another offset.
    MoveCompactedBatch,
    /// A start does not write frames again that may not be durable.
    TrustUnprovenFrames,
    /// A partition whose loss is accepted goes on in the epoch of the lost records.
    KeepEpochAfterLoss,
    /// Records are compacted although they are younger than the configuration allows.
    IgnoreMinLag,
}

highwater_runtime::planted_bugs!(Mutant);
