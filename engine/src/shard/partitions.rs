//! Routes the events of this shard's partitions.

use std::collections::BTreeMap;

use highwater_runtime::plane::{Completion, ConnId, Plane, ShardIndex, Token};

use super::Shard;
use crate::api::ApiError;
use crate::kafka_message::KafkaMessage;
use crate::limits::SPACE_INTERVAL;
use crate::message::Message;
use crate::partition::{
    AppendOutcome, AppendRequest, EXIT_DISK, META_SPACE, OFFSETS_SPACE, PartitionEvent, RESERVE_SPACE,
};
use crate::read::ReadFor;
use crate::reply_to::{ReplyTo, RequestBatch};

impl Shard {
    /// Handles the end of a disk operation of a store or of one of shard 0's logs.
    pub(super) fn disk_completed(
        &mut self,
        plane: &mut dyn Plane<Message>,
        token: Token,
        completion: Completion,
    ) {
        if (token.0 >> 56) as u8 == OFFSETS_SPACE {
            return self.handle_old_file_removed(plane, &completion);
        }
        let result = match ((token.0 >> 56) as u8, &mut self.lead) {
            (META_SPACE, Some(lead)) => lead.controller.on_disk(plane, token, completion),
            (RESERVE_SPACE, Some(lead)) => {
                lead.reserve_made(plane, &completion);
                Ok(())
            }
            _ => {
                self.partitions.handle_disk(plane, token, completion);
                Ok(())
            }
        };
        if let Err(fatal) = result {
            plane.fatal(EXIT_DISK, format!("the disk cannot be trusted: {fatal}"));
        }
        if self.log_is_stalled() && self.retention_at > plane.now().after(SPACE_INTERVAL) {
            self.plan_retention(plane, SPACE_INTERVAL);
        }
    }

    /// Handles events of the stores, up to the limit of a turn. Returns whether there were any.
    pub(super) fn poll_partitions(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let wall_ms = plane.wall_clock_ms();
        let any = self.partitions.poll_stores(plane, wall_ms);
        self.route_partition_events(plane);
        self.resume_released(plane);
        any
    }

    /// Continues the checks of batches at the end of a turn. Returns whether some are left.
    pub(super) fn run_checks(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let wall_ms = plane.wall_clock_ms();
        let more = self.partitions.run_checks(plane, wall_ms);
        self.route_partition_events(plane);
        self.resume_released(plane);
        more
    }

    /// Routes the events of the partitions, and sends checked batches to the owners of their partitions. Handles no request.
    pub(super) fn route_partition_events(&mut self, plane: &mut dyn Plane<Message>) {
        while let Some(event) = self.partitions.poll_event() {
            match event {
                PartitionEvent::Appended { reply_to: ReplyTo::Native { conn, slot, id }, tp, outcome } => {
                    self.finish_native_produce(plane, conn, slot, id, tp, outcome);
                }
                PartitionEvent::Appended { reply_to: ReplyTo::Kafka(batch), outcome, .. } => {
                    self.finish_kafka_append(batch, outcome);
                }
                PartitionEvent::Appended { reply_to: ReplyTo::Coordinators, tp, outcome } => {
                    self.groups.coordinators.handle_appended(tp.partition, outcome);
                }
                PartitionEvent::Appended { reply_to: ReplyTo::Controller(number), outcome, .. } => {
                    self.proposals_are_appended(number, outcome);
                }
                PartitionEvent::HighWatermarkMoved(id) => {
                    self.group_records_are_durable(id);
                    self.wake_waiters(id);
                }
                PartitionEvent::LogStartMoved(id, outcome) => self.log_start_moved(plane, id, outcome),
                PartitionEvent::Read { store, id, result } if self.groups.is_reading(store, id) => {
                    self.apply_group_read(result);
                }
                PartitionEvent::Read { store, id, result }
                    if self.lead.as_ref().is_some_and(|lead| lead.reader.is_reading(store, id)) =>
                {
                    self.apply_metadata_read(plane, result);
                }
                PartitionEvent::Read { store, id, result } => {
                    match self.reads.handle_done(store, id, result) {
                        Some((ReadFor::Native(reader, conn), found)) => {
                            self.on_read(plane, reader, conn, found);
                        }
                        Some((ReadFor::Kafka(fetch), found)) => self.on_kafka_read(plane, fetch, found),
                        Some((ReadFor::Ahead(_), _)) | None => {}
                    }
                }
                PartitionEvent::Searched { store, id, result } => {
                    self.on_search_done(plane, (store, id), result);
                }
                PartitionEvent::Deleted { id, waiters, readers } => {
                    self.wake_all(id, waiters);
                    self.end_readers(plane, readers, ApiError::TopicDeleted);
                    self.abandon_searches(plane, id);
                }
                PartitionEvent::NotAnswering { id, waiters, readers, error } => {
                    self.groups_are_elsewhere(id);
                    self.wake_all(id, waiters);
                    self.end_readers(plane, readers, error);
                }
                PartitionEvent::Answering(id) => self.groups_are_here(id),
                PartitionEvent::MembersChanged(id) => {
                    tracing::info!(partition = self.partitions.name(id), "the replicas have changed");
                }
                PartitionEvent::TopicFreed(topic) => plane.post(0, Message::Gone(vec![topic])),
                PartitionEvent::DiskFull => self.plan_retention(plane, SPACE_INTERVAL),
                PartitionEvent::Fatal(why) => {
                    plane.fatal(EXIT_DISK, format!("the disk cannot be trusted: {why}"));
                }
            }
        }
        let mut by_owner: BTreeMap<ShardIndex, Vec<AppendRequest<'static>>> = BTreeMap::new();
        for (owner, request) in self.partitions.poll_forwards() {
            by_owner.entry(owner).or_default().push(request);
        }
        for (owner, requests) in by_owner {
            plane.post(owner, Message::Kafka(Box::new(KafkaMessage::Append(requests))));
        }
    }

    /// Resumes connections whose batches have been checked and appended.
    fn resume_released(&mut self, plane: &mut dyn Plane<Message>) {
        for conn in self.partitions.poll_released() {
            self.resume(plane, conn);
        }
    }

    /// Drops the unchecked batches of a connection that is closed or closing.
    pub(super) fn forget_batches(&mut self, conn: ConnId) {
        for reply_to in self.partitions.forget_connection(conn) {
            if let ReplyTo::Kafka(batch) = reply_to {
                self.abandon_batch(batch.request);
            }
        }
    }

    /// Sends the outcome of a batch to the shard of its request.
    fn finish_kafka_append(&mut self, batch: RequestBatch, outcome: AppendOutcome) {
        if batch.shard == self.me {
            self.on_produced(batch.request, batch.number, outcome);
        } else {
            self.kafka.produced.push((batch, outcome));
        }
    }
}
