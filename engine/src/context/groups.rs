//! Calls to the coordinators of groups. A call about several groups asks each coordinator for its part.

use std::sync::Arc;

use highwater_protocol::topic::GROUPS_TOPIC;
use highwater_runtime::plane::{ConnId, ShardIndex};

use super::Context;
use super::ask::EachReply;
use crate::api::{ApiError, CreateGroupsTopic, Service};
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
        let without_groups = C::without_groups();
        self.with_group_owners(conn, without_groups.is_some(), move |context, owners| {
            let parts = match owners {
                Ok(Some(owners)) => call.split(&owners),
                Ok(None) => return finish(context, without_groups.ok_or(NO_TOPIC)),
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

    /// Finds the shards with the coordinators of groups. The topic that keeps groups is created if it does not exist; with `only_existing`, there
    /// are none then.
    pub(super) fn with_group_owners(
        &mut self,
        conn: ConnId,
        only_existing: bool,
        then: impl FnOnce(&mut Context<'_>, Result<Option<GroupOwners>, ApiError>) + 'static,
    ) {
        if let Some(owners) = self.group_owners() {
            return then(self, Ok(Some(owners)));
        }
        // Nobody has asked for a group before, or groups of an earlier build are about to be carried over.
        self.ask(conn, CreateGroupsTopic { for_old_groups: only_existing }, move |context, created| {
            // Clients of both protocols try again after this.
            let created = created.inspect_err(|error| tracing::error!("groups cannot be kept: {error}"));
            let created = created.map_err(|_| ApiError::Starting(Service::Groups));
            let owners = created.and_then(|()| match context.group_owners() {
                // The reply came from another node, and this one is stopping before it has applied the record.
                None if !only_existing => Err(ApiError::Starting(Service::Groups)),
                owners => Ok(owners),
            });
            then(context, owners);
        });
    }

    /// Returns the shards with the coordinators of groups, if the topic that keeps groups exists.
    fn group_owners(&self) -> Option<GroupOwners> {
        let topic = self.metadata?.topic(GROUPS_TOPIC)?;
        Some(GroupOwners::new(Arc::clone(topic), self.setup.shards))
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

pub(super) const NO_TOPIC: ApiError =
    ApiError::Internal("the topic that keeps groups is missing after it was created");

/// Returns the reply of a coordinator.
fn group_reply(reply: Reply) -> Result<GroupReply, ApiError> {
    match reply {
        Reply::Group(reply) => reply,
        other => Err(ApiError::wrong_reply(&other)),
    }
}
