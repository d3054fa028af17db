//! Administrative requests with the same response on every single-node cluster without security: there are no reassignments, elections, ACLs,
//! quotas or credentials.

use std::borrow::Cow;
use std::collections::BTreeSet;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeAclsResponse, DescribeClientQuotasResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsResponse, ListTransactionsRequest,
    ListTransactionsResponse, PartitionResult, ReplicaElectionResult,
};

use super::Call;
use super::error::RequestError;
use super::names::{Named, check_count, distinct, find_topic, repeated};
use crate::context::Context;

/// Kafka's codes for types of elections: preferred and unclean.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

/// Kafka's names for the states of a transaction.
const TRANSACTION_STATES: [&str; 8] = [
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Empty",
    "Dead",
    "PrepareEpochFence",
];

pub(super) fn describe_acls(context: &mut Context<'_>, call: Call) {
    let response = DescribeAclsResponse {
        error_code: KafkaError::SECURITY_DISABLED,
        error_message: Some(Cow::Borrowed("No Authorizer is configured.")),
        ..Default::default()
    };
    context.answer(call, &response);
}

pub(super) fn describe_client_quotas(context: &mut Context<'_>, call: Call) {
    let response = DescribeClientQuotasResponse { entries: Some(Vec::new()), ..Default::default() };
    context.answer(call, &response);
}

pub(super) fn describe_user_scram_credentials(
    context: &mut Context<'_>,
    call: Call,
    request: &DescribeUserScramCredentialsRequest<'_>,
) {
    let users = request.users.as_deref().unwrap_or_default();
    let mut response = DescribeUserScramCredentialsResponse::default();
    if let Err((error, text)) = check_count(users.len()) {
        response.error_code = error;
        response.error_message = Some(text.into());
        return context.answer(call, &response);
    }
    let duplicates = repeated(users.iter().map(|user| user.name));
    let results = distinct(users.iter().map(|user| user.name)).map(|user| {
        let (error_code, text) = if duplicates.contains(user) {
            let text = "Cannot describe SCRAM credentials for the same user twice in a single request: ";
            (KafkaError::DUPLICATE_RESOURCE, text)
        } else {
            let text = "Attempt to describe a user credential that does not exist: ";
            (KafkaError::RESOURCE_NOT_FOUND, text)
        };
        DescribeUserScramCredentialsResult {
            user: user.into(),
            error_code,
            error_message: Some(format!("{text}{user}").into()),
            credential_infos: Vec::new(),
        }
    });
    response.results = results.collect();
    context.answer(call, &response);
}

pub(super) fn list_transactions(
    context: &mut Context<'_>,
    call: Call,
    request: &ListTransactionsRequest<'_>,
) {
    let mut response = ListTransactionsResponse::default();
    match check_count(request.state_filters.len()) {
        Ok(()) => {
            let unknown = request.state_filters.iter().filter(|state| !TRANSACTION_STATES.contains(*state));
            response.unknown_state_filters = unknown.map(|state| Cow::Borrowed(*state)).collect();
        }
        Err((error, _)) => response.error_code = error,
    }
    context.answer(call, &response);
}

pub(super) fn list_partition_reassignments(context: &mut Context<'_>, call: Call) {
    context.answer(call, &ListPartitionReassignmentsResponse::default());
}

pub(super) fn elect_leaders(context: &mut Context<'_>, call: Call, request: &ElectLeadersRequest<'_>) {
    let mut response = ElectLeadersResponse::default();
    match elections(context, request) {
        Ok(results) => response.replica_election_results = results,
        // The response has no field for a message.
        Err((error, _)) => response.error_code = error,
    }
    context.answer(call, &response);
}

fn elections<'a>(
    context: &Context<'_>,
    request: &ElectLeadersRequest<'a>,
) -> Result<Vec<ReplicaElectionResult<'a>>, RequestError> {
    if !ELECTION_TYPES.contains(&request.election_type) {
        let text = format!("unknown election type {}", request.election_type);
        return Err((KafkaError::INVALID_REQUEST, text));
    }
    // A request for all partitions gets the partitions with a new leader, as from Kafka: there are none.
    let topics = request.topic_partitions.as_deref().unwrap_or_default();
    check_count(topics.iter().map(|topic| 1 + topic.partitions.len()).sum())?;
    let results = topics.iter().map(|wanted| {
        let topic = find_topic(context, wanted.topic, [0; 16]);
        let partitions: BTreeSet<i32> = wanted.partitions.iter().copied().collect();
        let result = |partition_id: i32| {
            let (error_code, text) = election(&topic, partition_id);
            PartitionResult { partition_id, error_code, error_message: Some(text.into()) }
        };
        ReplicaElectionResult {
            topic: Cow::Borrowed(wanted.topic),
            partition_result: partitions.into_iter().map(result).collect(),
        }
    });
    Ok(results.collect())
}

/// Returns the outcome of an election. Every partition has the only possible leader already.
fn election(topic: &Named, partition: i32) -> (KafkaError, String) {
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    match topic {
        Named::Unknown { name, .. } => (unknown, format!("No such topic as {name}")),
        Named::Known(_) if topic.partition(partition).is_some() => {
            (KafkaError::ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.".into())
        }
        Named::Known(topic) => (unknown, format!("No such partition as {}-{partition}", topic.name)),
    }
}
