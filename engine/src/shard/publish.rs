//! New metadata takes effect on a shard, partition by partition.

use std::sync::Arc;

use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::Plane;

use super::Shard;
use super::work::Work;
use crate::message::{Message, Publish};
use crate::meta::{Change, Metadata, Topic};

/// Changes that are taking effect.
///
/// A topic is seen by clients of this shard when all of its partitions are here. One that was deleted is not seen from the first
/// step on.
#[derive(Debug)]
pub(super) struct Publishing {
    publish: Publish,
    /// The change at which it is.
    at: usize,
    /// Partitions of a new topic that were looked at.
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
            // A copy of its own: changes would copy all of one that is shared with other shards.
            shard.metadata = Some(Arc::new(Metadata::clone(&first)));
        }
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
    /// A topic is new here or has changed: looks after its partitions from that number on, as many as may be. Gives their number.
    fn put_topic(&mut self, topic: &Arc<Topic>, from: usize, work: &mut Work) -> usize {
        let count = self.partitions.put_topic(topic, from, work.left().max(1));
        work.spend(count);
        count
    }

    /// A topic was deleted: its partitions here go, as many as may be. True if none is left.
    fn delete_topic(&mut self, plane: &mut dyn Plane<Message>, topic: TopicId, work: &mut Work) -> bool {
        if let Some(metadata) = &mut self.metadata {
            Arc::make_mut(metadata).absorb(&Change::Deleted(topic));
        }
        let wall_ms = plane.wall_clock_ms();
        let (count, is_done) = self.partitions.delete_topic(plane, topic, work.left(), wall_ms);
        work.spend(count);
        self.route_partition_events(plane);
        is_done
    }
}
