//! Migrates groups and offsets that an earlier build kept in the state log `offsets` of shard 0.
//!
//! ```text
//!   shard 0:  reads the old log -- CarryOver --> every shard's coordinator: reads its partitions, then applies and appends the records
//!             all shards are done <- CarriedOver -- all of them are durable
//!             removes the old files -- Serve ---> every shard's coordinator: serves
//! ```
//!
//! No request is handled before the old files are removed. So a crash at any point leads to the same groups: while the old files exist, the next
//! start carries over everything again, and no newer record exists.

use std::collections::BTreeMap;

use highwater_runtime::plane::ShardIndex;

use super::groups::{GroupBatch, GroupCoordinator, SnapshotCursor};
use super::placement::GroupOwners;
use crate::meta::Topic;

/// Approximate bytes of a piece of the old groups' snapshot.
const PIECE_BYTES: usize = 1 << 20;

/// The state of the migration on shard 0.
#[derive(Debug)]
pub(crate) struct CarryOver {
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The old log has been read. The groups' topic may not exist yet.
    Read(Box<GroupCoordinator>),
    /// The groups have been sent. This many shards have not made theirs durable yet.
    Sent(usize),
    /// This many old files have been removed.
    Removing(usize),
    Done,
}

/// What shard 0 has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NextStep {
    /// Remove the old file with this number.
    RemoveFile(usize),
    /// Let the coordinators serve.
    Serve,
}

impl CarryOver {
    /// Creates a migration of the groups of `old`.
    pub(crate) fn new(old: GroupCoordinator) -> Self {
        Self { stage: Stage::Read(Box::new(old)) }
    }

    /// Returns whether nothing has been sent.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Read(_))
    }

    /// Returns the changes for each of `shards` shards, in an empty list if there are none. Drops offsets of deleted topics.
    pub(crate) fn send<'a>(
        &mut self,
        topics: impl Iterator<Item = &'a Topic>,
        owners: &GroupOwners,
        shards: u16,
    ) -> BTreeMap<ShardIndex, Vec<GroupBatch>> {
        let mut parts: BTreeMap<ShardIndex, Vec<GroupBatch>> =
            (0..shards).map(|shard| (shard, Vec::new())).collect();
        if let Stage::Read(mut old) = std::mem::replace(&mut self.stage, Stage::Sent(usize::from(shards))) {
            for topic in topics {
                old.handle_topic(topic.id, &topic.name, topic.partition_count() as u32);
            }
            let mut cursor = SnapshotCursor::default();
            while let Some(changes) = old.batches_of_all(&mut cursor, PIECE_BYTES) {
                for change in changes {
                    parts.entry(owners.of(&change.group)).or_default().push(change);
                }
            }
        }
        parts
    }

    /// Handles the report of a coordinator that its records are durable.
    pub(crate) fn handle_carried(&mut self) -> Option<NextStep> {
        let Stage::Sent(missing) = &mut self.stage else { return None };
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return None;
        }
        self.stage = Stage::Removing(0);
        Some(NextStep::RemoveFile(0))
    }

    /// Handles the removal of one of the `files` old files.
    pub(crate) fn handle_removed(&mut self, files: usize) -> Option<NextStep> {
        let Stage::Removing(gone) = &mut self.stage else { return None };
        *gone += 1;
        if *gone < files {
            return Some(NextStep::RemoveFile(*gone));
        }
        self.stage = Stage::Done;
        Some(NextStep::Serve)
    }

    /// Returns whether the coordinators may serve.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}
