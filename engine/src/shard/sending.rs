//! What leaves: replies together once a turn, frames as they are, and never more on its way than its share.

use bytes::{Bytes, BytesMut};
use highwater_net::{Reply, SlotId};
use highwater_protocol::native::MessageKind;
use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::connection::Stage;
use crate::limits::{SEND_QUEUE_BYTES_MAX, SEND_QUEUE_BYTES_MIN};
use crate::message::Message;

/// Capacity of the buffer in which replies are encoded. What leaves is split off; the allocation is shared by many replies.
const ARENA_BYTES: usize = 64 << 10;

impl Shard {
    /// The reply to a request is known.
    pub(super) fn reply(&mut self, conn: ConnId, slot: SlotId, reply: Reply) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        self.counted.requests_refused += u64::from(matches!(reply, Reply::Error { .. }));
        connection.native().replies.fill(slot, reply);
        self.mark_dirty(conn);
    }

    pub(super) fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(conn);
        }
    }

    /// Sends the replies whose turn it is, of every connection that has any: once a turn, so that they leave together.
    pub(super) fn send_replies(&mut self, plane: &mut dyn Plane<Message>) {
        while !self.dirty.is_empty() {
            for conn in std::mem::take(&mut self.dirty) {
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
                for frame in popped.frames {
                    self.send(plane, conn, frame);
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
        self.resume(plane, conn);
    }

    /// The buffer in which replies are encoded. Whoever takes it gives it back.
    pub(super) fn take_arena(&mut self) -> BytesMut {
        let mut out = std::mem::take(&mut self.arena);
        if out.capacity() == 0 {
            out.reserve(ARENA_BYTES);
        }
        out
    }

    /// Queues bytes for a connection, behind a long answer that is being sent there.
    pub(super) fn send(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: Bytes) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match &mut connection.sending {
            Some(sending) => sending.behind.push(bytes),
            None => self.send_now(plane, conn, bytes),
        }
    }

    /// Queues bytes for a connection.
    pub(super) fn send_now(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: Bytes) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if bytes.is_empty() {
            return;
        }
        if connection.queued == 0 {
            self.slow_connections += 1;
        }
        connection.queued += bytes.len();
        self.queued += bytes.len();
        plane.send(conn, bytes);
    }

    /// A head, such as that of a data message, in a buffer that many share.
    pub(super) fn encode_head(&mut self, head: &[u8]) -> Bytes {
        if self.arena.capacity() < head.len() {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.arena.extend_from_slice(head);
        self.arena.split().freeze()
    }

    /// Bytes that may be on their way to one connection: everything if it is alone, a fair share if many are slow.
    pub(super) fn send_queue_max(&self) -> usize {
        let share = self.setup.limits.send_bytes_max / (self.slow_connections + 1);
        share.clamp(SEND_QUEUE_BYTES_MIN.min(self.setup.limits.send_bytes_max), SEND_QUEUE_BYTES_MAX)
    }

    pub(super) fn on_bytes_sent(&mut self, plane: &mut dyn Plane<Message>, conn: ConnId, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let bytes = bytes.min(connection.queued);
        self.counted.sent += bytes as u64;
        connection.queued -= bytes;
        if connection.queued == 0 && bytes > 0 {
            self.slow_connections -= 1;
        }
        let blocked = std::mem::take(&mut connection.blocked);
        self.sent(bytes);
        self.resume_long_answer(conn);
        for reader in blocked {
            self.wake_reader(reader);
        }
        self.resume(plane, conn);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.queued -= bytes;
    }
}
