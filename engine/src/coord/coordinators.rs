//! The coordinator of a shard's groups: those in the shard's partitions of [`GROUPS_TOPIC`](highwater_protocol::topic::GROUPS_TOPIC).
//!
//! ```text
//!   the shard's partitions of the topic --(read from their start)--> Replay --(group by group)--> GroupCoordinator
//!   handle(request) --> GroupCoordinator --> change --> the partition of its group --> high watermark --> reply
//! ```
//!
//! One [`GroupCoordinator`] serves the groups of all these partitions, which share its topics and its limits of work per turn. Changes have sequence
//! numbers across all partitions; a reply waits until all changes up to its own are durable.
//!
//! Requests are held until all groups have been restored, and rejected while a partition waits for disk space before it can be read to its end. Groups of a damaged partition are out of service, because their last acknowledged
//! records may be missing.
//!
//! Groups of a partition that another replica leads are elsewhere: see `coordinators/elsewhere.rs`. They are read when this one leads it, for the first time or again:
//! see `coordinators/returning.rs`.

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
use returning::Returning;

/// See the module's doc.
pub(crate) struct Coordinators {
    coordinator: GroupCoordinator,
    /// The sender of each pending request. A request for groups that are elsewhere by now has none.
    waiting: BTreeMap<Token, Sender>,
    last_token: u64,
    /// The number of partitions of the groups' topic; 0 until the topic exists.
    partitions: u32,
    /// The logs of this shard's undamaged partitions.
    logs: BTreeMap<PartitionIndex, PartitionLog>,
    /// This shard's partitions that may lack acknowledged records.
    damaged: BTreeSet<PartitionIndex>,
    /// This shard's partitions that are elsewhere.
    elsewhere: BTreeSet<PartitionIndex>,
    returning: Returning,
    /// The last group that was looked at, while groups that are elsewhere are being forgotten.
    forgetting: Option<String>,
    /// The sequence numbers of the changes that are not durable.
    undurable: BTreeSet<u64>,
    last_change: u64,
    /// Partitions that have not been read to their end. `None` until [`Self::open`].
    loading: Option<VecDeque<Loading>>,
    last_load: u64,
    /// The records read so far.
    replay: Replay,
    serves: bool,
    /// A partition that cannot be read to its end before there is disk space.
    awaits_space: Option<PartitionIndex>,
    /// Whether groups of an earlier build are being carried over.
    awaits_carry_over: bool,
    /// Changes that are carried over and have not been queued to be written. `None` before they arrive and after all of them are durable.
    carried: Option<VecDeque<GroupBatch>>,
    /// Requests that wait until all groups have been restored.
    held: VecDeque<Held>,
    /// Senders of rejected requests, with the errors to send.
    rejected: VecDeque<((ShardIndex, Ticket), ApiError)>,
    /// Whether the store of one of the partitions waits for disk space.
    stores_stalled: bool,
}

/// The sender of a request, and the partitions of the groups that it names.
struct Sender {
    to: (ShardIndex, Ticket),
    partitions: Vec<PartitionIndex>,
}

/// A partition that is being read, up to `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loading {
    /// Which one it is, of all that there were.
    pub(crate) number: u64,
    pub(crate) tp: TopicPartition,
    pub(crate) cursor: Cursor,
    pub(crate) end: Offset,
}

struct Held {
    to: (ShardIndex, Ticket),
    request: GroupRequest,
    random: [u8; 16],
}

/// A partition of this shard, with the bounds of its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPartition {
    pub(crate) tp: TopicPartition,
    pub(crate) log_start: Offset,
    pub(crate) end: Offset,
    /// Maximum bytes of a batch in its store.
    pub(crate) batch_bytes_max: usize,
    /// Whether acknowledged records may be missing at the end of its log.
    pub(crate) is_damaged: bool,
    /// Whether this replica answers for it.
    pub(crate) is_led: bool,
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
            elsewhere: BTreeSet::new(),
            returning: Returning::default(),
            forgetting: None,
            undurable: BTreeSet::new(),
            last_change: 0,
            loading: None,
            last_load: 0,
            replay: Replay::default(),
            serves: false,
            awaits_space: None,
            awaits_carry_over: false,
            carried: None,
            held: VecDeque::new(),
            rejected: VecDeque::new(),
            stores_stalled: false,
        }
    }

    // Topics and partitions.

    /// Adds or updates a topic.
    pub(crate) fn handle_topic(&mut self, topic: &Topic) {
        self.coordinator.handle_topic(topic.id, &topic.name, topic.partition_count() as u32);
    }

    #[cfg(test)]
    pub(crate) fn add_topic(&mut self, id: TopicId, name: &str, partitions: u32) {
        self.coordinator.handle_topic(id, name, partitions);
    }

    /// Removes a topic, with its offsets in all groups.
    pub(crate) fn delete_topic(&mut self, topic: TopicId) {
        self.coordinator.handle_topic_deleted(topic);
    }

    /// Begins to read this shard's partitions of the groups' topic, `own`. The topic has `partitions` partitions on all shards.
    pub(crate) fn open(&mut self, partitions: u32, own: Vec<OwnPartition>) {
        if self.loading.is_some() {
            return;
        }
        self.partitions = partitions;
        let (own, elsewhere): (Vec<_>, Vec<_>) = own.into_iter().partition(|of| of.is_led);
        self.elsewhere = elsewhere.into_iter().map(|of| of.tp.partition).collect();
        let (damaged, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|of| of.is_damaged);
        self.damaged = damaged.into_iter().map(|of| of.tp.partition).collect();
        for partition in &self.damaged {
            tracing::error!("{}", ApiError::GroupsDamaged(*partition));
        }
        self.logs =
            own.iter().map(|of| (of.tp.partition, PartitionLog::new(of.tp, of.batch_bytes_max))).collect();
        self.loading = Some(VecDeque::new());
        for of in own {
            self.load(of);
        }
    }

    /// Has a partition read after those that are listed.
    fn load(&mut self, of: OwnPartition) {
        let Some(loading) = self.loading.as_mut().filter(|_| of.log_start < of.end) else { return };
        self.last_load += 1;
        let (number, cursor) = (self.last_load, Cursor::at(of.log_start));
        loading.push_back(Loading { number, tp: of.tp, cursor, end: of.end });
    }

    /// Sets the partition that cannot be read to its end before there is disk space, if there is one. Until then requests are rejected.
    pub(crate) fn await_space(&mut self, partition: Option<PartitionIndex>) {
        if let Some(partition) = partition.filter(|_| self.awaits_space.is_none()) {
            let error = ApiError::GroupsAwaitSpace(partition);
            tracing::error!("{error}");
            let held = std::mem::take(&mut self.held).into_iter();
            self.rejected.extend(held.map(|held| (held.to, error.clone())));
        }
        self.awaits_space = partition;
    }

    pub(crate) fn awaits_space(&self) -> bool {
        self.awaits_space.is_some()
    }

    /// Returns whether [`Self::open`] has been called.
    pub(crate) fn is_open(&self) -> bool {
        self.loading.is_some()
    }

    /// Returns the partition to read next, and from where.
    pub(crate) fn next_load(&self) -> Option<Loading> {
        self.loading.as_ref()?.front().copied()
    }

    /// Applies batches read from the current partition. The next read begins at `next`.
    pub(crate) fn handle_loaded<'a>(&mut self, batches: impl Iterator<Item = &'a [u8]>, next: Cursor) {
        let Some(load) = self.loading.as_mut().and_then(VecDeque::front_mut) else { return };
        load.cursor = next;
        let (tp, is_over) = (load.tp, next.offset() >= load.end);
        let mut scratch = Vec::new();
        for batch in batches {
            if let Err(why) = replay(&mut self.replay, batch, &mut scratch) {
                tracing::error!(%tp, "skipped unreadable records of groups or offsets: {why}");
            }
        }
        if is_over {
            self.finish_load();
        }
    }

    /// Continues the current partition at another offset, because the records before it are gone or damaged.
    pub(crate) fn seek_load(&mut self, to: Offset) {
        let Some(load) = self.loading.as_mut().and_then(VecDeque::front_mut) else { return };
        load.cursor = Cursor::at(to);
        if to >= load.end {
            self.finish_load();
        }
    }

    /// Ends the reading of the current partition.
    pub(crate) fn finish_load(&mut self) {
        if let Some(loading) = &mut self.loading {
            loading.pop_front();
        }
    }

    /// Returns whether the next turn can carry over or restore more groups.
    pub(crate) fn can_restore(&self) -> bool {
        let has_carried = self.damaged.is_empty() && self.carried.as_ref().is_some_and(|of| !of.is_empty());
        self.is_loaded() && !self.serves && (has_carried || !self.awaits_carry_over)
    }

    fn is_loaded(&self) -> bool {
        self.loading.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// Restores more groups once all partitions have been read, and serves after the last one. Returns whether it serves.
    pub(crate) fn try_serve(&mut self, now: Now) -> bool {
        if self.serves || self.awaits_carry_over || !self.is_loaded() {
            return self.serves;
        }
        for _ in 0..GROUPS_RESTORED_PER_TURN_MAX {
            if self.coordinator.restore_next(now, &mut self.replay).is_none() {
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

    /// Returns whether it handles requests. Before that, it holds them.
    pub(crate) fn serves(&self) -> bool {
        self.serves
    }

    // Requests.

    /// Handles a request. [`poll`](Self::poll) returns the reply once everything it reports is durable.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        to: (ShardIndex, Ticket),
        request: GroupRequest,
        random: [u8; 16],
    ) {
        if !self.serves {
            if let Some(partition) = self.awaits_space {
                self.rejected.push_back((to, ApiError::GroupsAwaitSpace(partition)));
            } else if self.held.len() < HELD_GROUP_REQUESTS_MAX {
                self.held.push_back(Held { to, request, random });
            } else {
                self.rejected.push_back((to, ApiError::Starting(Service::Groups)));
            }
            return;
        }
        let partitions = self.partitions_of(&request);
        if let Some(error) = partitions.iter().find_map(|partition| self.check_serves(*partition)) {
            return self.rejected.push_back((to, error));
        }
        self.last_token += 1;
        let token = Token(self.last_token);
        self.waiting.insert(token, Sender { to, partitions });
        self.coordinator.handle_stalled(now, self.is_stalled());
        self.coordinator.handle(now, token, request, random);
    }

    /// Returns why the groups of a partition are not served here.
    fn check_serves(&self, partition: PartitionIndex) -> Option<ApiError> {
        if self.logs.contains_key(&partition) {
            None
        } else if self.damaged.contains(&partition) {
            Some(ApiError::GroupsDamaged(partition))
        } else if self.returning.has(partition) {
            Some(ApiError::LoadingGroups(partition))
        } else {
            Some(ApiError::NotCoordinator(partition))
        }
    }

    /// Removes the held requests and returns their senders.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = (ShardIndex, Ticket)> {
        std::mem::take(&mut self.held).into_iter().map(|held| held.to)
    }

    /// Returns when to call [`Self::handle_time`], by the clock of [`Now::ms`]; `None` before it serves.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.serves.then(|| self.coordinator.next_deadline())
    }

    pub(crate) fn handle_time(&mut self, now: Now) {
        self.coordinator.handle_stalled(now, self.is_stalled());
        self.coordinator.handle_time(now);
    }

    /// Continues requests that take more than one turn. Call it once a turn. Returns whether more is left.
    pub(crate) fn run(&mut self, now: Now) -> bool {
        self.coordinator.handle_stalled(now, self.is_stalled());
        let mut more = self.forget_some();
        more |= self.coordinator.run(now);
        while let Some((number, change)) = self.coordinator.poll_batch() {
            self.last_change = number;
            let partition = PartitionIndex(partition_of_group(&change.group, self.partitions));
            // The groups of a partition that is elsewhere are about to be forgotten.
            let Some(log) = self.logs.get_mut(&partition) else { continue };
            log.push(number, change);
            self.undurable.insert(number);
        }
        // What was changed in groups that were elsewhere is dropped by now.
        more | self.run_returning(now)
    }

    /// Returns the resource usage of this shard's groups.
    pub(crate) fn usage(&self) -> GroupUsage {
        self.coordinator.usage()
    }

    /// Sets the resource usage of other shards' groups.
    pub(crate) fn handle_other_usage(&mut self, others: GroupUsage) {
        self.coordinator.handle_other_usage(others);
    }

    /// See [`GroupCoordinator::busiest_turn_work`].
    pub(crate) fn busiest_turn_work(&self) -> usize {
        self.coordinator.busiest_turn_work()
    }

    /// Returns the next reply that can be sent.
    pub(crate) fn poll(&mut self) -> Option<((ShardIndex, Ticket), Result<GroupReply, ApiError>)> {
        if let Some((to, error)) = self.rejected.pop_front() {
            return Some((to, Err(error)));
        }
        loop {
            let (token, reply) = self.coordinator.poll_reply()?;
            // Requests for groups that are elsewhere were rejected before.
            if let Some(sender) = self.waiting.remove(&token) {
                return Some((sender.to, Ok(reply)));
            }
        }
    }

    // Appends.

    /// Returns the next batch to append, with its partition.
    pub(crate) fn poll_append(&mut self, now: Now) -> Option<(TopicPartition, Bytes)> {
        self.logs.values_mut().find_map(|log| Some((log.tp, log.poll_append(now.wall_ms)?)))
    }

    /// Handles the outcome of an append to a partition. The batch may already be durable.
    pub(crate) fn handle_appended(&mut self, partition: PartitionIndex, outcome: AppendOutcome) {
        let was_blocked = self.is_blocked();
        let Some(log) = self.logs.get_mut(&partition) else { return };
        match outcome {
            Ok(at) => log.handle_appended(at.base_offset),
            Err(failure) => {
                if !was_blocked {
                    tracing::error!(tp = %log.tp, "cannot write groups and offsets: {failure}");
                }
                log.handle_rejected();
            }
        }
    }

    /// Returns whether there are batches to append.
    pub(crate) fn has_appends(&self) -> bool {
        self.logs.values().any(PartitionLog::is_ready)
    }

    /// Handles a partition's high watermark: everything before it is durable.
    pub(crate) fn handle_high_watermark(&mut self, partition: PartitionIndex, high_watermark: Offset) {
        let Some(log) = self.logs.get_mut(&partition) else { return };
        for number in log.take_durable(high_watermark) {
            self.undurable.remove(&number);
        }
        self.note_durable();
    }

    fn note_durable(&mut self) {
        let durable = self.undurable.first().map_or(self.last_change, |first| first - 1);
        self.coordinator.handle_durable(durable);
    }

    /// Returns this shard's undamaged partitions of the groups' topic.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = TopicPartition> {
        self.logs.values().map(|log| log.tp)
    }

    /// Retries rejected appends.
    pub(crate) fn retry_stalled(&mut self) {
        self.logs.values_mut().for_each(PartitionLog::retry);
    }

    /// Sets whether the store of one of the partitions waits for disk space. Call it once a turn, after the outcomes of the turn's appends.
    pub(crate) fn handle_stalled(&mut self, now: Now, stores_are_stalled: bool) {
        self.stores_stalled = stores_are_stalled;
        self.coordinator.handle_stalled(now, self.is_stalled());
    }

    /// Returns whether records wait for disk space.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stores_stalled || self.is_blocked()
    }

    fn is_blocked(&self) -> bool {
        self.logs.values().any(PartitionLog::is_blocked)
    }
}

/// Applies the records of a batch. Skips unreadable records and returns the last error.
fn replay(replay: &mut Replay, batch: &[u8], scratch: &mut Vec<u8>) -> Result<(), String> {
    let view = BatchView::parse(batch).map_err(|e| e.to_string())?;
    view.check_checksum().map_err(|e| e.to_string())?;
    if view.header().is_control() {
        return Ok(());
    }
    let mut outcome = Ok(());
    for record in view.records(scratch).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        // An unreadable record does not affect the records after it.
        if let Err(error) = replay.apply(record.key.unwrap_or_default(), record.value) {
            outcome = Err(format!("offset {}: {error}", record.offset));
        }
    }
    outcome
}

mod carry_over;
mod elsewhere;
mod returning;
#[cfg(test)]
mod tests;
