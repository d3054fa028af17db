//! The partitions of a shard: their stores, and everything that belongs to a replica.
//!
//! [`Partitions`] owns the stores of its shard and is the one way to their logs for both protocols. It is driven like any state machine
//! here: requests and completions go in by commands and `handle_*`, events and actions come out by `poll_*`. It gets disks and time from its
//! caller, and knows no wire format.
//!
//! ```text
//!   adapter           Partitions                                                                          Shard
//!   parse_batch --> produce(CheckJob) --> check --+--> append(AppendRequest) --> log --> durable --> Ack --> poll_event: Appended
//!                        |                        |          |                                                  (to its ReplyTo)
//!                     CheckQueue          another shard's    PendingAppends
//!                (more than fits a turn)  --> poll_forward   (no space before the disk)
//! ```
//!
//! | type | what it is |
//! |---|---|
//! | [`ParsedBatch`] | a batch with its parsed header, as which it travels to the store: the header is parsed once |
//! | [`CheckJob`], `CheckQueue` | the batches of a request that have to be checked; the jobs that continue in later turns |
//! | [`AppendRequest`], [`ReplyTo`] | a checked batch, and who receives its [`AppendOutcome`] |
//! | `RejectedBatches` | rejected batches that their producers will send again, and that later batches must not overtake |
//! | `PendingAppends` | batches that wait for space, by partition |
//! | [`Partition`] | one replica: its consensus with the high watermark, and pending acknowledgements |
//! | `Consensus` | carries out on the log what the consensus core decides |
//! | [`ReceivedMessage`], [`DueSend`], `Sends` | what comes from other replicas; what is sent to them; receivers that wait for their turn |
//! | `Reports` | which partitions lead, for the leader table of the node |
//! | `LogStartMoves`, `Deletions` | log starts that are being moved, deleted topics whose space is being freed |
//! | `Compaction` | the partition that is being compacted, or the scan for one |
//!
//! Order: batches of a connection are checked one after the other, and batches of a partition are appended in the order in which they
//! reached its owner. While a batch is checked, or a native client's batch waits for space, no other request of its connection is handled:
//! see [`Partitions::holds`]. [`Partitions::poll_released`] returns the connections that may continue.
//!
//! Invariant: no acknowledgement leaves before the partition's consensus has said that it may.

mod acks;
mod append;
mod batch;
mod check;
mod check_queue;
mod compaction;
mod consensus;
mod damage;
mod events;
mod frames;
mod lag;
mod leadership;
mod log_start;
mod members;
mod metadata;
mod peers;
mod pending;
mod piece_reads;
mod rejected;
mod replica;
mod reports;
mod sends;
mod settle;
mod stores;
#[cfg(test)]
pub(crate) mod tests;
mod topics;
mod transfer;
mod waiter;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use highwater_protocol::batch::Work;
use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_replication::raft::ReplicaId;
use highwater_runtime::plane::{ConnId, Disk, ShardIndex};
use highwater_storage::{Bounds, Store};

pub(crate) use append::{AppendFailure, AppendOutcome, AppendRequest, AppendedAt};
pub(crate) use batch::{BatchBytes, OwnedBatch, ParsedBatch, batches_of};
pub(crate) use check::parse_batch;
pub(crate) use check_queue::{CheckJob, Unchecked};
pub(crate) use compaction::CompactionStep;
pub(crate) use consensus::{Attached, PeerMessage};
pub(crate) use events::PartitionEvent;
pub(crate) use log_start::{LogStartMove, LogStartOutcome};
pub(crate) use peers::{PeerChange, ReceivedMessage};
pub(crate) use piece_reads::PieceReads;
pub(crate) use rejected::{ProducerKey, RejectedBatches, SequenceStamp};
pub(crate) use replica::{Partition, PartitionId};
pub(crate) use sends::{DueSend, FinishedRead, Grant, SendOutcome};
pub(crate) use stores::{
    EXIT_DISK, META_SPACE, OFFSETS_SPACE, OpenStoresError, RESERVE_SPACE, StoreEntry, StoresSetup, open_all,
};
pub(crate) use waiter::{FetchId, ReaderId, Waiter};

use append::ValidBatch;
use check::Verdict;
use check_queue::CheckQueue;
use compaction::Compaction;
use log_start::LogStartMoves;
use members::Incarnations;
use pending::PendingAppends;
use replica::Table;
use reports::Reports;
use sends::Sends;
use topics::Deletions;

use crate::api::{ApiError, RequiredAcks};
use crate::limits::CHECK_WORK_PER_BATCH;
use crate::meta::Topic;
use crate::reply_to::ReplyTo;

/// Returns whether a client sends a batch that failed with this error again, unchanged. Only its protocol's adapter knows.
pub(crate) type ResendRule = fn(ReplyTo, &ApiError) -> bool;

/// The partitions of a shard. See the module's doc.
pub(crate) struct Partitions {
    me: ShardIndex,
    /// The identity of all replicas here.
    replica: ReplicaId,
    replicas: Replicas,
    checks: CheckQueue,
    /// Batches that wait for space, by store.
    pending: Vec<PendingAppends>,
    /// Native connections that have a batch in `pending`, with its partition.
    waiting: BTreeMap<ConnId, TopicPartition>,
    /// Connections that may continue.
    released: Vec<ConnId>,
    /// Checked batches for other shards.
    forwards: Vec<(ShardIndex, AppendRequest<'static>)>,
    /// Stores for which retention still has to run in this round.
    retaining: Vec<usize>,
}

/// The stores, the partitions in them, and their events. Appends happen here. Batches that wait for space are kept apart, so that retrying one
/// cannot change the list of the others.
struct Replicas {
    stores: Vec<StoreEntry>,
    table: Table,
    rejected: RejectedBatches,
    is_sent_again: ResendRule,
    moves: LogStartMoves,
    deletions: Deletions,
    compaction: Compaction,
    events: VecDeque<PartitionEvent>,
    /// Messages for other replicas.
    outgoing: VecDeque<PeerMessage>,
    /// Partitions that have something for other replicas.
    due: VecDeque<PartitionId>,
    /// Partitions with entries for other replicas that no commit round has taken yet.
    unfrozen: BTreeSet<PartitionId>,
    /// Receivers that wait for their turn, and the reads for them.
    sends: Sends,
    reports: Reports,
    /// Partitions without a leader that nobody has taken note of.
    leaderless: Vec<PartitionId>,
    incarnations: Incarnations,
    /// Partitions whose log on this leader's disk is behind what is committed, of which nobody has taken note.
    lagging: Vec<PartitionId>,
    /// Partitions whose leadership is being handed over, of which nobody has taken note.
    transfers: Vec<PartitionId>,
    /// Replicas of deleted partitions, with the others.
    gone: Vec<(TopicPartition, ReplicaId, ReplicaId)>,
    /// Partitions with an action that waits for space.
    held: BTreeSet<PartitionId>,
    /// Partitions whose store has refused frames of their leader.
    refused: BTreeSet<PartitionId>,
    /// Stores with batches that may be appended now, because a role has changed.
    retry: Vec<usize>,
    counted: PartitionCounters,
    /// A reusable buffer.
    scratch: Vec<u8>,
}

/// Numbers of appended batches and records, and of reads that found damage.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PartitionCounters {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) damaged_reads: u64,
}

impl Partitions {
    /// Creates a component without partitions. [`put_topic`](Self::put_topic) adds those that are in `stores`. `is_sent_again` decides which
    /// rejected batches later ones must not overtake.
    pub(crate) fn new(
        me: ShardIndex,
        replica: ReplicaId,
        stores: Vec<StoreEntry>,
        decoder_bytes_max: usize,
        is_sent_again: ResendRule,
    ) -> Self {
        Self {
            me,
            replica,
            pending: stores.iter().map(|_| PendingAppends::default()).collect(),
            replicas: Replicas {
                stores,
                table: Table::new(),
                rejected: RejectedBatches::default(),
                is_sent_again,
                moves: LogStartMoves::default(),
                deletions: Deletions::default(),
                compaction: Compaction::default(),
                events: VecDeque::new(),
                outgoing: VecDeque::new(),
                due: VecDeque::new(),
                unfrozen: BTreeSet::new(),
                sends: Sends::default(),
                reports: Reports::default(),
                leaderless: Vec::new(),
                incarnations: Incarnations::new(),
                lagging: Vec::new(),
                transfers: Vec::new(),
                gone: Vec::new(),
                held: BTreeSet::new(),
                refused: BTreeSet::new(),
                retry: Vec::new(),
                counted: PartitionCounters::default(),
                scratch: Vec::new(),
            },
            checks: CheckQueue::new(decoder_bytes_max),
            waiting: BTreeMap::new(),
            released: Vec::new(),
            forwards: Vec::new(),
            retaining: Vec::new(),
        }
    }

    // Getters.

    pub(crate) fn find(&self, tp: TopicPartition) -> Option<PartitionId> {
        self.replicas.table.find(tp)
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.replicas.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.replicas.table.get_mut(id)
    }

    /// Returns a partition of this shard.
    pub(crate) fn of(&self, tp: TopicPartition) -> Option<&Partition> {
        self.get(self.find(tp)?)
    }

    /// Returns where the log of a partition begins and ends.
    pub(crate) fn bounds(&self, partition: &Partition) -> Bounds {
        self.store(partition.store).bounds(partition.slot)
    }

    /// Returns the offset after the last record of a partition that may be read; `None` if the partition is not here.
    pub(crate) fn readable_end(&self, id: PartitionId) -> Option<Offset> {
        let partition = self.get(id)?;
        Some(partition.readable_end(|| self.bounds(partition).append_end))
    }

    /// Checks that a reader may begin at this offset: at a record, or at the end and wait for the next one. Records at the end may be waiting for
    /// disk space since the start of the broker, and a reader may have read them before.
    pub(crate) fn check_offset(&self, partition: &Partition, offset: Offset) -> Result<(), ApiError> {
        let (bounds, end) = (self.bounds(partition), partition.high_watermark());
        if (bounds.log_start..=bounds.append_end.max(end)).contains(&offset) {
            return Ok(());
        }
        let (partition, start) = (partition.name(), bounds.log_start);
        if bounds.faulty && offset > end {
            return Err(ApiError::OffsetAfterDamage { partition, offset, end });
        }
        Err(ApiError::OffsetOutOfRange { partition, offset, start, end })
    }

    /// Returns the name of a partition for messages.
    pub(crate) fn name(&self, id: PartitionId) -> String {
        self.get(id).map_or_else(|| "a deleted partition".to_owned(), Partition::name)
    }

    pub(crate) fn stores(&self) -> impl Iterator<Item = &Store> {
        self.replicas.stores.iter().map(|entry| &entry.store)
    }

    pub(crate) fn store(&self, index: usize) -> &Store {
        &self.replicas.stores[index].store
    }

    pub(crate) fn store_mut(&mut self, index: usize) -> &mut Store {
        &mut self.replicas.stores[index].store
    }

    /// Returns whether a batch of this connection is being checked or waits for space. No other request of the connection may be handled
    /// then, or batches would overtake each other.
    pub(crate) fn holds(&self, conn: ConnId) -> bool {
        self.checks.holds(conn) || self.waiting.contains_key(&conn)
    }

    pub(crate) fn counted(&self) -> PartitionCounters {
        self.replicas.counted
    }

    /// Returns the memory that the decoders of checks take, in bytes.
    pub(crate) fn decoder_bytes(&self) -> usize {
        self.checks.decoder_bytes()
    }

    // Commands.

    /// Checks the batches of a request and appends those of this shard, up to `at_once` work; [`run_checks`](Self::run_checks) continues with the
    /// rest. Each batch has one outcome, here or on the shard that it is forwarded to.
    pub(crate) fn produce(&mut self, disk: &mut dyn Disk, job: CheckJob<'_>, at_once: Work, wall_ms: i64) {
        let before = self.checks.work_on_arrival(at_once);
        let mut work = before;
        let left = self.run_check(disk, job, &mut work, wall_ms);
        self.checks.note_arrival(before - work);
        if let Some(left) = left {
            self.checks.add(left.into_owned());
        }
    }

    /// Appends a batch, after those of its partition that wait for space.
    pub(crate) fn append(&mut self, disk: &mut dyn Disk, request: AppendRequest<'_>, wall_ms: i64) {
        let tp = request.tp;
        let waits = self.pending.iter().any(|pending| pending.holds(tp));
        let request = if waits { Some(request) } else { self.replicas.try_append(disk, request, wall_ms) };
        let Some(request) = request else { return };
        let Some(store) = self.of(tp).map(|partition| partition.store) else { return };
        if let Some(conn) = request.reply_to.waiting_conn() {
            self.waiting.insert(conn, tp);
        }
        self.pending[store].push(request.into_owned());
    }

    /// Appends a batch of the broker's own. Its outcome is known when it is in the log, durable or not.
    pub(crate) fn append_own(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        reply_to: ReplyTo,
        batch: &[u8],
        wall_ms: i64,
    ) {
        let batch = ParsedBatch::parse(BatchBytes::Borrowed(batch)).expect("this broker built it");
        let max_timestamp = batch.header().max_timestamp();
        let batch = ValidBatch { batch, max_timestamp };
        self.append(disk, AppendRequest { tp, acks: RequiredAcks::None, reply_to, batch }, wall_ms);
    }

    /// Continues the checks that wait, at the end of a turn. Returns whether some are left.
    pub(crate) fn run_checks(&mut self, disk: &mut dyn Disk, wall_ms: i64) -> bool {
        let mut shares = self.checks.end_turn();
        self.run_checks_of(disk, &mut shares.long, true, wall_ms);
        shares.short += shares.long;
        self.run_checks_of(disk, &mut shares.short, false, wall_ms);
        !self.checks.is_empty()
    }

    fn run_checks_of(&mut self, disk: &mut dyn Disk, work: &mut Work, long: bool, wall_ms: i64) {
        while *work > 0
            && let Some(job) = self.checks.pop(long)
        {
            let (conn, batches) = (job.conn, job.rest.len());
            let Some(job) = self.run_check(disk, job, work, wall_ms) else {
                self.released.push(conn);
                continue;
            };
            // A batch is checked until it is done or becomes a long check; then others have their turn.
            let continues = job.rest.len() == batches && job.next.check.is_long() == long;
            self.checks.put_back(job, continues);
        }
    }

    /// Continues the checks of a request, and appends or forwards the batches that are done. Returns what is left.
    fn run_check<'a>(
        &mut self,
        disk: &mut dyn Disk,
        mut job: CheckJob<'a>,
        work: &mut Work,
        wall_ms: i64,
    ) -> Option<CheckJob<'a>> {
        loop {
            if *work == 0 {
                return Some(job);
            }
            let CheckJob { conn, acks, next, mut rest } = job;
            let Unchecked { tp, owner, reply_to, batch, check } = next;
            match self.checks.step(check, &batch, work) {
                Verdict::Open(check) => {
                    let next = Unchecked { tp, owner, reply_to, batch, check };
                    return Some(CheckJob { conn, acks, next, rest });
                }
                Verdict::Valid(max_timestamp) => {
                    let batch = ValidBatch { batch, max_timestamp };
                    let request = AppendRequest { tp, acks, reply_to, batch };
                    if owner == self.me {
                        self.append(disk, request, wall_ms);
                    } else {
                        self.forwards.push((owner, request.into_owned()));
                    }
                }
                Verdict::Failed(failure) => {
                    let outcome = Err(failure);
                    self.replicas.events.push_back(PartitionEvent::Appended { reply_to, tp, outcome });
                }
            }
            let next = rest.pop_front()?;
            *work = work.saturating_sub(CHECK_WORK_PER_BATCH);
            job = CheckJob { conn, acks, next, rest };
        }
    }

    /// Retries the batches that wait for space in a store.
    fn retry_pending(&mut self, disk: &mut dyn Disk, store: usize, wall_ms: i64) {
        let Self { pending, replicas, waiting, released, .. } = self;
        pending[store].retry(|request| {
            let conn = request.reply_to.waiting_conn();
            let left = replicas.try_append(disk, request, wall_ms);
            if left.is_none()
                && let Some(conn) = conn
            {
                waiting.remove(&conn);
                released.push(conn);
            }
            left
        });
    }

    /// Retries the batches that wait where a replica has begun or ceased to lead.
    fn retry_after_changes(&mut self, disk: &mut dyn Disk, wall_ms: i64) {
        while let Some(store) = self.replicas.retry.pop() {
            self.retry_pending(disk, store, wall_ms);
        }
    }

    /// Drops the batches of a closed connection that are being checked; for a native client, also those that wait for space. Returns who would
    /// have received their outcomes.
    pub(crate) fn forget_connection(&mut self, conn: ConnId) -> impl Iterator<Item = ReplyTo> + use<> {
        if let Some(tp) = self.waiting.remove(&conn) {
            for pending in &mut self.pending {
                pending.forget(tp, conn);
            }
        }
        self.checks.take(conn).into_iter().flat_map(CheckJob::into_reply_to)
    }

    /// Moves the start of a partition; `None` moves it to the end of what can be read. The outcome comes as an event.
    pub(crate) fn move_log_start(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        to: Option<Offset>,
        id: LogStartMove,
    ) {
        self.replicas.move_log_start(disk, tp, to, id);
    }

    /// Creates the partitions of a topic that belong to this shard, or updates their configuration: from number `from` on, at most `count_max`.
    /// Returns how many were handled.
    pub(crate) fn put_topic(
        &mut self,
        disk: &mut dyn Disk,
        topic: &Arc<Topic>,
        from: usize,
        count_max: usize,
        wall_ms: i64,
    ) -> usize {
        self.replicas.put_topic(disk, topic, from, count_max, self.replica, wall_ms)
    }

    /// Deletes at most `count_max` partitions of a topic. Returns how many, and whether none is left.
    pub(crate) fn delete_topic(
        &mut self,
        disk: &mut dyn Disk,
        topic: TopicId,
        count_max: usize,
        wall_ms: i64,
    ) -> (usize, bool) {
        let deleted = self.replicas.delete_topic(disk, topic, count_max);
        // Rejects the batches for deleted partitions that wait for space.
        for store in 0..self.pending.len() {
            self.retry_pending(disk, store, wall_ms);
        }
        deleted
    }

    // Actions.

    /// Returns the next event, the oldest first.
    pub(crate) fn poll_event(&mut self) -> Option<PartitionEvent> {
        self.replicas.events.pop_front()
    }

    /// Returns the checked batches for other shards, in their order.
    pub(crate) fn poll_forwards(&mut self) -> Vec<(ShardIndex, AppendRequest<'static>)> {
        mem::take(&mut self.forwards)
    }

    /// Returns connections that this no longer [`holds`](Self::holds).
    pub(crate) fn poll_released(&mut self) -> Vec<ConnId> {
        mem::take(&mut self.released)
    }
}
