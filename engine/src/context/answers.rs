//! Long answers: measured in pieces, then sent in pieces by the shard.
//!
//! ```text
//!   a request --> Pieces --(short)--------------------------------> the answer, at once
//!                    |
//!                 measured, a few pieces a turn --> the answer with its length --> shard/long_answers.rs
//! ```

use bytes::BytesMut;
use highwater_net::kafka::{KafkaReply, response_of};
use highwater_net::{LongAnswer, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_runtime::plane::ConnId;

use super::{AnswerTo, ClientJob, Context, NativeCall};
use crate::counters::Work;
use crate::limits::{PIECE_BYTES_PER_UNIT, SMALL_REPLY_BYTES_MAX};

/// The longest body that clients accept for a kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    pub(crate) bytes_max: usize,
    /// What the user can do about a longer one.
    pub(crate) advice: &'static str,
}

/// An answer whose length is being measured, in slices.
struct Measuring {
    to: AnswerTo,
    pieces: Pieces,
    bytes: usize,
    limit: Option<BodyLimit>,
}

impl ClientJob for Measuring {
    fn conn(&self) -> ConnId {
        self.to.conn()
    }

    fn run_slice(&mut self, _: &Context<'_>, work: &mut Work) -> bool {
        let mut out = BytesMut::new();
        let mut more = true;
        while more && !work.is_over() {
            out.clear();
            more = self.pieces.next(&mut out);
            self.bytes += out.len();
            work.spend(1 + out.len() / PIECE_BYTES_PER_UNIT);
        }
        !more
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { to, pieces, bytes, limit } = *self;
        context.answer_long(to, LongAnswer::new(pieces, bytes), limit);
    }
}

impl Context<'_> {
    /// Sends an answer in pieces; at once if it is short.
    pub(crate) fn answer_in_pieces(&mut self, to: AnswerTo, pieces: Pieces) {
        self.begin_answer(to, pieces, None);
    }

    /// Sends an answer in pieces to a native client that accepts bodies up to a limit; sends an error if the body is longer.
    pub(crate) fn reply_in_pieces(&mut self, call: NativeCall, pieces: Pieces, limit: BodyLimit) {
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
        if self.parts.clients.add_long_answer(to.conn()) {
            if !more {
                return self.answer_long(to, LongAnswer::new(pieces, out.len()), limit);
            }
            self.parts.jobs.add(Box::new(Measuring { to, pieces, bytes: out.len(), limit }));
        }
    }

    /// Queues an answer whose length is known.
    fn answer_long(&mut self, to: AnswerTo, answer: LongAnswer, limit: Option<BodyLimit>) {
        match to {
            AnswerTo::Native(call) => {
                let bytes = answer.left();
                let reply = match limit.filter(|limit| bytes > limit.bytes_max) {
                    Some(BodyLimit { advice, .. }) => {
                        self.parts.clients.remove_long_answer(call.conn);
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
