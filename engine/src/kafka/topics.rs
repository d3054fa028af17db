//! CreateTopics, DeleteTopics and CreatePartitions.
//!
//! The topics of a request are independent: an error of one does not affect the others.

use std::collections::BTreeMap;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    CreatableTopic, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResponse, CreateTopicsRequest, CreateTopicsResponse, CreatedTopic,
    CreatedTopicConfig, DeleteTopic, DeleteTopicsRequest, DeleteTopicsResponse, DeletedTopic,
};
use highwater_net::kafka::schema::Message as _;
use highwater_net::kafka::wire::{Uuid, Wire as _};
use highwater_net::{Entries, Pieces};
use highwater_protocol::ids::{NodeId, TopicId};
use highwater_protocol::limits::PARTITIONS_PER_TOPIC_MAX;
use highwater_protocol::text::counted;

use super::Call;
use super::config_entry::source_of;
use super::error::{RequestError, error_fields, reject, request_error};
use super::names::{check_count, repeated};
use crate::api::{self, AlterTopic, CreateTopic, DeleteTopicById, Replication};
use crate::context::{AnswerTo, Context};
use crate::meta::configs;

/// The error for a topic that a request has twice.
const DUPLICATE_TOPIC: &str = "Duplicate topic name.";

pub(super) fn create_topics(context: &mut Context<'_>, call: Call, request: &CreateTopicsRequest<'_>) {
    let duplicates = repeated(request.topics.iter().map(|topic| topic.name));
    let rejected = |name: &str, why| CreationResult { name: name.to_owned(), outcome: Err(why) };
    let mut topics: Vec<CreationResult> = duplicates
        .iter()
        .map(|name| rejected(name, (KafkaError::INVALID_REQUEST, DUPLICATE_TOPIC.into())))
        .collect();
    let mut requests = Vec::new();
    let mut requested = Vec::new();
    let count = check_count(request.topics.len());
    for topic in request.topics.iter().filter(|topic| !duplicates.contains(topic.name)) {
        let plan = count.clone().and_then(|()| plan_topic(context, topic, request.validate_only));
        match plan {
            Ok(plan) => {
                requested.push((plan.name.clone(), plan.partitions, plan.configs.clone()));
                requests.push(plan);
            }
            Err(why) => topics.push(rejected(topic.name, why)),
        }
    }
    context.ask_each(call.conn, requests, move |context, replies| {
        for ((name, partitions, set), created) in requested.into_iter().zip(replies) {
            let outcome =
                created.map(|topic| (partitions, set, topic)).map_err(|error| request_error(&error));
            topics.push(CreationResult { name, outcome });
        }
        let version = call.version();
        let Frame { front, back } = CreateTopicsResponse::default().frame(version, topics.len());
        let pieces = Pieces::new(front, CreationResults { version, topics }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

fn plan_topic(
    context: &Context<'_>,
    topic: &CreatableTopic<'_>,
    validate_only: bool,
) -> Result<CreateTopic, RequestError> {
    let assigned = !topic.assignments.is_empty();
    let mut replication = Replication::Default;
    let partitions = match topic.num_partitions {
        -1 if assigned => {
            let nodes = check_assignments(topic)?;
            let count = nodes.len() as u32;
            replication = Replication::Assigned(nodes);
            count
        }
        _ if assigned => {
            let text = "A manual partition assignment was specified, but numPartitions was not set to -1.";
            return reject(KafkaError::INVALID_REQUEST, text);
        }
        -1 => context.setup.kafka.default_partitions,
        count @ 1.. => count as u32,
        count => {
            let text = format!(
                "Number of partitions was set to an invalid non-positive value, {count}; use -1 for the default."
            );
            return reject(KafkaError::INVALID_PARTITIONS, text);
        }
    };
    match topic.replication_factor {
        -1 => {}
        _ if assigned => {
            let text =
                "A manual partition assignment was specified, but replication factor was not set to -1.";
            return reject(KafkaError::INVALID_REQUEST, text);
        }
        // A negative one is as impossible as 0.
        factor => replication = Replication::Factor(u32::try_from(factor).unwrap_or(0)),
    }
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        let Some(value) = config.value else {
            let text = format!("Null value not supported for topic configs: {}", config.name);
            return reject(KafkaError::INVALID_CONFIG, text);
        };
        configs.push((config.name.to_owned(), value.to_owned()));
    }
    Ok(CreateTopic { name: topic.name.to_owned(), partitions, replication, configs, validate_only })
}

/// Returns the nodes of manual assignments, by number of the partition.
fn check_assignments(topic: &CreatableTopic<'_>) -> Result<Vec<Vec<NodeId>>, RequestError> {
    let by_number: BTreeMap<i32, &[i32]> =
        topic.assignments.iter().map(|a| (a.partition_index, &a.broker_ids[..])).collect();
    let count = topic.assignments.len() as i32;
    if !by_number.keys().copied().eq(0..count) {
        let text = "partitions should be a consecutive 0-based integer sequence";
        return reject(KafkaError::INVALID_REPLICA_ASSIGNMENT, text);
    }
    by_number.into_values().map(assigned_nodes).collect()
}

fn assigned_nodes(nodes: &[i32]) -> Result<Vec<NodeId>, RequestError> {
    let ids: Result<Vec<NodeId>, _> = nodes.iter().map(|node| u32::try_from(*node).map(NodeId)).collect();
    ids.or_else(|_| {
        reject(KafkaError::INVALID_REPLICA_ASSIGNMENT, format!("a partition is assigned to nodes {nodes:?}"))
    })
}

pub(super) fn delete_topics(context: &mut Context<'_>, call: Call, request: &DeleteTopicsRequest<'_>) {
    let by_name = |name| DeleteTopic { name: Some(name), topic_id: Uuid::default() };
    let topics: Vec<DeleteTopic<'_>> = match call.origin.version {
        ..6 => request.topic_names.iter().map(|name| by_name(*name)).collect(),
        _ => request.topics.clone(),
    };
    let mut named = Vec::new();
    let mut responses: Vec<DeletedTopic<'static>> = Vec::new();
    let count = check_count(topics.len());
    for topic in &topics {
        match count.clone().and_then(|()| find_to_delete(context, topic)) {
            Ok((id, name)) => named.push((id, name)),
            Err(why) => responses.push(deletion_result(topic.name, topic.topic_id, Err(why))),
        }
    }
    let duplicates = repeated(named.iter().map(|(id, _)| *id));
    for id in &duplicates {
        let name = named.iter().find(|(of, _)| of == id).map(|(_, name)| name.as_str());
        responses.push(deletion_result(name, id.0, reject(KafkaError::INVALID_REQUEST, DUPLICATE_TOPIC)));
    }
    named.retain(|(id, _)| !duplicates.contains(id));
    let requests = named.iter().map(|(id, _)| DeleteTopicById(*id)).collect();
    context.ask_each(call.conn, requests, move |context, replies| {
        for ((id, name), outcome) in named.into_iter().zip(replies) {
            responses.push(deletion_result(
                Some(&name),
                id.0,
                outcome.map_err(|error| request_error(&error)),
            ));
        }
        context.answer(call, &DeleteTopicsResponse { throttle_time_ms: 0, responses });
    });
}

fn find_to_delete(context: &Context<'_>, topic: &DeleteTopic<'_>) -> Result<(TopicId, String), RequestError> {
    let metadata = context.metadata;
    let has_id = topic.topic_id != Uuid::default();
    let found = match topic.name {
        Some(_) if has_id => {
            return reject(
                KafkaError::INVALID_REQUEST,
                "a topic is identified by its name or by its id, not by both",
            );
        }
        None if !has_id => {
            return reject(
                KafkaError::INVALID_REQUEST,
                "the request has neither a name nor an id for a topic",
            );
        }
        Some(name) => metadata
            .and_then(|m| m.topic(name))
            .ok_or_else(|| (KafkaError::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic {name}"))),
        None => metadata.and_then(|m| m.topic_by_id(TopicId(topic.topic_id))).ok_or_else(|| {
            let id = TopicId(topic.topic_id);
            (KafkaError::UNKNOWN_TOPIC_ID, format!("there is no topic with id {id}"))
        }),
    };
    found.map(|topic| (topic.id, topic.name.clone()))
}

pub(super) fn create_partitions(
    context: &mut Context<'_>,
    call: Call,
    request: &CreatePartitionsRequest<'_>,
) {
    let duplicates = repeated(request.topics.iter().map(|topic| topic.name));
    let mut results: Vec<CreatePartitionsTopicResponse<'static>> = duplicates
        .iter()
        .map(|name| extension_result(name, reject(KafkaError::INVALID_REQUEST, DUPLICATE_TOPIC)))
        .collect();
    let mut requests = Vec::new();
    let mut requested = Vec::new();
    let count = check_count(request.topics.len());
    for topic in request.topics.iter().filter(|topic| !duplicates.contains(topic.name)) {
        match count.clone().and_then(|()| check_extension(context, topic)) {
            Ok((partitions, replication)) => {
                let name = topic.name.to_owned();
                requested.push(name.clone());
                let (partitions, validate_only) = (Some(partitions), request.validate_only);
                requests.push(AlterTopic {
                    name,
                    configs: Vec::new(),
                    partitions,
                    replication,
                    validate_only,
                });
            }
            Err(why) => results.push(extension_result(topic.name, Err(why))),
        }
    }
    context.ask_each(call.conn, requests, move |context, replies| {
        for (name, outcome) in requested.into_iter().zip(replies) {
            results.push(extension_result(&name, outcome.map_err(|error| request_error(&error))));
        }
        context.answer(call, &CreatePartitionsResponse { throttle_time_ms: 0, results });
    });
}

fn check_extension(
    context: &Context<'_>,
    topic: &CreatePartitionsTopic<'_>,
) -> Result<(u32, Replication), RequestError> {
    let Some(known) = context.metadata.and_then(|m| m.topic(topic.name)) else {
        let text = format!("there is no topic {}", topic.name);
        return reject(KafkaError::UNKNOWN_TOPIC_OR_PARTITION, text);
    };
    let have = known.partition_count();
    let want = usize::try_from(topic.count).unwrap_or(0);
    if want == have {
        let text = format!("Topic already has {have} partition(s).");
        return reject(KafkaError::INVALID_PARTITIONS, text);
    }
    if want < have {
        let text = format!(
            "The topic {} currently has {have} partition(s); {} would not be an increase.",
            topic.name, topic.count
        );
        return reject(KafkaError::INVALID_PARTITIONS, text);
    }
    if want > PARTITIONS_PER_TOPIC_MAX as usize {
        let text = format!("a topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions, not {want}");
        return reject(KafkaError::INVALID_PARTITIONS, text);
    }
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != want - have {
            let (new, assigned) = (counted(want - have, "new partition"), assignments.len());
            let text = format!("the request adds {new} but has assignments for {assigned}");
            return reject(KafkaError::INVALID_REPLICA_ASSIGNMENT, text);
        }
        let nodes = assignments.iter().map(|a| assigned_nodes(&a.broker_ids)).collect::<Result<_, _>>()?;
        return Ok((want as u32, Replication::Assigned(nodes)));
    }
    Ok((want as u32, Replication::Default))
}

/// The number of partitions and the settings of a created topic, with its id and its number of replicas.
type CreatedSettings = (u32, Vec<(String, String)>, api::CreatedTopic);

/// The outcome for a topic to create.
#[derive(Debug)]
struct CreationResult {
    name: String,
    outcome: Result<CreatedSettings, RequestError>,
}

/// The topics of a response.
#[derive(Debug)]
struct CreationResults {
    version: i16,
    topics: Vec<CreationResult>,
}

impl Entries for CreationResults {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let CreationResult { name, outcome } = &self.topics[entry];
        let mut topic =
            CreatedTopic { name: name.as_str().into(), configs: Some(Vec::new()), ..Default::default() };
        match outcome {
            Ok((partitions, set, created)) => {
                topic.topic_id = created.id.0;
                topic.num_partitions = *partitions as i32;
                topic.replication_factor = created.replicas as i16;
                topic.configs = Some(config_entries(set));
            }
            Err((error, text)) => {
                topic.error_code = *error;
                topic.error_message = Some(text.as_str().into());
            }
        }
        topic.write(out, CreateTopicsResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        let texts = |result: &CreationResult| {
            let set = |set: &[(String, String)]| {
                set.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>()).sum()
            };
            result.name.len()
                + result.outcome.as_ref().map_or_else(|(_, text)| text.len(), |(_, of, _)| set(of))
        };
        size_of_val(&self.topics[..]) + self.topics.iter().map(texts).sum::<usize>()
    }
}

/// Returns the configuration entries of a new topic for the response.
fn config_entries(set: &[(String, String)]) -> Vec<CreatedTopicConfig<'static>> {
    let set = configs::parse(set).expect("the controller has validated them");
    let configs = configs::settings(&set).map(|setting| CreatedTopicConfig {
        name: setting.config.name.into(),
        value: Some(setting.set.map_or(setting.config.default.into(), |value| value.to_owned().into())),
        read_only: false,
        config_source: source_of(setting.set.is_some()),
        is_sensitive: false,
    });
    configs.collect()
}

fn deletion_result(
    name: Option<&str>,
    topic_id: Uuid,
    outcome: Result<(), RequestError>,
) -> DeletedTopic<'static> {
    let (error_code, text) = error_fields(outcome);
    let name = name.map(|name| name.to_owned().into());
    DeletedTopic { name, topic_id, error_code, error_message: text.map(Into::into) }
}

fn extension_result(name: &str, outcome: Result<(), RequestError>) -> CreatePartitionsTopicResponse<'static> {
    let (error_code, text) = error_fields(outcome);
    let name = name.to_owned().into();
    CreatePartitionsTopicResponse { name, error_code, error_message: text.map(Into::into) }
}
