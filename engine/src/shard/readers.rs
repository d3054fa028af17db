//! Readers: subscriptions and native fetches. Each is a cursor in a partition that advances when there is something to read and memory for it.
//!
//! ```text
//!   Searching -----+
//!   (for its       v
//!    offset)    Starting (its reply is queued)
//!                  +--> Waiting (at the end) ---- the high watermark moves ---+
//!                  +--> Reading (from disk) ----- the read is done -----------+--> Queued --> run
//!                  +--> Blocked (a fetch) ------- replies before it left -----+
//!                  +--> NoCredit ---------------- the client adds credit -----+
//! ```
//!
//! The `Queued` readers of a connection take turns, and so do connections. A connection that has used its share of the memory continues when some of
//! it has been sent; one that holds none waits in the queue for memory (see [`crate::read`]). A fetch reads when its reply is the next: if it read
//! earlier, it would hold memory while the replies before it are sent.

use std::collections::{BTreeMap, BTreeSet};

use highwater_net::{CreditLine, ReplySlot};
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{MessageKind, error_message};
use highwater_runtime::plane::{ConnId, Instant, Plane};
use highwater_storage::Cursor;

use super::Shard;
use super::timers::Timer;
use super::work::Job;
use crate::api::ApiError;
use crate::counters::Work;
use crate::message::Message;
use crate::native;
use crate::partition::{PartitionId, ReaderId, Waiter};

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) conn: ConnId,
    pub(super) partition: PartitionId,
    pub(super) cursor: Cursor,
    /// The high watermark at its last read.
    pub(super) seen: Offset,
    pub(super) kind: ReaderKind,
    pub(super) state: ReaderState,
    /// Its turn among the readers of its connection, while it is queued.
    pub(super) turn: u64,
    /// Bytes of memory that its next frame needs, if that is more than it was allowed.
    pub(super) needs: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ReaderKind {
    /// Frames are pushed as long as there is credit.
    Subscription {
        /// The client's number.
        number: u64,
        credit: CreditLine,
    },
    /// Frames are returned once.
    Fetch {
        slot: ReplySlot,
        max_bytes: usize,
        min_bytes: usize,
        /// The deadline for waiting; `None` if it may not wait, or not any longer.
        until: Option<Instant>,
    },
}

/// See the module's doc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReaderState {
    /// Its first reply goes into this slot.
    Searching(ReplySlot),
    Starting,
    Queued,
    Waiting,
    Reading,
    Blocked,
    NoCredit,
}

/// Wakes readers that wait for a partition.
struct WakeReaders {
    partition: PartitionId,
    waiters: BTreeSet<Waiter>,
}

impl Job for WakeReaders {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        shard.wake_some(self.partition, &mut self.waiters, work);
        if self.waiters.is_empty() { None } else { Some(self) }
    }
}

/// Removes readers whose connection is closed or closing.
struct RemoveReaders(Vec<ReaderId>);

impl Job for RemoveReaders {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        _: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if shard.remove_some(&mut self, work) { None } else { Some(self) }
    }
}

/// Ends the readers of a partition for which this replica does not answer any more.
struct EndReaders {
    readers: BTreeSet<ReaderId>,
    why: ApiError,
}

impl Job for EndReaders {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        let Self { readers, why } = &mut *self;
        while !work.is_over()
            && let Some(id) = readers.pop_first()
        {
            work.spend(1);
            shard.end_reader(plane, id, why);
        }
        if readers.is_empty() { None } else { Some(self) }
    }
}

impl Shard {
    pub(super) fn insert_reader(&mut self, reader: Reader) -> ReaderId {
        self.last_reader += 1;
        let id = ReaderId(self.last_reader);
        if let Some(partition) = self.partitions.get_mut(reader.partition) {
            partition.readers.insert(id);
        }
        self.readers.insert(id, reader);
        id
    }

    /// Removes a reader and its references.
    pub(super) fn remove_reader(&mut self, id: ReaderId) -> Option<Reader> {
        let reader = self.readers.remove(&id)?;
        if let Some(partition) = self.partitions.get_mut(reader.partition) {
            partition.waiters.remove(&Waiter::Reader(id));
            partition.readers.remove(&id);
        }
        if reader.state == ReaderState::Queued
            && let Some(connection) = self.connections.get_mut(&reader.conn)
        {
            connection.runnable.readers.remove(&reader.turn);
        }
        match reader.kind {
            ReaderKind::Subscription { number, .. } => {
                if let Some(connection) = self.connections.get_mut(&reader.conn) {
                    connection.subscriptions.remove(&number);
                }
            }
            ReaderKind::Fetch { until, .. } => {
                if let Some(until) = until {
                    self.timers.cancel(until, Timer::Fetch(id));
                }
                if let Some(connection) = self.connections.get_mut(&reader.conn) {
                    connection.fetches.remove(&id);
                }
            }
        }
        Some(reader)
    }

    /// Queues a reader that waits for records or credit.
    pub(super) fn wake_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        if matches!(reader.state, ReaderState::Waiting | ReaderState::NoCredit) {
            self.queue_reader(id);
        }
    }

    /// Queues a reader after the other readers of its connection.
    pub(super) fn queue_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        self.last_turn += 1;
        (reader.state, reader.turn) = (ReaderState::Queued, self.last_turn);
        let conn = reader.conn;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.runnable.readers.insert(self.last_turn, id);
        }
        self.ready_connection(conn);
    }

    /// Returns a reader to its place in the queue of its connection.
    pub(super) fn requeue_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        reader.state = ReaderState::Queued;
        if let Some(connection) = self.connections.get_mut(&reader.conn) {
            connection.runnable.readers.insert(reader.turn, id);
        }
    }

    /// Lists a connection as ready if it has queued readers.
    pub(super) fn ready_connection(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !connection.runnable.readers.is_empty()
            && !std::mem::replace(&mut connection.runnable.is_listed, true)
        {
            self.ready.push_back(conn);
        }
    }

    /// Queues the first fetch of a connection if its reply is the next to be sent.
    pub(super) fn wake_next_fetch(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Some(first) = connection.fetches.first().copied() else { return };
        let Some(Reader { kind: ReaderKind::Fetch { slot, .. }, state: ReaderState::Blocked, .. }) =
            self.readers.get(&first)
        else {
            return;
        };
        if connection.native().replies.is_next(*slot) {
            self.queue_reader(first);
        }
    }

    /// Wakes every reader that waits at the end of a partition.
    pub(super) fn wake_waiters(&mut self, partition: PartitionId) {
        let Some(here) = self.partitions.get_mut(partition) else { return };
        let waiters = std::mem::take(&mut here.waiters);
        self.wake_all(partition, waiters);
    }

    /// Wakes readers that wait for a partition: a few at once, the others in later turns.
    pub(super) fn wake_all(&mut self, partition: PartitionId, mut waiters: BTreeSet<Waiter>) {
        self.at_once(|shard, work| shard.wake_some(partition, &mut waiters, work));
        if !waiters.is_empty() {
            self.jobs.add(Box::new(WakeReaders { partition, waiters }));
        }
    }

    fn wake_some(&mut self, partition: PartitionId, waiters: &mut BTreeSet<Waiter>, work: &mut Work) {
        while !work.is_over()
            && let Some(waiter) = waiters.pop_first()
        {
            work.spend(1);
            match waiter {
                Waiter::Reader(id) => self.wake_reader(id),
                Waiter::Kafka(id) => self.wake_kafka_fetch(id, partition),
            }
        }
    }

    /// Removes readers whose connection is closed or closing.
    pub(super) fn remove_readers(&mut self, readers: Vec<ReaderId>) {
        let mut rest = RemoveReaders(readers);
        if !self.at_once(|shard, work| shard.remove_some(&mut rest, work)) {
            self.jobs.add(Box::new(rest));
        }
    }

    fn remove_some(&mut self, RemoveReaders(readers): &mut RemoveReaders, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some(id) = readers.pop()
        {
            work.spend(1);
            self.remove_reader(id);
        }
        readers.is_empty()
    }

    /// Ends the wait of a fetch.
    pub(super) fn fetch_timed_out(&mut self, id: ReaderId) {
        if let Some(Reader { kind: ReaderKind::Fetch { until, .. }, .. }) = self.readers.get_mut(&id) {
            *until = None;
        }
        if let Some(Reader { state: ReaderState::Waiting, partition, .. }) = self.readers.get(&id)
            && let Some(partition) = self.partitions.get_mut(*partition)
        {
            partition.waiters.remove(&Waiter::Reader(id));
        }
        self.wake_reader(id);
    }

    /// Ends a reader with an error, and sends that to the client.
    pub(super) fn end_reader(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId, error: &ApiError) {
        let Some(reader) = self.remove_reader(id) else { return };
        match reader.kind {
            ReaderKind::Subscription { number, .. } => match reader.state {
                ReaderState::Searching(slot) => self.reply(reader.conn, slot, native::reply_of(error)),
                // Its first reply has not been sent. `start_subscription` sends the error after that.
                ReaderState::Starting => {
                    if let Some(connection) = self.connections.get_mut(&reader.conn) {
                        connection.ended_subscriptions.insert(number, error.clone());
                    }
                }
                _ => {
                    let (code, text) = (native::code_of(error), error.to_string());
                    let message = error_message(MessageKind::Data as u16, number, code, &text);
                    self.send(plane, reader.conn, message);
                }
            },
            ReaderKind::Fetch { slot, .. } => self.reply(reader.conn, slot, native::reply_of(error)),
        }
    }

    /// Ends every reader of a partition for which this replica does not answer any more.
    pub(super) fn end_readers(
        &mut self,
        plane: &mut dyn Plane<Message>,
        readers: BTreeSet<ReaderId>,
        why: ApiError,
    ) {
        self.begin_job(plane, EndReaders { readers, why });
    }
}

/// All readers of a shard, in a deterministic order.
pub(super) type Readers = BTreeMap<ReaderId, Reader>;
