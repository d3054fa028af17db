//! Applies metadata changes on a shard, partition by partition, in two steps.
//!
//! ```text
//!   Prepare: this shard's group coordinator and partitions --> Prepared, to shard 0
//!   shard 0: when every shard has prepared the changes ------> Publish, to every shard
//!   Publish: what clients of this shard see -----------------> Applied, to shard 0
//! ```
//!
//! Shards publish at different times, and a client of the first one may use a topic at once, through the owners of its partitions. Therefore
//! every owner creates its partitions before any shard publishes them.
//!
//! Invariant: a partition that a shard has published is known to its owner, until it is deleted.

use std::sync::Arc;

use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::Plane;

use super::Shard;
use crate::counters::Work;
use crate::limits::PENDING_PER_UNIT;
use crate::message::{Message, Prepare};
use crate::meta::{Change, Metadata, Publish, Topic};

/// A step of metadata changes that are being applied.
#[derive(Debug)]
pub(super) enum MetadataStep {
    Prepare(Preparing),
    Publish(Publishing),
}

impl MetadataStep {
    /// Continues for as many units as `work` has. Returns true when the step is complete.
    pub(super) fn step(
        &mut self,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> bool {
        match self {
            Self::Prepare(preparing) => preparing.step(shard, plane, work),
            Self::Publish(publishing) => publishing.step(shard, plane, work),
        }
    }
}

/// Metadata changes that are being prepared. New partitions are created, and existing ones get their settings.
#[derive(Debug)]
pub(super) struct Preparing {
    prepare: Prepare,
    /// Index of the current change.
    at: usize,
    /// Partitions of the current topic that have been handled.
    partitions: usize,
}

impl Preparing {
    pub(super) fn new(prepare: Prepare) -> Self {
        Self { prepare, at: 0, partitions: 0 }
    }

    fn step(&mut self, shard: &mut Shard, plane: &mut dyn Plane<Message>, work: &mut Work) -> bool {
        while let Some(change) = self.prepare.changes.get(self.at) {
            if work.is_over() {
                return false;
            }
            work.spend(1);
            match change {
                Change::Topic(topic) => {
                    if self.partitions == 0 {
                        shard.groups.coordinators.handle_topic(topic);
                    }
                    self.partitions += shard.put_topic(plane, topic, self.partitions, work);
                    if self.partitions < topic.partition_count() {
                        return false;
                    }
                }
                // Its partitions are deleted when clients no longer see it.
                Change::Deleted(topic) => shard.groups.coordinators.delete_topic(*topic),
                Change::Node(_) => {}
            }
            self.at += 1;
            self.partitions = 0;
        }
        plane.post(0, Message::Prepared(self.prepare.version));
        true
    }
}

/// Metadata changes that are being published to the clients of this shard. A deleted topic is invisible from the first step on.
#[derive(Debug)]
pub(super) struct Publishing {
    publish: Publish,
    /// Index of the current change.
    at: usize,
}

impl Publishing {
    pub(super) fn new(publish: Publish) -> Self {
        Self { publish, at: 0 }
    }

    fn step(&mut self, shard: &mut Shard, plane: &mut dyn Plane<Message>, work: &mut Work) -> bool {
        while let Some(change) = self.publish.changes.get(self.at) {
            if work.is_over() {
                return false;
            }
            work.spend(1);
            match change {
                Change::Topic(_) | Change::Node(_) => {
                    if let Some(metadata) = &mut shard.metadata {
                        Arc::make_mut(metadata).absorb(change);
                    }
                }
                Change::Deleted(topic) => {
                    if !shard.delete_topic(plane, *topic, work) {
                        return false;
                    }
                    if let Some(table) = &mut shard.leader_table {
                        table.handle_deleted(*topic);
                    }
                }
            }
            self.at += 1;
        }
        let first = self.publish.first.take();
        let is_first = first.is_some();
        let has_nodes = self.publish.changes.iter().any(|change| matches!(change, Change::Node(_)));
        if let Some(first) = first {
            // A copy: changing metadata that is shared with other shards would copy all of it.
            shard.metadata = Some(Arc::new(Metadata::clone(&first)));
        }
        if is_first || has_nodes {
            shard.update_nodes(plane);
        }
        shard.open_group_partitions();
        plane.post(0, Message::Applied(self.publish.version));
        if is_first {
            let all: Vec<_> = shard.connections.keys().copied().collect();
            for conn in all {
                shard.resume(plane, conn);
            }
        }
        true
    }
}

impl Shard {
    /// Creates or updates partitions of a topic from number `from` on, while there is `work` left. Returns how many were handled.
    fn put_topic(
        &mut self,
        plane: &mut dyn Plane<Message>,
        topic: &Arc<Topic>,
        from: usize,
        work: &mut Work,
    ) -> usize {
        let wall_ms = plane.wall_clock_ms();
        let count = self.partitions.put_topic(plane, topic, from, work.left().max(1), wall_ms);
        work.spend(count);
        count
    }

    /// Deletes partitions of a deleted topic while there is `work` left. Returns whether none is left.
    fn delete_topic(&mut self, plane: &mut dyn Plane<Message>, topic: TopicId, work: &mut Work) -> bool {
        let mut was_known = false;
        if let Some(metadata) = &mut self.metadata {
            was_known = metadata.topic_by_id(topic).is_some();
            Arc::make_mut(metadata).absorb(&Change::Deleted(topic));
        }
        if was_known {
            // This must happen before a topic of the same name is visible.
            let requests = self.note_undecided(topic);
            work.spend(requests / PENDING_PER_UNIT);
        }
        let wall_ms = plane.wall_clock_ms();
        let (count, is_done) = self.partitions.delete_topic(plane, topic, work.left(), wall_ms);
        work.spend(count);
        self.route_partition_events(plane);
        is_done
    }
}
