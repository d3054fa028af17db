//! Visits the partitions of a peer that was lost or can be reached again, some of them in each turn.
//!
//! A peer whose change has not reached all partitions is held back: nothing that it has sent since is handled, or a partition would take a message of the
//! new session and then lose its leader's lease with the old one.

use std::collections::VecDeque;

use highwater_replication::peer::PeerShard;
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::Disk;

use super::Peers;
use crate::limits::PEER_PARTITIONS_PER_TURN_MAX;
use crate::partition::{Partitions, PeerChange};

#[derive(Clone, Copy, Debug)]
struct Visit {
    peer: PeerShard,
    /// The identity of the replicas there.
    replica: ReplicaId,
    change: PeerChange,
    /// The entry of the table of partitions at which it goes on.
    at: usize,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Visits(VecDeque<Visit>);

impl Visits {
    pub(super) fn begin(&mut self, peer: PeerShard, replica: ReplicaId, change: PeerChange) {
        self.0.push_back(Visit { peer, replica, change, at: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a change of a peer has not reached all partitions.
    pub(super) fn hold(&self, peer: PeerShard) -> bool {
        self.0.iter().any(|visit| visit.peer == peer)
    }

    /// Visits some partitions.
    pub(super) fn run(
        &mut self,
        disk: &mut dyn Disk,
        peers: &mut Peers,
        partitions: &mut Partitions,
        wall_ms: i64,
    ) {
        let mut left = PEER_PARTITIONS_PER_TURN_MAX;
        while left > 0
            && let Some(Visit { peer, replica, change, at }) = self.0.front().copied()
        {
            // What is known of the shards of a node is about the disk that it has now. Of one that was replaced, nothing is left.
            let is_gone = change == PeerChange::Lost && !peers.is_current(replica);
            let concerns = |tp| is_gone || peers.owner(peer.node, tp) == Some(peer);
            let (next, is_more) =
                partitions.visit_peer(disk, (replica, change), (at, left), concerns, wall_ms);
            left = left.saturating_sub(next.saturating_sub(at).max(1));
            match self.0.front_mut() {
                Some(visit) if is_more => visit.at = next,
                _ => {
                    self.0.pop_front();
                    peers.change_handled(peer);
                }
            }
        }
    }
}
