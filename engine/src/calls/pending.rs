//! Pending calls.

use std::collections::{BTreeMap, VecDeque};
use std::vec::IntoIter;

use highwater_runtime::plane::{ConnId, ShardIndex};

use super::FanOut;
use crate::api::{
    ApiError, ControllerCall, ControllerReply, ControllerRequest, PartitionAnswer, PartitionCall,
    PartitionQuery, Service, Ticket,
};
use crate::coord::groups::{GroupReply, GroupRequest};
use crate::limits::CALLS_PER_REQUEST_MAX;
use crate::message::Message;
use crate::shard::Context;

/// A reply to one request of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    /// From shard 0.
    Controller(Result<ControllerReply, ApiError>),
    /// From a coordinator of groups.
    Group(Result<GroupReply, ApiError>),
    /// From an owner of partitions.
    Owner(PartitionAnswer),
}

/// A request that may wait until earlier ones of its call have been answered.
#[derive(Debug)]
pub(super) enum Request {
    /// To shard 0.
    Controller(ControllerRequest),
    /// To the coordinator on this shard.
    Group(ShardIndex, GroupRequest),
}

impl Request {
    fn into_message(self, ticket: Ticket) -> (ShardIndex, Message) {
        match self {
            Self::Controller(request) => (0, Message::ControllerRequest(ticket, Box::new(request))),
            Self::Group(shard, request) => (shard, Message::GroupRequest(ticket, Box::new(request))),
        }
    }
}

/// Collects the replies of a call.
pub(super) trait Gather {
    /// Adds the reply to the request with this number.
    fn take(&mut self, number: u32, reply: Reply);

    fn finish(self: Box<Self>, context: &mut Context<'_>);
}

struct PendingCall {
    /// The client's connection; `None` for a call of this shard itself.
    conn: Option<ConnId>,
    /// Number of requests without a reply, sent or not.
    missing: usize,
    /// Number of requests sent.
    sent: u32,
    /// Requests that have not been sent: each is sent when an earlier one has been answered.
    unsent: IntoIter<Request>,
    /// Whether the reply may wait for what other clients do.
    waits_for_others: bool,
    gather: Box<dyn Gather>,
}

/// A call with all of its replies.
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
    /// Number of requests in flight.
    open: usize,
    /// Requests to post.
    requests: VecDeque<(ShardIndex, Message)>,
}

impl Calls {
    /// Returns the number of requests in flight.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Returns the next request to post, and its shard. Call it after every command and every reply, until it returns `None`.
    pub(crate) fn poll_request(&mut self) -> Option<(ShardIndex, Message)> {
        self.requests.pop_front()
    }

    /// Begins a call of requests to shard 0 or to coordinators; there is at least one.
    pub(super) fn ask(
        &mut self,
        conn: Option<ConnId>,
        requests: Vec<Request>,
        waits_for_others: bool,
        gather: Box<dyn Gather>,
    ) {
        let missing = requests.len();
        let unsent = requests.into_iter();
        let call = self.insert(PendingCall { conn, missing, sent: 0, unsent, waits_for_others, gather });
        for _ in 0..CALLS_PER_REQUEST_MAX {
            self.send_next(call);
        }
    }

    /// Begins a call of queries to owners of partitions; there is at least one.
    fn query(
        &mut self,
        conn: ConnId,
        queries: impl ExactSizeIterator<Item = (ShardIndex, PartitionQuery)>,
        gather: Box<dyn Gather>,
    ) {
        let (missing, unsent) = (queries.len(), Vec::new().into_iter());
        let call =
            PendingCall { conn: Some(conn), missing, sent: 0, unsent, waits_for_others: false, gather };
        let call = self.insert(call);
        for (number, (owner, query)) in (0..).zip(queries) {
            self.requests.push_back((owner, Message::PartitionQuery(Ticket { call, number }, query)));
        }
        self.open += missing;
    }

    fn insert(&mut self, call: PendingCall) -> u64 {
        self.last += 1;
        self.pending.insert(self.last, call);
        self.last
    }

    /// Sends the next unsent request of a call, if there is one.
    fn send_next(&mut self, id: u64) {
        let Some(call) = self.pending.get_mut(&id) else { return };
        let Some(request) = call.unsent.next() else { return };
        let ticket = Ticket { call: id, number: call.sent };
        call.sent += 1;
        self.open += 1;
        self.requests.push_back(request.into_message(ticket));
    }

    /// Handles a reply. Returns the call if it was the last one missing. `is_here` returns whether a connection is still open.
    pub(crate) fn handle_reply(
        &mut self,
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
        if call.unsent.len() > 0 && !call.conn.is_none_or(is_here) {
            // The client has disconnected: the unsent requests are dropped.
            self.pending.remove(&ticket.call);
        }
        self.send_next(ticket.call);
        None
    }

    /// The broker is stopping: ends the calls that wait for other clients, possibly for ever.
    pub(crate) fn end_waiting(&mut self) -> Vec<Finished> {
        let waiting: Vec<_> = self.pending.extract_if(.., |_, call| call.waits_for_others).collect();
        let ended = waiting.into_iter().map(|(_, mut call)| {
            call.gather.take(0, Reply::Group(Err(ApiError::Stopping(Service::Groups))));
            Finished(call.gather)
        });
        ended.collect()
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
        self.begin_one(Some(conn), request, finish);
    }

    /// Sends a request to shard 0 for this shard itself.
    pub(crate) fn ask_for_shard<C: ControllerCall>(
        &mut self,
        request: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_one(None, request, finish);
    }

    fn begin_one<C: ControllerCall>(
        &mut self,
        conn: Option<ConnId>,
        request: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        let finish = |context: &mut Context<'_>, replies: Vec<Result<C::Reply, ApiError>>| {
            let reply = replies.into_iter().next().unwrap_or(Err(NO_REPLY));
            finish(context, reply);
        };
        let gather = Box::new(EachReply::new(1, controller_reply::<C>, finish));
        self.calls.ask(conn, vec![Request::Controller(request.into_request())], false, gather);
        self.post_requests();
    }

    /// Posts the requests of calls.
    pub(crate) fn post_requests(&mut self) {
        while let Some((shard, message)) = self.calls.poll_request() {
            self.plane.post(shard, message);
        }
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
        let gather = Box::new(EachReply::new(requests.len(), controller_reply::<C>, finish));
        let requests = requests.into_iter().map(|call| Request::Controller(call.into_request())).collect();
        self.calls.ask(Some(conn), requests, false, gather);
        self.post_requests();
    }

    /// Queries the owners of partitions. `finish` gets the answer for each item, by number; `None` if the owner no longer has the partition.
    pub(crate) fn query<Q: PartitionCall>(
        &mut self,
        conn: ConnId,
        items: FanOut<Q::Item>,
        finish: impl FnOnce(&mut Context<'_>, Vec<Option<Q::Answer>>) + 'static,
    ) {
        if items.len() == 0 {
            return finish(self, Vec::new());
        }
        let found = (0..items.len()).map(|_| None).collect();
        let gather = Box::new(EachFound::<Q, _> { found, finish });
        let queries = items.into_parts().into_iter().map(|(owner, items)| (owner, Q::query(items)));
        self.calls.query(conn, queries, gather);
        self.post_requests();
    }
}

const NO_REPLY: ApiError = ApiError::Internal("a request was not answered");

/// Returns the reply of shard 0 to a request of one kind.
fn controller_reply<C: ControllerCall>(reply: Reply) -> Result<C::Reply, ApiError> {
    match reply {
        Reply::Controller(reply) => reply.and_then(C::reply_of),
        other => Err(ApiError::wrong_reply(&other)),
    }
}

/// The replies to requests of one kind, in the order of the requests.
pub(super) struct EachReply<R, F> {
    replies: Vec<Option<Result<R, ApiError>>>,
    reply_of: fn(Reply) -> Result<R, ApiError>,
    finish: F,
}

impl<R, F> EachReply<R, F> {
    /// Creates the place for the replies to `count` requests, which `reply_of` converts.
    pub(super) fn new(count: usize, reply_of: fn(Reply) -> Result<R, ApiError>, finish: F) -> Self {
        Self { replies: (0..count).map(|_| None).collect(), reply_of, finish }
    }
}

impl<R, F> Gather for EachReply<R, F>
where
    F: FnOnce(&mut Context<'_>, Vec<Result<R, ApiError>>),
{
    fn take(&mut self, number: u32, reply: Reply) {
        if let Some(place) = self.replies.get_mut(number as usize) {
            *place = Some((self.reply_of)(reply));
        }
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { replies, finish, .. } = *self;
        let replies = replies.into_iter().map(|reply| reply.unwrap_or(Err(NO_REPLY)));
        finish(context, replies.collect());
    }
}

/// The answers of the owners of partitions.
struct EachFound<Q: PartitionCall, F> {
    found: Vec<Option<Q::Answer>>,
    finish: F,
}

impl<Q, F> Gather for EachFound<Q, F>
where
    Q: PartitionCall,
    F: FnOnce(&mut Context<'_>, Vec<Option<Q::Answer>>),
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::api::{DeleteTopic, DeleteTopicById};

    const CONN: ConnId = ConnId(7);

    /// Keeps what it is given.
    struct Keep(Rc<RefCell<Vec<(u32, Reply)>>>);

    impl Gather for Keep {
        fn take(&mut self, number: u32, reply: Reply) {
            self.0.borrow_mut().push((number, reply));
        }

        fn finish(self: Box<Self>, _: &mut Context<'_>) {}
    }

    fn deletions(count: usize) -> Vec<Request> {
        (0..count).map(|n| Request::Controller(DeleteTopic(format!("t{n}")).into_request())).collect()
    }

    fn sent(calls: &mut Calls) -> Vec<Ticket> {
        let requests = std::iter::from_fn(|| calls.poll_request());
        let tickets = requests.map(|(shard, message)| match message {
            Message::ControllerRequest(ticket, _) => {
                assert_eq!(shard, 0);
                ticket
            }
            other => panic!("{other:?}"),
        });
        tickets.collect()
    }

    fn done() -> Reply {
        Reply::Controller(Ok(ControllerReply::Done))
    }

    #[test]
    fn a_call_sends_a_few_requests_at_once_and_another_after_each_reply() {
        let mut calls = Calls::default();
        let kept = Rc::new(RefCell::new(Vec::new()));
        let count = CALLS_PER_REQUEST_MAX + 2;
        calls.ask(Some(CONN), deletions(count), false, Box::new(Keep(Rc::clone(&kept))));
        let mut open: VecDeque<_> = sent(&mut calls).into();
        assert_eq!((open.len(), calls.open()), (CALLS_PER_REQUEST_MAX, CALLS_PER_REQUEST_MAX));
        for replies in 1..=count {
            let ticket = open.pop_front().expect("one is open");
            let finished = calls.handle_reply(ticket, done(), |_| true);
            assert_eq!(finished.is_some(), replies == count);
            open.extend(sent(&mut calls));
        }
        assert_eq!((calls.open(), calls.pending.len()), (0, 0));
        let numbers: Vec<_> = kept.borrow().iter().map(|(number, _)| *number).collect();
        assert!(numbers.iter().copied().eq(0..count as u32), "{numbers:?}");
    }

    #[test]
    fn unsent_requests_of_a_closed_connection_are_dropped() {
        let mut calls = Calls::default();
        let gather = Box::new(Keep(Rc::default()));
        calls.ask(Some(CONN), deletions(CALLS_PER_REQUEST_MAX + 5), false, gather);
        let open = sent(&mut calls);
        for ticket in open {
            assert!(calls.handle_reply(ticket, done(), |conn| conn != CONN).is_none());
        }
        assert!(sent(&mut calls).is_empty());
        assert_eq!((calls.open(), calls.pending.len()), (0, 0));
    }

    #[test]
    fn shutdown_ends_the_calls_that_wait_for_other_clients_and_no_others() {
        let mut calls = Calls::default();
        let (waits, other) = (Rc::default(), Rc::default());
        calls.ask(Some(CONN), deletions(1), true, Box::new(Keep(Rc::clone(&waits))));
        calls.ask(Some(CONN), deletions(1), false, Box::new(Keep(Rc::clone(&other))));
        assert_eq!(calls.end_waiting().len(), 1);
        let is_stopping = |reply: &Reply| matches!(reply, Reply::Group(Err(ApiError::Stopping(_))));
        assert!(waits.borrow().iter().all(|(_, reply)| is_stopping(reply)) && waits.borrow().len() == 1);
        assert!(other.borrow().is_empty());
        let late = sent(&mut calls)[0];
        assert!(calls.handle_reply(late, done(), |_| true).is_none(), "it has ended");
    }

    #[test]
    fn a_reply_of_another_kind_fails_only_the_request_that_it_answers() {
        let finish = |_: &mut Context<'_>, _: Vec<Result<(), ApiError>>| {};
        let mut each = EachReply::new(2, controller_reply::<DeleteTopicById>, finish);
        each.take(1, done());
        each.take(0, Reply::Owner(PartitionAnswer::Details(Vec::new())));
        assert_eq!(each.replies[1], Some(Ok(())));
        assert!(matches!(each.replies[0], Some(Err(ApiError::Internal(_)))));
    }
}
