//! Creates, deletes and changes topics.

use highwater_net::Reply;
use highwater_protocol::native::{
    AlterTopicRequest, CreateTopicReply, CreateTopicRequest, DeleteTopicRequest,
};

use super::Call;
use super::error::reply_of;
use crate::api::{AlterTopic, ApiError, ControllerCall, CreateTopic, DeleteTopic, Replication};
use crate::context::Context;

pub(super) fn create(context: &mut Context<'_>, call: Call, request: CreateTopicRequest) {
    let CreateTopicRequest { name, partitions, configs, validate_only, replicas } = request;
    let replication = replicas.map_or(Replication::Default, |replicas| Replication::Factor(replicas.into()));
    let request = CreateTopic { name, partitions, replication, configs, validate_only };
    context.ask(call.conn, request, move |context, created| {
        let reply = created.map(|topic| Reply::body(&CreateTopicReply { id: topic.id }));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

pub(super) fn delete(context: &mut Context<'_>, call: Call, request: DeleteTopicRequest) {
    change(context, call, DeleteTopic(request.name));
}

pub(super) fn alter(context: &mut Context<'_>, call: Call, request: AlterTopicRequest) {
    let AlterTopicRequest { name, configs, partitions } = request;
    change(
        context,
        call,
        AlterTopic { name, configs, partitions, replication: Replication::Default, validate_only: false },
    );
}

/// Sends a request whose reply is empty.
fn change(context: &mut Context<'_>, call: Call, request: impl ControllerCall<Reply = ()>) {
    context.ask(call.conn, request, move |context, outcome: Result<(), ApiError>| {
        let reply = outcome.map(|()| Reply::Empty);
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}
