//! Messages between the replicas of partitions: those that come in, and entries for others. Whoever owns the channels between nodes calls this.
//!
//! A leader sends what it has on its own disk. Entries are read when the receiver's channel can take them ([`Partitions::poll_outgoing`]), one
//! read for each receiver, so that a slow one holds neither memory nor the others.
#![cfg_attr(not(test), expect(dead_code, reason = "there are no channels between nodes yet"))]

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{LogIndex, NodeId, TopicPartition};
use highwater_replication::raft::{
    AppendOutcome, Config, Due, Message, ProposeError, ProtocolViolation, ReplicaId,
};
use highwater_runtime::plane::Disk;
use highwater_storage::{IndexCursor, IndexRead, IndexReadOutcome, ReadId, ReadLimits};

use super::consensus::{Attached, PeerMessage};
use super::frames::{FramesError, IncomingFrames};
use super::replica::PartitionId;
use super::{Partitions, Replicas};
use crate::limits::PEER_READ_BYTES_MAX;

/// Why a message cannot be from a replica that follows the protocol. The channel by which it came has to be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PeerViolation {
    #[error("{tp}: {error}")]
    Protocol { tp: TopicPartition, error: ProtocolViolation },
    #[error("{tp}: {error}")]
    Frames { tp: TopicPartition, error: FramesError },
}

/// The reads for other replicas that wait for the disk. At most one for each replica.
#[derive(Default)]
pub(super) struct PeerReads {
    by_read: BTreeMap<(usize, ReadId), PeerRead>,
    receivers: BTreeSet<(PartitionId, ReplicaId)>,
}

#[derive(Clone, Copy)]
struct PeerRead {
    id: PartitionId,
    to: ReplicaId,
    from: LogIndex,
}

impl PeerReads {
    fn insert(&mut self, at: (usize, ReadId), read: PeerRead) {
        self.receivers.insert((read.id, read.to));
        self.by_read.insert(at, read);
    }

    fn remove(&mut self, at: (usize, ReadId)) -> Option<PeerRead> {
        let read = self.by_read.remove(&at)?;
        self.receivers.remove(&(read.id, read.to));
        Some(read)
    }

    fn is_reading(&self, id: PartitionId, to: ReplicaId) -> bool {
        self.receivers.contains(&(id, to))
    }
}

impl Partitions {
    /// Handles a message from another replica. An error: the peer does not follow the protocol.
    pub(crate) fn handle_message(
        &mut self,
        disk: &mut dyn Disk,
        message: &PeerMessage,
        wall_ms: i64,
    ) -> Result<(), PeerViolation> {
        let outcome = self.replicas.handle_message(disk, message, wall_ms);
        self.retry_after_changes(disk, wall_ms);
        outcome
    }

    /// Handles that a partition has had no leader for an election timeout.
    pub(crate) fn handle_election_timeout(&mut self, disk: &mut dyn Disk, tp: TopicPartition, wall_ms: i64) {
        let Some(id) = self.find(tp) else { return };
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

    /// Handles that a node can be reached again, or cannot be reached, for all partitions that have a replica there.
    pub(crate) fn handle_peer(&mut self, disk: &mut dyn Disk, node: NodeId, is_alive: bool, wall_ms: i64) {
        for at in 0..self.replicas.table.entry_count() {
            let Some(id) = self.replicas.table.id_at(at) else { continue };
            let Some(partition) = self.replicas.table.get_mut(id) else { continue };
            if !partition.consensus.has_replica_on(node) {
                continue;
            }
            if is_alive {
                partition.consensus.handle_peer_alive(node);
            } else {
                partition.consensus.handle_peer_lost(node);
            }
            self.replicas.settle(disk, id, wall_ms);
        }
        self.retry_after_changes(disk, wall_ms);
    }

    /// Returns the next message for another replica. Entries are read only for nodes whose channels are ready to take them.
    pub(crate) fn poll_outgoing(
        &mut self,
        disk: &mut dyn Disk,
        is_ready: impl Fn(NodeId) -> bool,
        wall_ms: i64,
    ) -> Option<PeerMessage> {
        loop {
            if let Some(message) = self.replicas.outgoing.pop_front() {
                return Some(message);
            }
            if !self.replicas.send_due(disk, &is_ready, wall_ms) {
                return None;
            }
        }
    }
}

impl Replicas {
    fn handle_message(
        &mut self,
        disk: &mut dyn Disk,
        message: &PeerMessage,
        wall_ms: i64,
    ) -> Result<(), PeerViolation> {
        let PeerMessage { tp, envelope, attached } = message;
        let Some(id) = self.table.find(*tp) else { return Ok(()) };
        let Some(partition) = self.table.get_mut(id) else { return Ok(()) };
        let outcome = match (&envelope.message, attached) {
            (Message::Append(append), attached) => {
                let bytes = if let Attached::Frames(bytes) = attached { &bytes[..] } else { &[] };
                let frames = IncomingFrames::parse(append, bytes)
                    .map_err(|error| PeerViolation::Frames { tp: *tp, error })?;
                let outcome = partition.consensus.handle_message(envelope, frames.configs());
                if let AppendOutcome::Accepted { from } = outcome {
                    self.append_frames(disk, id, &frames, from, wall_ms)
                        .map_err(|error| PeerViolation::Frames { tp: *tp, error })?;
                }
                outcome
            }
            (Message::StartAt { .. }, Attached::StartOffset(offset)) => {
                partition.consensus.handle_start_message(envelope, *offset)
            }
            (Message::StartAt { .. }, _) => {
                return Err(PeerViolation::Frames { tp: *tp, error: FramesError::NoStartOffset });
            }
            _ => partition.consensus.handle_message(envelope, &[]),
        };
        self.settle(disk, id, wall_ms);
        match outcome {
            AppendOutcome::Violation(error) => Err(PeerViolation::Protocol { tp: *tp, error }),
            AppendOutcome::Accepted { .. } | AppendOutcome::Dropped => Ok(()),
        }
    }

    /// Sends something to another replica, or begins to read it. Returns whether a message may be ready.
    fn send_due(&mut self, disk: &mut dyn Disk, is_ready: &impl Fn(NodeId) -> bool, wall_ms: i64) -> bool {
        for _ in 0..self.due.len() {
            let Some(id) = self.due.pop_front() else { break };
            let Some(partition) = self.table.get_mut(id) else { continue };
            partition.is_due = false;
            let due: Vec<Due> = partition.consensus.due().collect();
            let mut is_left = false;
            for due in due {
                if self.peer_reads.is_reading(id, due.to) {
                    continue;
                }
                if is_ready(due.to.node) {
                    self.send_to(disk, id, due);
                } else {
                    is_left = true;
                }
            }
            let is_sent = !self.outgoing.is_empty();
            if is_left || is_sent {
                self.list_due(id);
            }
            if is_sent {
                return true;
            }
            if self.table.get(id).is_some_and(|partition| !partition.consensus.is_leader()) {
                // It has stopped leading, because its log cannot be read.
                self.settle(disk, id, wall_ms);
            }
        }
        false
    }

    fn list_due(&mut self, id: PartitionId) {
        if let Some(partition) = self.table.get_mut(id)
            && !std::mem::replace(&mut partition.is_due, true)
        {
            self.due.push_back(id);
        }
    }

    /// Sends a replica what it is due, as far as that is on this replica's disk.
    fn send_to(&mut self, disk: &mut dyn Disk, id: PartitionId, due: Due) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let (at, slot) = (partition.store, partition.slot);
        let store = &mut self.stores[at].store;
        let first = store.first_point(slot);
        if due.next < first.index {
            partition.consensus.handle_log_start(first.index);
            return self.send_append(id, due.to, due.next, Attached::StartOffset(first.offset));
        }
        let durable = store.bounds(slot).durable_index;
        if due.next >= durable {
            if due.has_news {
                self.send_append(id, due.to, due.next, Attached::Nothing);
            }
            return;
        }
        let mut limits = ReadLimits { bytes_max: PEER_READ_BYTES_MAX, memory_bytes_max: PEER_READ_BYTES_MAX };
        loop {
            let cursor = IndexCursor::at(due.next);
            match store.read_from_index(disk, slot, cursor, limits, durable) {
                IndexReadOutcome::Ready(IndexRead::NeedsMemory(bytes)) if bytes > limits.memory_bytes_max => {
                    limits.memory_bytes_max = bytes;
                }
                IndexReadOutcome::Ready(read) => return self.send_read(id, due.to, due.next, read),
                IndexReadOutcome::Pending(read) => {
                    let waiting = PeerRead { id, to: due.to, from: due.next };
                    return self.peer_reads.insert((at, read), waiting);
                }
            }
        }
    }

    /// Handles a read for another replica, or returns the result of one for somebody else.
    pub(super) fn handle_peer_read(&mut self, at: (usize, ReadId), result: IndexRead) -> Option<IndexRead> {
        let Some(PeerRead { id, to, from }) = self.peer_reads.remove(at) else { return Some(result) };
        self.list_due(id);
        let partition = self.table.get(id)?;
        // The replica may be due something else by now, or nothing.
        if partition.consensus.due().any(|due| (due.to, due.next) == (to, from)) {
            self.send_read(id, to, from, result);
        }
        None
    }

    fn send_read(&mut self, id: PartitionId, to: ReplicaId, from: LogIndex, read: IndexRead) {
        match read {
            IndexRead::Frames { bytes, next, .. } => {
                self.send_append(id, to, next.index(), Attached::Frames(bytes));
            }
            IndexRead::OutOfRange { first, .. } => {
                if let Some(partition) = self.table.get_mut(id) {
                    partition.consensus.handle_log_start(first);
                }
            }
            IndexRead::Damaged => {
                let Some(partition) = self.table.get_mut(id) else { return };
                tracing::error!(
                    partition = partition.name(),
                    "the frame with index {from} cannot be read for another replica"
                );
                partition.consensus.handle_unreadable(from);
            }
            // The next attempt is told again how much memory it needs.
            IndexRead::NeedsMemory(_) | IndexRead::AtEnd => {}
        }
    }

    /// Sends a message of the core with the entries up to `end`.
    fn send_append(&mut self, id: PartitionId, to: ReplicaId, end: LogIndex, attached: Attached) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let tp = partition.tp;
        if let Some(envelope) = partition.consensus.take_append(to, end) {
            self.outgoing.push_back(PeerMessage { tp, envelope, attached });
        }
    }
}
