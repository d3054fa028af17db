//! Carries over what an earlier build kept in a log of its own: the state log `offsets` of shard 0.
//!
//! ```text
//!   shard 0:  reads the old log -- CarryOver --> every coordinator: applies and appends, when it has read its partitions
//!             all have it <------- CarriedOver -- when everything is durable
//!             removes the old files -- Serve ---> every coordinator: serves
//! ```
//!
//! No request is handled before the old files are gone. So a crash at any moment leads to the same groups: as long as the old files are there,
//! everything is carried over again, and nothing is newer.

use std::collections::BTreeMap;

use highwater_runtime::plane::ShardIndex;

use super::groups::{GroupBatch, GroupCoordinator, SnapshotCursor};
use super::placement::GroupOwners;
use crate::meta::Topic;

/// About how many bytes are taken from the old groups at once.
const PIECE_BYTES: usize = 1 << 20;

/// The carrying over on shard 0.
#[derive(Debug)]
pub(crate) struct CarryOver {
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The old log has been read. The topic that keeps groups may not exist yet.
    Read(Box<GroupCoordinator>),
    /// So many coordinators have not made theirs durable.
    Sent(usize),
    /// So many of the old files are gone.
    Removing(usize),
    Done,
}

/// What shard 0 has to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NextStep {
    /// Remove the old file with this number.
    RemoveFile(usize),
    /// Tell the coordinators to serve.
    Serve,
}

impl CarryOver {
    /// Carries over the groups of `old`.
    pub(crate) fn new(old: GroupCoordinator) -> Self {
        Self { stage: Stage::Read(Box::new(old)) }
    }

    /// Returns whether nothing has been sent.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Read(_))
    }

    /// Returns what each of `shards` shards has to take; there may be nothing for some. Offsets in topics that are gone are left behind.
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
                old.handle_topic(topic.id, &topic.name, topic.stores.len() as u32);
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

    /// A coordinator has made its records durable.
    pub(crate) fn handle_carried(&mut self) -> Option<NextStep> {
        let Stage::Sent(missing) = &mut self.stage else { return None };
        *missing = missing.saturating_sub(1);
        if *missing > 0 {
            return None;
        }
        self.stage = Stage::Removing(0);
        Some(NextStep::RemoveFile(0))
    }

    /// A file of `files` is gone.
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
