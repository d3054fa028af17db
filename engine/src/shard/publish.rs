//! Applies metadata changes on a shard, partition by partition.

use std::sync::Arc;

use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::Plane;

use super::Shard;
use crate::counters::Work;
use crate::limits::PENDING_PER_UNIT;
use crate::message::Message;
use crate::meta::{Change, Metadata, Publish, Topic};

/// Metadata changes that are being applied.
///
/// A new topic is visible to clients of this shard once all of its partitions exist. A deleted one is invisible from the first step on.
#[derive(Debug)]
pub(super) struct Publishing {
    publish: Publish,
    /// Index of the current change.
    at: usize,
    /// Partitions of the current topic that have been handled.
    partitions: usize,
}

impl Publishing {
    pub(super) fn new(publish: Publish) -> Self {
        Self { publish, at: 0, partitions: 0 }
    }

    /// Continues for as many units as `work` has. Returns true when everything is in effect.
    pub(super) fn step(
        &mut self,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> bool {
        while let Some(change) = self.publish.changes.get(self.at) {
            if work.is_over() {
                return false;
            }
            work.spend(1);
            let ended = match change {
                Change::Topic(topic) => {
                    self.partitions += shard.put_topic(topic, self.partitions, work);
                    self.partitions >= topic.stores.len()
                }
                Change::Deleted(topic) => shard.delete_topic(plane, *topic, work),
            };
            if !ended {
                return false;
            }
            if let (Some(metadata), Change::Topic(_)) = (&mut shard.metadata, change) {
                Arc::make_mut(metadata).absorb(change);
            }
            self.at += 1;
            self.partitions = 0;
        }
        let first = self.publish.first.take();
        let is_first = first.is_some();
        if let Some(first) = first {
            // A copy: changing metadata that is shared with other shards would copy all of it.
            shard.metadata = Some(Arc::new(Metadata::clone(&first)));
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
    fn put_topic(&mut self, topic: &Arc<Topic>, from: usize, work: &mut Work) -> usize {
        let count = self.partitions.put_topic(topic, from, work.left().max(1));
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
