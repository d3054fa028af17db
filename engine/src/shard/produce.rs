//! Produce of the native protocol: a batch becomes a request of [`Partitions`](crate::partition::Partitions), and its outcome a reply.

use highwater_net::{Batch, Produce, ProtocolViolation, Reply, ReplySlot};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::{Acks, MessageKind, ProduceReply};
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use crate::api::ApiError;
use crate::message::Message;
use crate::native;
use crate::partition::{
    AppendFailure, AppendOutcome, AppendedAt, BatchBytes, CheckJob, OwnedBatch, Unchecked, parse_batch,
};
use crate::reply_to::ReplyTo;
use crate::session::{Retained, held_bytes};

impl Shard {
    pub(super) fn produce(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        id: u64,
        bytes: usize,
        produce: Produce<'_>,
    ) {
        let Produce { to, acks, batch } = produce;
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let held = held_bytes(bytes, Retained::Batches(1));
        let slot = if acks == Acks::None {
            connection.silent_batch = held;
            None
        } else {
            let replies = &mut connection.native().replies;
            let slot = replies.open(MessageKind::Produce, id, held, 0);
            replies.count_if_large(slot, bytes);
            Some(slot)
        };
        let wall_ms = plane.wall_clock_ms();
        match self.unchecked_native(to, batch, ReplyTo::Native { conn, slot, id }, wall_ms) {
            Ok(batch) => {
                let job = CheckJob::of_one(conn, acks.into(), batch);
                self.partitions.produce(plane, job, self.setup.limits.check_work_at_once, wall_ms);
                self.route_partition_events(plane);
            }
            Err(failure) => self.finish_native_produce(plane, conn, slot, id, to, Err(failure)),
        }
    }

    /// Parses a batch for one of this shard's partitions.
    fn unchecked_native<'a>(
        &self,
        to: TopicPartition,
        batch: Batch<'a>,
        reply_to: ReplyTo,
        wall_ms: i64,
    ) -> Result<Unchecked<'a>, AppendFailure> {
        let bytes = match batch {
            Batch::Small(bytes) => BatchBytes::Borrowed(bytes),
            Batch::Bulk { pages, batch_bytes } => BatchBytes::Owned(OwnedBatch::Bulk { pages, batch_bytes }),
            Batch::TooLarge { bytes } => {
                let max = self.setup.limits.batch_bytes_max;
                return Err(AppendFailure::TooLargeForBroker { bytes, max });
            }
        };
        let id = self.locate(to).map_err(AppendFailure::Api)?;
        let partition = self.partitions.get(id).ok_or(AppendFailure::Api(ApiError::TopicDeleted))?;
        partition.topic.check_writable().map_err(AppendFailure::Api)?;
        let config = &partition.topic.config;
        let batch = parse_batch(bytes, config)?;
        Ok(Unchecked::new((to, self.me), reply_to, batch, config, &self.setup.limits, wall_ms))
    }

    /// Returns the prefix for errors about a partition; empty if the partition is not on this shard.
    fn error_prefix(&self, to: TopicPartition) -> String {
        self.partitions.of(to).map_or_else(String::new, |partition| partition.name() + ": ")
    }

    /// Replies with the outcome of a batch.
    pub(super) fn finish_native_produce(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: Option<ReplySlot>,
        id: u64,
        tp: TopicPartition,
        outcome: AppendOutcome,
    ) {
        if slot.is_none()
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.silent_batch = 0;
        }
        let failure = match (outcome, slot) {
            (Ok(at), Some(slot)) => return self.reply(conn, slot, Reply::Produced(reply_of(at))),
            (Ok(_), None) => return,
            (Err(failure), _) => failure,
        };
        let code = native::code_of_append(&failure);
        let text = match failure {
            AppendFailure::Api(error) => error.to_string(),
            failure => self.error_prefix(tp) + &failure.to_string(),
        };
        if let Some(slot) = slot {
            return self.reply(conn, slot, Reply::Error { code, text });
        }
        // There is no reply that could carry the error. Kafka closes the connection too.
        let kind = MessageKind::Produce as u16;
        self.close_with_error(plane, conn, &ProtocolViolation { kind, id, code, text });
    }
}

fn reply_of(at: AppendedAt) -> ProduceReply {
    ProduceReply {
        base_offset: at.base_offset.0.into(),
        log_append_time: at.log_append_time.0.into(),
        log_start: at.log_start.0.into(),
    }
}
