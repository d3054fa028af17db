//! What leaves for other replicas.
//!
//! Messages of the core leave at once. Entries stay in the log until the channel of their receiver can take them, so a slow one holds neither
//! memory nor the others:
//!
//! ```text
//!   settle --> due --> poll_due --+--> send_news     nothing but a message of the core
//!                                 |
//!                                 +--> the channel:  now    send_entries --> poll_message
//!                                                    later  park, until its turn: send_entries, which may read from disk --> poll_read, finish_read
//! ```
//!
//! A receiver that is parked, or for which a read is under way, is not looked at again before its turn has come: [`Sends`] has it.
//!
//! # Before the leader's own disk
//!
//! A leader sends entries when a commit round takes them, from the pages that the round writes: the disks of the followers work at the same time as its
//! own, which is one vote of the majority and not a condition. Nothing of it needs the leader's disk:
//!
//! - *Followers count only what has an index.* An entry has its index, epoch and offset when it is appended and proposed, and keeps them: a frozen page
//!   never changes. What is not in a commit round yet is not sent, and a batch that the store refuses never gets an index.
//! - *The leader crashes, and its disk lacks what it has sent.* Its own disk was not counted for these entries, so they are committed only if a majority of
//!   the others has them. It comes back with a shorter log, as a follower. It votes for candidates with a longer log, and whoever is elected has
//!   everything that is committed (paper, 5.4.1). It gets the entries again from there, at the same indexes.
//! - *It cannot give the same index and epoch to another entry.* To lead again it has to be elected, in a later term: the term in which it sent the entries
//!   was durable before it was a candidate. Only a replica without others leads on in its term, and such a one has sent nothing (`raft/resume.rs`).
//! - *A part of the entries reaches its disk, after others that did not.* Recovery ends the log at the first gap. What a start finds is what was sent, or
//!   nothing: frames of another content with the same index and epoch do not exist.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::{LogIndex, NodeId, TopicPartition};
use highwater_replication::peer::Source;
use highwater_replication::raft::{Due, ReplicaId};
use highwater_runtime::plane::Disk;
use highwater_storage::{IndexCursor, IndexRead, IndexReadOutcome, ReadId, ReadLimits};

use super::consensus::{Attached, PeerMessage};
use super::replica::{DueState, PartitionId};
use super::{Partitions, Replicas};

/// A replica to which another one has something to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DueSend {
    pub(crate) id: PartitionId,
    pub(crate) tp: TopicPartition,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    /// Where the entries are. `None`: there are none to send, but something else.
    pub(crate) entries: Option<Source>,
}

/// How a replica's entries may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    /// Bytes of frames, or one larger frame.
    pub(crate) bytes: usize,
    /// The session for which it counts.
    pub(crate) session: u64,
    /// The channel has reserved the bytes, and waits for them.
    pub(crate) is_reserved: bool,
}

/// What has become of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    /// There is a message.
    Sent,
    /// A read from disk was begun.
    Reading,
    /// There was nothing to send.
    Nothing,
}

/// Entries that were read from disk for another replica.
#[derive(Debug)]
pub(crate) struct FinishedRead {
    pub(crate) tp: TopicPartition,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) grant: Grant,
    id: PartitionId,
    next: LogIndex,
    result: IndexRead,
    is_wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Its channel will give it a turn.
    Parked,
    /// Its entries are being read.
    Reading((usize, ReadId)),
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    id: PartitionId,
    to: ReplicaId,
    next: LogIndex,
    grant: Grant,
}

/// The receivers that wait, and the reads for them. At most one for each receiver.
#[derive(Default)]
pub(super) struct Sends {
    waiting: BTreeMap<(PartitionId, ReplicaId), State>,
    reads: BTreeMap<(usize, ReadId), Reading>,
    finished: VecDeque<FinishedRead>,
}

impl Sends {
    fn waits(&self, id: PartitionId, to: ReplicaId) -> bool {
        self.waiting.contains_key(&(id, to))
    }

    /// Forgets what was promised to another replica.
    pub(super) fn forget_peer(&mut self, id: PartitionId, peer: ReplicaId) {
        self.waiting.remove(&(id, peer));
    }

    /// Forgets a deleted partition.
    pub(super) fn forget(&mut self, id: PartitionId) {
        let replica = |node, incarnation| ReplicaId { node: NodeId(node), incarnation };
        let range = (id, replica(0, 0))..=(id, replica(u32::MAX, u32::MAX));
        let gone: Vec<_> = self.waiting.range(range).map(|(key, _)| *key).collect();
        for key in gone {
            self.waiting.remove(&key);
        }
    }
}

impl Partitions {
    /// Returns the next message for another replica.
    pub(crate) fn poll_message(&mut self) -> Option<PeerMessage> {
        self.replicas.outgoing.pop_front()
    }

    /// Returns the next replica to which there is something to send. The caller answers by [`send_news`](Self::send_news),
    /// [`send_entries`](Self::send_entries), [`park`](Self::park), or [`handle_peer`](Self::handle_peer) if the replica cannot be reached.
    pub(crate) fn poll_due(&mut self) -> Option<DueSend> {
        self.replicas.poll_due()
    }

    /// Returns whether there may be something to send.
    pub(crate) fn has_due(&self) -> bool {
        !self.replicas.due.is_empty()
    }

    /// Sends what needs no entries.
    pub(crate) fn send_news(&mut self, due: &DueSend) {
        self.replicas.send_news(due);
    }

    /// Notes that the channel of a replica will give it a turn.
    pub(crate) fn park(&mut self, due: &DueSend) {
        self.replicas.sends.waiting.insert((due.id, due.to), State::Parked);
    }

    /// Sends a replica entries, or begins to read them. If it is due more after that, it is listed again.
    pub(crate) fn send_entries(
        &mut self,
        disk: &mut dyn Disk,
        (tp, to): (TopicPartition, ReplicaId),
        grant: Grant,
        wall_ms: i64,
    ) -> SendOutcome {
        let Some(id) = self.find(tp) else { return SendOutcome::Nothing };
        self.replicas.sends.waiting.remove(&(id, to));
        let before = self.replicas.outgoing.len();
        let outcome = match self.replicas.begin_send(disk, id, to, grant, grant.bytes) {
            SendOutcome::Reading => return SendOutcome::Reading,
            _ if self.replicas.outgoing.len() > before => SendOutcome::Sent,
            _ => SendOutcome::Nothing,
        };
        self.replicas.check_leads(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
        outcome
    }

    /// Returns a read for another replica that is done. [`finish_read`](Self::finish_read) sends what it has brought.
    pub(crate) fn poll_read(&mut self) -> Option<FinishedRead> {
        self.replicas.sends.finished.pop_front()
    }

    /// Sends what was read, if the replica is still due that and `may_send`. If it is due more, it is listed again.
    pub(crate) fn finish_read(
        &mut self,
        disk: &mut dyn Disk,
        read: FinishedRead,
        may_send: bool,
        wall_ms: i64,
    ) -> SendOutcome {
        let FinishedRead { id, to, next, result, is_wanted, grant, .. } = read;
        // If it was offered entries again, it has waited for the end of this turn.
        self.replicas.sends.waiting.remove(&(id, to));
        let may_send = may_send && is_wanted;
        let before = self.replicas.outgoing.len();
        let is_due = |due: Due| (due.to, due.next) == (to, next);
        let is_due = may_send && self.get(id).is_some_and(|partition| partition.consensus.due().any(is_due));
        match result {
            // One frame that is larger than the grant may be sent too.
            IndexRead::NeedsMemory(bytes) if is_due => {
                if self.replicas.begin_send(disk, id, to, grant, bytes) == SendOutcome::Reading {
                    return SendOutcome::Reading;
                }
            }
            result if is_due => self.replicas.send_read(id, to, next, result),
            _ => self.replicas.list_due(id),
        }
        let is_sent = self.replicas.outgoing.len() > before;
        self.replicas.check_leads(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
        if is_sent { SendOutcome::Sent } else { SendOutcome::Nothing }
    }
}

impl Replicas {
    fn poll_due(&mut self) -> Option<DueSend> {
        while let Some(id) = self.due.front().copied() {
            let next = self.next_due(id);
            if next.is_some() {
                return next;
            }
            self.due.pop_front();
            if let Some(partition) = self.table.get_mut(id) {
                partition.due = DueState::Unlisted;
            }
        }
        None
    }

    /// Returns the next receiver of a partition that waits for nothing. Each is returned once before the partition is listed again.
    fn next_due(&mut self, id: PartitionId) -> Option<DueSend> {
        let partition = self.table.get_mut(id)?;
        let (slot, store) = (partition.slot, &self.stores[partition.store].store);
        let (first, frozen) = (store.first_point(slot).index, store.frozen_index(slot));
        let DueState::Listed(after) = partition.due else { return None };
        let sends = &self.sends;
        let is_next = |due: &Due| after.is_none_or(|after| due.to > after) && !sends.waits(id, due.to);
        let is_ready = |due: &Due| due.has_news || due.next < frozen || due.next < first;
        let Some(due) = partition.consensus.due().find(|due| is_next(due) && is_ready(due)) else {
            // A commit round may take the next entries of some soon. Those that are parked wait for their channels.
            if partition.consensus.due().any(|due| !sends.waits(id, due.to) && !is_ready(&due)) {
                self.unfrozen.insert(id);
            }
            return None;
        };
        partition.due = DueState::Listed(Some(due.to));
        let entries = (first..frozen)
            .contains(&due.next)
            .then(|| if store.is_index_cached(slot, due.next) { Source::Memory } else { Source::Disk });
        let (tp, from) = (partition.tp, partition.consensus.id());
        Some(DueSend { id, tp, from, to: due.to, entries })
    }

    /// Lists the partitions whose entries a commit round may have taken: they can leave.
    pub(super) fn list_unfrozen(&mut self) {
        while let Some(id) = self.unfrozen.pop_first() {
            if self.table.get(id).is_some_and(|partition| partition.consensus.due().next().is_some()) {
                self.list_due(id);
            }
        }
    }

    /// Lists a partition that may have something for other replicas.
    pub(super) fn list_due(&mut self, id: PartitionId) {
        if let Some(partition) = self.table.get_mut(id) {
            let before = std::mem::replace(&mut partition.due, DueState::Listed(None));
            if before == DueState::Unlisted {
                self.due.push_back(id);
            }
        }
    }

    /// Carries out what follows if a partition has stopped leading, because its log cannot be read.
    fn check_leads(&mut self, disk: &mut dyn Disk, id: PartitionId, wall_ms: i64) {
        if self.table.get(id).is_some_and(|partition| !partition.consensus.is_leader()) {
            self.settle(disk, id, wall_ms);
        }
    }

    fn send_news(&mut self, due: &DueSend) {
        let Some(partition) = self.table.get_mut(due.id) else { return };
        let Some(next) = partition.consensus.due().find(|other| other.to == due.to) else { return };
        let first = self.stores[partition.store].store.first_point(partition.slot);
        if next.next < first.index {
            partition.consensus.handle_log_start(first.index);
            return self.send_append(due.id, due.to, next.next, Attached::StartOffset(first.offset));
        }
        self.send_append(due.id, due.to, next.next, Attached::Nothing);
    }

    /// Sends a replica what it is due, as far as commit rounds have taken it, or begins to read it. A larger frame needs more memory than the grant
    /// has.
    fn begin_send(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        to: ReplicaId,
        grant: Grant,
        memory_bytes_max: usize,
    ) -> SendOutcome {
        let Some(partition) = self.table.get(id) else { return SendOutcome::Nothing };
        let Some(due) = partition.consensus.due().find(|due| due.to == to) else {
            return SendOutcome::Nothing;
        };
        let (at, slot) = (partition.store, partition.slot);
        let store = &mut self.stores[at].store;
        if due.next < store.first_point(slot).index || due.next >= store.frozen_index(slot) {
            // It may be due something without entries by now.
            self.list_due(id);
            return SendOutcome::Nothing;
        }
        let mut limits = ReadLimits { bytes_max: grant.bytes, memory_bytes_max };
        loop {
            let cursor = IndexCursor::at(due.next);
            match store.read_for_replica(disk, slot, cursor, limits) {
                IndexReadOutcome::Ready(IndexRead::NeedsMemory(bytes)) if bytes > limits.memory_bytes_max => {
                    limits.memory_bytes_max = bytes;
                }
                IndexReadOutcome::Ready(read) => {
                    self.send_read(id, to, due.next, read);
                    return SendOutcome::Nothing;
                }
                IndexReadOutcome::Pending(read) => {
                    let reading = Reading { id, to, next: due.next, grant };
                    self.sends.reads.insert((at, read), reading);
                    self.sends.waiting.insert((id, to), State::Reading((at, read)));
                    return SendOutcome::Reading;
                }
            }
        }
    }

    /// Handles a read for another replica, or returns the result of one for somebody else.
    pub(super) fn handle_peer_read(&mut self, at: (usize, ReadId), result: IndexRead) -> Option<IndexRead> {
        let Some(Reading { id, to, next, grant }) = self.sends.reads.remove(&at) else { return Some(result) };
        let partition = self.table.get(id)?;
        // Otherwise what was promised for the session has been forgotten meanwhile.
        let is_wanted = self.sends.waiting.get(&(id, to)) == Some(&State::Reading(at));
        let (tp, from) = (partition.tp, partition.consensus.id());
        let read = FinishedRead { tp, from, to, grant, id, next, result, is_wanted };
        self.sends.finished.push_back(read);
        None
    }

    fn send_read(&mut self, id: PartitionId, to: ReplicaId, from: LogIndex, read: IndexRead) {
        match read {
            IndexRead::Frames { bytes, next, .. } => {
                self.send_append(id, to, next.index(), Attached::Frames(bytes));
                self.list_due(id);
            }
            IndexRead::OutOfRange { first, .. } => {
                if let Some(partition) = self.table.get_mut(id) {
                    partition.consensus.handle_log_start(first);
                }
                self.list_due(id);
            }
            IndexRead::Damaged => {
                let Some(partition) = self.table.get_mut(id) else { return };
                tracing::error!(
                    partition = partition.name(),
                    "the frame with index {from} cannot be read for another replica"
                );
                partition.consensus.handle_unreadable(from);
            }
            // A later attempt finds something else.
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
