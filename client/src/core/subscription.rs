//! A consumer: what is subscribed, what arrived and waits to be taken, and where each partition stands.
//!
//! A partition has two positions: *fetched*, behind the last frame that arrived, where a new subscription begins; and
//! *delivered*, behind the last record that the user got, which is what is committed. A lost connection leaves what arrived in place
//! and subscribes again at *fetched*, so nothing is lost and nothing comes twice.
//!
//! Memory is bounded by credit: a subscription starts with the window minus what waits, and gets credit for what is taken.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{Body, DATA_PREFIX_BYTES, DataPrefix, StartAt, SubscribeReply};

use crate::error::FetchError;

/// The least credit to subscribe with: enough for the broker to send something.
const CREDIT_BYTES_MIN: usize = 64 << 10;

/// Names one subscription of one partition: messages of an earlier one are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SubscriptionKey {
    /// Which of the consumer's partitions, by place.
    pub(crate) place: usize,
    pub(crate) attempt: u64,
}

/// What frames belong to. Once the partition is given away, or goes on elsewhere, they are worthless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) place: usize,
    /// See [`Place::tenure`].
    pub(crate) tenure: u64,
    /// See [`Place::seeks`].
    seeks: u64,
}

/// Frames that arrived together; or none, in place of records that the broker has lost.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) origin: Origin,
    pub(crate) frames: Bytes,
    /// Behind the last record of the frames, or behind those that are lost.
    pub(crate) next_offset: Offset,
}

/// What the user is to be told next.
#[derive(Debug)]
pub(crate) enum Taken {
    Chunk(Chunk),
    Failed(FetchError),
    /// Every partition reached the end that was asked for, or the consumer was closed.
    End,
    /// Nothing yet; the waker is kept.
    Pending,
}

/// Credit to be sent on the current subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Release {
    pub(crate) key: SubscriptionKey,
    pub(crate) bytes: u64,
}

/// What came of an answer or a push.
#[derive(Debug)]
pub(crate) enum Heard {
    /// All is well.
    Fine,
    /// Of an earlier subscription.
    Stale,
    /// The broker ended or refused the subscription.
    Refused { code: ErrorCode, text: String, position: Option<Offset> },
    /// The bytes make no sense.
    Nonsense(String),
}

/// Whether a partition is this consumer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// It is.
    Held,
    /// Not for long: nothing of it is delivered any more.
    Leaving,
    /// It is not.
    Free,
}

/// What this consumer had to give up without its position being committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lost {
    /// Something that was delivered.
    pub(crate) delivered: bool,
    /// Something that was processed.
    pub(crate) processed: bool,
}

/// Where one partition stands.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    attempt: u64,
    subscribed: bool,
    /// Counts how often the partition was given to this consumer; what was read before it was given again is worthless.
    pub(crate) tenure: u64,
    /// Counts how often it went on elsewhere.
    seeks: u64,
    /// Whether it is this consumer's. Without a group always.
    pub(super) hold: Hold,
    /// Offsets below this were processed, and committed, as far as a group has to know.
    pub(super) processed: Option<Offset>,
    pub(super) committed: Option<Offset>,
    /// Where it began to read. None: not known before the broker's first answer.
    pub(super) begun: Option<Offset>,
    /// Where to subscribe: a place to be found by the broker first, a position from then on.
    start: StartAt,
    /// Offsets below this were delivered. None: not known before the broker's first answer.
    pub(super) delivered: Option<Offset>,
    /// Credit that the current subscription works with, and has been given or is owed.
    window_bytes: usize,
    /// Bytes that wait to be taken.
    waiting_bytes: usize,
    /// Bytes taken and not yet credited.
    owed_bytes: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) log_start: Option<Offset>,
    /// With an end asked for: where that is.
    pub(crate) end: Option<Offset>,
    /// Frames at this offset were damaged when they arrived; once more, and the user is told.
    pub(crate) damaged_at: Option<Offset>,
    /// The user was told of an error; nothing happens until a seek.
    pub(crate) stopped: bool,
    /// Nothing is fetched until the user resumes it.
    pub(super) paused: bool,
    /// A commit up to here failed, and whoever asked for it did not wait for the answer.
    pub(super) uncommitted_unseen: Option<Offset>,
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct ConsumerCore {
    pub(super) places: Vec<Place>,
    buffer_bytes: usize,
    window_bytes: usize,
    until_end: bool,
    /// The place of the records that the user got last and may still be working on.
    pub(super) in_hand: Option<usize>,
    pub(super) lost: Lost,
    /// A partition was given up with a commit that failed unseen.
    pub(super) gave_up_unseen: bool,
    ready: VecDeque<Chunk>,
    failures: VecDeque<FetchError>,
    closed: bool,
    waker: Option<Waker>,
}

impl ConsumerCore {
    /// `buffer_bytes` is shared by the partitions.
    pub(crate) fn new(
        starts: impl IntoIterator<Item = (u32, StartAt)>,
        buffer_bytes: usize,
        until_end: bool,
    ) -> Self {
        let places: Vec<_> =
            starts.into_iter().map(|(partition, start)| Place::new(partition, start)).collect();
        let window_bytes = window(buffer_bytes, places.len());
        Self {
            places,
            buffer_bytes,
            window_bytes,
            until_end,
            in_hand: None,
            lost: Lost::default(),
            gave_up_unseen: false,
            ready: VecDeque::new(),
            failures: VecDeque::new(),
            closed: false,
            waker: None,
        }
    }

    // Getters.

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(crate) fn place_mut(&mut self, place: usize) -> &mut Place {
        &mut self.places[place]
    }

    pub(crate) fn place_of(&self, partition: u32) -> Option<usize> {
        self.places.iter().position(|place| place.partition == partition)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether what came from there may be used.
    pub(crate) fn is_held(&self, origin: Origin) -> bool {
        let Some(at) = self.places.get(origin.place) else { return false };
        at.hold == Hold::Held && (at.tenure, at.seeks) == (origin.tenure, origin.seeks)
    }

    /// Whether a partition is this consumer's to read.
    pub(crate) fn is_assigned(&self, place: usize) -> bool {
        self.places[place].hold == Hold::Held
    }

    /// Whether a place still wants frames.
    pub(crate) fn wants_subscription(&self, place: usize) -> bool {
        let place = &self.places[place];
        let over = self.until_end && place.is_fetched_to_end();
        !(self.closed || place.stopped || place.paused || over || place.hold != Hold::Held)
    }

    // Commands.

    /// Another partition, from its first record.
    pub(crate) fn add(&mut self, partition: u32) -> usize {
        self.places.push(Place::new(partition, StartAt::Earliest));
        self.places.len() - 1
    }

    /// Begins a subscription: its key, where it begins and its first credit. None if none is wanted.
    pub(crate) fn subscribe(&mut self, place: usize) -> Option<(SubscriptionKey, StartAt, u64)> {
        if !self.wants_subscription(place) {
            return None;
        }
        let window = self.window_bytes;
        let at = &mut self.places[place];
        at.attempt += 1;
        at.subscribed = false;
        at.owed_bytes = 0;
        at.window_bytes = window;
        let credit = window.saturating_sub(at.waiting_bytes).max(CREDIT_BYTES_MIN);
        Some((SubscriptionKey { place, attempt: at.attempt }, at.start, credit as u64))
    }

    /// Goes on somewhere else; what arrived is forgotten and the subscription is over.
    pub(crate) fn seek(&mut self, place: usize, to: StartAt) {
        self.forget_chunks(place);
        let at = &mut self.places[place];
        at.attempt += 1;
        at.subscribed = false;
        at.seeks += 1;
        at.start = to;
        at.damaged_at = None;
        at.stopped = false;
        at.delivered = match to {
            StartAt::Offset(offset) => Some(offset),
            _ => None,
        };
    }

    /// Goes on somewhere else because what is next does not exist any more: what was committed is no measure for what comes.
    pub(crate) fn reset(&mut self, place: usize, to: StartAt) {
        self.seek(place, to);
        let at = &mut self.places[place];
        (at.begun, at.processed, at.committed) = (None, None, None);
    }

    /// Delivers nothing until [`ConsumerCore::resume`]. What arrived is forgotten, so that its memory is there for others.
    pub(crate) fn pause(&mut self, place: usize) {
        self.forget_chunks(place);
        self.end_subscription(place);
        let at = &mut self.places[place];
        at.seeks += 1;
        at.start = at.delivered.map_or(at.start, StartAt::Offset);
        at.paused = true;
        self.share_buffer();
    }

    /// Goes on behind the last record that was delivered.
    pub(crate) fn resume(&mut self, place: usize) {
        self.places[place].paused = false;
        self.share_buffer();
    }

    /// The subscription is over; messages of it are ignored from now on.
    pub(super) fn end_subscription(&mut self, place: usize) {
        let at = &mut self.places[place];
        at.attempt += 1;
        at.subscribed = false;
    }

    /// What arrived is worthless: it is asked for again, from the first record that was not delivered.
    pub(crate) fn fetch_again(&mut self, place: usize) {
        let Some(delivered) = self.places[place].delivered else { return };
        let damaged_at = self.places[place].damaged_at;
        self.seek(place, StartAt::Offset(delivered));
        self.places[place].damaged_at = damaged_at;
    }

    /// Tells the user; the partition stops until a seek.
    pub(crate) fn fail(&mut self, place: usize, error: FetchError) {
        let at = &mut self.places[place];
        at.attempt += 1;
        at.subscribed = false;
        at.stopped = true;
        self.failures.push_back(error);
        self.wake();
    }

    /// Over, for this reason.
    pub(crate) fn end(&mut self, error: FetchError) {
        if !self.closed {
            self.failures.push_back(error);
            self.close();
        }
    }

    /// Over.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    /// What is next for the user.
    pub(crate) fn take(&mut self, waker: &Waker) -> Taken {
        if let Some(chunk) = self.ready.pop_front() {
            return Taken::Chunk(chunk);
        }
        if let Some(error) = self.failures.pop_front() {
            return Taken::Failed(error);
        }
        if self.closed || (self.until_end && self.is_delivered_to_end()) {
            return Taken::End;
        }
        match &mut self.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Taken::Pending
    }

    /// Records up to `next` were given to the user.
    pub(crate) fn delivered(&mut self, place: usize, next: Offset, leader_epoch: i32) {
        let at = &mut self.places[place];
        at.delivered = at.delivered.max(Some(next));
        at.leader_epoch = leader_epoch;
        if self.in_hand != Some(place) {
            at.processed = at.processed.max(at.delivered);
        }
    }

    /// The user of a stream gets the next record of what was handed out, and has processed those before it. False: it is not to be given
    /// out any more.
    pub(crate) fn deliver_record(&mut self, origin: Origin, next: Offset) -> bool {
        if !self.is_held(origin) {
            return false;
        }
        let at = &mut self.places[origin.place];
        at.processed = at.processed.max(at.delivered);
        at.delivered = at.delivered.max(Some(next));
        self.in_hand = Some(origin.place);
        true
    }

    /// A chunk of this many bytes was taken whole. Credit to be sent, once it is worth a message.
    pub(crate) fn release(&mut self, place: usize, bytes: usize) -> Option<Release> {
        let window = self.window_bytes;
        let at = &mut self.places[place];
        at.waiting_bytes = at.waiting_bytes.saturating_sub(bytes);
        at.owed_bytes += bytes;
        at.release(place, window)
    }

    // Events.

    pub(crate) fn handle_subscribed(&mut self, key: SubscriptionKey, reply: &SubscribeReply) -> Heard {
        let until_end = self.until_end;
        let Some(at) = self.current(key) else { return Heard::Stale };
        let start = Offset(reply.start.get());
        if start.0 < 0 {
            return Heard::Nonsense(format!("a subscription that begins at offset {start}"));
        }
        at.subscribed = true;
        at.start = StartAt::Offset(start);
        at.delivered.get_or_insert(start);
        at.begun.get_or_insert(start);
        at.processed.get_or_insert(start);
        at.heard(reply.log_start.get(), reply.high_watermark.get());
        if until_end {
            at.end.get_or_insert(Offset(reply.high_watermark.get()));
        }
        self.wake_if_ended();
        Heard::Fine
    }

    pub(crate) fn handle_data(&mut self, key: SubscriptionKey, body: &Bytes) -> Heard {
        let until_end = self.until_end;
        let Some(at) = self.current(key) else { return Heard::Stale };
        let prefix = match DataPrefix::split(body) {
            Ok((prefix, _)) => *prefix,
            Err(error) => return Heard::Nonsense(error.to_string()),
        };
        let next_offset = Offset(prefix.next_offset.get());
        at.heard(prefix.log_start.get(), prefix.high_watermark.get());
        at.start = StartAt::Offset(next_offset);
        let frames = body.slice(DATA_PREFIX_BYTES..);
        at.waiting_bytes += frames.len();
        // Behind the end that was asked for there may be more; nobody wants it.
        let over = until_end && at.is_fetched_to_end();
        if over {
            at.attempt += 1;
            at.subscribed = false;
        }
        let origin = Origin { place: key.place, tenure: at.tenure, seeks: at.seeks };
        self.ready.push_back(Chunk { origin, frames, next_offset });
        self.wake();
        Heard::Fine
    }

    pub(crate) fn handle_refused(&mut self, key: SubscriptionKey, code: ErrorCode, text: String) -> Heard {
        let Some(at) = self.current(key) else { return Heard::Stale };
        at.attempt += 1;
        at.subscribed = false;
        Heard::Refused { code, text, position: at.delivered }
    }

    /// The connection was lost. False: of an earlier subscription.
    pub(crate) fn handle_lost(&mut self, key: SubscriptionKey) -> bool {
        let Some(at) = self.current(key) else { return false };
        at.attempt += 1;
        at.subscribed = false;
        true
    }

    fn current(&mut self, key: SubscriptionKey) -> Option<&mut Place> {
        self.places.get_mut(key.place).filter(|place| place.attempt == key.attempt)
    }

    /// Whether this subscription is the one its partition has now.
    pub(crate) fn is_current(&self, key: SubscriptionKey) -> bool {
        self.places.get(key.place).is_some_and(|place| place.attempt == key.attempt)
    }

    pub(super) fn forget_chunks(&mut self, place: usize) {
        self.ready.retain(|chunk| chunk.origin.place != place);
        self.places[place].waiting_bytes = 0;
    }

    fn wake_if_ended(&mut self) {
        if self.until_end && self.is_delivered_to_end() {
            self.wake();
        }
    }

    /// Whether every partition has reached the end that was asked for.
    fn is_delivered_to_end(&self) -> bool {
        // One that an error has stopped gets no further by itself.
        let is_over = |place: &Place| place.stopped || place.is_delivered_to_end();
        self.places.iter().filter(|place| place.hold != Hold::Free).all(is_over)
    }

    /// There are more or fewer partitions to share the buffer; subscriptions adapt as credit flows.
    pub(super) fn share_buffer(&mut self) {
        let held = self.places.iter().filter(|place| place.hold == Hold::Held && !place.paused).count();
        self.window_bytes = window(self.buffer_bytes, held);
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What each of so many partitions may have waiting.
fn window(buffer_bytes: usize, partitions: usize) -> usize {
    (buffer_bytes / partitions.max(1)).max(CREDIT_BYTES_MIN)
}

impl Place {
    pub(super) fn new(partition: u32, start: StartAt) -> Self {
        Self {
            partition,
            attempt: 0,
            subscribed: false,
            tenure: 0,
            seeks: 0,
            hold: Hold::Held,
            processed: None,
            committed: None,
            begun: None,
            window_bytes: 0,
            start,
            delivered: match start {
                StartAt::Offset(offset) => Some(offset),
                _ => None,
            },
            waiting_bytes: 0,
            owed_bytes: 0,
            leader_epoch: -1,
            high_watermark: None,
            log_start: None,
            end: None,
            damaged_at: None,
            stopped: false,
            paused: false,
            uncommitted_unseen: None,
        }
    }

    /// Behind the last record delivered. None: not known before the broker's first answer.
    pub(crate) fn position(&self) -> Option<Offset> {
        self.delivered
    }

    fn is_delivered_to_end(&self) -> bool {
        self.end.is_some_and(|end| self.delivered.is_some_and(|delivered| delivered >= end))
    }

    fn is_fetched_to_end(&self) -> bool {
        self.end.is_some_and(|end| matches!(self.start, StartAt::Offset(next) if next >= end))
    }

    fn heard(&mut self, log_start: i64, high_watermark: i64) {
        self.log_start = Some(Offset(log_start));
        self.high_watermark = Some(Offset(high_watermark));
    }

    fn release(&mut self, place: usize, window: usize) -> Option<Release> {
        // What the window has grown by is owed too; what it has shrunk by is kept back.
        if self.window_bytes < window {
            self.owed_bytes += window - self.window_bytes;
            self.window_bytes = window;
        } else {
            let kept = self.owed_bytes.min(self.window_bytes - window);
            self.owed_bytes -= kept;
            self.window_bytes -= kept;
        }
        if !self.subscribed || self.owed_bytes < window / 2 {
            return None;
        }
        let bytes = std::mem::take(&mut self.owed_bytes) as u64;
        Some(Release { key: SubscriptionKey { place, attempt: self.attempt }, bytes })
    }
}

/// The reply to a subscribe in its bytes.
pub(crate) fn subscribe_reply(body: &[u8]) -> Result<SubscribeReply, String> {
    SubscribeReply::decode(body).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
