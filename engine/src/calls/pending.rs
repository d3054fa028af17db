//! Pending calls.

use std::collections::{BTreeMap, VecDeque};
use std::vec::IntoIter;

use highwater_runtime::plane::{ConnId, ShardIndex};

use crate::api::{
    ApiError, ControllerReply, ControllerRequest, PartitionAnswer, PartitionQuery, Service, Ticket,
};
use crate::coord::groups::{GroupReply, GroupRequest};
use crate::limits::CALLS_PER_REQUEST_MAX;
use crate::message::Message;

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
pub(crate) enum Request {
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
pub(crate) trait Gather {
    /// Adds the reply to the request with this number.
    fn take(&mut self, number: u32, reply: Reply);
}

struct PendingCall<G: Gather + ?Sized> {
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
    gather: Box<G>,
}

/// The calls of this shard. `G` gathers the replies to a call.
pub(crate) struct Calls<G: Gather + ?Sized> {
    pending: BTreeMap<u64, PendingCall<G>>,
    last: u64,
    /// Number of requests in flight.
    open: usize,
    /// Requests to post.
    requests: VecDeque<(ShardIndex, Message)>,
}

impl<G: Gather + ?Sized> Default for Calls<G> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), last: 0, open: 0, requests: VecDeque::new() }
    }
}

impl<G: Gather + ?Sized> Calls<G> {
    /// Returns the number of requests in flight.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Returns the next request to post, and its shard. Call it after every command and every reply, until it returns `None`.
    pub(crate) fn poll_request(&mut self) -> Option<(ShardIndex, Message)> {
        self.requests.pop_front()
    }

    /// Begins a call of requests to shard 0 or to coordinators; there is at least one.
    pub(crate) fn ask(
        &mut self,
        conn: Option<ConnId>,
        requests: Vec<Request>,
        waits_for_others: bool,
        gather: Box<G>,
    ) {
        let missing = requests.len();
        let unsent = requests.into_iter();
        let call = self.insert(PendingCall { conn, missing, sent: 0, unsent, waits_for_others, gather });
        for _ in 0..CALLS_PER_REQUEST_MAX {
            self.send_next(call);
        }
    }

    /// Begins a call of queries to owners of partitions; there is at least one.
    pub(crate) fn query(
        &mut self,
        conn: ConnId,
        queries: impl ExactSizeIterator<Item = (ShardIndex, PartitionQuery)>,
        gather: Box<G>,
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

    fn insert(&mut self, call: PendingCall<G>) -> u64 {
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

    /// Handles a reply. Returns the replies to the call if it was the last one missing. `is_here` returns whether a connection is still open.
    pub(crate) fn handle_reply(
        &mut self,
        ticket: Ticket,
        reply: Reply,
        is_here: impl FnOnce(ConnId) -> bool,
    ) -> Option<Box<G>> {
        self.open = self.open.saturating_sub(1);
        let call = self.pending.get_mut(&ticket.call)?;
        call.gather.take(ticket.number, reply);
        call.missing -= 1;
        if call.missing == 0 {
            return self.pending.remove(&ticket.call).map(|call| call.gather);
        }
        if call.unsent.len() > 0 && !call.conn.is_none_or(is_here) {
            // The client has disconnected: the unsent requests are dropped.
            self.pending.remove(&ticket.call);
        }
        self.send_next(ticket.call);
        None
    }

    /// The broker is stopping: ends the calls that wait for other clients, possibly for ever.
    pub(crate) fn end_waiting(&mut self) -> Vec<Box<G>> {
        let waiting: Vec<_> = self.pending.extract_if(.., |_, call| call.waits_for_others).collect();
        let ended = waiting.into_iter().map(|(_, mut call)| {
            call.gather.take(0, Reply::Group(Err(ApiError::Stopping(Service::Groups))));
            call.gather
        });
        ended.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::api::{ControllerCall as _, DeleteTopic};

    const CONN: ConnId = ConnId(7);

    /// Keeps what it is given.
    struct Keep(Rc<RefCell<Vec<(u32, Reply)>>>);

    impl Gather for Keep {
        fn take(&mut self, number: u32, reply: Reply) {
            self.0.borrow_mut().push((number, reply));
        }
    }

    fn deletions(count: usize) -> Vec<Request> {
        (0..count).map(|n| Request::Controller(DeleteTopic(format!("t{n}")).into_request())).collect()
    }

    fn sent(calls: &mut Calls<Keep>) -> Vec<Ticket> {
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
}
