//! Runs the coordinator of this shard's groups: reads its partitions, appends its changes, and sends its replies.

use highwater_protocol::topic::GROUPS_TOPIC;
use highwater_runtime::plane::{Instant, Plane, ShardIndex};
use highwater_storage::{ReadId, ReadResult};

use super::Shard;
use super::drain::Drain;
use super::timers::Timer;
use crate::api::{ApiError, Service, Ticket};
use crate::coord::coordinators::{Coordinators, OwnPartition};
use crate::coord::groups::{GroupRequest, Now};
use crate::coord::loader::{GroupLoader, own_partition};
use crate::counters::GroupUsage;
use crate::limits::ANSWERS_PER_TURN_MAX;
use crate::message::Message;
use crate::partition::{Partition, PartitionId};
use crate::reply_to::ReplyTo;
use crate::setup::ShardSetup;

/// The coordinator of a shard's groups, with its timer and its pending read.
pub(super) struct Groups {
    pub(super) coordinators: Coordinators,
    /// When the timer is due.
    timer: Option<Instant>,
    loader: GroupLoader,
}

impl Groups {
    pub(super) fn new(setup: &ShardSetup, now: Now) -> Self {
        let config = setup.groups.with_batches_of(setup.limits.store.payload_bytes_max);
        Self { coordinators: Coordinators::new(config, now), timer: None, loader: GroupLoader::default() }
    }

    /// Returns whether a store's read is the coordinator's.
    pub(super) fn is_reading(&self, store: usize, id: ReadId) -> bool {
        self.loader.is_reading(store, id)
    }
}

impl Shard {
    /// Begins to read this shard's partitions of the groups' topic, if the topic exists. Called after changes of the metadata are applied.
    pub(super) fn open_group_partitions(&mut self) {
        let Some(topic) = self.metadata.as_ref().and_then(|metadata| metadata.topic(GROUPS_TOPIC)) else {
            return;
        };
        if self.groups.coordinators.is_open() {
            return;
        }
        let here = topic.local_partitions().filter_map(|(tp, _)| self.partitions.of(tp));
        let mut awaits_space = None;
        let own = here.map(|partition| {
            let own = self.own_group_partition(partition);
            let append_end = self.partitions.bounds(partition).append_end;
            if own.is_led && own.end < append_end && !own.is_damaged {
                awaits_space = Some(partition.tp.partition);
            }
            own
        });
        let own = own.collect();
        // The last acknowledged records of groups may be among those that the start had no space to write again. They can be read when there is.
        self.groups.coordinators.await_space(awaits_space);
        if awaits_space.is_none() {
            self.groups.coordinators.open(topic.partition_count() as u32, own);
        }
    }

    fn own_group_partition(&self, partition: &Partition) -> OwnPartition {
        own_partition(&self.partitions, partition, self.setup.limits.store.payload_bytes_max)
    }

    /// Handles the result of a read for the coordinator.
    pub(super) fn apply_group_read(&mut self, result: ReadResult) {
        let Groups { coordinators, loader, .. } = &mut *self.groups;
        loader.handle_read(&mut self.partitions, coordinators, result);
    }

    pub(super) fn handle_group_request(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        request: GroupRequest,
    ) {
        let is_closing = matches!(self.drain, Some(Drain::Closing | Drain::Exited));
        if is_closing || self.drain.is_some() && !self.groups.coordinators.serves() {
            // The broker stops before the groups would be restored.
            let error = ApiError::Stopping(Service::Groups);
            return plane.post(from, Message::GroupReply(ticket, Err(error)));
        }
        let mut random = [0; 16];
        for half in random.chunks_mut(size_of::<u64>()) {
            half.copy_from_slice(&plane.random_u64().to_le_bytes());
        }
        self.groups.coordinators.handle(now(plane), (from, ticket), request, random);
    }

    /// Rejects the held requests, because the broker is stopping.
    pub(super) fn end_held_group_requests(&mut self, plane: &mut dyn Plane<Message>) {
        for (shard, ticket) in self.groups.coordinators.take_held() {
            let error = ApiError::Stopping(Service::Groups);
            plane.post(shard, Message::GroupReply(ticket, Err(error)));
        }
    }

    /// Continues requests that take more than one turn, and appends changes. Called before the turn's commit round begins. Returns whether more is
    /// left for the next turn.
    pub(super) fn run_groups(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if matches!(self.drain, Some(Drain::Closing | Drain::Exited)) {
            return false;
        }
        let Groups { coordinators, loader, .. } = &mut *self.groups;
        let mut more = loader.load(plane, &mut self.partitions, coordinators);
        let others = self.usage_of_other_shards();
        let now = now(plane);
        let coordinators = &mut self.groups.coordinators;
        if coordinators.run_carry_over() {
            plane.post(0, Message::CarriedOver);
        }
        coordinators.handle_other_usage(others);
        if coordinators.try_serve(now) {
            more |= coordinators.run(now);
        } else {
            more |= coordinators.can_restore();
        }
        while let Some((tp, batch)) = coordinators.poll_append(now) {
            self.partitions.append_own(plane, tp, ReplyTo::Coordinators, &batch, now.wall_ms);
        }
        more
    }

    /// Returns the resource usage of all other shards' groups, as of their last turns.
    fn usage_of_other_shards(&self) -> GroupUsage {
        let counters = self.setup.counters.iter().zip(0..).filter(|(_, shard)| *shard != self.me);
        counters.map(|(counters, _)| counters.group_usage()).fold(GroupUsage::default(), |all, of| {
            GroupUsage {
                groups: all.groups + of.groups,
                offsets_bytes: all.offsets_bytes + of.offsets_bytes,
                members_bytes: all.members_bytes + of.members_bytes,
            }
        })
    }

    /// Handles an advanced high watermark: replies that waited for it can be sent, and partitions that waited for it can be read.
    pub(super) fn group_records_are_durable(&mut self, id: PartitionId) {
        if self.groups.coordinators.awaits_space() {
            self.open_group_partitions();
        }
        if let Some(partition) = self.partitions.get(id).filter(|partition| partition.topic.keeps_groups()) {
            let (partition, high_watermark) = (partition.tp.partition, partition.high_watermark());
            self.groups.coordinators.handle_high_watermark(partition, high_watermark);
        }
    }

    /// Handles that this replica has begun to answer for a partition: if it keeps groups, they are coordinated here.
    pub(super) fn groups_are_here(&mut self, id: PartitionId) {
        if let Some(partition) = self.partitions.get(id).filter(|partition| partition.topic.keeps_groups()) {
            let own = self.own_group_partition(partition);
            self.groups.coordinators.handle_leading(own);
        }
    }

    /// Handles that this replica does not answer for a partition any more: if it keeps groups, another node coordinates them.
    pub(super) fn groups_are_elsewhere(&mut self, id: PartitionId) {
        if let Some(partition) = self.partitions.get(id).filter(|partition| partition.topic.keeps_groups()) {
            self.groups.coordinators.handle_not_leading(partition.tp.partition);
        }
    }

    /// Sends the coordinator's replies. Returns whether more is left for the next turn.
    pub(super) fn answer_groups(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        // Replies that wait for a record without disk space become errors in this turn.
        let is_stalled = self.groups.coordinators.partitions().any(|tp| self.partitions.is_stalled(tp));
        self.groups.coordinators.handle_stalled(now(plane), is_stalled);
        let mut left = ANSWERS_PER_TURN_MAX;
        while left > 0
            && let Some(((shard, ticket), reply)) = self.groups.coordinators.poll()
        {
            left -= 1;
            plane.post(shard, Message::GroupReply(ticket, reply));
        }
        self.plan_groups(plane);
        left == 0 || self.groups.coordinators.has_appends()
    }

    /// Sets the timer to the coordinator's next deadline.
    fn plan_groups(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(at) = self.groups.coordinators.next_deadline().filter(|_| self.drain.is_none()) else {
            return;
        };
        let at = Instant(at.saturating_mul(NANOS_PER_MS));
        if self.groups.timer == Some(at) {
            return;
        }
        if let Some(before) = self.groups.timer.replace(at) {
            self.timers.cancel(before, Timer::Groups);
        }
        self.timers.set(plane, at, Timer::Groups);
    }

    /// Handles the groups' timer.
    pub(super) fn groups_are_due(&mut self, plane: &mut dyn Plane<Message>) {
        self.groups.timer = None;
        // Members cannot send heartbeats while the broker stops, so they must not time out.
        if self.drain.is_none() {
            self.groups.coordinators.handle_time(now(plane));
        }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

pub(super) fn now(plane: &mut dyn Plane<Message>) -> Now {
    Now { ms: plane.now().0 / NANOS_PER_MS, wall_ms: plane.wall_clock_ms() }
}
