//! A consumer: its subscriptions, the chunks received, and the state of each partition.
//!
//! A partition has two positions. *Fetched* is after the last frame received, where a new subscription starts.
//! *Delivered* is after the last record returned to the user, and is what gets committed. A lost connection leaves
//! received chunks in place and the partition subscribes again at *fetched*, so no record is lost or delivered twice.
//!
//! Memory is bounded by credit: a subscription starts with the window minus the bytes already waiting, and gets credit
//! back for the bytes that the user takes.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{Body, DATA_PREFIX_BYTES, DataPrefix, Start, SubscribeReply};

use super::partition_state::{Ownership, PartitionState};
use crate::error::FetchError;

/// Minimum credit to subscribe with: enough for the broker to send something.
const CREDIT_BYTES_MIN: usize = 64 << 10;

/// Identifies one subscription of one partition. Messages of earlier subscriptions are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SubscriptionKey {
    /// Index of the partition in [`ConsumerCore::partitions`].
    pub(crate) index: usize,
    pub(crate) attempt: u64,
}

/// The state of a partition when frames were fetched. After a reassignment or a seek the frames are discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) index: usize,
    /// See [`PartitionState::generation`].
    pub(crate) generation: u64,
    /// See [`PartitionState::seeks`].
    seeks: u64,
}

/// Frames that arrived together. Empty in place of records that the broker has lost.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) origin: Origin,
    pub(crate) frames: Bytes,
    /// The offset after the last record of the frames, or after the lost records.
    pub(crate) next_offset: Offset,
}

/// The next item for the user.
#[derive(Debug)]
pub(crate) enum NextItem {
    Chunk(Chunk),
    Failed(FetchError),
    /// Every partition reached the requested end, or the consumer was closed.
    End,
    /// Nothing yet; the waker was stored.
    Pending,
}

/// Credit to send on the current subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CreditGrant {
    pub(crate) key: SubscriptionKey,
    pub(crate) bytes: u64,
}

/// The result of handling an answer or a push.
#[derive(Debug)]
pub(crate) enum SubscriptionOutcome {
    /// The state was updated.
    Applied,
    /// The message belongs to an earlier subscription.
    Stale,
    /// The broker rejected or ended the subscription.
    Ended { code: ErrorCode, text: String, position: Option<Offset> },
    /// The message cannot be decoded.
    Malformed(String),
}

/// Progress that was lost because partitions were released before their positions were committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct UncommittedLoss {
    /// Delivered records will be delivered again.
    pub(crate) delivered: bool,
    /// Processed records will be delivered again.
    pub(crate) processed: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct ConsumerCore {
    pub(super) partitions: Vec<PartitionState>,
    buffer_bytes: usize,
    window_bytes: usize,
    until_end: bool,
    /// Index of the partition whose records the user got last and may still be processing.
    pub(super) processing: Option<usize>,
    pub(super) lost: UncommittedLoss,
    /// A partition was released after a commit of it failed and nobody got the error.
    pub(super) released_with_unreported_failure: bool,
    ready: VecDeque<Chunk>,
    failures: VecDeque<FetchError>,
    closed: bool,
    waker: Option<Waker>,
}

impl ConsumerCore {
    /// Creates the state for these partitions, which share `buffer_bytes`.
    pub(crate) fn new(
        starts: impl IntoIterator<Item = (u32, Start)>,
        buffer_bytes: usize,
        until_end: bool,
    ) -> Self {
        let partitions: Vec<_> =
            starts.into_iter().map(|(partition, start)| PartitionState::new(partition, start)).collect();
        let window_bytes = window(buffer_bytes, partitions.len());
        Self {
            partitions,
            buffer_bytes,
            window_bytes,
            until_end,
            processing: None,
            lost: UncommittedLoss::default(),
            released_with_unreported_failure: false,
            ready: VecDeque::new(),
            failures: VecDeque::new(),
            closed: false,
            waker: None,
        }
    }

    // Getters.

    pub(crate) fn partitions(&self) -> &[PartitionState] {
        &self.partitions
    }

    pub(crate) fn partition_mut(&mut self, index: usize) -> &mut PartitionState {
        &mut self.partitions[index]
    }

    pub(crate) fn index_of(&self, partition: u32) -> Option<usize> {
        self.partitions.iter().position(|state| state.partition == partition)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether frames of this origin may still be used.
    pub(crate) fn is_owned(&self, origin: Origin) -> bool {
        let Some(at) = self.partitions.get(origin.index) else { return false };
        at.ownership == Ownership::Owned && (at.generation, at.seeks) == (origin.generation, origin.seeks)
    }

    /// Returns whether the partition is assigned to this consumer.
    pub(crate) fn is_assigned(&self, index: usize) -> bool {
        self.partitions[index].ownership == Ownership::Owned
    }

    /// Returns whether the partition should have a subscription.
    pub(crate) fn wants_subscription(&self, index: usize) -> bool {
        let state = &self.partitions[index];
        let over = self.until_end && state.is_fetched_to_end();
        !(self.closed || state.stopped || state.paused || over || state.ownership != Ownership::Owned)
    }

    // Commands.

    /// Adds a partition, to be read from its first record.
    pub(crate) fn add(&mut self, partition: u32) -> usize {
        self.partitions.push(PartitionState::new(partition, Start::Earliest));
        self.partitions.len() - 1
    }

    /// Starts a subscription: returns its key, its start and its first credit. None if the partition should have no
    /// subscription.
    pub(crate) fn subscribe(&mut self, index: usize) -> Option<(SubscriptionKey, Start, u64)> {
        if !self.wants_subscription(index) {
            return None;
        }
        let window = self.window_bytes;
        let at = &mut self.partitions[index];
        at.attempt += 1;
        at.subscribed = false;
        at.owed_bytes = 0;
        at.window_bytes = window;
        let credit = window.saturating_sub(at.waiting_bytes).max(CREDIT_BYTES_MIN);
        Some((SubscriptionKey { index, attempt: at.attempt }, at.start, credit as u64))
    }

    /// Continues at another position. Discards received chunks and ends the subscription.
    pub(crate) fn seek(&mut self, index: usize, to: Start) {
        self.drop_chunks(index);
        let at = &mut self.partitions[index];
        at.attempt += 1;
        at.subscribed = false;
        at.seeks += 1;
        at.start = to;
        at.damaged_at = None;
        at.stopped = false;
        at.delivered = match to {
            Start::Offset(offset) => Some(offset),
            _ => None,
        };
    }

    /// Continues at another position because the current one no longer exists. Committed positions no longer apply.
    pub(crate) fn reset(&mut self, index: usize, to: Start) {
        self.seek(index, to);
        let at = &mut self.partitions[index];
        (at.began_at, at.processed, at.committed) = (None, None, None);
    }

    /// Delivers nothing until [`ConsumerCore::resume`]. Discards received chunks to free their memory for other
    /// partitions.
    pub(crate) fn pause(&mut self, index: usize) {
        self.drop_chunks(index);
        self.end_subscription(index);
        let at = &mut self.partitions[index];
        at.seeks += 1;
        at.start = at.delivered.map_or(at.start, Start::Offset);
        at.paused = true;
        self.share_buffer();
    }

    /// Continues after the last record delivered.
    pub(crate) fn resume(&mut self, index: usize) {
        self.partitions[index].paused = false;
        self.share_buffer();
    }

    /// Ends the subscription. Its messages are ignored from now on.
    pub(super) fn end_subscription(&mut self, index: usize) {
        let at = &mut self.partitions[index];
        at.attempt += 1;
        at.subscribed = false;
    }

    /// Discards received chunks and fetches again from the first record not delivered.
    pub(crate) fn refetch(&mut self, index: usize) {
        let Some(delivered) = self.partitions[index].delivered else { return };
        let damaged_at = self.partitions[index].damaged_at;
        self.seek(index, Start::Offset(delivered));
        self.partitions[index].damaged_at = damaged_at;
    }

    /// Reports an error to the user. The partition stops until a seek.
    pub(crate) fn fail(&mut self, index: usize, error: FetchError) {
        let at = &mut self.partitions[index];
        at.attempt += 1;
        at.subscribed = false;
        at.stopped = true;
        self.failures.push_back(error);
        self.wake();
    }

    /// Closes the consumer with an error.
    pub(crate) fn end(&mut self, error: FetchError) {
        if !self.closed {
            self.failures.push_back(error);
            self.close();
        }
    }

    /// Closes the consumer.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    /// Returns the next item for the user.
    pub(crate) fn take(&mut self, waker: &Waker) -> NextItem {
        if let Some(chunk) = self.ready.pop_front() {
            return NextItem::Chunk(chunk);
        }
        if let Some(error) = self.failures.pop_front() {
            return NextItem::Failed(error);
        }
        if self.closed || (self.until_end && self.is_delivered_to_end()) {
            return NextItem::End;
        }
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        NextItem::Pending
    }

    /// Marks records before `next` as delivered.
    pub(crate) fn mark_delivered(&mut self, index: usize, next: Offset, leader_epoch: i32) {
        let at = &mut self.partitions[index];
        at.delivered = at.delivered.max(Some(next));
        at.leader_epoch = leader_epoch;
        if self.processing != Some(index) {
            at.processed = at.processed.max(at.delivered);
        }
    }

    /// Delivers the next record to the user of a stream, and marks those before it as processed. Returns false if the
    /// record must not be delivered any more.
    pub(crate) fn deliver_record(&mut self, origin: Origin, next: Offset) -> bool {
        if !self.is_owned(origin) {
            return false;
        }
        let at = &mut self.partitions[origin.index];
        at.processed = at.processed.max(at.delivered);
        at.delivered = at.delivered.max(Some(next));
        self.processing = Some(origin.index);
        true
    }

    /// Returns a consumed chunk's bytes as credit. Returns a grant once it is large enough to be worth a message.
    pub(crate) fn return_credit(&mut self, index: usize, bytes: usize) -> Option<CreditGrant> {
        let window = self.window_bytes;
        let at = &mut self.partitions[index];
        at.waiting_bytes = at.waiting_bytes.saturating_sub(bytes);
        at.owed_bytes += bytes;
        at.grant_credit(index, window)
    }

    // Events.

    pub(crate) fn handle_subscribed(
        &mut self,
        key: SubscriptionKey,
        reply: &SubscribeReply,
    ) -> SubscriptionOutcome {
        let until_end = self.until_end;
        let Some(at) = self.current(key) else { return SubscriptionOutcome::Stale };
        let start = Offset(reply.start.get());
        if start.0 < 0 {
            return SubscriptionOutcome::Malformed(format!("the subscription starts at offset {start}"));
        }
        at.subscribed = true;
        at.start = Start::Offset(start);
        at.delivered.get_or_insert(start);
        at.began_at.get_or_insert(start);
        at.processed.get_or_insert(start);
        at.update_bounds(reply.log_start.get(), reply.high_watermark.get());
        if until_end {
            at.end.get_or_insert(Offset(reply.high_watermark.get()));
        }
        self.wake_if_ended();
        SubscriptionOutcome::Applied
    }

    pub(crate) fn handle_data(&mut self, key: SubscriptionKey, body: &Bytes) -> SubscriptionOutcome {
        let until_end = self.until_end;
        let Some(at) = self.current(key) else { return SubscriptionOutcome::Stale };
        let prefix = match DataPrefix::split(body) {
            Ok((prefix, _)) => *prefix,
            Err(error) => return SubscriptionOutcome::Malformed(error.to_string()),
        };
        let next_offset = Offset(prefix.next_offset.get());
        at.update_bounds(prefix.log_start.get(), prefix.high_watermark.get());
        at.start = Start::Offset(next_offset);
        let frames = body.slice(DATA_PREFIX_BYTES..);
        at.waiting_bytes += frames.len();
        // The broker may push records after the requested end; they are not wanted.
        let over = until_end && at.is_fetched_to_end();
        if over {
            at.attempt += 1;
            at.subscribed = false;
        }
        let origin = Origin { index: key.index, generation: at.generation, seeks: at.seeks };
        self.ready.push_back(Chunk { origin, frames, next_offset });
        self.wake();
        SubscriptionOutcome::Applied
    }

    pub(crate) fn handle_rejection(
        &mut self,
        key: SubscriptionKey,
        code: ErrorCode,
        text: String,
    ) -> SubscriptionOutcome {
        let Some(at) = self.current(key) else { return SubscriptionOutcome::Stale };
        at.attempt += 1;
        at.subscribed = false;
        SubscriptionOutcome::Ended { code, text, position: at.delivered }
    }

    /// The connection was lost. Returns false if the subscription was not the current one.
    pub(crate) fn handle_lost(&mut self, key: SubscriptionKey) -> bool {
        let Some(at) = self.current(key) else { return false };
        at.attempt += 1;
        at.subscribed = false;
        true
    }

    fn current(&mut self, key: SubscriptionKey) -> Option<&mut PartitionState> {
        self.partitions.get_mut(key.index).filter(|state| state.attempt == key.attempt)
    }

    /// Returns whether this is its partition's current subscription.
    pub(crate) fn is_current(&self, key: SubscriptionKey) -> bool {
        self.partitions.get(key.index).is_some_and(|state| state.attempt == key.attempt)
    }

    pub(super) fn drop_chunks(&mut self, index: usize) {
        self.ready.retain(|chunk| chunk.origin.index != index);
        self.partitions[index].waiting_bytes = 0;
    }

    fn wake_if_ended(&mut self) {
        if self.until_end && self.is_delivered_to_end() {
            self.wake();
        }
    }

    /// Returns whether every partition has reached the requested end.
    fn is_delivered_to_end(&self) -> bool {
        // A partition that an error has stopped makes no progress by itself.
        let is_over = |state: &PartitionState| state.stopped || state.is_delivered_to_end();
        self.partitions.iter().filter(|state| state.ownership != Ownership::Released).all(is_over)
    }

    /// Divides the buffer among the partitions that are read now. Subscriptions adapt as credit flows.
    pub(super) fn share_buffer(&mut self) {
        let held = self
            .partitions
            .iter()
            .filter(|state| state.ownership == Ownership::Owned && !state.paused)
            .count();
        self.window_bytes = window(self.buffer_bytes, held);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Returns the window of each of `partitions` partitions.
fn window(buffer_bytes: usize, partitions: usize) -> usize {
    (buffer_bytes / partitions.max(1)).max(CREDIT_BYTES_MIN)
}

/// Decodes the reply to a subscribe request.
pub(crate) fn subscribe_reply(body: &[u8]) -> Result<SubscribeReply, String> {
    SubscribeReply::decode(body).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
