//! Calls that have not ended.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use highwater_runtime::plane::{ConnId, Plane};

use super::FanOut;
use crate::api::{
    ApiError, ControllerCall, ControllerReply, ControllerRequest, PartitionAnswer, PartitionCall, Service,
};
use crate::limits::ASKS_PER_REQUEST_MAX;
use crate::message::{Message, Ticket};
use crate::shard::Context;

/// A reply to one request of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// From shard 0.
    Controller(Result<ControllerReply, ApiError>),
    /// From an owner of partitions.
    Owner(PartitionAnswer),
}

/// What becomes of the replies of a call.
trait Gather {
    /// The reply to the request with this number.
    fn take(&mut self, number: u32, reply: Reply);

    fn finish(self: Box<Self>, context: &mut Context<'_>);
}

struct PendingCall {
    /// On whose behalf; none: this shard's own.
    conn: Option<ConnId>,
    /// Requests that have not been answered, sent or not.
    missing: usize,
    /// Requests that have been sent.
    sent: u32,
    /// Requests that have not been sent: one leaves when an earlier one has been answered.
    unsent: IntoIter<ControllerRequest>,
    /// Whether the reply may wait for what other clients do.
    waits_for_others: bool,
    gather: Box<dyn Gather>,
}

/// A call whose replies are all there.
pub(crate) struct Finished(Box<dyn Gather>);

impl Finished {
    pub(crate) fn finish(self, context: &mut Context<'_>) {
        self.0.finish(context);
    }
}

/// The calls of this shard.
#[derive(Default)]
pub(crate) struct Calls {
    pending: BTreeMap<u64, PendingCall>,
    last: u64,
    /// Requests that were sent and not answered.
    open: usize,
}

impl Calls {
    /// Number of requests that were sent and not answered.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Sends requests to shard 0; there is at least one.
    fn begin(
        &mut self,
        plane: &mut dyn Plane<Message>,
        conn: Option<ConnId>,
        requests: Vec<ControllerRequest>,
        waits_for_others: bool,
        gather: Box<dyn Gather>,
    ) {
        self.last += 1;
        let missing = requests.len();
        let mut call =
            PendingCall { conn, missing, sent: 0, unsent: requests.into_iter(), waits_for_others, gather };
        for _ in 0..ASKS_PER_REQUEST_MAX.min(missing) {
            self.open += usize::from(call.send_next(plane, self.last));
        }
        self.pending.insert(self.last, call);
    }

    /// A reply has come. Returns the call if it was the last one missing; `is_here` says whether a connection still is.
    pub(crate) fn handle_reply(
        &mut self,
        plane: &mut dyn Plane<Message>,
        ticket: Ticket,
        reply: Reply,
        is_here: impl FnOnce(ConnId) -> bool,
    ) -> Option<Finished> {
        self.open = self.open.saturating_sub(1);
        let call = self.pending.get_mut(&ticket.call)?;
        call.gather.take(ticket.number, reply);
        call.missing -= 1;
        if call.missing == 0 {
            return self.pending.remove(&ticket.call).map(|call| Finished(call.gather));
        }
        if call.unsent.len() > 0 {
            if !call.conn.is_none_or(is_here) {
                // Nobody waits for the answer, and nothing of the request counts any more: what was not sent is not sent.
                self.pending.remove(&ticket.call);
                return None;
            }
            self.open += usize::from(call.send_next(plane, ticket.call));
        }
        None
    }

    /// The broker stops: ends the calls that wait for other clients, which could be for ever.
    pub(crate) fn end_waiting(&mut self) -> Vec<Finished> {
        let waiting: Vec<_> = self.pending.extract_if(.., |_, call| call.waits_for_others).collect();
        let ended = waiting.into_iter().map(|(_, mut call)| {
            call.gather.take(0, Reply::Controller(Err(ApiError::Stopping(Service::Groups))));
            Finished(call.gather)
        });
        ended.collect()
    }
}

impl PendingCall {
    /// Sends the next request, if one is left.
    fn send_next(&mut self, plane: &mut dyn Plane<Message>, call: u64) -> bool {
        let Some(request) = self.unsent.next() else { return false };
        let ticket = Ticket { call, number: self.sent };
        self.sent += 1;
        plane.post(0, Message::ControllerRequest(ticket, Box::new(request)));
        true
    }
}

impl Context<'_> {
    /// Sends a request to shard 0 on behalf of a connection; `finish` gets its reply.
    pub(crate) fn ask<C: ControllerCall>(
        &mut self,
        conn: ConnId,
        request: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_one(Some(conn), request, false, finish);
    }

    /// The same where the reply may wait for what other clients do.
    pub(crate) fn ask_and_wait<C: ControllerCall>(
        &mut self,
        conn: ConnId,
        request: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_one(Some(conn), request, true, finish);
    }

    /// The same for this shard itself.
    pub(crate) fn ask_for_shard<C: ControllerCall>(
        &mut self,
        request: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_one(None, request, false, finish);
    }

    fn begin_one<C: ControllerCall>(
        &mut self,
        conn: Option<ConnId>,
        request: C,
        waits_for_others: bool,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        let finish = |context: &mut Context<'_>, replies: Vec<Result<C::Reply, ApiError>>| {
            let reply = replies.into_iter().next().unwrap_or(Err(NO_REPLY));
            finish(context, reply);
        };
        let gather = Box::new(EachReply::<C, _> { replies: Vec::from([None]), finish });
        self.calls.begin(self.plane, conn, vec![request.into_request()], waits_for_others, gather);
    }

    /// Sends requests to shard 0, a few at a time; `finish` gets the replies in the order of the requests.
    pub(crate) fn ask_each<C: ControllerCall>(
        &mut self,
        conn: ConnId,
        requests: Vec<C>,
        finish: impl FnOnce(&mut Context<'_>, Vec<Result<C::Reply, ApiError>>) + 'static,
    ) {
        if requests.is_empty() {
            return finish(self, Vec::new());
        }
        let replies = requests.iter().map(|_| None).collect();
        let gather = Box::new(EachReply::<C, _> { replies, finish });
        let requests = requests.into_iter().map(ControllerCall::into_request).collect();
        self.calls.begin(self.plane, Some(conn), requests, false, gather);
    }

    /// Asks the owners of partitions; `finish` gets what was found for each item, by its number. Nothing is found where the owner does not have
    /// the partition any more.
    pub(crate) fn query<Q: PartitionCall>(
        &mut self,
        conn: ConnId,
        items: FanOut<Q::Item>,
        finish: impl FnOnce(&mut Context<'_>, Vec<Option<Q::Found>>) + 'static,
    ) {
        if items.len() == 0 {
            return finish(self, Vec::new());
        }
        let found = (0..items.len()).map(|_| None).collect();
        let gather: Box<dyn Gather> = Box::new(EachFound::<Q, _> { found, finish });
        let items = items.into_parts();
        let missing = items.len();
        self.calls.last += 1;
        let call = self.calls.last;
        for (number, (owner, items)) in (0..).zip(items) {
            self.plane.post(owner, Message::PartitionQuery(Ticket { call, number }, Q::query(items)));
        }
        self.calls.open += missing;
        let unsent = Vec::new().into_iter();
        let sent = missing as u32;
        let pending =
            PendingCall { conn: Some(conn), missing, sent, unsent, waits_for_others: false, gather };
        self.calls.pending.insert(call, pending);
    }
}

const NO_REPLY: ApiError = ApiError::Internal("a request was not answered");

/// The replies of shard 0 to requests of one kind.
struct EachReply<C: ControllerCall, F> {
    replies: Vec<Option<Result<C::Reply, ApiError>>>,
    finish: F,
}

impl<C, F> Gather for EachReply<C, F>
where
    C: ControllerCall,
    F: FnOnce(&mut Context<'_>, Vec<Result<C::Reply, ApiError>>),
{
    fn take(&mut self, number: u32, reply: Reply) {
        let reply = match reply {
            Reply::Controller(reply) => reply.and_then(C::reply_of),
            Reply::Owner(answer) => Err(ApiError::wrong_reply(&answer)),
        };
        if let Some(place) = self.replies.get_mut(number as usize) {
            *place = Some(reply);
        }
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { replies, finish } = *self;
        let replies = replies.into_iter().map(|reply| reply.unwrap_or(Err(NO_REPLY)));
        finish(context, replies.collect());
    }
}

/// What the owners of partitions found.
struct EachFound<Q: PartitionCall, F> {
    found: Vec<Option<Q::Found>>,
    finish: F,
}

impl<Q, F> Gather for EachFound<Q, F>
where
    Q: PartitionCall,
    F: FnOnce(&mut Context<'_>, Vec<Option<Q::Found>>),
{
    fn take(&mut self, _: u32, reply: Reply) {
        let Reply::Owner(answer) = reply else {
            ApiError::wrong_reply(&reply);
            return;
        };
        // One of another kind was logged; its items stay without an answer.
        for (number, found) in Q::found(answer).unwrap_or_default() {
            if let Some(place) = self.found.get_mut(number as usize) {
                *place = Some(found);
            }
        }
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { found, finish } = *self;
        finish(context, found);
    }
}
