//! New metadata takes effect on a shard.

use std::sync::Arc;

use highwater_protocol::ids::StoreId;
use highwater_runtime::plane::Plane;

use super::Shard;
use super::partition::Partition;
use crate::message::Message;
use crate::metadata::{Change, Metadata, Topic};

impl Shard {
    pub(super) fn on_publish(
        &mut self,
        plane: &mut dyn Plane<Message>,
        metadata: Arc<Metadata>,
        changes: &[Change],
    ) {
        let version = metadata.version();
        let is_first = self.metadata.replace(metadata).is_none();
        for change in changes {
            match change {
                Change::Topic(topic) => self.put_topic(topic),
                Change::Deleted(topic) => self.delete_topic(plane, *topic),
            }
        }
        plane.post(0, Message::Applied(version));
        if is_first {
            let all: Vec<_> = self.connections.keys().copied().collect();
            for conn in all {
                self.resume(plane, conn);
            }
        }
    }

    /// A topic is new here or has changed.
    fn put_topic(&mut self, topic: &Arc<Topic>) {
        let config = topic.config.for_storage();
        for (tp, store_id) in topic.partitions() {
            let Some(index) = self.store_index(store_id) else { continue };
            let entry = &mut self.stores[index];
            let slot = entry.store.ensure_partition(tp, config);
            if let Some(partition) =
                self.partitions.of_slot(index, slot).and_then(|id| self.partitions.get_mut(id))
            {
                partition.topic = Arc::clone(topic);
                continue;
            }
            let bounds = entry.store.bounds(slot);
            let me = self.setup.identity.node;
            self.partitions.insert(Partition::new(tp, Arc::clone(topic), index, slot, &bounds, me));
        }
    }

    fn store_index(&self, store: StoreId) -> Option<usize> {
        self.stores.iter().position(|entry| entry.id == store)
    }
}
