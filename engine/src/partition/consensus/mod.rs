//! The consensus of one partition: its [`Replica`], and what the core does not know, the offsets that belong to its indexes.
//!
//! The core decides and this component carries out what it asks for, on the partition's log in its [`Store`](highwater_storage::Store). A
//! partition with one replica goes the same way as one with several: it is a leader that is a majority by itself.
//!
//! | action of the core | on the store | its answer | to the core |
//! |---|---|---|---|
//! | `Persist` | `set_replica_state` | `ReplicaStateDurable` | `handle_persisted` |
//! | `AppendEpochStart` | `append_epoch_start` | `Durable` | `handle_durable` |
//! | `AppendConfig` | `append_configuration` | `Durable` | `handle_durable` |
//! | `Truncate` | `truncate_suffix` | `Truncated` | `handle_truncated` |
//! | `StartAt` | `start_at` | `Started` | `handle_started` |
//! | `Send` | – | – | leaves as an [`PeerMessage`] |
//!
//! Batches are appended first and proposed then, after [`check_append`](Consensus::check_append): so the store can refuse one without the core
//! having counted it. An action that the store refuses for lack of space is held back, and all that come after it, until there is space.
//!
//! A majority may have entries on its disks before the leader has, so the commit may pass the end of the leader's own disk. Producers are acknowledged
//! then, and readers are not: the high watermark stays at the end of the disk. So everything below the high watermark can be read again from this
//! disk after a crash, by every reader in the same way, and a slow disk delays only those who read from it. Nor does the store learn of a
//! commit above the end of its disk ([`committed_here`](Consensus::committed_here)): what its files call committed is in them.
//!
//! Invariant: the high watermark never falls, and is not above what is committed or what is on this replica's disk.
//!
//! Invariant: while no action is held back, the log in the store ends where the core says.

mod actions;
mod members;
mod open;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset, TopicPartition};
use highwater_replication::raft::{
    Action, AppendOutcome, ConfigEntry, Due, Envelope, HardState, ProposeError, Replica, ReplicaId, RoleKind,
};
use highwater_storage::{AppendError, CommitRule, LogPoint, ReplicaState};

pub(crate) use actions::LogAccess;
pub(crate) use open::Recovered;

use crate::api::RequiredAcks;
use crate::limits::MARKS_KEPT_MAX;
use crate::mutants::{Mutant, is_planted};

/// A message between replicas.
#[derive(Clone, Debug)]
pub(crate) struct PeerMessage {
    /// The partition.
    pub(crate) tp: TopicPartition,
    /// The message, with sender and receiver.
    pub(crate) envelope: Envelope,
    /// What the message carries beside what the core says.
    pub(crate) attached: Attached,
}

/// What goes with a message of the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Attached {
    /// Nothing.
    Nothing,
    /// The frames of an append, as they are on the disk.
    Frames(Bytes),
    /// Offset of the first record of a log that starts anew.
    StartOffset(Offset),
}

/// Why a batch cannot be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotAppendable {
    /// Another replica leads, or none.
    NotLeader,
    /// Fewer replicas are reachable than the acknowledgement needs.
    NotEnoughReplicas {
        /// Replicas within reach.
        live: usize,
        /// Replicas that must have the batch.
        needed: usize,
    },
    /// The leader is about to serve: the batch can wait.
    NotYet,
    /// The store has refused an earlier entry.
    Store(AppendError),
}

/// Fewer replicas are within reach than an acknowledgement needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MissingReplicas {
    /// Replicas within reach, with the leader.
    pub(crate) live: usize,
    /// Replicas that must have a batch.
    pub(crate) needed: usize,
}

/// What has changed in a partition since the last look.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Changes {
    /// The replica does not lead any more in the term in which pending batches were appended.
    pub(crate) is_deposed: bool,
    /// Batches that wait may be appended now, or fail now.
    pub(crate) may_append: bool,
    /// The high watermark has moved.
    pub(crate) high_watermark_moved: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Consensus {
    replica: Replica,
    /// Ends of frames above what is acknowledged: index and offset. Invariant: both rise.
    marks: VecDeque<LogPoint>,
    /// The end of what is on this replica's disk.
    durable: LogPoint,
    /// The last known frame end that is committed.
    committed: LogPoint,
    acknowledged: Offset,
    high_watermark: Offset,
    /// Offset at which the last term began that this replica was elected for.
    term_start: Offset,
    /// The term that this replica led at the last look, and whether it served.
    led: Option<(LeaderEpoch, bool)>,
    /// The term in which this replica answered at the last look.
    answered: Option<LeaderEpoch>,
    /// Batches could be appended at the last look.
    could_append: bool,
    /// The action that the store refused, and why.
    held: Option<Box<(Action, AppendError)>>,
    /// The offset at which a log will start anew.
    start_offset: Offset,
}

impl Consensus {
    // Getters.

    /// Returns the term: the epoch of what is appended, if this replica leads.
    pub(crate) fn term(&self) -> LeaderEpoch {
        self.replica.term()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.replica.role() == RoleKind::Leader
    }

    /// Returns the node whose replica leads in this term, if that is known.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.replica.leader().map(|leader| leader.node)
    }

    /// Returns whether the replica leads and may answer.
    pub(crate) fn is_serving(&self) -> bool {
        self.replica.is_serving()
    }

    /// Returns whether the replica leads and what was committed before its term may be read here. That is on its own disk later than a majority has
    /// it, if the disk is slow; until then, a client would be told of an earlier end than by the leader before.
    pub(crate) fn is_answering(&self) -> bool {
        self.is_serving() && self.high_watermark >= self.term_start
    }

    /// Returns the identity of this replica.
    pub(crate) fn id(&self) -> ReplicaId {
        self.replica.id()
    }

    /// Returns whether the replica votes and knows no leader whose lease lasts.
    pub(crate) fn lacks_leader(&self) -> bool {
        self.has_others() && self.replica.lacks_leader()
    }

    /// Returns the offset after the last record that may be read: it is committed, and on this replica's disk.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Returns the offset after the last record on this replica's disk.
    pub(crate) fn durable_end(&self) -> Offset {
        self.durable.offset
    }

    /// Returns the offset after the last record that is committed and on as many replicas as the topic asks for.
    pub(crate) fn acknowledged(&self) -> Offset {
        self.acknowledged
    }

    /// Returns whether there are other replicas.
    pub(crate) fn has_others(&self) -> bool {
        !self.replica.config().is_only(self.replica.id())
    }

    /// Returns when a frame of the log counts as committed for the store. With other replicas, this is what the core says.
    pub(crate) fn commit_rule(&self) -> CommitRule {
        let alone = !self.has_others() && self.replica.is_config_committed();
        if alone { CommitRule::OwnDisk } else { CommitRule::Quorum }
    }

    /// Returns the last known frame end that is committed.
    pub(crate) fn committed(&self) -> LogPoint {
        self.committed
    }

    /// Returns the last known frame end that is committed and on this replica's disk.
    pub(crate) fn committed_here(&self) -> LogPoint {
        if self.durable.index < self.committed.index { self.durable } else { self.committed }
    }

    /// Returns whether the log is being cut off or begun anew.
    pub(crate) fn is_cutting(&self) -> bool {
        self.replica.is_cutting()
    }

    /// Returns the index after the last entry that is known to be committed.
    pub(crate) fn commit_end(&self) -> LogIndex {
        self.replica.commit_end()
    }

    /// Returns the nodes of the voters, each with the index up to which its log is known to be that of this leader, if the leader reaches it.
    pub(crate) fn voters_reached(&self) -> impl Iterator<Item = (NodeId, Option<u64>)> {
        let config = self.replica.config();
        config.voters().map(|id| (id.node, self.replica.reached_end(id).map(|end| end.0)))
    }

    /// Returns whether an action waits for the store.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the core, for what only reads it.
    #[cfg(test)]
    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    // Batches.

    /// Returns why a batch whose producer asks for `acks` cannot be appended now. Only an acknowledgement by all in-sync replicas needs as many
    /// of them as the topic asks for.
    pub(crate) fn check_append(&self, acks: RequiredAcks) -> Result<(), NotAppendable> {
        if let Some(held) = &self.held {
            return Err(NotAppendable::Store(held.1));
        }
        self.replica.check_propose().map_err(|error| match error {
            ProposeError::NotServing | ProposeError::Transferring => NotAppendable::NotYet,
            // It is about to elect itself.
            _ if !self.has_others() => NotAppendable::NotYet,
            _ => NotAppendable::NotLeader,
        })?;
        match self.missing_replicas().filter(|_| acks == RequiredAcks::All) {
            Some(MissingReplicas { live, needed }) => Err(NotAppendable::NotEnoughReplicas { live, needed }),
            None => Ok(()),
        }
    }

    /// Returns how many replicas are within reach of the leader and how many an acknowledgement needs, if these are more.
    pub(crate) fn missing_replicas(&self) -> Option<MissingReplicas> {
        match self.replica.check_insync() {
            Err(ProposeError::NotEnoughReplicas { live, needed }) => Some(MissingReplicas { live, needed }),
            _ => None,
        }
    }

    /// Handles that a batch was appended after [`check_append`](Self::check_append).
    pub(crate) fn note_appended(&mut self, index: LogIndex, next_offset: Offset) {
        let proposed = self.replica.propose(1);
        assert!(proposed == Ok(index), "what was appended at {index} can be proposed there: {proposed:?}");
        self.mark(LogPoint { index: index.next(), offset: next_offset });
    }

    /// Notes where a frame ends.
    pub(crate) fn mark(&mut self, end: LogPoint) {
        self.marks.push_back(end);
    }

    // Events.

    /// Handles that everything before this place is on this replica's disk.
    pub(crate) fn handle_durable(&mut self, index: LogIndex, offset: Offset) {
        if index < self.durable.index {
            // The log has been cut off, which is reported next.
            assert!(self.replica.is_cutting(), "what is durable stays durable");
            return;
        }
        self.durable = LogPoint { index, offset };
        // The ends of frames from before the start are known now.
        let before = self.marks.partition_point(|mark| mark.index < index);
        let is_known = self.marks.get(before).is_none_or(|mark| mark.index == index);
        if !is_known && index > self.committed.index {
            self.marks.insert(before, LogPoint { index, offset });
        }
        self.replica.handle_durable(index);
    }

    /// Handles that a state is durable.
    pub(crate) fn handle_persisted(&mut self, state: ReplicaState) {
        self.replica.handle_persisted(hard_state(state));
    }

    /// Handles that the log was cut off.
    pub(crate) fn handle_truncated(&mut self, end: LogPoint) {
        while self.marks.pop_back_if(|mark| mark.index >= end.index).is_some() {}
        if end.index > self.committed.index {
            self.mark(end);
        }
        // Everything before a cut is durable.
        self.durable = end;
        self.replica.handle_truncated();
    }

    /// Handles that the log was abandoned and restarted at this place.
    pub(crate) fn handle_started(&mut self, start: LogPoint) {
        self.marks.clear();
        self.committed = start;
        self.acknowledged = self.acknowledged.max(start.offset);
        self.durable = start;
        self.replica.handle_started();
    }

    /// Handles a message. See [`Replica::handle_message`].
    pub(crate) fn handle_message(&mut self, envelope: &Envelope, configs: &[ConfigEntry]) -> AppendOutcome {
        self.replica.handle_message(envelope, configs)
    }

    /// Handles a message with which the log starts anew, at this offset.
    pub(crate) fn handle_start_message(&mut self, envelope: &Envelope, offset: Offset) -> AppendOutcome {
        if !self.replica.is_cutting() {
            self.start_offset = offset;
        }
        self.replica.handle_message(envelope, &[])
    }

    /// Handles that the store did not take accepted frames from this index on.
    pub(crate) fn handle_refused(&mut self, end: LogIndex) {
        self.replica.handle_refused(end);
    }

    /// Handles that the store may take frames again, after it has refused some.
    pub(crate) fn handle_space(&mut self) {
        self.replica.handle_space();
    }

    /// Handles that there was no leader for an election timeout.
    pub(crate) fn handle_election_timeout(&mut self) {
        self.replica.handle_election_timeout();
    }

    /// Handles that another replica can be reached again.
    pub(crate) fn handle_peer_alive(&mut self, peer: ReplicaId) {
        self.replica.handle_peer_alive(peer);
    }

    /// Handles that what was sent to another replica is lost, although it can be reached.
    pub(crate) fn handle_peer_moved(&mut self, peer: ReplicaId) {
        self.replica.handle_peer_moved(peer);
    }

    /// Handles that another replica cannot be reached.
    pub(crate) fn handle_peer_lost(&mut self, peer: ReplicaId) {
        self.replica.handle_peer_lost(peer);
    }

    /// Handles that a frame of the leader's log cannot be read: it stops leading, if another can.
    pub(crate) fn handle_unreadable(&mut self, index: LogIndex) {
        self.replica.handle_hole(index, index.next());
    }

    /// Handles that the store has removed the frames before this index.
    pub(crate) fn handle_log_start(&mut self, start: LogIndex) {
        if start <= self.replica.commit_end() {
            self.replica.handle_log_start(start);
        }
    }

    /// Handles another `min.insync.replicas`.
    pub(crate) fn set_min_insync(&mut self, min_insync: usize) {
        self.replica.set_min_insync(self.effective_min_insync(min_insync));
    }

    /// A topic's setting has no effect on a partition with one replica.
    fn effective_min_insync(&self, min_insync: usize) -> usize {
        if self.has_others() { min_insync } else { 1 }
    }

    // What follows.

    /// Returns the replicas to which this one has something to send.
    pub(crate) fn due(&self) -> impl Iterator<Item = Due> {
        self.replica.due()
    }

    /// Returns the message with the entries up to `end`, which counts as sent.
    pub(crate) fn take_append(&mut self, to: ReplicaId, end: LogIndex) -> Option<Envelope> {
        self.replica.take_append(to, end)
    }

    /// Returns what has changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let leads = self.is_leader().then(|| (self.term(), self.is_serving()));
        let before = std::mem::replace(&mut self.led, leads);
        let term = |led: Option<(LeaderEpoch, bool)>| led.map(|(term, _)| term);
        let can_append = self.replica.check_propose().is_ok();
        let could_append = std::mem::replace(&mut self.could_append, can_append);
        Changes {
            is_deposed: before.is_some() && term(before) != term(leads),
            may_append: before != leads || (can_append && !could_append),
            high_watermark_moved: self.advance_high_watermark(),
        }
    }

    /// Returns whether the replica has begun to answer since the last call, in the term that it leads.
    pub(crate) fn has_begun_to_answer(&mut self) -> bool {
        let answers = self.is_answering().then(|| self.term());
        let answered = std::mem::replace(&mut self.answered, answers);
        answers.is_some() && answered != answers
    }

    /// Follows the commit end. Returns whether the high watermark has moved.
    fn advance_high_watermark(&mut self) -> bool {
        let commit = self.replica.commit_end();
        let acknowledged = if self.is_leader() { self.replica.acknowledged_end() } else { commit };
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.index <= acknowledged) {
            self.acknowledged = mark.offset;
            self.committed = if mark.index > self.committed.index { mark } else { self.committed };
        }
        let committed = self.marks.partition_point(|mark| mark.index <= commit);
        if let Some(at) = committed.checked_sub(1) {
            self.committed = self.marks[at];
        }
        if self.marks.is_empty() && self.marks.capacity() > MARKS_KEPT_MAX {
            self.marks = VecDeque::new();
        }
        let before = self.high_watermark;
        let committed =
            if is_planted(Mutant::UncommittedIsReadable) { Offset(i64::MAX) } else { self.committed.offset };
        let end = if is_planted(Mutant::ReadableBeforeDurable) {
            committed
        } else {
            committed.min(self.durable.offset)
        };
        if end > before && is_planted(Mutant::HighWatermarkFalls) && commit.0.is_multiple_of(8) {
            self.high_watermark = Offset(before.0.saturating_sub(1));
            return false;
        }
        self.high_watermark = before.max(end);
        self.high_watermark > before
    }
}

fn hard_state(state: ReplicaState) -> HardState {
    let ReplicaState { term, vote, lost_in } = state;
    let vote = vote.map(|(node, incarnation)| ReplicaId { node, incarnation });
    HardState { term, vote, lost_in }
}

fn replica_state(hard: HardState) -> ReplicaState {
    let HardState { term, vote, lost_in } = hard;
    ReplicaState { term, vote: vote.map(|id| (id.node, id.incarnation)), lost_in }
}
