//! Starts subscriptions and fetches: finds the first offset of each.

use std::time::Duration;

use highwater_net::limits::SUBSCRIPTIONS_MAX;
use highwater_net::{CreditLine, ProtocolViolation, Reply, ReplySlot};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};
use highwater_protocol::native::{
    FetchRequest, MessageKind, Start, SubscribeReply, SubscribeRequest, error_message,
};
use highwater_runtime::plane::{ConnId, Plane};
use highwater_storage::Cursor;

use super::Shard;
use super::readers::{Reader, ReaderKind, ReaderState};
use super::search::{Search, SearchNeeds, SearchOrigin, SearchResult, SearchTarget};
use super::timers::Timer;
use crate::api::{ApiError, Service};
use crate::limits::{FETCH_BYTES_MAX, FETCH_WAIT_MAX};
use crate::message::Message;
use crate::native;
use crate::partition::{PartitionId, ReaderId};
use crate::session::{Retained, held_bytes};

/// A reader whose first offset is being searched for.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartingReader {
    pub(super) reader: ReaderId,
    pub(super) slot: ReplySlot,
}

/// Where a reader begins.
enum Begin {
    At(Offset),
    /// At the first record with this timestamp, which has to be searched for.
    Since(Timestamp),
}

impl Shard {
    pub(super) fn subscribe(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        number: u64,
        bytes: usize,
        request: &SubscribeRequest,
    ) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let held = held_bytes(bytes, Retained::Lists);
        let slot = connection.native().replies.open(MessageKind::Subscribe, number, held, 0);
        let subscriptions = connection.subscriptions.len();
        let taken = connection.subscriptions.contains_key(&number);
        let error = |code, text: String| Reply::Error { code, text };
        let credit = if taken {
            Err(error(ErrorCode::BadSubscription, format!("subscription {number} exists already")))
        } else if subscriptions >= SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            Err(error(ErrorCode::BadSubscription, text))
        } else {
            CreditLine::new(request.credit_bytes).ok_or_else(|| {
                error(ErrorCode::TooLarge, "the credit exceeds the limit of a subscription".into())
            })
        };
        let kind = match credit {
            Ok(credit) => ReaderKind::Subscription { number, credit },
            Err(reply) => return self.reply(conn, slot, reply),
        };
        let tp = TopicPartition { topic: request.topic, partition: request.partition };
        self.start_reader(plane, conn, slot, tp, request.start, kind);
    }

    pub(super) fn fetch(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        id: u64,
        bytes: usize,
        request: &FetchRequest,
    ) {
        let max_bytes = (request.max_bytes as usize).clamp(1, FETCH_BYTES_MAX);
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let held = held_bytes(bytes, Retained::Lists);
        let slot = connection.native().replies.open(MessageKind::Fetch, id, held, max_bytes);
        let wait = Duration::from_millis(request.wait_ms.into()).min(FETCH_WAIT_MAX);
        let until = (!wait.is_zero()).then(|| plane.now().after(wait));
        let kind = ReaderKind::Fetch { slot, max_bytes, min_bytes: request.min_bytes as usize, until };
        let tp = TopicPartition { topic: request.topic, partition: request.partition };
        self.start_reader(plane, conn, slot, tp, request.start, kind);
    }

    fn start_reader(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        slot: ReplySlot,
        tp: TopicPartition,
        start: Start,
        kind: ReaderKind,
    ) {
        let begin = self.locate(tp).and_then(|partition| Ok((partition, self.begin_at(partition, start)?)));
        let (partition, begin) = match begin {
            Ok(begin) => begin,
            Err(error) => return self.reply(conn, slot, native::reply_of(&error)),
        };
        let state = match begin {
            Begin::At(_) => ReaderState::Starting,
            Begin::Since(_) => ReaderState::Searching(slot),
        };
        let cursor = Cursor::at(Offset(0));
        let reader = Reader { conn, partition, cursor, seen: Offset(0), kind, state, turn: 0, needs: 0 };
        let id = self.insert_reader(reader);
        if let Some(connection) = self.connections.get_mut(&conn) {
            match kind {
                ReaderKind::Subscription { number, .. } => {
                    connection.subscriptions.insert(number, id);
                }
                ReaderKind::Fetch { until, .. } => {
                    connection.fetches.insert(id);
                    if let Some(until) = until {
                        self.timers.set(plane, until, Timer::Fetch(id));
                    }
                }
            }
        }
        match begin {
            Begin::At(offset) => self.begin_reader(StartingReader { reader: id, slot }, offset),
            // Queued with all other searches, which are limited because each holds a buffer and takes time.
            Begin::Since(at) => {
                let origin = SearchOrigin::Reader(StartingReader { reader: id, slot });
                self.searches.add(Search {
                    origin,
                    partition,
                    target: SearchTarget::Since(at),
                    needs: SearchNeeds::default(),
                });
            }
        }
    }

    fn begin_at(&self, id: PartitionId, start: Start) -> Result<Begin, ApiError> {
        let partition = self.partitions.get(id).ok_or(ApiError::TopicDeleted)?;
        partition.check_answers(None)?;
        let high_watermark = partition.high_watermark();
        let log_start = self.partitions.bounds(partition).log_start;
        Ok(Begin::At(match start {
            Start::Earliest => log_start,
            Start::Latest => high_watermark,
            Start::Offset(offset) => self.partitions.check_offset(partition, offset).map(|()| offset)?,
            Start::Timestamp(at) => return Ok(Begin::Since(at)),
        }))
    }

    /// The search for a reader's first offset is done.
    pub(super) fn on_start_found(&mut self, start: StartingReader, found: SearchResult) {
        let Some(reader) = self.readers.get(&start.reader) else { return };
        let Some(partition) = self.partitions.get(reader.partition) else { return };
        let high_watermark = partition.high_watermark();
        let offset = match found {
            SearchResult::At(offset, _) => offset.min(high_watermark),
            SearchResult::Nothing => high_watermark,
            // The record may be among the lost ones. The reader begins there, and its first read reports the damage.
            SearchResult::Damaged { at } => at.min(high_watermark),
        };
        self.begin_reader(start, offset);
    }

    /// Ends a reader whose first offset could not be searched for.
    pub(super) fn on_start_failed(
        &mut self,
        StartingReader { reader, slot }: StartingReader,
        error: &ApiError,
    ) {
        if let Some(reader) = self.remove_reader(reader) {
            self.reply(reader.conn, slot, native::reply_of(error));
        }
    }

    /// Starts a reader at this offset.
    fn begin_reader(&mut self, StartingReader { reader: id, slot }: StartingReader, offset: Offset) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        (reader.cursor, reader.state) = (Cursor::at(offset), ReaderState::Starting);
        let conn = reader.conn;
        match reader.kind {
            ReaderKind::Fetch { .. } => self.queue_reader(id),
            ReaderKind::Subscription { .. } => {
                let Some(partition) = self.partitions.get(reader.partition) else { return };
                let bounds = self.partitions.bounds(partition);
                let reply = SubscribeReply {
                    start: offset.0.into(),
                    log_start: bounds.log_start.0.into(),
                    high_watermark: partition.high_watermark().0.into(),
                };
                self.reply(conn, slot, Reply::Subscribed(reply));
            }
        }
    }

    /// Starts a subscription after its reply was sent: frames may follow.
    pub(super) fn start_subscription(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, number: u64) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Some(id) = connection.subscriptions.get(&number).copied() else {
            // It has ended meanwhile.
            let error = match connection.ended_subscriptions.remove(&number) {
                Some(why) => why,
                None if self.drain.is_some() => ApiError::Stopping(Service::Partitions),
                // The client has unsubscribed.
                None => return,
            };
            let (code, text) = (native::code_of(&error), error.to_string());
            let message = error_message(MessageKind::Data as u16, number, code, &text);
            return self.send(plane, conn, message);
        };
        if self.readers.get(&id).is_some_and(|reader| reader.state == ReaderState::Starting) {
            self.queue_reader(id);
        }
    }

    pub(super) fn add_credit(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        number: u64,
        bytes: u64,
    ) {
        let Some(connection) = self.connections.get(&conn) else { return };
        // Credit may arrive for a subscription that has ended.
        let Some(id) = connection.subscriptions.get(&number).copied() else { return };
        let Some(Reader { kind: ReaderKind::Subscription { credit, .. }, state, .. }) =
            self.readers.get_mut(&id)
        else {
            return;
        };
        if !credit.add(bytes) {
            let text = format!("subscription {number}: the credit exceeds the limit of a subscription");
            let kind = MessageKind::Credit as u16;
            let violation = ProtocolViolation { kind, id: number, code: ErrorCode::TooLarge, text };
            return self.close_with_error(plane, conn, &violation);
        }
        if *state == ReaderState::NoCredit && credit.is_open() {
            self.wake_reader(id);
        }
    }

    pub(super) fn unsubscribe(&mut self, conn: ConnId, number: u64) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let slot = connection.native().replies.open(MessageKind::Unsubscribe, number, 0, 0);
        let reply = match connection.subscriptions.get(&number).copied() {
            Some(id) => {
                self.remove_reader(id);
                Reply::Empty
            }
            None => Reply::error(
                ErrorCode::BadSubscription,
                format!("there is no subscription {number} on this connection"),
            ),
        };
        self.reply(conn, slot, reply);
    }
}
