//! Answers that are made of several others.
//!
//! A request may need several (one for each topic it creates). A few are asked for at once and the others one by one, so that a request does
//! not fill the queue to shard 0, whatever it names. Its own answer is written when all are there. Some come at once and
//! some after minutes, such as that to a member which waits for the others; the client may be gone by then.

use std::vec::IntoIter;

use highwater_net::Reply;
use highwater_net::kafka::KafkaError;
use highwater_protocol::error::ErrorCode;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::{Call, Part, Pending};
use crate::coord::groups::{GroupError, GroupReply, GroupRequest};
use crate::limits::ASKS_PER_REQUEST_MAX;
use crate::message::{Answer, Ask, Message, Query, QueryAnswer, RequestId};
use crate::shard::Shard;

type Finish = Box<dyn FnOnce(&mut Shard, Call, Vec<Part>)>;

/// An answer that is being gathered.
pub(in crate::shard) struct Gathering {
    call: Call,
    missing: usize,
    parts: Vec<Option<Part>>,
    /// Questions to shard 0 that were not asked yet: each is asked when an earlier one has been answered.
    rest: IntoIter<Ask>,
    /// Questions that were asked.
    asked: u32,
    /// Writes it, from the parts in the order in which they were asked for.
    finish: Finish,
    /// Whether it waits for what other clients do.
    waits_for_others: bool,
}

/// What the coordinator of groups said, or why it said nothing.
pub(super) type GroupAnswer = Result<GroupReply, KafkaError>;

impl Shard {
    /// Asks shard 0; `finish` gets the answers in the order of the questions.
    pub(super) fn kafka_gather(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        asks: Vec<Ask>,
        finish: impl FnOnce(&mut Self, Call, Vec<Answer>) + 'static,
    ) {
        let finish = Box::new(|shard: &mut Self, call, parts: Vec<Part>| {
            finish(shard, call, parts.into_iter().map(Part::of_lead).collect());
        });
        self.gather_from_lead(plane, call, asks, finish, false);
    }

    fn gather_from_lead(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        asks: Vec<Ask>,
        finish: Finish,
        waits_for_others: bool,
    ) {
        let count = asks.len();
        let mut asks = asks.into_iter();
        let first: Vec<_> = asks.by_ref().take(ASKS_PER_REQUEST_MAX).collect();
        let asked = first.len() as u32;
        if let Some(request) = self.begin_gathering(call, count, (asks, asked), finish, waits_for_others) {
            for (part, ask) in (0..).zip(first) {
                self.kafka_ask(plane, request, part, ask);
            }
        }
    }

    /// Asks owners of partitions; `finish` gets the answers in the order of the questions.
    pub(super) fn kafka_gather_from_owners(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        queries: Vec<(ShardIndex, Query)>,
        finish: impl FnOnce(&mut Self, Call, Vec<QueryAnswer>) + 'static,
    ) {
        let finish = Box::new(|shard: &mut Self, call, parts: Vec<Part>| {
            finish(shard, call, parts.into_iter().map(Part::of_owner).collect());
        });
        if let Some(request) = self.begin_gathering(call, queries.len(), Default::default(), finish, false) {
            for (part, (owner, query)) in (0..).zip(queries) {
                self.kafka_query(plane, request, part, owner, query);
            }
        }
    }

    /// None if there is nothing to gather, and the answer is written.
    fn begin_gathering(
        &mut self,
        call: Call,
        missing: usize,
        (rest, asked): (IntoIter<Ask>, u32),
        finish: Finish,
        waits_for_others: bool,
    ) -> Option<RequestId> {
        if missing == 0 {
            finish(self, call, Vec::new());
            return None;
        }
        let parts = (0..missing).map(|_| None).collect();
        let gathering = Gathering { call, missing, parts, rest, asked, finish, waits_for_others };
        Some(self.kafka_wait(Pending::Gathering(gathering)))
    }

    /// One of the parts is there.
    pub(super) fn on_gathered(
        &mut self,
        plane: &mut dyn Plane<Message>,
        request: RequestId,
        mut gathering: Gathering,
        part: u32,
        came: Part,
    ) {
        gathering.parts[part as usize] = Some(came);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            if gathering.rest.len() > 0 {
                if !self.connections.contains_key(&gathering.call.conn) {
                    // Nobody waits for the answer, and nothing of the request counts any more: what was not asked is not asked.
                    return;
                }
                if let Some(ask) = gathering.rest.next() {
                    self.kafka_ask(plane, request, gathering.asked, ask);
                    gathering.asked += 1;
                }
            }
            return self.kafka_wait_on(request, Pending::Gathering(gathering));
        }
        let Gathering { call, parts, finish, .. } = gathering;
        finish(self, call, parts.into_iter().flatten().collect());
    }

    /// Asks the coordinator of groups.
    pub(super) fn kafka_ask_group(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: GroupRequest,
        finish: impl FnOnce(&mut Self, Call, GroupAnswer) + 'static,
    ) {
        let asks = vec![Ask::Group(request)];
        self.gather_from_lead(plane, call, asks, finish_group(finish), false);
    }

    /// The same where the answer may wait for what other members do.
    pub(super) fn kafka_ask_group_and_wait(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: GroupRequest,
        finish: impl FnOnce(&mut Self, Call, GroupAnswer) + 'static,
    ) {
        let asks = vec![Ask::Group(request)];
        self.gather_from_lead(plane, call, asks, finish_group(finish), true);
    }

    /// The broker stops: who waits for other clients waits in vain.
    pub(in crate::shard) fn dismiss_kafka_waiters(&mut self) {
        let waits = |pending: &Pending| matches!(pending, Pending::Gathering(g) if g.waits_for_others);
        let waiting: Vec<_> = self
            .kafka
            .pending
            .extract_if(.., |_, pending| waits(pending))
            .map(|(_, pending)| pending)
            .collect();
        for pending in waiting {
            let Pending::Gathering(Gathering { call, finish, .. }) = pending else { continue };
            let reply = Reply::error(ErrorCode::Unavailable, "the broker is stopping");
            finish(self, call, vec![Part::Lead(Answer::Reply(reply))]);
        }
    }

    /// What the coordinator of groups said.
    pub(super) fn group_answer(&self, answer: Answer) -> GroupAnswer {
        match answer {
            Answer::Group(reply) => Ok(reply),
            Answer::Reply(Reply::Error { code: ErrorCode::Unavailable, .. }) => {
                let stops = self.drain.is_some();
                let starts = KafkaError::COORDINATOR_LOAD_IN_PROGRESS;
                Err(if stops { KafkaError::NOT_COORDINATOR } else { starts })
            }
            Answer::Reply(Reply::Error { code, .. }) => Err(code.into()),
            other => unreachable!("a question about groups is answered in its own kind, not with {other:?}"),
        }
    }
}

fn finish_group(finish: impl FnOnce(&mut Shard, Call, GroupAnswer) + 'static) -> Finish {
    Box::new(|shard, call, parts| {
        let answer = parts.into_iter().map(Part::of_lead).next().expect("one question was asked");
        let answer = shard.group_answer(answer);
        finish(shard, call, answer);
    })
}

/// Kafka's code for what became of something.
pub(super) fn code(error: Option<GroupError>) -> KafkaError {
    error.map_or(KafkaError::NONE, |error| KafkaError(error.kafka_code()))
}

/// Why there is no answer of the kind that was asked for.
pub(super) fn refusal(answer: GroupAnswer) -> KafkaError {
    match answer {
        Err(error) => error,
        Ok(other) => unreachable!("a question is answered in its own kind, not with {other:?}"),
    }
}
