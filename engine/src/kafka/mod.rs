//! Translates Kafka's requests into the broker's own, and its replies into Kafka's messages: one function per request, in files by family.
//! Decides nothing.
//!
//! A request gets a slot in the order of its connection's responses, and a [`Call`] that identifies it. Some requests are answered at once, with
//! [`Context::answer`]. For all others shard 0 or the owners of partitions get requests ([`crate::calls`]), and their replies are translated when
//! they arrive.
//!
//! Produce and Fetch are not here: see `shard/kafka/`.

mod alter_configs;
mod broker_configs;
mod cluster;
mod config_entry;
mod config_names;
mod configs;
mod delete_records;
mod directories;
mod epochs;
mod error;
mod find_coordinator;
mod group_admin;
mod group_describe;
mod group_offsets;
mod groups;
mod leader_hints;
mod metadata;
mod names;
mod offset_answer;
mod offset_fetch;
mod offsets;
mod one_node;
mod producer;
mod producers;
mod resolve;
mod sasl;
mod topic_answer;
mod topics;
mod transactions;

use highwater_net::kafka::api::{api_versions, api_versions_answer, names_a_client};
use highwater_net::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};
use highwater_net::kafka::{KafkaError, KafkaReply, Origin, Request, response};

pub(crate) use error::{append_error, producers_retry};
pub(crate) use leader_hints::{LeaderHint, LeaderHints};
pub(crate) use names::{Named, known_epoch};
pub(crate) use resolve::{LookupItem, NamedTopic, TopicLookup};
pub(crate) use transactions::{NO_TRANSACTIONS, NO_TRANSACTIONS_TEXT};

use crate::context::{Context, KafkaCall as Call};

/// Handles a request, or sends it to other shards. `client` is the client id.
pub(crate) fn handle_request(context: &mut Context<'_>, call: Call, client: &str, request: Request<'_>) {
    match request {
        Request::ListOffsets(request) => offsets::list_offsets(context, call, &request),
        Request::OffsetForLeaderEpoch(request) => epochs::epoch_ends(context, call, &request),
        Request::Metadata(request) => metadata::metadata(context, call, &request),
        Request::DescribeCluster(request) => cluster::describe_cluster(context, call, &request),
        Request::DescribeTopicPartitions(request) => {
            cluster::describe_topic_partitions(context, call, &request);
        }
        Request::ApiVersions(request) => list_api_versions(context, call, Some(&request)),
        Request::UnknownApiVersions => list_api_versions(context, call, None),
        Request::SaslHandshake(_) => sasl::sasl_handshake(context, call),
        Request::SaslAuthenticate(_) => sasl::sasl_authenticate(context, call),
        Request::InitProducerId(request) => producer::init_producer_id(context, call, &request),

        Request::AddPartitionsToTxn(request) => {
            transactions::add_partitions_to_txn(context, call, &request);
        }
        Request::AddOffsetsToTxn(_) => transactions::add_offsets_to_txn(context, call),
        Request::EndTxn(_) => transactions::end_txn(context, call),
        Request::TxnOffsetCommit(request) => transactions::txn_offset_commit(context, call, &request),

        Request::CreateTopics(request) => topics::create_topics(context, call, &request),
        Request::DeleteTopics(request) => topics::delete_topics(context, call, &request),
        Request::CreatePartitions(request) => topics::create_partitions(context, call, &request),
        Request::DeleteRecords(request) => delete_records::delete_records(context, call, &request),

        Request::DescribeConfigs(request) => configs::describe_configs(context, call, &request),
        Request::AlterConfigs(request) => alter_configs::alter_configs(context, call, &request),
        Request::IncrementalAlterConfigs(request) => {
            alter_configs::incremental_alter_configs(context, call, &request);
        }

        Request::DescribeLogDirs(request) => directories::describe_log_dirs(context, call, &request),
        Request::DescribeProducers(request) => producers::describe_producers(context, call, &request),
        Request::DescribeAcls(_) => one_node::describe_acls(context, call),
        Request::DescribeClientQuotas(_) => one_node::describe_client_quotas(context, call),
        Request::DescribeUserScramCredentials(request) => {
            one_node::describe_user_scram_credentials(context, call, &request);
        }
        Request::ListTransactions(request) => one_node::list_transactions(context, call, &request),
        Request::ListPartitionReassignments(_) => one_node::list_partition_reassignments(context, call),
        Request::ElectLeaders(request) => one_node::elect_leaders(context, call, &request),

        Request::FindCoordinator(request) => find_coordinator::find_coordinator(context, call, &request),
        Request::JoinGroup(request) => groups::join_group(context, call, client, &request),
        Request::SyncGroup(request) => groups::sync_group(context, call, &request),
        Request::Heartbeat(request) => groups::heartbeat(context, call, &request),
        Request::LeaveGroup(request) => groups::leave_group(context, call, &request),
        Request::OffsetCommit(request) => group_offsets::offset_commit(context, call, &request),
        Request::OffsetFetch(request) => offset_fetch::offset_fetch(context, call, &request),
        Request::DescribeGroups(request) => group_describe::describe_groups(context, call, &request),
        Request::ListGroups(request) => group_admin::list_groups(context, call, &request),
        Request::DeleteGroups(request) => group_admin::delete_groups(context, call, &request),
        Request::OffsetDelete(request) => group_offsets::offset_delete(context, call, &request),
        Request::ConsumerGroupHeartbeat(request) => {
            groups::consumer_group_heartbeat(context, call, client, &request);
        }
        Request::ConsumerGroupDescribe(request) => {
            group_describe::consumer_group_describe(context, call, &request);
        }

        Request::Produce(_) | Request::Fetch(_) => {
            tracing::error!("Produce and Fetch are not handled here");
            context.kafka_reply(call, KafkaReply::nothing());
            context.close_after_replies(call);
        }
    }
}

/// Answers ApiVersions. `request` is `None` in an unsupported version.
fn list_api_versions(context: &mut Context<'_>, call: Call, request: Option<&ApiVersionsRequest<'_>>) {
    if request.is_some_and(|request| !names_a_client(call.version(), request)) {
        let error_code = KafkaError::INVALID_REQUEST;
        return context.answer(call, &ApiVersionsResponse { error_code, ..Default::default() });
    }
    let (version, error) = api_versions_answer(call.version());
    let origin = Origin { version, ..call.origin };
    context.kafka_reply(call, response(origin, &api_versions(error)));
}
