//! What a request leads to.

use highwater_net::{Received, Request};
use highwater_protocol::ids::{ShardId, StoreId, TopicPartition};
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::partition::PartitionId;
use crate::api::{ApiError, Service};
use crate::limits::{REQUEST_BYTES_PER_ENTRY, REQUEST_COST};
use crate::message::Message;
use crate::native;

impl Shard {
    /// Carries out a request, or sees to it that others do.
    pub(super) fn request(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, received: Received<'_>) {
        let Received { id, kind, bytes, request } = received;
        self.counted.requests += 1;
        self.requests_taken += if matches!(request, Request::Produce(_)) { 1 } else { REQUEST_COST };
        if !matches!(request, Request::Produce(_)) {
            self.note_entries(bytes / REQUEST_BYTES_PER_ENTRY);
        }
        // The data path first; these open their own slots.
        let request = match request {
            Request::Produce(produce) => return self.produce(plane, conn, id, bytes, produce),
            Request::Subscribe(subscribe) => return self.subscribe(plane, conn, id, bytes, &subscribe),
            Request::Fetch(fetch) => return self.fetch(plane, conn, id, bytes, &fetch),
            Request::Credit(bytes) => return self.add_credit(plane, conn, id, bytes),
            Request::Unsubscribe => return self.unsubscribe(conn, id),
            other => other,
        };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let slot = connection.native().replies.open(kind, id, bytes, 0);
        let call = native::Call { conn, slot };
        if matches!(request, Request::Stats) {
            return self.tell_stats(conn, slot);
        }
        native::handle_request(&mut self.context(plane), call, request);
    }

    /// A partition of this shard, or why it is none.
    pub(super) fn locate(&self, tp: TopicPartition) -> Result<PartitionId, ApiError> {
        if let Some(id) = self.partitions.find(tp) {
            return Ok(id);
        }
        let Some(metadata) = &self.metadata else {
            return Err(ApiError::Starting(Service::Partitions));
        };
        let topic = metadata.topic_by_id(tp.topic).ok_or(ApiError::UnknownTopicId(tp.topic))?;
        let (name, partition, count) = (topic.name.clone(), tp.partition, topic.stores.len());
        Err(match topic.stores.get(partition.0 as usize) {
            None => ApiError::UnknownPartition { topic: name, partition, count },
            Some(store) => {
                let owner = self.shard_of(*store);
                ApiError::WrongShard { topic: name, partition, owner, here: ShardId(self.me) }
            }
        })
    }

    /// The shard that serves a store.
    pub(super) fn shard_of(&self, store: StoreId) -> ShardId {
        ShardId(store.0 % self.setup.shards)
    }
}
