//! Translates the native protocol's requests into the broker's own, and its replies into native messages. Decides nothing.
//!
//! Produce, Subscribe and Fetch concern partitions of the connection's own shard: see `shard/`.

mod cluster;
mod error;
mod group_lists;
mod groups;
mod partitions;
mod topics;

use highwater_net::{Reply, Request};
use highwater_protocol::ids::ProducerId;
use highwater_protocol::native::{Acks, InitProducerReply};

pub(crate) use error::{code_of, code_of_append, reply_of};

use crate::api::{ApiError, RequiredAcks};
use crate::context::{Context, NativeCall as Call};

impl From<Acks> for RequiredAcks {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::None => Self::None,
            Acks::Leader => Self::Leader,
            Acks::All => Self::All,
        }
    }
}

/// Handles a request, or sends it to other shards.
pub(crate) fn handle_request(context: &mut Context<'_>, call: Call, request: Request<'_>) {
    match request {
        Request::Metadata(request) => cluster::describe(context, call, request),
        Request::DescribeTopic(request) => partitions::describe_topic(context, call, &request),
        Request::ListOffsets(request) => partitions::list_offsets(context, call, request),
        Request::DeleteRecords(request) => partitions::delete_records(context, call, request),
        Request::InitProducer => {
            context.assign_producer_id(move |context, given| reply_producer_id(context, call, given));
        }
        Request::CreateTopic(request) => topics::create(context, call, request),
        Request::DeleteTopic(request) => topics::delete(context, call, request),
        Request::AlterTopic(request) => topics::alter(context, call, request),
        Request::CommitOffsets(request) => groups::commit(context, call, request),
        Request::ReadOffsets(request) => group_lists::read_offsets(context, call, request),
        Request::GroupHeartbeat(request) => groups::member_heartbeat(context, call, request),
        Request::CommitGroupOffsets(request) => groups::commit_group_offsets(context, call, request),
        Request::ReadGroupOffsets(request) => group_lists::read_group_offsets(context, call, request),
        Request::ListGroups(request) => group_lists::list_groups(context, call, request),
        Request::DescribeGroup(request) => group_lists::describe_group(context, call, request),
        Request::DeleteGroup(request) => groups::delete_group(context, call, request),
        Request::Hello(_)
        | Request::Stats
        | Request::ReleaseSpace(_)
        | Request::Produce(_)
        | Request::Subscribe(_)
        | Request::Fetch(_)
        | Request::Credit(_)
        | Request::Unsubscribe => {
            context.reply_error(call, &ApiError::Internal("requests of the data path are not handled here"));
        }
    }
}

/// Replies with a producer id or an error.
fn reply_producer_id(context: &mut Context<'_>, call: Call, given: Result<ProducerId, ApiError>) {
    let reply = match given {
        Ok(producer) => Reply::body(&InitProducerReply { producer, epoch: 0 }),
        Err(error) => reply_of(&error),
    };
    context.reply(call, reply);
}
