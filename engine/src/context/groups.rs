//! Calls to the coordinators of groups. A call about several groups asks each coordinator for its part.

use highwater_runtime::plane::{ConnId, ShardIndex};

use super::Context;
use super::ask::EachReply;
use crate::api::ApiError;
use crate::calls::{GroupCall, Part, Reply, Request};
use crate::coord::groups::{GroupReply, GroupRequest};
use crate::coord::placement::GroupOwners;

impl Context<'_> {
    /// Sends a request to the coordinators of the groups that it names, on behalf of a connection; `finish` gets the joined reply.
    pub(crate) fn ask_group<C: GroupCall>(
        &mut self,
        conn: ConnId,
        call: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_group_call(conn, call, false, finish);
    }

    /// Sends a request to the coordinator of a group whose reply may depend on other clients.
    pub(crate) fn ask_group_and_wait<C: GroupCall>(
        &mut self,
        conn: ConnId,
        call: C,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.begin_group_call(conn, call, true, finish);
    }

    fn begin_group_call<C: GroupCall>(
        &mut self,
        conn: ConnId,
        call: C,
        waits_for_others: bool,
        finish: impl FnOnce(&mut Context<'_>, Result<C::Reply, ApiError>) + 'static,
    ) {
        self.with_group_owners(conn, move |context, owners| {
            let parts = match owners {
                Ok(owners) => call.split(&owners),
                Err(error) => return finish(context, Err(error)),
            };
            let mut requests = Vec::with_capacity(parts.len());
            let mut all_places = Vec::with_capacity(parts.len());
            for Part { shard, call, places } in parts {
                requests.push((shard, call.into_request()));
                all_places.push(places);
            }
            context.ask_coordinators(conn, requests, waits_for_others, move |context, replies| {
                let replies = replies.into_iter().map(|reply| reply.and_then(C::reply_of));
                finish(context, C::join(all_places.into_iter().zip(replies).collect()));
            });
        });
    }

    /// Finds the shards with the coordinators of groups.
    pub(crate) fn with_group_owners(
        &mut self,
        _conn: ConnId,
        then: impl FnOnce(&mut Context<'_>, Result<GroupOwners, ApiError>) + 'static,
    ) {
        then(self, Ok(GroupOwners::new([0])));
    }

    /// Sends requests to coordinators, a few at a time; `finish` gets the replies in the order of the requests. There is at least one.
    pub(crate) fn ask_coordinators(
        &mut self,
        conn: ConnId,
        requests: Vec<(ShardIndex, GroupRequest)>,
        waits_for_others: bool,
        finish: impl FnOnce(&mut Context<'_>, Vec<Result<GroupReply, ApiError>>) + 'static,
    ) {
        let gather = Box::new(EachReply::new(requests.len(), group_reply, finish));
        let requests = requests.into_iter().map(|(shard, request)| Request::Group(shard, request));
        self.parts.calls.ask(Some(conn), requests.collect(), waits_for_others, gather);
        self.post_requests();
    }
}

/// Returns the reply of a coordinator.
fn group_reply(reply: Reply) -> Result<GroupReply, ApiError> {
    match reply {
        Reply::Group(reply) => reply,
        other => Err(ApiError::wrong_reply(&other)),
    }
}
