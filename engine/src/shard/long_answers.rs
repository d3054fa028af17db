//! Sends long answers in pieces, as their connections have room. [`crate::context`] has measured them.
//!
//! A connection has one at a time: no other request of that connection is handled until it is sent. So a client that does not receive costs
//! the shard a piece or two, however long the answer is.

use bytes::BytesMut;
use highwater_net::{LongAnswer, WrongLength};
use highwater_runtime::plane::{Close, ConnId, Plane};

use super::Shard;
use super::connection::Sending;
use crate::limits::{LONG_ANSWER_BYTES_PER_TURN_MAX, LONG_ANSWER_QUEUE_BYTES_MAX};
use crate::message::Message;
use crate::session::Charged;

impl Shard {
    /// Starts to send a long answer, which is the next in order.
    pub(super) fn begin_long_answer(&mut self, conn: ConnId, answer: LongAnswer) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            // Until now it was covered by the charge of its request.
            let charge = self.send_budget.charge(&mut connection.account, answer.memory_bytes());
            connection.sending =
                Some(Sending { answer, _charge: charge, waits: false, queued_after: Vec::new() });
            self.long_answers.push_back(conn);
        }
    }

    /// Continues a long answer after bytes were sent.
    pub(super) fn resume_long_answer(&mut self, conn: ConnId) {
        if let Some(sending) = self.connections.get_mut(&conn).and_then(|c| c.sending.as_mut())
            && std::mem::take(&mut sending.waits)
        {
            self.long_answers.push_back(conn);
        }
    }

    /// Sends pieces of long answers while there is room, up to the limit of a turn. Returns whether there is more.
    pub(super) fn run_long_answers(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let mut left = LONG_ANSWER_BYTES_PER_TURN_MAX;
        while left > 0 {
            let Some(conn) = self.long_answers.pop_front() else { return false };
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            let Some(sending) = &mut connection.sending else { continue };
            let queued = connection.queue.bytes();
            if queued >= self.send_budget.share(queued).min(LONG_ANSWER_QUEUE_BYTES_MAX) {
                sending.waits = true;
                continue;
            }
            let mut out = BytesMut::new();
            let outcome = sending.answer.next(&mut out);
            left = left.saturating_sub(out.len());
            match outcome {
                Ok(true) => {
                    self.send_now(plane, conn, out.freeze(), Charged::No);
                    self.long_answers.push_back(conn);
                }
                Ok(false) => {
                    let queued_after = connection.sending.take().map(|sending| sending.queued_after);
                    connection.long_answers -= 1;
                    self.send_now(plane, conn, out.freeze(), Charged::No);
                    for (bytes, charged) in queued_after.into_iter().flatten() {
                        self.send_now(plane, conn, bytes, charged);
                    }
                    self.mark_dirty(conn);
                    self.ready_connection(conn);
                }
                Err(WrongLength) => {
                    tracing::error!(peer = %connection.via.peer, "a long answer does not have the announced length; closing its connection");
                    self.close(plane, conn, Close::Now);
                }
            }
        }
        !self.long_answers.is_empty()
    }
}
