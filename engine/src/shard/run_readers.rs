//! Runs readers: each reserves memory, reads from its cursor, and sends the frames to the client.

use bytes::Bytes;
use highwater_net::Reply;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{DataPrefix, FEATURE_DAMAGE, MessageKind, data_head};
use highwater_runtime::plane::{ConnId, Plane};
use highwater_storage::{Cursor, Frames};

use super::Shard;
use super::connection::Stage;
use super::readers::{ReaderKind, ReaderState};
use crate::api::ApiError;
use crate::limits::{PUSH_BYTES_MAX, READ_BYTES_COUNTED_MIN};
use crate::message::Message;
use crate::partition::{PartitionId, ReaderId, Waiter};
use crate::read::{ChargedRead, InLine, ReadAt, ReadFor, ReadMemory, ReadStep};

/// The outcome of running a reader.
enum RunOutcome {
    /// It waits for something, or was removed.
    Idle,
    /// It sent this many bytes and may send more.
    Sent(usize),
    /// It waits for memory.
    NoMemory,
    /// It needs more memory than it was allowed.
    Retry,
}

impl Shard {
    /// Returns the number of times that partitions were read, for clients of either protocol.
    pub fn reads_begun(&self) -> u64 {
        self.reads.begun()
    }

    /// Runs readers, up to a number of bytes. Returns whether there is more to do.
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

    /// Runs the next reader of a connection. Returns how many bytes it sent.
    pub(super) fn run_connection(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) -> usize {
        let Some(connection) = self.connections.get_mut(&conn) else { return 0 };
        // Frames are sent after a long answer that is being sent.
        if connection.sending.is_some() {
            return 0;
        }
        let Some((_, id)) = connection.runnable.readers.pop_first() else { return 0 };
        let (bytes, continues) = match self.run_reader(plane, id) {
            RunOutcome::Idle => (0, true),
            RunOutcome::Sent(bytes) => {
                self.queue_reader(id);
                (bytes, true)
            }
            RunOutcome::Retry => {
                self.requeue_reader(id);
                (0, true)
            }
            RunOutcome::NoMemory => {
                self.requeue_reader(id);
                (0, false)
            }
        };
        if continues {
            self.ready_connection(conn);
        }
        bytes
    }

    fn run_reader(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId) -> RunOutcome {
        let Some(reader) = self.readers.get_mut(&id) else { return RunOutcome::Idle };
        let answers = self.partitions.check_answers(reader.partition);
        let end = answers
            .and_then(|()| self.partitions.readable_end(reader.partition).ok_or(ApiError::TopicDeleted));
        let up_to = match end {
            Ok(end) => end,
            Err(error) => {
                self.end_reader(plane, id, &error);
                return RunOutcome::Idle;
            }
        };
        let Some(connection) =
            self.connections.get_mut(&reader.conn).filter(|connection| connection.stage != Stage::Closing)
        else {
            self.remove_reader(id);
            return RunOutcome::Idle;
        };
        let bytes_max = match reader.kind {
            ReaderKind::Subscription { credit, .. } if !credit.is_open() => {
                reader.state = ReaderState::NoCredit;
                return RunOutcome::Idle;
            }
            ReaderKind::Subscription { credit, .. } => credit.remaining().min(PUSH_BYTES_MAX),
            ReaderKind::Fetch { slot, .. } if !connection.native().replies.is_next(slot) => {
                reader.state = ReaderState::Blocked;
                return RunOutcome::Idle;
            }
            ReaderKind::Fetch { max_bytes, .. } => max_bytes,
        };
        reader.seen = up_to;
        let (partition, cursor, needs) = (reader.partition, reader.cursor, reader.needs);
        let at = ReadAt { partition, cursor, bytes_max, needs, up_to };
        let queued = connection.queue.uncharged();
        let memory = ReadMemory {
            budget: &mut self.send_budget,
            account: &mut connection.account,
            queued,
            consumer: None,
        };
        let read_for = ReadFor::Native(id, reader.conn);
        match self.reads.begin(plane, &mut self.partitions, memory, read_for, at) {
            ReadStep::Done(read) => self.deliver(plane, id, read),
            ReadStep::Pending => {
                reader.state = ReaderState::Reading;
                RunOutcome::Idle
            }
            ReadStep::NoMemory => {
                // It is tried again when some of the memory that it holds has been freed.
                if connection.account.held() + queued == 0 {
                    self.send_budget.wait(&mut connection.account, queued, InLine::Readers(reader.conn));
                }
                RunOutcome::NoMemory
            }
        }
    }

    /// Handles the end of a read from disk.
    pub(super) fn on_read(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: ReaderId,
        conn: ConnId,
        read: ChargedRead,
    ) {
        if self.connections.get(&conn).is_none_or(|connection| connection.stage == Stage::Closing) {
            self.remove_reader(id);
            return;
        }
        match self.deliver(plane, id, read) {
            RunOutcome::Sent(_) => self.queue_reader(id),
            RunOutcome::Retry => self.requeue_reader(id),
            RunOutcome::Idle | RunOutcome::NoMemory => {}
        }
        // The read freed some memory, whatever its result.
        self.ready_connection(conn);
    }

    /// Sends the result of a read to the client; the charge stays with the bytes.
    fn deliver(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId, read: ChargedRead) -> RunOutcome {
        let Some(reader) = self.readers.get_mut(&id) else { return RunOutcome::Idle };
        match read {
            ChargedRead::Frames(mut frames, charge) => {
                frames.bytes = charge.hold_all(std::mem::take(&mut frames.bytes));
                reader.needs = 0;
                self.deliver_frames(plane, id, frames)
            }
            ChargedRead::AtEnd => {
                match reader.kind {
                    ReaderKind::Fetch { until: None, .. } => {
                        let nothing = Frames { bytes: Vec::new(), memory_bytes: 0, next: reader.cursor };
                        self.finish_fetch(id, nothing);
                    }
                    _ => self.wait_at_end(id),
                }
                RunOutcome::Idle
            }
            ChargedRead::OutOfRange { log_start, end } => {
                let (partition, wanted) = (reader.partition, reader.cursor.offset());
                let partition = self.partitions.name(partition);
                let error = ApiError::OffsetOutOfRange { partition, offset: wanted, start: log_start, end };
                self.end_reader(plane, id, &error);
                RunOutcome::Idle
            }
            ChargedRead::AfterDamage { end } => {
                let (partition, wanted) = (reader.partition, reader.cursor.offset());
                let error = self.partitions.note_offset_after_damage(partition, wanted, end);
                self.end_reader(plane, id, &error);
                RunOutcome::Idle
            }
            ChargedRead::Damaged { resume_at } => {
                let (partition, wanted) = (reader.partition, reader.cursor.offset());
                let error = self.partitions.note_damage(partition, wanted, resume_at);
                self.skip_damage(plane, id, resume_at, &error)
            }
            ChargedRead::NeedsMemory(bytes) => {
                reader.needs = bytes;
                RunOutcome::Retry
            }
        }
    }

    fn deliver_frames(&mut self, plane: &mut dyn Plane<Message>, id: ReaderId, frames: Frames) -> RunOutcome {
        let Some(reader) = self.readers.get(&id) else { return RunOutcome::Idle };
        match reader.kind {
            ReaderKind::Subscription { number, .. } => self.push(plane, id, number, frames),
            ReaderKind::Fetch { min_bytes, until, max_bytes, .. } => {
                let bytes: usize = frames.bytes.iter().map(Bytes::len).sum();
                // There is more to read, which does not fit or needs another disk read: waiting would not add anything.
                let more = frames.next.offset() < reader.seen;
                if more || bytes >= min_bytes.min(max_bytes) || until.is_none() {
                    self.finish_fetch(id, frames);
                } else {
                    self.wait_at_end(id);
                }
                RunOutcome::Idle
            }
        }
    }

    /// Handles lost records before `resume_at`. A client with [`FEATURE_DAMAGE`] gets the next offset and continues there; any other client gets
    /// an error.
    fn skip_damage(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: ReaderId,
        resume_at: Offset,
        error: &ApiError,
    ) -> RunOutcome {
        let Some(reader) = self.readers.get(&id) else { return RunOutcome::Idle };
        let passed = Frames { bytes: Vec::new(), memory_bytes: 0, next: Cursor::at(resume_at) };
        let features = self.connections.get(&reader.conn).map_or(0, |connection| connection.features);
        match reader.kind {
            _ if features & FEATURE_DAMAGE == 0 => {
                self.end_reader(plane, id, error);
                RunOutcome::Idle
            }
            ReaderKind::Subscription { number, .. } => self.push(plane, id, number, passed),
            ReaderKind::Fetch { .. } => {
                self.finish_fetch(id, passed);
                RunOutcome::Idle
            }
        }
    }

    /// Lists a reader that has read everything as a waiter of the partition. Queues it instead if there is more by now.
    fn wait_at_end(&mut self, id: ReaderId) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        let Some(partition) = self.partitions.get_mut(reader.partition) else { return };
        if partition.wait_for_more(Waiter::Reader(id), reader.seen) {
            reader.state = ReaderState::Waiting;
        } else {
            self.queue_reader(id);
        }
    }

    /// Returns the prefix of a data message.
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

    fn push(
        &mut self,
        plane: &mut dyn Plane<Message>,
        id: ReaderId,
        number: u64,
        frames: Frames,
    ) -> RunOutcome {
        let bytes: usize = frames.bytes.iter().map(Bytes::len).sum();
        let Some(reader) = self.readers.get_mut(&id) else { return RunOutcome::Idle };
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
        RunOutcome::Sent(bytes)
    }

    fn finish_fetch(&mut self, id: ReaderId, frames: Frames) {
        let Some(reader) = self.remove_reader(id) else { return };
        let ReaderKind::Fetch { slot, .. } = reader.kind else { return };
        let prefix = self.prefix(reader.partition, frames.next.offset());
        self.reply(reader.conn, slot, Reply::Frames { prefix, frames: frames.bytes });
    }
}
