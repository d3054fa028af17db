//! Sends replies, once a turn, and frames, as stored on disk.

use bytes::{Bytes, BytesMut};
use highwater_net::{Reply, ReplySlot};
use highwater_protocol::native::MessageKind;
use highwater_runtime::plane::{Close, ConnId, Plane, SEND_COPY_BYTES_MAX};

use super::Shard;
use super::connection::{Connection, Stage};
use crate::context::{Clients as _, NativeCall};
use crate::message::Message;
use crate::session::Charged;

/// Capacity of the buffer in which replies are encoded. Replies are split off, so many share one allocation.
const ARENA_BYTES: usize = 64 << 10;

impl Shard {
    /// Sets the reply to a request.
    pub(super) fn reply(&mut self, conn: ConnId, slot: ReplySlot, reply: Reply) {
        self.counted.requests_failed += u64::from(matches!(reply, Reply::Error { .. }));
        self.connections.reply(NativeCall { conn, slot }, reply);
    }

    pub(super) fn mark_dirty(&mut self, conn: ConnId) {
        self.connections.mark_dirty(conn);
    }

    /// Sends the replies that are next in order, for every connection. Called once a turn, so that they are sent together.
    pub(super) fn send_replies(&mut self, plane: &mut dyn Plane<Message>) {
        while self.connections.are_dirty() {
            for conn in self.connections.take_dirty() {
                self.send_replies_of(plane, conn);
            }
        }
    }

    fn send_replies_of(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.dirty = false;
        if connection.stage == Stage::Closing {
            return;
        }
        if connection.kafka().is_some() {
            return self.send_kafka_replies_of(plane, conn);
        }
        let mut subscribed = Vec::new();
        let mut out = self.take_arena();
        while let Some(popped) = self
            .connections
            .get_mut(&conn)
            .filter(|c| c.sending.is_none())
            .and_then(|c| c.native().replies.pop(&mut out))
        {
            if popped.kind == MessageKind::Subscribe && popped.ok {
                subscribed.push(popped.id);
            }
            if !popped.frames.is_empty() {
                self.send(plane, conn, out.split().freeze());
                let is_read = popped.kind == MessageKind::Fetch && popped.ok;
                for frame in popped.frames {
                    if is_read {
                        self.send_read(plane, conn, frame);
                    } else {
                        self.send(plane, conn, frame);
                    }
                }
            }
            if let Some(long) = popped.long {
                self.send(plane, conn, out.split().freeze());
                self.begin_long_answer(conn, long);
            }
        }
        if !out.is_empty() {
            self.send(plane, conn, out.split().freeze());
        }
        self.arena = out;
        self.recharge(conn);
        for number in subscribed {
            self.start_subscription(plane, conn, number);
        }
        self.begin_large_reply(plane, conn);
        self.wake_next_fetch(conn);
        self.resume(plane, conn);
    }

    /// Takes the buffer in which replies are encoded. The caller returns it.
    pub(super) fn take_arena(&mut self) -> BytesMut {
        let mut out = std::mem::take(&mut self.arena);
        if out.capacity() == 0 {
            out.reserve(ARENA_BYTES);
        }
        out
    }

    /// Queues bytes for a connection, after a long answer that is being sent there.
    pub(super) fn send(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: Bytes) {
        self.send_in_order(plane, conn, bytes, Charged::No);
    }

    /// Queues a slice of a read, which stays charged unless it is so small that it is copied.
    pub(super) fn send_read(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, slice: Bytes) {
        let charged = if slice.len() > SEND_COPY_BYTES_MAX { Charged::Yes } else { Charged::No };
        self.send_in_order(plane, conn, slice, charged);
    }

    fn send_in_order(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        bytes: Bytes,
        charged: Charged,
    ) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match &mut connection.sending {
            Some(sending) => sending.queued_after.push((bytes, charged)),
            None => self.send_now(plane, conn, bytes, charged),
        }
    }

    /// Queues bytes for a connection.
    pub(super) fn send_now(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        bytes: Bytes,
        charged: Charged,
    ) {
        self.note_queued(plane, conn, bytes.len(), charged);
        if !bytes.is_empty() && self.connections.contains_key(&conn) {
            plane.send(conn, bytes);
        }
    }

    /// Queues the rest of a Kafka fetch response after its head. `records_bytes` of it were read and are charged.
    pub(super) fn send_records(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: ConnId,
        rest: Vec<Bytes>,
        records_bytes: usize,
    ) {
        let bytes = rest.iter().map(Bytes::len).sum::<usize>();
        self.note_queued(plane, conn, bytes - records_bytes, Charged::No);
        self.note_queued(plane, conn, records_bytes, Charged::Yes);
        for slice in rest {
            plane.send(conn, slice);
        }
    }

    fn note_queued(&mut self, plane: &dyn Plane<Message>, conn: ConnId, bytes: usize, charged: Charged) {
        let Some(connection) = self.connections.get_mut(&conn).filter(|_| bytes > 0) else { return };
        if connection.queue.bytes() == 0 {
            connection.send_progress.begin(plane.now());
        }
        connection.queue.push(bytes, charged);
        if charged == Charged::No {
            self.send_budget.queue(bytes);
        }
    }

    /// Encodes the head of a message in the shared buffer.
    pub(super) fn encode_head(&mut self, head: &[u8]) -> Bytes {
        if self.arena.capacity() < head.len() {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.arena.extend_from_slice(head);
        self.arena.split().freeze()
    }

    pub(super) fn on_bytes_sent(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let bytes = bytes.min(connection.queue.bytes());
        self.counted.sent += bytes as u64;
        connection.send_progress.note_sent(plane.now(), bytes);
        let uncharged = connection.queue.pop(bytes);
        self.send_budget.unqueue(uncharged);
        self.resume_long_answer(conn);
        self.ready_connection(conn);
        self.resume(plane, conn);
    }

    /// Disconnects clients that do not receive what is queued for them, because others wait for memory.
    pub(super) fn cut_slow_readers(&mut self, plane: &mut dyn Plane<Message>) {
        let now = plane.now();
        let slow = |(conn, connection): (&ConnId, &Connection)| {
            let is_slow = connection.queue.bytes() > 0 && connection.send_progress.is_too_slow(now);
            (is_slow && connection.stage != Stage::Closing).then_some(*conn)
        };
        let slow: Vec<_> = self.connections.iter().filter_map(slow).collect();
        for conn in slow {
            if let Some(connection) = self.connections.get(&conn) {
                tracing::debug!(
                    peer = %connection.via.peer, queued = connection.queue.bytes(),
                    "disconnected: the client does not receive, and others wait for memory"
                );
            }
            self.counted.slow_readers += 1;
            self.close(plane, conn, Close::Now);
        }
    }
}
