//! Decodes received frames into batches for the user.

use std::sync::Arc;
use std::task::{Context, Poll};

use highwater_protocol::ids::Offset;
use highwater_protocol::native::Start;

use crate::batch::Batch;
use crate::core::decode::{Damage, Decoded, Decoder};
use crate::core::subscription::{Chunk, NextItem, Origin};
use crate::error::{DamagedRange, FetchError, FetchErrorKind, WriteOutcome};
use crate::io::consumer::ConsumerShared;

/// How partitions are read, by a consumer or by a member of a group.
#[derive(Debug)]
pub(crate) struct ReadSettings {
    /// Where to start in a partition without a committed position.
    pub(crate) start: Start,
    pub(crate) buffer_bytes: usize,
    pub(crate) until_end: bool,
    /// Where to continue when the position no longer exists.
    pub(crate) reset: Option<Start>,
}

/// Decodes the chunks received for one topic.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<ConsumerShared>,
    current: Option<CurrentChunk>,
    /// Batches are delivered record by record: whoever does that marks records as delivered.
    by_record: bool,
}

/// The chunk being decoded, and its origin.
#[derive(Debug)]
struct CurrentChunk {
    origin: Origin,
    decoder: Decoder,
}

impl Reader {
    pub(crate) fn new(shared: Arc<ConsumerShared>) -> Self {
        Self { shared, current: None, by_record: false }
    }

    /// Stops marking batches as delivered when they are returned; see [`ConsumerCore::deliver_record`].
    ///
    /// [`ConsumerCore::deliver_record`]: crate::core::subscription::ConsumerCore::deliver_record
    pub(crate) fn deliver_by_record(&mut self) {
        self.by_record = true;
    }

    /// Returns the next batch; none after the requested end was reached or the consumer was closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Batch>, FetchError>> {
        loop {
            if let Some(batch) = self.decode_next() {
                return Poll::Ready(Ok(Some(batch)));
            }
            let taken = self.shared.core().take(cx.waker());
            match taken {
                NextItem::Chunk(chunk) if chunk.frames.is_empty() => {
                    if let Some(error) = self.report_lost_range(&chunk) {
                        return Poll::Ready(Err(error));
                    }
                }
                NextItem::Chunk(Chunk { origin, frames, next_offset }) => {
                    self.current = Some(CurrentChunk { origin, decoder: Decoder::new(frames, next_offset) });
                }
                NextItem::Failed(error) => return Poll::Ready(Err(error)),
                NextItem::End => return Poll::Ready(Ok(None)),
                NextItem::Pending => return Poll::Pending,
            }
        }
    }

    /// Reports records that the broker has lost. Reading continues after them. For tracking what is processed they
    /// count as a batch.
    fn report_lost_range(&self, Chunk { origin, next_offset: to, .. }: &Chunk) -> Option<FetchError> {
        let mut core = self.shared.core();
        if !core.is_owned(*origin) {
            return None;
        }
        let at = &core.partitions()[origin.index];
        let (partition, from, leader_epoch) = (at.partition, at.position()?, at.leader_epoch);
        core.begin_processing(origin.index);
        core.mark_delivered(origin.index, *to, leader_epoch);
        drop(core);
        let range = DamagedRange { topic: self.shared.topic.to_string(), partition, from, to: *to };
        (from < *to).then(|| {
            FetchError::new(FetchErrorKind::Faulty, WriteOutcome::NotWritten, range.to_string())
                .caused_by(range)
        })
    }

    /// Decodes the current chunk until it yields a batch or is exhausted.
    fn decode_next(&mut self) -> Option<Batch> {
        while let Some(CurrentChunk { origin, decoder }) = &mut self.current {
            let origin = *origin;
            let (from, end) = {
                let core = self.shared.core();
                if !core.is_owned(origin) {
                    drop(core);
                    self.current = None;
                    return None;
                }
                let at = &core.partitions()[origin.index];
                (at.position().expect("frames arrive behind the answer to the subscribe"), at.end)
            };
            let decoded = match decoder.step(from, end) {
                Ok(decoded) => decoded,
                Err(damage) => {
                    self.current = None;
                    self.handle_damage(origin, from, &damage);
                    return None;
                }
            };
            let bytes = decoder.bytes();
            if decoded.done {
                self.current = None;
            }
            if let Some(batch) = self.make_batch(origin, from, decoded, bytes) {
                return Some(batch);
            }
        }
        None
    }

    fn make_batch(&self, origin: Origin, from: Offset, decoded: Decoded, bytes: usize) -> Option<Batch> {
        let mut core = self.shared.core();
        if !core.is_owned(origin) {
            return None;
        }
        let index = origin.index;
        let leader_epoch = decoded.leader_epoch.unwrap_or(core.partitions()[index].leader_epoch);
        if decoded.records > 0 {
            core.begin_processing(index);
        }
        let delivered = if decoded.records > 0 && self.by_record { from } else { decoded.next_offset };
        core.mark_delivered(index, delivered, leader_epoch);
        let release = if decoded.done { core.return_credit(index, bytes) } else { None };
        let at = &core.partitions()[index];
        let (partition, high_watermark) = (at.partition, at.high_watermark);
        drop(core);
        if let Some(release) = release {
            self.shared.credit(release);
        }
        self.shared.cluster.metrics.records_consumed.add(decoded.records as u64);
        (decoded.records > 0).then(|| Batch {
            consumer: self.shared.clone(),
            partition,
            origin,
            parts: decoded.parts,
            records: decoded.records,
            next_offset: decoded.next_offset,
            leader_epoch,
            high_watermark: high_watermark.unwrap_or(decoded.next_offset),
        })
    }

    /// Fetches the frames again. If they are damaged at the same position a second time, reports an error.
    fn handle_damage(&self, origin: Origin, position: Offset, damage: &Damage) {
        self.shared.cluster.metrics.frames_damaged.add(1);
        let mut core = self.shared.core();
        if !core.is_owned(origin) {
            return;
        }
        let index = origin.index;
        let at = core.partition_mut(index);
        let partition = at.partition;
        let again = at.damaged_at.replace(position) == Some(position);
        core.refetch(index);
        if again {
            let text = format!(
                "{}/{partition}: data received from offset {position} on is damaged: {damage}; seek past it to continue",
                self.shared.topic
            );
            core.fail(index, FetchError::new(FetchErrorKind::Corrupt, WriteOutcome::NotWritten, text));
        }
        drop(core);
        self.shared.changed(index);
    }
}
