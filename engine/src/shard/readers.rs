//! Readers: subscriptions and fetches, both a cursor in a partition that goes on when there is something to read and memory for it.
//!
//! ```text
//!                  +--> Waiting (at the end) ---- the high watermark moves ---+
//!   Starting ------+--> Reading (from disk) ----- the read is done -----------+--> Queued --> run
//!   (finds its     +--> Behind (a fetch) -------- replies before it left -----+
//!    offset)       +--> NoCredit ---------------- the client gives credit ----+
//! ```
//!
//! The readers of a connection that are `Queued` run in turns, and connections in turns. One that has its share of the memory goes on when some
//! of that has left; one that holds none waits in line for it (see [`super::send_budget`]). A fetch reads when its reply is the next: what it read
//! before would be held for as long as the replies before it take.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use highwater_net::{CreditLine, Reply, SlotId};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{DataPrefix, FEATURE_DAMAGE, MessageKind, data_head, error_message};
use highwater_runtime::plane::{ConnId, Instant, Plane};
use highwater_storage::{Cursor, Frames, ReadLimits, ReadOutcome, ReadResult};

use super::Shard;
use super::charge::Charge;
use super::connection::Stage;
use super::kafka::FetchId;
use super::partition::{PartitionId, Refusal};
use super::send_budget::InLine;
use super::timers::Timer;
use super::work::{Job, Step, Work};
use crate::limits::{PUSH_BYTES_MAX, READ_BYTES_COUNTED_MIN};
use crate::message::Message;

/// A reader of this shard. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ReaderId(pub(super) u64);

/// Who waits for the high watermark of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Waiter {
    Reader(ReaderId),
    Kafka(FetchId),
}

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
    /// Bytes of memory that its next frame takes, if that is more than it was given.
    pub(super) needs: usize,
}

/// A read that waits for the disk. It is charged for until it is done, also when its reader is gone meanwhile.
#[derive(Debug)]
pub(super) struct Reading {
    reader: ReaderId,
    conn: ConnId,
    charge: Charge,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ReaderKind {
    /// Frames are pushed as long as there is credit.
    Subscription {
        /// The client's number.
        number: u64,
        credit: CreditLine,
    },
    /// Frames are given once.
    Fetch {
        slot: SlotId,
        max_bytes: usize,
        min_bytes: usize,
        /// Until when it may wait. None: not at all (any more).
        until: Option<Instant>,
    },
}

/// See the module's doc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReaderState {
    Starting,
    Queued,
    Waiting,
    Reading,
    Behind,
    NoCredit,
}

/// Readers that are being woken.
struct Waking {
    partition: PartitionId,
    waiters: BTreeSet<Waiter>,
}

impl Job for Waking {
    fn step(&mut self, shard: &mut Shard, _: &mut dyn Plane<Message>, work: &mut Work) -> Step {
        shard.wake_some(self.partition, &mut self.waiters, work);
        if self.waiters.is_empty() { Step::Done } else { Step::More }
    }
}

/// Readers whose connection is gone or ends.
struct Leaving(Vec<ReaderId>);

impl Job for Leaving {
    fn step(&mut self, shard: &mut Shard, _: &mut dyn Plane<Message>, work: &mut Work) -> Step {
        if shard.remove_some(self, work) { Step::Done } else { Step::More }
    }
}

/// Readers of a partition that was deleted.
struct Ending(BTreeSet<ReaderId>);

impl Job for Ending {
    fn step(&mut self, shard: &mut Shard, plane: &mut dyn Plane<Message>, work: &mut Work) -> Step {
        if shard.end_some(plane, self, work) { Step::Done } else { Step::More }
    }
}

/// How a turn at a reader ended.
enum Ran {
    /// It waits for something, or is gone.
    Rests,
    /// It sent this many bytes and may send more.
    Sent(usize),
    /// It waits for memory.
    NoMemory,
    /// It needs more memory than it was given.
    Again,
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

    /// Forgets a reader.
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

    /// What a reader waited for has come.
    pub(super) fn wake_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        if matches!(reader.state, ReaderState::Waiting | ReaderState::NoCredit) {
            self.queue_reader(id);
        }
    }

    /// A reader can go on, when it is its turn.
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

    /// A reader that was taken off its connection's queue goes on before the others.
    fn requeue_reader(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        reader.state = ReaderState::Queued;
        if let Some(connection) = self.connections.get_mut(&reader.conn) {
            connection.runnable.readers.insert(reader.turn, id);
        }
    }

    /// The readers of a connection may be able to go on.
    pub(super) fn ready_connection(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !connection.runnable.readers.is_empty()
            && !std::mem::replace(&mut connection.runnable.is_listed, true)
        {
            self.ready.push_back(conn);
        }
    }

    /// Replies have left: it may be the turn of a fetch.
    pub(super) fn wake_next_fetch(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Some(first) = connection.fetches.first().copied() else { return };
        let Some(Reader { kind: ReaderKind::Fetch { slot, .. }, state: ReaderState::Behind, .. }) =
            self.readers.get(&first)
        else {
            return;
        };
        if connection.native().replies.is_next(*slot) {
            self.queue_reader(first);
        }
    }

    /// Everybody at the end of a partition has something to read. A few are woken at once, many in the turns that follow.
    pub(super) fn wake_waiters(&mut self, partition: PartitionId) {
        let Some(here) = self.partitions.get_mut(partition) else { return };
        let mut waiters = std::mem::take(&mut here.waiters);
        self.at_once(|shard, work| shard.wake_some(partition, &mut waiters, work));
        if !waiters.is_empty() {
            self.jobs.add(Waking { partition, waiters });
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

    /// Forgets readers whose connection is gone or ends.
    pub(super) fn remove_readers(&mut self, readers: Vec<ReaderId>) {
        let mut leaving = Leaving(readers);
        if !self.at_once(|shard, work| shard.remove_some(&mut leaving, work)) {
            self.jobs.add(leaving);
        }
    }

    fn remove_some(&mut self, Leaving(readers): &mut Leaving, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some(id) = readers.pop()
        {
            work.spend(1);
            self.remove_reader(id);
        }
        readers.is_empty()
    }

    /// Lets the readers that can go on do so, up to a number of bytes. True if there is more to do.
    pub(super) fn run_readers(&mut self, plane: &mut dyn Plane<Message>, mut bytes_max: usize) -> bool {
        while bytes_max > 0 {
            let Some(conn) = self.ready.pop_front() else { return false };
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.runnable.is_listed = false;
            }
            let bytes = self.run_connection(plane, conn);
            bytes_max = bytes_max.saturating_sub(bytes.max(READ_BYTES_COUNTED_MIN));
        }
        !self.ready.is_empty()
    }

    /// Lets the reader of a connection go on whose turn it is. Returns how many bytes it sent.
    pub(super) fn run_connection(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) -> usize {
        let Some(connection) = self.connections.get_mut(&conn) else { return 0 };
        // What follows a long answer waits until that was sent.
        if connection.sending.is_some() {
            return 0;
        }
        let Some((_, id)) = connection.runnable.readers.pop_first() else { return 0 };
        let (bytes, goes_on) = match self.run_reader(plane, id) {
            Ran::Rests => (0, true),
            Ran::Sent(bytes) => {
                self.queue_reader(id);
                (bytes, true)
            }
            Ran::Again => {
                self.requeue_reader(id);
                (0, true)
            }
            Ran::NoMemory => {
                self.requeue_reader(id);
                (0, false)
            }
        };
        if goes_on {
            self.ready_connection(conn);
        }
        bytes
    }

    fn run_reader(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId) -> Ran {
        let Some(reader) = self.readers.get_mut(&id) else { return Ran::Rests };
        let Some(partition) = self.partitions.get(reader.partition) else {
            self.end_reader(plane, id, deleted());
            return Ran::Rests;
        };
        let Some(connection) =
            self.connections.get_mut(&reader.conn).filter(|connection| connection.stage != Stage::Closing)
        else {
            self.remove_reader(id);
            return Ran::Rests;
        };
        let bytes_max = match reader.kind {
            ReaderKind::Subscription { credit, .. } if !credit.is_open() => {
                reader.state = ReaderState::NoCredit;
                return Ran::Rests;
            }
            ReaderKind::Subscription { credit, .. } => credit.left().min(PUSH_BYTES_MAX),
            ReaderKind::Fetch { slot, .. } if !connection.native().replies.is_next(slot) => {
                reader.state = ReaderState::Behind;
                return Ran::Rests;
            }
            ReaderKind::Fetch { max_bytes, .. } => max_bytes,
        };
        let (store, slot, up_to) = (partition.store, partition.slot, partition.high_watermark());
        reader.seen = up_to;
        let mut charge = None;
        // It takes no memory to see that there is nothing.
        if reader.cursor.offset() < up_to {
            let wanted = self.stores[store].memory_wanted(slot, reader.cursor, bytes_max, reader.needs);
            let queued = connection.queue.uncharged();
            charge = self.send_budget.reserve(&mut connection.account, queued, wanted);
            if charge.is_none() {
                // What it holds comes back, and then it is tried again.
                if connection.account.held() + queued == 0 {
                    self.send_budget.wait(&mut connection.account, queued, InLine::Readers(reader.conn));
                }
                return Ran::NoMemory;
            }
        }
        let memory_bytes_max = charge.as_ref().map_or(0, Charge::bytes);
        let limits = ReadLimits { bytes_max, memory_bytes_max };
        match self.stores[store].store.read(plane, slot, reader.cursor, limits, up_to) {
            ReadOutcome::Pending(read) => {
                reader.state = ReaderState::Reading;
                if let Some(charge) = charge {
                    self.reads.insert((store, read), Reading { reader: id, conn: reader.conn, charge });
                }
                Ran::Rests
            }
            ReadOutcome::Ready(result) => self.give(plane, id, result, charge),
        }
    }

    /// A read from disk is done.
    pub(super) fn on_read(&mut self, plane: &mut dyn Plane<Message>, read: Reading, result: ReadResult) {
        let Reading { reader: id, conn, charge } = read;
        if self.connections.get(&conn).is_none_or(|connection| connection.stage == Stage::Closing) {
            self.remove_reader(id);
            return;
        }
        match self.give(plane, id, result, Some(charge)) {
            Ran::Sent(_) => self.queue_reader(id),
            Ran::Again => self.requeue_reader(id),
            Ran::Rests | Ran::NoMemory => {}
        }
        // There is a little more memory than before, whatever came of it.
        self.ready_connection(conn);
    }

    /// What was read goes to the client, with what it is charged.
    fn give(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: ReaderId,
        mut result: ReadResult,
        charge: Option<Charge>,
    ) -> Ran {
        let Some(reader) = self.readers.get_mut(&id) else { return Ran::Rests };
        if let (ReadResult::Frames(frames), Some(mut charge)) = (&mut result, charge) {
            charge.shrink_to(frames.memory_bytes);
            frames.bytes = charge.hold_all(std::mem::take(&mut frames.bytes));
            reader.needs = 0;
        }
        match result {
            ReadResult::Frames(frames) => match reader.kind {
                ReaderKind::Subscription { number, .. } => self.push(plane, id, number, frames),
                ReaderKind::Fetch { min_bytes, until, max_bytes, .. } => {
                    let bytes: usize = frames.bytes.iter().map(Bytes::len).sum();
                    // What is left behind has no room, or has to be read on from where a disk read ended: waiting would give no more.
                    let more = frames.next.offset() < reader.seen;
                    if more || bytes >= min_bytes.min(max_bytes) || until.is_none() {
                        self.finish_fetch(id, frames);
                    } else {
                        self.wait_at_end(id);
                    }
                    Ran::Rests
                }
            },
            ReadResult::AtEnd => {
                match reader.kind {
                    ReaderKind::Fetch { until: None, .. } => {
                        let nothing = Frames { bytes: Vec::new(), memory_bytes: 0, next: reader.cursor };
                        self.finish_fetch(id, nothing);
                    }
                    _ => self.wait_at_end(id),
                }
                Ran::Rests
            }
            ReadResult::OutOfRange { log_start, durable_end } => {
                let wanted = reader.cursor.offset();
                let name = self.name_of(id);
                let text = format!("{name}: offset {wanted} is outside of {log_start}..={durable_end}");
                self.end_reader(plane, id, (ErrorCode::OffsetOutOfRange, text));
                Ran::Rests
            }
            ReadResult::Damaged { resume_at } => {
                let wanted = reader.cursor.offset();
                let name = self.name_of(id);
                let text = format!(
                    "{name}: what begins at offset {wanted} is damaged on disk; the next that can be read is offset {resume_at}"
                );
                if let Some(partition) = self.readers.get(&id).map(|reader| reader.partition) {
                    self.tell_damage(partition, &text);
                }
                self.pass_damage(plane, id, resume_at, text)
            }
            ReadResult::NeedsMemory(bytes) => {
                reader.needs = bytes;
                Ran::Again
            }
        }
    }

    /// What comes before this offset is lost. A client that knows what to do about that is told, and goes on; for any other it is an error.
    fn pass_damage(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: ReaderId,
        resume_at: Offset,
        text: String,
    ) -> Ran {
        let Some(reader) = self.readers.get(&id) else { return Ran::Rests };
        let passed = Frames { bytes: Vec::new(), memory_bytes: 0, next: Cursor::at(resume_at) };
        let features = self.connections.get(&reader.conn).map_or(0, |connection| connection.features);
        match reader.kind {
            _ if features & FEATURE_DAMAGE == 0 => {
                self.end_reader(plane, id, (ErrorCode::PartitionFaulty, text));
                Ran::Rests
            }
            ReaderKind::Subscription { number, .. } => self.push(plane, id, number, passed),
            ReaderKind::Fetch { .. } => {
                self.finish_fetch(id, passed);
                Ran::Rests
            }
        }
    }

    /// A reader that has read everything waits for more, unless there is more by now.
    fn wait_at_end(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let Some(partition) = self.partitions.get_mut(reader.partition) else { return };
        if partition.high_watermark() > reader.seen {
            self.queue_reader(id);
        } else {
            reader.state = ReaderState::Waiting;
            partition.waiters.insert(Waiter::Reader(id));
        }
    }

    /// Damage goes to the log once, however many readers meet it.
    pub(super) fn tell_damage(&mut self, partition: PartitionId, text: &str) {
        if let Some(partition) = self.partitions.get_mut(partition)
            && !std::mem::replace(&mut partition.damage_told, true)
        {
            tracing::error!("{text}");
        }
    }

    fn name_of(&self, id: ReaderId) -> String {
        let partition = self.readers.get(&id).and_then(|r| self.partitions.get(r.partition));
        partition.map_or_else(|| "a deleted partition".to_owned(), super::partition::Partition::name)
    }

    /// What stands in front of the frames that a reader is given.
    fn prefix(&self, partition: PartitionId, next: Offset) -> DataPrefix {
        let Some(partition) = self.partitions.get(partition) else {
            return DataPrefix {
                next_offset: next.0.into(),
                log_start: 0.into(),
                high_watermark: next.0.into(),
            };
        };
        let bounds = self.stores[partition.store].store.bounds(partition.slot);
        DataPrefix {
            next_offset: next.0.into(),
            log_start: bounds.log_start.0.into(),
            high_watermark: partition.high_watermark().0.into(),
        }
    }

    fn push(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId, number: u64, frames: Frames) -> Ran {
        let bytes: usize = frames.bytes.iter().map(Bytes::len).sum();
        let Some(reader) = self.readers.get_mut(&id) else { return Ran::Rests };
        reader.cursor = frames.next;
        if let ReaderKind::Subscription { credit, .. } = &mut reader.kind {
            credit.spend(bytes);
        }
        let (conn, partition) = (reader.conn, reader.partition);
        let prefix = self.prefix(partition, frames.next.offset());
        let head = self.encode_head(&data_head(MessageKind::Data, number, &prefix, bytes));
        self.send(plane, conn, head);
        for frame in frames.bytes {
            self.send_read(plane, conn, frame);
        }
        Ran::Sent(bytes)
    }

    fn finish_fetch(&mut self, id: ReaderId, frames: Frames) {
        let Some(reader) = self.remove_reader(id) else { return };
        let ReaderKind::Fetch { slot, .. } = reader.kind else { return };
        let prefix = self.prefix(reader.partition, frames.next.offset());
        self.reply(reader.conn, slot, Reply::Frames { prefix, frames: frames.bytes });
    }

    /// A fetch may not wait any longer.
    pub(super) fn fetch_waited(&mut self, id: ReaderId) {
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

    /// Ends a reader with an error, and tells the client.
    pub(super) fn end_reader(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId, (code, text): Refusal) {
        let Some(reader) = self.remove_reader(id) else { return };
        match reader.kind {
            // Its first reply has not left: what that finds out is told when it does.
            ReaderKind::Subscription { .. } if reader.state == ReaderState::Starting => {}
            ReaderKind::Subscription { number, .. } => {
                let message = error_message(MessageKind::Data as u16, number, code, &text);
                self.send(plane, reader.conn, message);
            }
            ReaderKind::Fetch { slot, .. } => self.reply(reader.conn, slot, Reply::Error { code, text }),
        }
    }

    /// Ends every reader of a partition that was deleted.
    pub(super) fn end_readers_of(&mut self, plane: &mut dyn Plane<Message>, partition: PartitionId) {
        let Some(here) = self.partitions.get_mut(partition) else { return };
        let mut ending = Ending(std::mem::take(&mut here.readers));
        if !self.at_once(|shard, work| shard.end_some(plane, &mut ending, work)) {
            self.jobs.add(ending);
        }
    }

    fn end_some(
        &mut self,
        plane: &mut dyn Plane<Message>,
        Ending(readers): &mut Ending,
        work: &mut Work,
    ) -> bool {
        while !work.is_over()
            && let Some(id) = readers.pop_first()
        {
            work.spend(1);
            self.end_reader(plane, id, deleted());
        }
        readers.is_empty()
    }
}

pub(super) fn deleted() -> Refusal {
    (ErrorCode::UnknownTopic, "the topic was deleted".into())
}

/// All readers of a shard, in an order that does not depend on chance.
pub(super) type Readers = BTreeMap<ReaderId, Reader>;
