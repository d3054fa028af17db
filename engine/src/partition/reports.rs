//! What the partitions of a shard report about their leaders, for the leader table of the node.
//!
//! A replica reports when it begins to serve as the leader, when the voters in sync have changed, and when it has ceased to lead. A partition with something to report is
//! listed once, so any number of changes within a turn are one report, and nothing looks at partitions that have none. A broker without other nodes reports nothing.
//!
//! A voter is *in sync* if the leader reaches it and it lacks at most [`IN_SYNC_ENTRIES_MAX`] of the committed entries. To be in sync again it may lack an eighth of
//! them, so a replica that is about as far behind does not come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, NodeId, ShardId};
use highwater_replication::peer::LeaderStatement;
use highwater_runtime::plane::ShardIndex;

use super::consensus::Consensus;
use super::replica::{Partition, PartitionId};
use super::{Partitions, Replicas};
use crate::limits::IN_SYNC_ENTRIES_MAX;

/// What a replica has reported.
#[derive(Default, Debug)]
pub(super) struct ReportState {
    /// The last report, if the replica led then.
    last: Option<Reported>,
    /// Listed among the partitions with something to report.
    is_listed: bool,
}

#[derive(Clone, Debug)]
struct Reported {
    epoch: LeaderEpoch,
    in_sync: Arc<[NodeId]>,
}

/// The partitions with something to report.
#[derive(Default, Debug)]
pub(super) struct Reports {
    /// There are other nodes to whom it matters.
    are_wanted: bool,
    listed: VecDeque<PartitionId>,
}

impl Consensus {
    /// Returns the nodes of the voters that are in sync with this leader. `before`: those that were.
    fn in_sync<'a>(&'a self, before: &'a [NodeId]) -> impl Iterator<Item = NodeId> + 'a {
        let commit = self.commit_end().0;
        let is_in_sync = move |(node, reached): &(NodeId, Option<u64>)| {
            let was = before.contains(node);
            let lag_max = if was { IN_SYNC_ENTRIES_MAX } else { IN_SYNC_ENTRIES_MAX / 8 };
            reached.is_some_and(|end| commit.saturating_sub(end) <= lag_max)
        };
        self.voters_reached().filter(is_in_sync).map(|(node, _)| node)
    }
}

impl Partition {
    /// Returns whether the last report still says what is.
    fn is_reported(&self) -> bool {
        match (&self.report.last, self.consensus.is_serving()) {
            (None, false) => true,
            (Some(reported), true) => {
                let in_sync = self.consensus.in_sync(&reported.in_sync);
                reported.epoch == self.epoch() && in_sync.eq(reported.in_sync.iter().copied())
            }
            _ => false,
        }
    }

    /// Makes the reports of what has changed since the last ones: that it has ceased to lead, and that it leads.
    fn report(&mut self, shard: ShardIndex) -> impl Iterator<Item = LeaderStatement> + use<> {
        if self.is_reported() {
            return None.into_iter().chain(None);
        }
        let before = self.report.last.take();
        let is_serving = self.consensus.is_serving();
        let (partition, epoch) = (self.tp, self.epoch());
        let of = |epoch, leads, in_sync| LeaderStatement {
            partition,
            epoch,
            leads,
            shard: ShardId(shard),
            in_sync,
        };
        let continues = |reported: &Reported| is_serving && reported.epoch == epoch;
        let was = before.as_ref().map_or(&[][..], |reported| &reported.in_sync);
        let in_sync: Arc<[NodeId]> = self.consensus.in_sync(was).collect();
        let ended = before.filter(|reported| !continues(reported));
        let ended = ended.map(|reported| of(reported.epoch, false, reported.in_sync));
        self.report.last = is_serving.then(|| Reported { epoch, in_sync: Arc::clone(&in_sync) });
        ended.into_iter().chain(is_serving.then(|| of(epoch, true, in_sync)))
    }
}

impl Replicas {
    /// Lists a partition if it has something to report.
    pub(super) fn list_report(&mut self, id: PartitionId) {
        if !self.reports.are_wanted {
            return;
        }
        let Some(partition) = self.table.get_mut(id) else { return };
        if !partition.report.is_listed && !partition.is_reported() {
            partition.report.is_listed = true;
            self.reports.listed.push_back(id);
        }
    }
}

impl Partitions {
    /// Has the partitions report their leaders from now on. Called before there are any.
    pub(crate) fn want_reports(&mut self) {
        self.replicas.reports.are_wanted = true;
    }

    /// Returns the reports of at most `count_max` partitions.
    pub(crate) fn poll_reports(&mut self, count_max: usize) -> Vec<LeaderStatement> {
        let (me, Replicas { table, reports, .. }) = (self.me, &mut self.replicas);
        let count = reports.listed.len().min(count_max);
        let mut statements = Vec::new();
        for id in reports.listed.drain(..count) {
            if let Some(partition) = table.get_mut(id) {
                partition.report.is_listed = false;
                statements.extend(partition.report(me));
            }
        }
        statements
    }

    /// Returns whether there are more reports.
    pub(crate) fn has_reports(&self) -> bool {
        !self.replicas.reports.listed.is_empty()
    }
}
