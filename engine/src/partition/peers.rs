//! What other replicas and the channels to their nodes bring: messages, and which replicas can be reached.
//!
//! Whoever owns the channels calls this. A channel reaches the replicas of one incarnation of a node, of many partitions at once, so these are visited in
//! steps ([`Partitions::visit_peer`]). Partitions without a leader are listed once, for whoever has the clock ([`Partitions::poll_leaderless`]).

use highwater_protocol::ids::{LogIndex, Offset, TopicPartition};
use highwater_replication::peer::Frames;
use highwater_replication::raft::{
    AppendOutcome, Config, Envelope, Message, ProposeError, ProtocolViolation, ReplicaId,
};
use highwater_runtime::plane::Disk;

use super::consensus::{Attached, PeerMessage};
use super::frames::{FramesError, IncomingFrames};
use super::replica::PartitionId;
use super::{Partitions, Replicas};
use crate::mutants::{Mutant, is_planted};

/// Why a message cannot be from a replica that follows the protocol. The channel by which it came has to be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PeerViolation {
    #[error("{tp}: {error}")]
    Protocol { tp: TopicPartition, error: ProtocolViolation },
    #[error("{tp}: {error}")]
    Frames { tp: TopicPartition, error: FramesError },
}

/// A message from another replica, as it was received.
#[derive(Debug)]
pub(crate) struct ReceivedMessage {
    /// The partition.
    pub(crate) tp: TopicPartition,
    /// The message, with sender and receiver.
    pub(crate) envelope: Envelope,
    /// The frames of an append.
    pub(crate) frames: Vec<Frames>,
    /// The offset at which a log starts anew.
    pub(crate) start_offset: Option<Offset>,
}

impl From<PeerMessage> for ReceivedMessage {
    fn from(message: PeerMessage) -> Self {
        let PeerMessage { tp, envelope, attached } = message;
        let (frames, start_offset) = match attached {
            Attached::Nothing => (Vec::new(), None),
            Attached::Frames(bytes) => (vec![Frames::Small(bytes)], None),
            Attached::StartOffset(offset) => (Vec::new(), Some(offset)),
        };
        Self { tp, envelope, frames, start_offset }
    }
}

/// What has become of the way to another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerChange {
    /// It can be reached, over a new session.
    Reachable,
    /// It cannot be reached. What was under way is lost.
    Lost,
    /// It can be reached; what was sent went to a shard that does not have the partition.
    Moved,
}

impl Partitions {
    /// Handles a message from another replica. An error: the peer does not follow the protocol.
    pub(crate) fn handle_message(
        &mut self,
        disk: &mut dyn Disk,
        message: ReceivedMessage,
        wall_ms: i64,
    ) -> Result<(), PeerViolation> {
        let outcome = self.replicas.handle_message(disk, message, wall_ms);
        self.retry_after_changes(disk, wall_ms);
        outcome
    }

    /// Handles that a partition has had no leader for an election timeout.
    pub(crate) fn handle_election_timeout(&mut self, disk: &mut dyn Disk, id: PartitionId, wall_ms: i64) {
        if let Some(partition) = self.get_mut(id) {
            partition.consensus.handle_election_timeout();
        }
        self.replicas.settle(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
    }

    /// Changes the replicas of a partition, on its leader.
    pub(crate) fn change_replicas(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        target: &Config,
        wall_ms: i64,
    ) -> Result<(), ProposeError> {
        let Some(id) = self.find(tp) else { return Err(ProposeError::NotLeader) };
        let Some(partition) = self.get_mut(id) else { return Err(ProposeError::NotLeader) };
        partition.consensus.propose_config(target)?;
        self.replicas.settle(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
        Ok(())
    }

    /// Handles a change of the way to another replica of a partition.
    pub(crate) fn handle_peer(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        peer: ReplicaId,
        change: PeerChange,
        wall_ms: i64,
    ) {
        self.replicas.handle_peer(disk, id, peer, change, wall_ms);
        self.retry_after_changes(disk, wall_ms);
    }

    /// Handles a change of the way to the replicas of a node for the partitions in the entries of the table from `from` on, `count` at most, that have
    /// this replica and that `concerns` selects. Returns the entry at which to go on, and whether there are more.
    pub(crate) fn visit_peer(
        &mut self,
        disk: &mut dyn Disk,
        (peer, change): (ReplicaId, PeerChange),
        (from, count): (usize, usize),
        concerns: impl Fn(TopicPartition) -> bool,
        wall_ms: i64,
    ) -> (usize, bool) {
        if change == PeerChange::Reachable {
            self.replicas.note_incarnation(peer);
        }
        let entries = self.replicas.table.entry_count();
        let until = entries.min(from.saturating_add(count));
        for at in from..until {
            if let Some(id) = self.replicas.table.id_at(at)
                && self.get(id).is_some_and(|partition| concerns(partition.tp))
            {
                self.replicas.handle_peer(disk, id, peer, change, wall_ms);
            }
        }
        self.retry_after_changes(disk, wall_ms);
        (until, until < entries)
    }

    /// Returns the next partition that has lost its leader, or never had one. It is not listed again before [`Self::still_leaderless`] has
    /// returned false.
    pub(crate) fn poll_leaderless(&mut self) -> Option<PartitionId> {
        self.replicas.leaderless.pop()
    }

    /// Returns whether a partition that was listed still has no leader.
    pub(crate) fn still_leaderless(&mut self, id: PartitionId) -> bool {
        let Some(partition) = self.get_mut(id) else { return false };
        partition.listed.as_leaderless = partition.consensus.lacks_leader();
        partition.listed.as_leaderless || is_planted(Mutant::ElectionWhileLeaseLasts)
    }

    /// Returns whether frames of a partition up to this index have left the memory in which they were received: they are durable, or were dropped.
    pub(crate) fn has_stored(&self, id: PartitionId, end: LogIndex) -> bool {
        let Some(partition) = self.get(id) else { return true };
        let bounds = self.bounds(partition);
        bounds.durable_index >= end || bounds.append_index < end
    }

    /// Returns the replicas of deleted partitions, each with another replica that this one may have exchanged messages with.
    pub(crate) fn poll_gone(&mut self) -> Option<(TopicPartition, ReplicaId, ReplicaId)> {
        self.replicas.gone.pop()
    }
}

impl Replicas {
    fn handle_message(
        &mut self,
        disk: &mut dyn Disk,
        message: ReceivedMessage,
        wall_ms: i64,
    ) -> Result<(), PeerViolation> {
        let ReceivedMessage { tp, envelope, frames, start_offset } = message;
        let violation = |error| PeerViolation::Frames { tp, error };
        let Some(id) = self.table.find(tp) else { return Ok(()) };
        let Some(partition) = self.table.get_mut(id) else { return Ok(()) };
        let outcome = match (&envelope.message, start_offset) {
            (Message::Append(append), _) => {
                let frames = IncomingFrames::parse(append, frames).map_err(violation)?;
                let outcome = partition.consensus.handle_message(&envelope, frames.configs());
                if let AppendOutcome::Accepted { from } = outcome {
                    self.append_frames(disk, id, frames, from, wall_ms).map_err(violation)?;
                }
                outcome
            }
            (Message::StartAt { .. }, Some(offset)) => {
                partition.consensus.handle_start_message(&envelope, offset)
            }
            (Message::StartAt { .. }, None) => return Err(violation(FramesError::NoStartOffset)),
            _ => partition.consensus.handle_message(&envelope, &[]),
        };
        self.settle(disk, id, wall_ms);
        match outcome {
            AppendOutcome::Violation(error) => Err(PeerViolation::Protocol { tp, error }),
            AppendOutcome::Accepted { .. } | AppendOutcome::Dropped => Ok(()),
        }
    }

    fn handle_peer(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        peer: ReplicaId,
        change: PeerChange,
        wall_ms: i64,
    ) {
        let Some(partition) = self.table.get_mut(id) else { return };
        if !partition.consensus.is_peer(peer) {
            // The node's disk may have been replaced: its replica takes the place of the one that was there.
            if change == PeerChange::Reachable && partition.consensus.has_replica_on(peer.node) {
                self.settle(disk, id, wall_ms);
            }
            return;
        }
        match change {
            PeerChange::Reachable => partition.consensus.handle_peer_alive(peer),
            PeerChange::Lost => partition.consensus.handle_peer_lost(peer),
            PeerChange::Moved => {
                // It may have been lost on the shard that was thought to have the partition.
                partition.consensus.handle_peer_alive(peer);
                partition.consensus.handle_peer_moved(peer);
            }
        }
        // What was promised to a channel, or read for it, was for the session that has ended.
        self.sends.forget_peer(id, peer);
        self.settle(disk, id, wall_ms);
    }
}
