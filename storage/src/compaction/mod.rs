//! Log compaction: which records of a compacted log stay. [`Cleaner`] and [`KeyIndex`] are pure; a [`Pass`] has
//! the store read and rewrite extents.
//!
//! A pass over a partition takes two walks over frames:
//!
//! 1. The *dirty* section, from the end of the section that earlier passes have compacted, is walked with [`Cleaner::note`], batch by batch, until the
//!    [`KeyIndex`] is full. The index then holds the offset of the last record of each key before [`KeyIndex::end`].
//! 2. The log, from its start up to [`KeyIndex::end`], is walked with [`Cleaner::retain`]. A record stays if its key has no later record in the
//!    index.
//!
//! A tombstone, a record without a value, stays longer than the records that it deletes, so that consumers see it. The first pass that keeps one sets
//! the *delete horizon* of its batch: the time of the pass plus `delete.retention.ms`. From then on later passes remove the batch's tombstones.
//! The horizon is in the batch itself, as in Kafka (KIP-534): it takes the place of the base timestamp, and a bit in the attributes says so.
//!
//! What stays of a batch keeps its base offset and its last offset, so offsets never change.
//!
//! Invariant: a consumer that reads the log from its start sees the last value of every key at any moment, if rewritten extents take effect in the order
//! of their offsets, also across crashes. A record is removed only if a later one of its key is in the log; and a tombstone only in a pass after
//! the one that removed the records before it. A batch that cannot be read stays as it is, and then so do all tombstones after it: it may hold a record
//! that one of them deletes.

mod cleaner;
mod index;
mod large;
mod pass;

pub use cleaner::{CleanRules, Cleaned, Cleaner, Kept};
pub use index::{Full, KEY_BYTES, KeyIndex};
pub use pass::{Backlog, Pass, PassError, PassLimits, PassOutcome, PassStep};
