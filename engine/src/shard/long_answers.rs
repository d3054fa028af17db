//! Long answers: measured in pieces, then sent in pieces as their connections have room.
//!
//! ```text
//!   a request --> Pieces --(short)--------------------------------> the answer, at once
//!                    |
//!                 measured, a few pieces a turn --> the answer with its length --(its turn comes)--> sent, as there is room
//! ```
//!
//! A connection has one at a time: no other request of that connection is handled until it is sent. So a client that does not receive costs
//! the shard a piece or two, however long the answer is.

use bytes::BytesMut;
use highwater_net::kafka::{KafkaReply, response_of};
use highwater_net::{LongAnswer, Pieces, Reply, ReplySlot, WrongLength};
use highwater_protocol::error::ErrorCode;
use highwater_runtime::plane::{Close, ConnId, Plane};

use super::Shard;
use super::connection::Sending;
use super::context::Context;
use super::work::{Job, Work};
use crate::limits::{
    LONG_ANSWER_BYTES_PER_TURN_MAX, LONG_ANSWER_QUEUE_BYTES_MAX, PIECE_BYTES_PER_UNIT, SMALL_REPLY_BYTES_MAX,
};
use crate::message::Message;
use crate::session::Charged;
use crate::{kafka, native};

/// The request that is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnswerTo {
    Native(native::Call),
    Kafka(kafka::Call),
}

impl AnswerTo {
    pub(super) fn conn(self) -> ConnId {
        match self {
            Self::Native(call) => call.conn,
            Self::Kafka(call) => call.conn,
        }
    }

    pub(super) fn slot(self) -> ReplySlot {
        match self {
            Self::Native(call) => call.slot,
            Self::Kafka(call) => call.slot,
        }
    }
}

/// The longest body that clients accept for a kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    pub(crate) bytes_max: usize,
    /// What the user can do about a longer one.
    pub(crate) advice: &'static str,
}

/// An answer whose length is being measured.
struct Measuring {
    to: AnswerTo,
    pieces: Pieces,
    bytes: usize,
    limit: Option<BodyLimit>,
}

impl Job for Measuring {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if !shard.connections.contains_key(&self.to.conn()) {
            return None;
        }
        let mut out = std::mem::take(&mut shard.piece);
        let mut more = true;
        while more && !work.is_over() {
            out.clear();
            more = self.pieces.next(&mut out);
            self.bytes += out.len();
            work.spend(1 + out.len() / PIECE_BYTES_PER_UNIT);
        }
        out.clear();
        shard.piece = out;
        if more {
            return Some(self);
        }
        let Self { to, pieces, bytes, limit } = *self;
        shard.context(plane).answer_long(to, LongAnswer::new(pieces, bytes), limit);
        None
    }
}

impl Context<'_> {
    /// Sends an answer in pieces; at once if it is short.
    pub(crate) fn answer_in_pieces(&mut self, to: AnswerTo, pieces: Pieces) {
        self.begin_answer(to, pieces, None);
    }

    /// Sends an answer in pieces to a native client that accepts bodies up to a limit; sends an error if the body is longer.
    pub(crate) fn reply_in_pieces(&mut self, call: native::Call, pieces: Pieces, limit: BodyLimit) {
        self.begin_answer(AnswerTo::Native(call), pieces, Some(limit));
    }

    fn begin_answer(&mut self, to: AnswerTo, mut pieces: Pieces, limit: Option<BodyLimit>) {
        let mut out = BytesMut::new();
        let more = pieces.next(&mut out);
        // A single piece may be large. A large one is charged until it is queued.
        if !more && out.len() <= SMALL_REPLY_BYTES_MAX {
            return match to {
                AnswerTo::Native(call) => self.reply(call, Reply::Body(out.freeze())),
                AnswerTo::Kafka(call) => self.kafka_reply(call, response_of(call.origin, &out)),
            };
        }
        if let Some(connection) = self.connections.get_mut(&to.conn()) {
            connection.long_answers += 1;
            if !more {
                return self.answer_long(to, LongAnswer::new(pieces, out.len()), limit);
            }
            self.jobs.add(Box::new(Measuring { to, pieces, bytes: out.len(), limit }));
        }
    }

    /// Queues an answer whose length is known.
    fn answer_long(&mut self, to: AnswerTo, answer: LongAnswer, limit: Option<BodyLimit>) {
        match to {
            AnswerTo::Native(call) => {
                let bytes = answer.left();
                let reply = match limit.filter(|limit| bytes > limit.bytes_max) {
                    Some(BodyLimit { advice, .. }) => {
                        if let Some(connection) = self.connections.get_mut(&call.conn) {
                            connection.long_answers -= 1;
                        }
                        let text =
                            format!("the answer has {bytes} bytes, more than a message may have; {advice}");
                        Reply::error(ErrorCode::TooLarge, text)
                    }
                    None => Reply::Long(answer),
                };
                self.reply(call, reply);
            }
            AnswerTo::Kafka(call) => self.kafka_reply(call, KafkaReply::long(call.origin, answer)),
        }
    }
}

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
