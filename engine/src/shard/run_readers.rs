//! Readers run: each reads from its place, with memory that was reserved for that, and what it finds goes to the client.

use bytes::Bytes;
use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{DataPrefix, FEATURE_DAMAGE, MessageKind, data_head};
use highwater_runtime::plane::{ConnId, Plane};
use highwater_storage::{Cursor, Frames, ReadLimits, ReadOutcome, ReadResult};

use super::Shard;
use super::charge::Charge;
use super::connection::Stage;
use super::readers::{ReaderKind, ReaderState};
use super::send_budget::{InLine, Wanted};
use crate::limits::{PUSH_BYTES_MAX, READ_BYTES_COUNTED_MIN};
use crate::message::Message;
use crate::partition::{PartitionId, deleted};
use crate::read::{ReaderId, Waiter};

/// A read that waits for the disk. It is charged for until it is done, also when its reader is gone meanwhile.
#[derive(Debug)]
pub(super) struct Reading {
    reader: ReaderId,
    conn: ConnId,
    charge: Charge,
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
            ReaderKind::Subscription { credit, .. } => credit.remaining().min(PUSH_BYTES_MAX),
            ReaderKind::Fetch { slot, .. } if !connection.native().replies.is_next(slot) => {
                reader.state = ReaderState::Behind;
                return Ran::Rests;
            }
            ReaderKind::Fetch { max_bytes, .. } => max_bytes,
        };
        let (store, slot) = (partition.store, partition.slot);
        let up_to = partition.readable_end(|| self.partitions.bounds(partition).append_end);
        reader.seen = up_to;
        let mut charge = None;
        // It takes no memory to see that there is nothing.
        if reader.cursor.offset() < up_to {
            let wanted =
                Wanted::by_read(self.partitions.store(store), slot, reader.cursor, bytes_max, reader.needs);
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
        match self.partitions.store_mut(store).read(plane, slot, reader.cursor, limits, up_to) {
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
                let (partition, wanted) = (reader.partition, reader.cursor.offset());
                let name = self.partitions.name(partition);
                let text = format!("{name}: offset {wanted} is outside of {log_start}..={durable_end}");
                self.end_reader(plane, id, (ErrorCode::OffsetOutOfRange, text));
                Ran::Rests
            }
            ReadResult::Damaged { resume_at } => {
                let (partition, wanted) = (reader.partition, reader.cursor.offset());
                let text = self.tell_damage(partition, wanted, resume_at);
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

    /// What is said of damage. It goes to the log once, however many readers of both protocols meet it.
    pub(super) fn tell_damage(
        &mut self,
        partition: PartitionId,
        wanted: Offset,
        resume_at: Offset,
    ) -> String {
        let name = self.partitions.name(partition);
        let text = format!(
            "{name}: what begins at offset {wanted} is damaged on disk; the next that can be read is offset {resume_at}"
        );
        if let Some(partition) = self.partitions.get_mut(partition)
            && !std::mem::replace(&mut partition.damage_told, true)
        {
            tracing::error!("{text}");
        }
        text
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
        let bounds = self.partitions.bounds(partition);
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
}
