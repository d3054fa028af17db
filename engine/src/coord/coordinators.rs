//! The coordinators of a shard: of the groups that its partitions of the topic [`GROUPS_TOPIC`](highwater_protocol::topic::GROUPS_TOPIC) keep.
//!
//! ```text
//!   the topic's partitions of this shard --(read from their start)--> Replay --(group by group)--> GroupCoordinator
//!   handle(request) --> GroupCoordinator --> change --> the partition of its group --> high watermark --> reply
//! ```
//!
//! One [`GroupCoordinator`] coordinates the groups of all these partitions, so that they share what it knows of topics, and its limits of work
//! in a turn. Changes are numbered over all partitions; a reply waits until all changes up to its own are durable.
//!
//! Until all groups have been restored, requests are held. Groups of a damaged partition are out of service: the last of their acknowledged
//! records may be missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use highwater_runtime::plane::ShardIndex;
use highwater_storage::Cursor;

use super::groups::{
    GroupBatch, GroupConfig, GroupCoordinator, GroupReply, GroupRequest, Now, Replay, Token,
};
use super::partition_log::PartitionLog;
use super::placement::partition_of_group;
use crate::api::{ApiError, Service, Ticket};
use crate::counters::GroupUsage;
use crate::limits::{GROUPS_RESTORED_PER_TURN_MAX, HELD_GROUP_REQUESTS_MAX};
use crate::meta::Topic;
use crate::partition::AppendOutcome;

/// See the module's doc.
pub(crate) struct Coordinators {
    coordinator: GroupCoordinator,
    /// Who waits for the reply to which token.
    waiting: BTreeMap<Token, (ShardIndex, Ticket)>,
    last_token: u64,
    /// The topic's number of partitions; 0 as long as there is no such topic.
    partitions: u32,
    /// The logs of the partitions of this shard.
    logs: BTreeMap<PartitionIndex, PartitionLog>,
    /// Partitions of this shard that lack acknowledged records.
    damaged: BTreeSet<PartitionIndex>,
    /// The numbers of changes that are not durable.
    undurable: BTreeSet<u64>,
    last_change: u64,
    /// Partitions that are being read. `None`: nothing is known of the topic's partitions yet.
    loading: Option<VecDeque<Loading>>,
    /// What was read.
    replay: Replay,
    serves: bool,
    /// Whether something may still be carried over from an earlier build.
    awaits_carry_over: bool,
    /// What is carried over and has not been written.
    carried: Option<VecDeque<GroupBatch>>,
    /// Requests that wait until the coordinators serve.
    held: VecDeque<Held>,
    /// Requests that were rejected.
    rejected: VecDeque<((ShardIndex, Ticket), ApiError)>,
    /// Whether a store of one of the partitions waits for space.
    stores_stalled: bool,
}

/// A partition that is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    pub(crate) tp: TopicPartition,
    pub(crate) cursor: Cursor,
    pub(crate) end: Offset,
}

struct Held {
    to: (ShardIndex, Ticket),
    request: GroupRequest,
    random: [u8; 16],
}

/// A partition of this shard, with where its log starts and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPartition {
    pub(crate) tp: TopicPartition,
    pub(crate) log_start: Offset,
    pub(crate) end: Offset,
    /// Bytes of the largest batch that its store takes.
    pub(crate) batch_bytes_max: usize,
    /// Whether acknowledged records may be missing at its end.
    pub(crate) is_damaged: bool,
}

impl Coordinators {
    pub(crate) fn new(config: GroupConfig, now: Now) -> Self {
        Self {
            coordinator: GroupCoordinator::keyed(config, now),
            waiting: BTreeMap::new(),
            last_token: 0,
            partitions: 0,
            logs: BTreeMap::new(),
            damaged: BTreeSet::new(),
            undurable: BTreeSet::new(),
            last_change: 0,
            loading: None,
            replay: Replay::default(),
            serves: false,
            awaits_carry_over: false,
            carried: None,
            held: VecDeque::new(),
            rejected: VecDeque::new(),
            stores_stalled: false,
        }
    }

    // Topics and partitions.

    /// A topic is new or has changed.
    pub(crate) fn handle_topic(&mut self, topic: &Topic) {
        self.coordinator.handle_topic(topic.id, &topic.name, topic.stores.len() as u32);
    }

    /// Forgets a topic.
    pub(crate) fn delete_topic(&mut self, topic: TopicId) {
        self.coordinator.handle_topic_deleted(topic);
    }

    /// The topic that keeps groups exists, with so many partitions, of which this shard has `own`. They are read from now on.
    pub(crate) fn open(&mut self, partitions: u32, own: Vec<OwnPartition>) {
        if self.loading.is_some() {
            return;
        }
        self.partitions = partitions;
        let (damaged, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|of| of.is_damaged);
        self.damaged = damaged.into_iter().map(|of| of.tp.partition).collect();
        for partition in &self.damaged {
            tracing::error!("{}", ApiError::GroupsDamaged(*partition));
        }
        self.logs =
            own.iter().map(|of| (of.tp.partition, PartitionLog::new(of.tp, of.batch_bytes_max))).collect();
        let loading = own.into_iter().filter(|of| of.log_start < of.end);
        let loading = loading.map(|of| Loading { tp: of.tp, cursor: Cursor::at(of.log_start), end: of.end });
        self.loading = Some(loading.collect());
    }

    /// Returns whether it knows the partitions.
    pub(crate) fn is_open(&self) -> bool {
        self.loading.is_some()
    }

    /// Returns what has to be read next before the coordinators serve.
    pub(crate) fn next_load(&self) -> Option<Loading> {
        self.loading.as_ref()?.front().copied()
    }

    /// Applies the batches that were read, and goes on at `next`.
    pub(crate) fn handle_loaded<'a>(&mut self, batches: impl Iterator<Item = &'a [u8]>, next: Cursor) {
        let Some(load) = self.loading.as_mut().and_then(VecDeque::front_mut) else { return };
        load.cursor = next;
        let (tp, is_over) = (load.tp, next.offset() >= load.end);
        let mut scratch = Vec::new();
        for batch in batches {
            if let Err(why) = replay(&mut self.replay, batch, &mut scratch) {
                tracing::error!(%tp, "a batch of groups or offsets cannot be read and is left out: {why}");
            }
        }
        if is_over {
            self.skip_load();
        }
    }

    /// Reads on at another offset: what comes before is gone.
    pub(crate) fn move_load(&mut self, to: Offset) {
        let Some(load) = self.loading.as_mut().and_then(VecDeque::front_mut) else { return };
        load.cursor = Cursor::at(to);
        if to >= load.end {
            self.skip_load();
        }
    }

    /// There is nothing more to read in this partition.
    pub(crate) fn skip_load(&mut self) {
        if let Some(loading) = &mut self.loading {
            loading.pop_front();
        }
    }

    /// Something is carried over from an earlier build: requests wait for [`Self::end_carry_over`].
    pub(crate) fn await_carry_over(&mut self) {
        self.awaits_carry_over = true;
    }

    /// Takes what is carried over to this shard.
    pub(crate) fn carry_over(&mut self, changes: Vec<GroupBatch>) {
        self.carried = Some(changes.into());
    }

    /// Everything has been carried over, on all shards.
    pub(crate) fn end_carry_over(&mut self) {
        self.awaits_carry_over = false;
    }

    /// Goes on with what is carried over, once everything has been read. Returns true, once, when all of it is durable.
    pub(crate) fn run_carry_over(&mut self) -> bool {
        // What a damaged partition cannot take stays where it is until a start finds that partition whole.
        if !self.is_loaded() || !self.damaged.is_empty() {
            return false;
        }
        let Some(carried) = &mut self.carried else { return false };
        for _ in 0..GROUPS_RESTORED_PER_TURN_MAX {
            let Some(change) = carried.pop_front() else { break };
            for (key, value) in &change.records {
                if let Err(error) = self.replay.apply(key, value.as_deref()) {
                    tracing::error!(
                        group = change.group,
                        "a record of an earlier build is left out: {error}"
                    );
                }
            }
            let partition = PartitionIndex(partition_of_group(&change.group, self.partitions));
            if let Some(log) = self.logs.get_mut(&partition) {
                log.push(NOBODY_WAITS, change);
            }
        }
        let is_durable = carried.is_empty() && self.logs.values().all(PartitionLog::is_idle);
        if is_durable {
            self.carried = None;
        }
        is_durable
    }

    /// Returns whether it can go on to restore what was kept in the next turn.
    pub(crate) fn can_restore(&self) -> bool {
        let has_carried = self.damaged.is_empty() && self.carried.as_ref().is_some_and(|of| !of.is_empty());
        self.is_loaded() && !self.serves && (has_carried || !self.awaits_carry_over)
    }

    fn is_loaded(&self) -> bool {
        self.loading.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// Restores some more groups if everything has been read, and begins to serve after the last. Returns whether it serves.
    pub(crate) fn try_serve(&mut self, now: Now) -> bool {
        if self.serves || self.awaits_carry_over || !self.is_loaded() {
            return self.serves;
        }
        for _ in 0..GROUPS_RESTORED_PER_TURN_MAX {
            if !self.coordinator.restore_next(now, &mut self.replay) {
                self.serves = true;
                break;
            }
        }
        if !self.serves {
            return false;
        }
        if let Some(warning) = self.coordinator.too_many_offsets() {
            tracing::warn!("{warning}");
        }
        self.coordinator.resume(now);
        for Held { to, request, random } in std::mem::take(&mut self.held) {
            self.handle(now, to, request, random);
        }
        true
    }

    /// Returns whether it handles requests. Until it does, it holds them.
    pub(crate) fn serves(&self) -> bool {
        self.serves
    }

    // Requests.

    /// Handles a request. The reply is returned by [`poll`](Self::poll) once everything it reports is durable.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        to: (ShardIndex, Ticket),
        request: GroupRequest,
        random: [u8; 16],
    ) {
        if !self.serves {
            if self.held.len() < HELD_GROUP_REQUESTS_MAX {
                self.held.push_back(Held { to, request, random });
            } else {
                self.rejected.push_back((to, ApiError::Starting(Service::Groups)));
            }
            return;
        }
        if let Some(partition) = self.damaged_partition(&request) {
            return self.rejected.push_back((to, ApiError::GroupsDamaged(partition)));
        }
        self.last_token += 1;
        let token = Token(self.last_token);
        self.waiting.insert(token, to);
        self.coordinator.handle_stalled(now, self.is_stalled());
        self.coordinator.handle(now, token, request, random);
    }

    /// Returns the damaged partition of one of the groups that a request names.
    fn damaged_partition(&self, request: &GroupRequest) -> Option<PartitionIndex> {
        if self.damaged.is_empty() {
            return None;
        }
        let partition = |group| PartitionIndex(partition_of_group(group, self.partitions));
        request.groups().into_iter().map(partition).find(|partition| self.damaged.contains(partition))
    }

    /// Takes the requests that wait, which cannot be handled any more.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = (ShardIndex, Ticket)> {
        std::mem::take(&mut self.held).into_iter().map(|held| held.to)
    }

    /// When [`Self::handle_time`] has something to do, in milliseconds of [`Now::ms`]; `None` while it does not serve.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.serves.then(|| self.coordinator.next_deadline())
    }

    pub(crate) fn handle_time(&mut self, now: Now) {
        self.coordinator.handle_stalled(now, self.is_stalled());
        self.coordinator.handle_time(now);
    }

    /// To be called once a turn: goes on with what takes more than one. True if more is left.
    pub(crate) fn run(&mut self, now: Now) -> bool {
        self.coordinator.handle_stalled(now, self.is_stalled());
        let more = self.coordinator.run(now);
        while let Some((number, change)) = self.coordinator.poll_batch() {
            self.last_change = number;
            let partition = PartitionIndex(partition_of_group(&change.group, self.partitions));
            let Some(log) = self.logs.get_mut(&partition) else {
                tracing::error!(
                    group = change.group,
                    "a group of another shard's partition was changed here"
                );
                continue;
            };
            log.push(number, change);
            self.undurable.insert(number);
        }
        more
    }

    /// Returns what the groups of this shard take.
    pub(crate) fn usage(&self) -> GroupUsage {
        self.coordinator.usage()
    }

    /// Says what the groups of other shards take.
    pub(crate) fn handle_others(&mut self, others: GroupUsage) {
        self.coordinator.handle_others(others);
    }

    /// See [`GroupCoordinator::busiest_turn_work`].
    pub(crate) fn busiest_turn_work(&self) -> usize {
        self.coordinator.busiest_turn_work()
    }

    /// A reply whose time has come.
    pub(crate) fn poll(&mut self) -> Option<((ShardIndex, Ticket), Result<GroupReply, ApiError>)> {
        if let Some((to, error)) = self.rejected.pop_front() {
            return Some((to, Err(error)));
        }
        let (token, reply) = self.coordinator.poll_reply()?;
        let to = self.waiting.remove(&token).expect("every token is answered once");
        Some((to, Ok(reply)))
    }

    // Appends.

    /// Returns the next batch to append to a partition.
    pub(crate) fn poll_append(&mut self, now: Now) -> Option<(TopicPartition, Bytes)> {
        self.logs.values_mut().find_map(|log| Some((log.tp, log.poll_append(now.wall_ms)?)))
    }

    /// A batch is in the log of a partition, or was rejected. It may be durable already.
    pub(crate) fn handle_appended(&mut self, partition: PartitionIndex, outcome: AppendOutcome) {
        let was_blocked = self.is_blocked();
        let Some(log) = self.logs.get_mut(&partition) else { return };
        match outcome {
            Ok(at) => log.handle_appended(at.base_offset),
            Err(failure) => {
                if !was_blocked {
                    tracing::error!(tp = %log.tp, "groups and offsets cannot be written: {failure}");
                }
                log.handle_rejected();
            }
        }
    }

    /// Returns whether there are batches to append.
    pub(crate) fn has_appends(&self) -> bool {
        self.logs.values().any(PartitionLog::is_ready)
    }

    /// Everything before this offset of a partition is durable.
    pub(crate) fn handle_high_watermark(&mut self, partition: PartitionIndex, high_watermark: Offset) {
        let Some(log) = self.logs.get_mut(&partition) else { return };
        for number in log.take_durable(high_watermark) {
            self.undurable.remove(&number);
        }
        let durable = self.undurable.first().map_or(self.last_change, |first| first - 1);
        self.coordinator.handle_durable(durable);
    }

    /// The partitions of this shard.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.logs.values().map(|log| log.tp)
    }

    /// Tries again what the disk had no space for.
    pub(crate) fn retry_stalled(&mut self) {
        self.logs.values_mut().for_each(PartitionLog::retry);
    }

    /// Says whether a store of one of the partitions waits for space. To be called once a turn, when the outcomes of appends are known.
    pub(crate) fn handle_stalled(&mut self, now: Now, stores_are_stalled: bool) {
        self.stores_stalled = stores_are_stalled;
        self.coordinator.handle_stalled(now, self.is_stalled());
    }

    /// Whether records wait for space on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stores_stalled || self.is_blocked()
    }

    fn is_blocked(&self) -> bool {
        self.logs.values().any(PartitionLog::is_blocked)
    }
}

/// The number of a change that no reply waits for.
const NOBODY_WAITS: u64 = 0;

/// Applies the records of a batch.
fn replay(replay: &mut Replay, batch: &[u8], scratch: &mut Vec<u8>) -> Result<(), String> {
    let view = BatchView::parse(batch).map_err(|e| e.to_string())?;
    view.check_checksum().map_err(|e| e.to_string())?;
    if view.header().is_control() {
        return Ok(());
    }
    let mut outcome = Ok(());
    for record in view.records(scratch).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        // One that cannot be read does not take the others along.
        if let Err(error) = replay.apply(record.key.unwrap_or_default(), record.value) {
            outcome = Err(format!("offset {}: {error}", record.offset));
        }
    }
    outcome
}

#[cfg(test)]
mod tests;
