//! A batch on its way into the log: checked once ([`super::checks`]), appended, acknowledged when it is what the producer asked for.

use highwater_net::{Batch, Produce, Refusal as Nonsense, Reply, SlotId};
use highwater_protocol::batch::{BatchHeader, TimestampType, Work, stamp_create_time, stamp_log_append_time};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};
use highwater_protocol::native::{Acks, MessageKind, ProduceReply};
use highwater_runtime::plane::{Close, ConnId, Plane};
use highwater_storage::{AppendError, Payload};

use super::Shard;
use super::checks::{Checked, OpenCheck, Verdict, Waiting, check_header, over_limit, rejection};
use super::connection::Stalled;
use super::order::Stamp;
use super::partition::{Ack, AckTo, PartitionId, Refusal};
use super::readers::deleted;
use crate::message::{Message, OwnedBatch, ProducedAt};
use crate::meta::configs::TimestampSource;

/// What became of a batch.
pub(super) enum Outcome {
    /// It is in the log, now or since it was sent the first time.
    Appended {
        partition: PartitionId,
        base_offset: Offset,
        end: Offset,
        log_append_time: i64,
    },
    /// There is no room in front of the disk just now.
    Busy,
    Refused(Refusal),
}

/// A batch of a native client that is being checked.
pub(super) struct NativeCheck<'a> {
    to: TopicPartition,
    acks: Acks,
    slot: Option<SlotId>,
    id: u64,
    batch: AnyBatch<'a>,
    pub(super) check: OpenCheck,
}

#[cfg(test)]
impl NativeCheck<'static> {
    /// One of a batch that nobody sent.
    pub(super) fn sample(check: OpenCheck) -> Self {
        let partition = highwater_protocol::ids::PartitionIndex(0);
        let to = TopicPartition { topic: highwater_protocol::ids::TopicId([1; 16]), partition };
        let batch = AnyBatch::Owned(OwnedBatch::Small(Vec::new()));
        Self { to, acks: Acks::All, slot: None, id: 0, batch, check }
    }
}

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
        let slot = (acks != Acks::None)
            .then(|| connection.native().replies.open(MessageKind::Produce, id, bytes, 0));
        let batch = match batch {
            Batch::Small(bytes) => AnyBatch::Small(bytes),
            Batch::Bulk { pages, batch_bytes } => AnyBatch::Owned(OwnedBatch::Bulk { pages, batch_bytes }),
            Batch::TooLarge { bytes } => {
                let (code, text) = over_limit(bytes, &self.setup.limits);
                let text = self.error_prefix(to) + &text;
                return self.refuse_batch(plane, conn, id, slot, code, text);
            }
        };
        let check = match self.begin_check(plane, to, batch.bytes()) {
            Ok(check) => check,
            Err(refusal) => {
                let stamp = Self::stamp_of(to, batch.bytes());
                return self.refuse_append(plane, conn, id, slot, stamp, refusal);
            }
        };
        let native = NativeCheck { to, acks, slot, id, batch, check };
        let mut work = self.checks.work_on_arrival(self.setup.limits.check_work_at_once);
        let before = work;
        let left = self.check_native(plane, conn, native, &mut work);
        self.checks.note_arrival(before - work);
        if let Some(left) = left {
            self.checks.wait(conn, Waiting::Native(left));
        }
    }

    /// The check of a batch for one of this shard's partitions, if there is any use in it.
    fn begin_check(
        &self,
        plane: &dyn Plane<Message>,
        to: TopicPartition,
        batch: &[u8],
    ) -> Result<OpenCheck, Refusal> {
        let id = self.locate(to)?;
        let partition = self.partitions.get(id).ok_or_else(deleted)?;
        let config = &partition.topic.config;
        check_header(batch, config)
            .map_err(|(code, text)| (code, format!("{}: {text}", partition.name())))?;
        Ok(OpenCheck::new(config, &self.setup.limits, plane.wall_clock_ms()))
    }

    /// Goes on with the check of a batch, and appends it when it is done. Gives it back if it is not.
    pub(super) fn check_native(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        native: NativeCheck<'_>,
        work: &mut Work,
    ) -> Option<NativeCheck<'static>> {
        let NativeCheck { to, acks, slot, id, batch, check } = native;
        let (code, text) = match self.checks.step(check, batch.bytes(), work) {
            Verdict::Open(check) => {
                let batch = AnyBatch::Owned(batch.into_owned());
                return Some(NativeCheck { to, acks, slot, id, batch, check });
            }
            Verdict::Good(checked) => {
                self.append_or_stall(plane, conn, id, slot, to, acks, batch, checked);
                return None;
            }
            Verdict::Rejected(checked, rules) => rejection(&checked, &rules),
            Verdict::Bad(error) => (error.code(), error.to_string()),
        };
        let text = self.error_prefix(to) + &text;
        self.refuse_append(plane, conn, id, slot, None, (code, text));
        None
    }

    /// How an error begins that concerns a partition; nothing, if it is not here.
    fn error_prefix(&self, to: TopicPartition) -> String {
        let id = self.locate(to).ok();
        id.and_then(|id| self.partitions.get(id)).map_or_else(String::new, |p| p.name() + ": ")
    }

    /// Tries a batch again that waited for room. True if it does not wait any more.
    pub(super) fn retry_stalled(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return true };
        let Some(Stalled { to, acks, slot, id, batch, checked }) = connection.stalled.take() else {
            return true;
        };
        self.append_or_stall(plane, conn, id, slot, to, acks, AnyBatch::Owned(batch), checked);
        let stalled = self.connections.get(&conn).is_some_and(|c| c.stalled.is_some());
        if !stalled {
            self.resume(plane, conn);
        }
        !stalled
    }

    #[expect(clippy::too_many_arguments, reason = "one request, field by field")]
    fn append_or_stall(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        id: u64,
        slot: Option<SlotId>,
        to: TopicPartition,
        acks: Acks,
        mut batch: AnyBatch<'_>,
        checked: Checked,
    ) {
        let stamp = Self::stamp_of(to, batch.bytes());
        if let Some((code, text)) = self.overtakes(conn, stamp) {
            return self.refuse_batch(plane, conn, id, slot, code, text);
        }
        match self.append(plane, to, &mut batch, checked) {
            Outcome::Appended { partition, base_offset, end, log_append_time } => {
                self.note_appended(conn, stamp);
                let Some(slot) = slot else { return };
                let ack = Ack { to: AckTo::Native(conn, slot), end, base_offset, log_append_time };
                let Some(partition) = self.partitions.get_mut(partition) else { return };
                if partition.wait(acks, ack) {
                    let (store, in_store) = (partition.store, partition.slot);
                    self.acknowledge(store, in_store, ack);
                }
            }
            Outcome::Busy => {
                let Some(store) = self.locate(to).ok().and_then(|p| self.partitions.get(p)).map(|p| p.store)
                else {
                    return;
                };
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                connection.stalled = Some(Stalled { to, acks, slot, id, batch: batch.into_owned(), checked });
                self.stores[store].stalled.push_back(conn);
            }
            Outcome::Refused(refusal) => self.refuse_append(plane, conn, id, slot, stamp, refusal),
        }
    }

    /// Refuses a batch, and remembers that if it may be sent again.
    fn refuse_append(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        id: u64,
        slot: Option<SlotId>,
        stamp: Option<Stamp>,
        (code, text): Refusal,
    ) {
        let remembered = !code.is_retryable() || self.note_refused(conn, stamp);
        self.refuse_batch(plane, conn, id, slot, code, text);
        if !remembered {
            self.close(plane, conn, Close::AfterSends);
        }
    }

    fn refuse_batch(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        id: u64,
        slot: Option<SlotId>,
        code: ErrorCode,
        text: String,
    ) {
        if let Some(slot) = slot {
            return self.reply(conn, slot, Reply::Error { code, text });
        }
        // Nobody waits for a reply in which this could be told. Kafka ends the connection too.
        let kind = MessageKind::Produce as u16;
        self.refuse(plane, conn, &Nonsense { kind, id, code, text });
    }

    /// Appends a batch that has been checked.
    pub(super) fn append(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: TopicPartition,
        batch: &mut AnyBatch<'_>,
        checked: Checked,
    ) -> Outcome {
        let id = match self.locate(to) {
            Ok(id) => id,
            Err(error) => return Outcome::Refused(error.into()),
        };
        let Some(partition) = self.partitions.get_mut(id) else { return Outcome::Refused(deleted()) };
        let wall_ms = plane.wall_clock_ms();
        let config = partition.topic.config;
        let (slot, epoch) = (partition.slot, partition.epoch);
        let entry = &mut self.stores[partition.store];
        let (bytes, is_bulk) = (batch.bytes().len(), batch.is_bulk());
        if entry.store.is_busy(slot, bytes, is_bulk, wall_ms) {
            return Outcome::Busy;
        }
        if partition.epoch_start_due {
            match entry.store.append_epoch_start(plane, slot, epoch, wall_ms) {
                Ok(_) => partition.epoch_start_due = false,
                Err(AppendError::Busy) => return Outcome::Busy,
                Err(error) => return refused(&partition.name(), error),
            }
            // That may have taken the room.
            if entry.store.is_busy(slot, bytes, is_bulk, wall_ms) {
                return Outcome::Busy;
            }
        }
        let log_append_time = match config.timestamp {
            TimestampSource::CreateTime => {
                let header = BatchHeader::parse(batch.bytes()).expect("it has been checked");
                let is_right = header.max_timestamp() == checked.max_timestamp
                    && header.timestamp_type() == TimestampType::CreateTime;
                if !is_right {
                    batch.change(&mut self.scratch, |bytes| stamp_create_time(bytes, checked.max_timestamp));
                }
                -1
            }
            TimestampSource::LogAppendTime => {
                batch.change(&mut self.scratch, |bytes| stamp_log_append_time(bytes, Timestamp(wall_ms)));
                wall_ms
            }
        };
        let payload = match std::mem::replace(batch, AnyBatch::Gone) {
            AnyBatch::Small(bytes) => Payload::Small(bytes),
            AnyBatch::Scratch => Payload::Small(&self.scratch),
            AnyBatch::Owned(OwnedBatch::Small(bytes)) => {
                self.scratch = bytes;
                Payload::Small(&self.scratch)
            }
            AnyBatch::Owned(OwnedBatch::Bulk { pages, batch_bytes }) => Payload::Bulk { pages, batch_bytes },
            AnyBatch::Gone => unreachable!("a batch is appended once"),
        };
        let appended = entry.store.append(plane, slot, payload, epoch, wall_ms);
        match appended {
            Ok(appended) => {
                self.counted.batches += 1;
                self.counted.records += (appended.next_offset.0 - appended.base_offset.0) as u64;
                Outcome::Appended {
                    partition: id,
                    base_offset: appended.base_offset,
                    end: appended.next_offset,
                    log_append_time,
                }
            }
            Err(AppendError::Duplicate { base_offset, next_offset, timestamp }) => Outcome::Appended {
                partition: id,
                base_offset,
                end: next_offset,
                log_append_time: if log_append_time < 0 { -1 } else { timestamp.0 },
            },
            Err(error) => refused(&partition.name(), error),
        }
    }

    /// A producer hears that its batch is what it asked for.
    pub(super) fn acknowledge(&mut self, store: usize, slot: highwater_storage::Slot, ack: Ack) {
        let log_start = self.stores[store].store.bounds(slot).log_start;
        let (conn, to) = match ack.to {
            AckTo::Native(conn, slot) => (conn, slot),
            AckTo::Kafka(to) => {
                let at = ProducedAt {
                    base_offset: ack.base_offset.0,
                    log_append_time: ack.log_append_time,
                    log_start: log_start.0,
                };
                return self.tell_produced(to, Ok(at));
            }
        };
        let reply = ProduceReply {
            base_offset: ack.base_offset.0.into(),
            log_append_time: ack.log_append_time.into(),
            log_start: log_start.0.into(),
        };
        self.reply(conn, to, Reply::Produced(reply));
    }
}

/// A batch, wherever its bytes are.
pub(super) enum AnyBatch<'a> {
    Small(&'a [u8]),
    /// In the shard's scratch buffer, where it may be changed.
    Scratch,
    Owned(OwnedBatch),
    Gone,
}

impl AnyBatch<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Owned(OwnedBatch::Small(bytes)) => bytes,
            Self::Owned(OwnedBatch::Bulk { pages, batch_bytes }) => {
                &pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes]
            }
            Self::Scratch | Self::Gone => &[],
        }
    }

    /// Whether it was received into pages of its own.
    fn is_bulk(&self) -> bool {
        matches!(self, Self::Owned(OwnedBatch::Bulk { .. }))
    }

    /// Changes the bytes: in the scratch buffer, if they are not the batch's own.
    fn change(&mut self, scratch: &mut Vec<u8>, change: impl FnOnce(&mut [u8])) {
        if let Self::Small(bytes) = self {
            scratch.clear();
            scratch.extend_from_slice(bytes);
            *self = Self::Scratch;
        }
        match self {
            Self::Scratch => change(scratch),
            Self::Owned(OwnedBatch::Small(bytes)) => change(bytes),
            Self::Owned(OwnedBatch::Bulk { pages, batch_bytes }) => {
                change(&mut pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + *batch_bytes]);
            }
            Self::Small(_) | Self::Gone => unreachable!("only a batch that is here is changed"),
        }
    }

    pub(super) fn into_owned(self) -> OwnedBatch {
        match self {
            Self::Small(bytes) => OwnedBatch::Small(bytes.to_vec()),
            Self::Owned(batch) => batch,
            Self::Scratch | Self::Gone => unreachable!("a batch that waits has not been touched"),
        }
    }
}

fn refused(partition: &str, error: AppendError) -> Outcome {
    let code = match error {
        AppendError::StorageFull => ErrorCode::StorageFull,
        AppendError::Faulty => ErrorCode::PartitionFaulty,
        AppendError::TooLarge { .. } => ErrorCode::TooLarge,
        AppendError::Busy => ErrorCode::Overloaded,
        AppendError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequence,
        AppendError::Fenced => ErrorCode::ProducerFenced,
        AppendError::Deleted => ErrorCode::UnknownTopic,
        _ => ErrorCode::Internal,
    };
    Outcome::Refused((code, format!("{partition}: {error}")))
}
