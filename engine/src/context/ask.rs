//! Requests to shard 0 and to the owners of partitions.

use highwater_runtime::plane::ConnId;

use super::Context;
use crate::api::{ApiError, ControllerCall, PartitionCall};
use crate::calls::{FanOut, Gather, Reply, Request};

/// Gathers the replies to a call, and uses them.
pub(crate) trait Finish: Gather {
    /// Uses the replies, when all have arrived.
    fn finish(self: Box<Self>, context: &mut Context<'_>);
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
        self.parts.calls.ask(conn, vec![Request::Controller(request.into_request())], false, gather);
        self.post_requests();
    }

    /// Posts the requests of calls.
    pub(crate) fn post_requests(&mut self) {
        while let Some((shard, message)) = self.parts.calls.poll_request() {
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
        self.parts.calls.ask(Some(conn), requests, false, gather);
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
        self.parts.calls.query(conn, queries, gather);
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

impl<R, F> Gather for EachReply<R, F> {
    fn take(&mut self, number: u32, reply: Reply) {
        if let Some(place) = self.replies.get_mut(number as usize) {
            *place = Some((self.reply_of)(reply));
        }
    }
}

impl<R, F> Finish for EachReply<R, F>
where
    F: FnOnce(&mut Context<'_>, Vec<Result<R, ApiError>>),
{
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

impl<Q: PartitionCall, F> Gather for EachFound<Q, F> {
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
}

impl<Q, F> Finish for EachFound<Q, F>
where
    Q: PartitionCall,
    F: FnOnce(&mut Context<'_>, Vec<Option<Q::Answer>>),
{
    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { found, finish } = *self;
        finish(context, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ControllerReply, DeleteTopicById, PartitionAnswer};

    #[test]
    fn a_reply_of_another_kind_fails_only_the_request_that_it_answers() {
        let finish = |_: &mut Context<'_>, _: Vec<Result<(), ApiError>>| {};
        let mut each = EachReply::new(2, controller_reply::<DeleteTopicById>, finish);
        each.take(1, Reply::Controller(Ok(ControllerReply::Done)));
        each.take(0, Reply::Owner(PartitionAnswer::Details(Vec::new())));
        assert_eq!(each.replies[1], Some(Ok(())));
        assert!(matches!(each.replies[0], Some(Err(ApiError::Internal(_)))));
    }
}
