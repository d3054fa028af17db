//! Dispatches the requests of native connections.

use highwater_net::{Received, Request};
use highwater_protocol::ids::{ShardId, TopicPartition};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use crate::api::ApiError;
use crate::context::NativeCall;
use crate::limits::{REQUEST_BYTES_PER_ENTRY, SMALL_REPLY_BYTES_MAX};
use crate::message::Message;
use crate::native;
use crate::partition::PartitionId;
use crate::session::{Retained, held_bytes};

impl Shard {
    /// Handles a request, or sends it to other shards.
    pub(super) fn request(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, received: Received<'_>) {
        let Received { id, kind, bytes, request } = received;
        self.counted.requests += 1;
        let is_produce = matches!(request, Request::Produce(_));
        self.admission.admit(is_produce, if is_produce { 0 } else { bytes / REQUEST_BYTES_PER_ENTRY });
        // The data path first; these open their own reply slots.
        let request = match request {
            Request::Produce(produce) => return self.produce(plane, conn, id, bytes, produce),
            Request::Subscribe(subscribe) => return self.subscribe(plane, conn, id, bytes, &subscribe),
            Request::Fetch(fetch) => return self.fetch(plane, conn, id, bytes, &fetch),
            Request::Credit(bytes) => return self.add_credit(plane, conn, id, bytes),
            Request::Unsubscribe => return self.unsubscribe(conn, id),
            other => other,
        };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let reply_bytes = match request {
            Request::ReadOffsets(_)
            | Request::ReadGroupOffsets(_)
            | Request::ListGroups(_)
            | Request::DescribeGroup(_) => SMALL_REPLY_BYTES_MAX,
            _ => 0,
        };
        let held = held_bytes(bytes, Retained::Lists) + reply_bytes;
        let replies = &mut connection.native().replies;
        let slot = replies.open(kind, id, held, 0);
        replies.count_if_large(slot, bytes);
        let call = NativeCall { conn, slot };
        if matches!(request, Request::Stats) {
            return self.reply_stats(conn, slot);
        }
        if let Request::ReleaseSpace(request) = request {
            return self.reply_release_space(plane, call, request);
        }
        native::handle_request(&mut self.context(plane), call, request);
    }

    /// Finds a partition of this shard.
    pub(super) fn locate(&self, tp: TopicPartition) -> Result<PartitionId, ApiError> {
        if tp == METADATA_PARTITION {
            return Err(ApiError::UnknownTopicId(tp.topic));
        }
        if let Some(id) = self.partitions.find(tp) {
            return Ok(id);
        }
        let targets = self.targets();
        let topic = targets.topic_by_id(tp.topic)?;
        let (_, owner) = targets.partition(topic, tp.partition)?;
        let (owner, here) = (ShardId(owner), ShardId(self.me));
        Err(ApiError::WrongShard { topic: topic.name.clone(), partition: tp.partition, owner, here })
    }
}
