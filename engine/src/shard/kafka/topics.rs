//! Topics: created, deleted, given more partitions.
//!
//! Each topic of a request stands for itself: what is wrong with one does not keep the others from being done.

use std::collections::BTreeSet;

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
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::TopicId;
use highwater_protocol::limits::PARTITIONS_PER_TOPIC_MAX;
use highwater_protocol::native::{AlterTopicRequest, Body, CreateTopicReply, CreateTopicRequest};
use highwater_protocol::text::counted;
use highwater_runtime::plane::Plane;

use super::Call;
use super::configs::source_of;
use crate::limits::KAFKA_CHANGES_PER_REQUEST_MAX;
use crate::message::{Answer, Ask, Message};
use crate::meta::configs;
use crate::shard::Shard;
use crate::shard::long_answers::AnswerTo;

/// Kafka's code for what is wrong, and the same for a person.
pub(super) type Refused = (KafkaError, String);

fn refuse<T>(error: KafkaError, text: impl Into<String>) -> Result<T, Refused> {
    Err((error, text.into()))
}

/// What the controller said to a change of a topic.
pub(super) fn outcome(answer: Answer) -> Result<Reply, Refused> {
    match answer {
        Answer::Reply(Reply::Error { code, text }) => {
            let error = match code {
                // Of what the controller checks, this is the number of partitions.
                ErrorCode::InvalidArgument => KafkaError::INVALID_PARTITIONS,
                ErrorCode::Unavailable => KafkaError::NOT_CONTROLLER,
                code => code.into(),
            };
            Err((error, text))
        }
        Answer::Reply(reply) => Ok(reply),
        other => unreachable!("a question about a topic is answered in its own kind, not with {other:?}"),
    }
}

/// What comes up more than once.
pub(super) fn repeated<T: Ord + Copy>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    all.filter(|name| !seen.insert(*name)).collect()
}

/// Each once, in the order in which they come up first.
pub(super) fn distinct<T: Ord + Copy>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut seen = BTreeSet::new();
    all.filter(move |name| seen.insert(*name))
}

/// A request that asks for too much at once.
pub(super) fn check_count(changes: usize) -> Result<(), Refused> {
    if changes > KAFKA_CHANGES_PER_REQUEST_MAX {
        let text =
            format!("a request may change {KAFKA_CHANGES_PER_REQUEST_MAX} things at most, not {changes}");
        return refuse(KafkaError::POLICY_VIOLATION, text);
    }
    Ok(())
}

/// Why neither of two topics of one name is changed.
const TWICE: &str = "Duplicate topic name.";

impl Shard {
    pub(super) fn kafka_create_topics(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &CreateTopicsRequest<'_>,
    ) {
        let twice = repeated(request.topics.iter().map(|topic| topic.name));
        let refused = |name: &str, why| Made { name: name.to_owned(), outcome: Err(why) };
        let mut topics: Vec<Made> =
            twice.iter().map(|name| refused(name, (KafkaError::INVALID_REQUEST, TWICE.into()))).collect();
        let mut asks = Vec::new();
        let mut asked = Vec::new();
        let count = check_count(request.topics.len());
        for topic in request.topics.iter().filter(|topic| !twice.contains(topic.name)) {
            let plan = count.clone().and_then(|()| self.plan_topic(topic, request.validate_only));
            match plan {
                Ok(plan) => {
                    asked.push((plan.name.clone(), plan.partitions, plan.configs.clone()));
                    asks.push(Ask::CreateTopic(plan));
                }
                Err(why) => topics.push(refused(topic.name, why)),
            }
        }
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for ((name, partitions, set), answer) in asked.into_iter().zip(answers) {
                let outcome = outcome(answer).map(|reply| (partitions, set, id_of(&reply)));
                topics.push(Made { name, outcome });
            }
            let version = call.version();
            let Frame { front, back } = CreateTopicsResponse::default().frame(version, topics.len());
            let pieces = Pieces::new(front, AllMade { version, topics }, back);
            shard.answer_in_pieces(AnswerTo::Kafka(call), pieces);
        });
    }

    fn plan_topic(
        &self,
        topic: &CreatableTopic<'_>,
        validate_only: bool,
    ) -> Result<CreateTopicRequest, Refused> {
        let assigned = !topic.assignments.is_empty();
        let partitions = match topic.num_partitions {
            -1 if assigned => self.check_assignments(topic)?,
            _ if assigned => {
                let text =
                    "A manual partition assignment was specified, but numPartitions was not set to -1.";
                return refuse(KafkaError::INVALID_REQUEST, text);
            }
            -1 => self.setup.kafka.default_partitions,
            count @ 1.. => count as u32,
            count => {
                let text = format!(
                    "Number of partitions was set to an invalid non-positive value, {count}; use -1 for the default."
                );
                return refuse(KafkaError::INVALID_PARTITIONS, text);
            }
        };
        match topic.replication_factor {
            -1 => {}
            _ if assigned => {
                let text =
                    "A manual partition assignment was specified, but replication factor was not set to -1.";
                return refuse(KafkaError::INVALID_REQUEST, text);
            }
            1 => {}
            factor @ 2.. => {
                let text = format!(
                    "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
                     reached because only 1 broker(s) are registered."
                );
                return refuse(KafkaError::INVALID_REPLICATION_FACTOR, text);
            }
            _ => {
                let text = "Replication factor must be larger than 0, or -1 to use the default value.";
                return refuse(KafkaError::INVALID_REPLICATION_FACTOR, text);
            }
        }
        let mut configs = Vec::with_capacity(topic.configs.len());
        for config in &topic.configs {
            let Some(value) = config.value else {
                let text = format!("Null value not supported for topic configs: {}", config.name);
                return refuse(KafkaError::INVALID_CONFIG, text);
            };
            configs.push((config.name.to_owned(), value.to_owned()));
        }
        Ok(CreateTopicRequest { name: topic.name.to_owned(), partitions, configs, validate_only })
    }

    /// The number of partitions that are assigned, each to this node.
    fn check_assignments(&self, topic: &CreatableTopic<'_>) -> Result<u32, Refused> {
        let count = topic.assignments.len() as i32;
        let numbers: BTreeSet<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
        if numbers.len() < topic.assignments.len() || !numbers.iter().copied().eq(0..count) {
            let text = "partitions should be a consecutive 0-based integer sequence";
            return refuse(KafkaError::INVALID_REPLICA_ASSIGNMENT, text);
        }
        for assignment in &topic.assignments {
            self.check_assignment(&assignment.broker_ids)?;
        }
        Ok(count as u32)
    }

    fn check_assignment(&self, nodes: &[i32]) -> Result<(), Refused> {
        let node = self.kafka_node();
        if nodes != [node] {
            let text = format!("a partition is assigned to nodes {nodes:?}; the only node is {node}");
            return refuse(KafkaError::INVALID_REPLICA_ASSIGNMENT, text);
        }
        Ok(())
    }

    pub(super) fn kafka_delete_topics(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DeleteTopicsRequest<'_>,
    ) {
        let by_name = |name| DeleteTopic { name: Some(name), topic_id: Uuid::default() };
        let topics: Vec<DeleteTopic<'_>> = match call.origin.version {
            ..6 => request.topic_names.iter().map(|name| by_name(*name)).collect(),
            _ => request.topics.clone(),
        };
        let mut named = Vec::new();
        let mut responses: Vec<DeletedTopic<'static>> = Vec::new();
        let count = check_count(topics.len());
        for topic in &topics {
            match count.clone().and_then(|()| self.find_to_delete(topic)) {
                Ok((id, name)) => named.push((id, name)),
                Err(refused) => responses.push(deleted(topic.name, topic.topic_id, Err(refused))),
            }
        }
        let twice = repeated(named.iter().map(|(id, _)| *id));
        for id in &twice {
            let name = named.iter().find(|(of, _)| of == id).map(|(_, name)| name.as_str());
            responses.push(deleted(name, id.0, refuse(KafkaError::INVALID_REQUEST, TWICE)));
        }
        named.retain(|(id, _)| !twice.contains(id));
        let asks = named.iter().map(|(id, _)| Ask::DeleteTopicById(*id)).collect();
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for ((id, name), answer) in named.into_iter().zip(answers) {
                responses.push(deleted(Some(&name), id.0, outcome(answer).map(drop)));
            }
            shard.kafka_answer(call, &DeleteTopicsResponse { throttle_time_ms: 0, responses });
        });
    }

    fn find_to_delete(&self, topic: &DeleteTopic<'_>) -> Result<(TopicId, String), Refused> {
        let metadata = self.metadata.as_ref();
        let has_id = topic.topic_id != Uuid::default();
        let found = match topic.name {
            Some(_) if has_id => {
                return refuse(
                    KafkaError::INVALID_REQUEST,
                    "a topic is named by its name or by its id, not by both",
                );
            }
            None if !has_id => {
                return refuse(KafkaError::INVALID_REQUEST, "neither a name nor an id is given");
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

    pub(super) fn kafka_create_partitions(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &CreatePartitionsRequest<'_>,
    ) {
        let twice = repeated(request.topics.iter().map(|topic| topic.name));
        let mut results: Vec<CreatePartitionsTopicResponse<'static>> =
            twice.iter().map(|name| extended(name, refuse(KafkaError::INVALID_REQUEST, TWICE))).collect();
        let mut asks = Vec::new();
        let mut asked = Vec::new();
        let count = check_count(request.topics.len());
        for topic in request.topics.iter().filter(|topic| !twice.contains(topic.name)) {
            match count.clone().and_then(|()| self.check_extension(topic)) {
                Ok(partitions) if !request.validate_only => {
                    let name = topic.name.to_owned();
                    asked.push(name.clone());
                    asks.push(Ask::AlterTopic(AlterTopicRequest {
                        name,
                        configs: Vec::new(),
                        partitions: Some(partitions),
                    }));
                }
                checked => results.push(extended(topic.name, checked.map(drop))),
            }
        }
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for (name, answer) in asked.into_iter().zip(answers) {
                results.push(extended(&name, outcome(answer).map(drop)));
            }
            shard.kafka_answer(call, &CreatePartitionsResponse { throttle_time_ms: 0, results });
        });
    }

    fn check_extension(&self, topic: &CreatePartitionsTopic<'_>) -> Result<u32, Refused> {
        let Some(known) = self.metadata.as_ref().and_then(|m| m.topic(topic.name)) else {
            let text = format!("there is no topic {}", topic.name);
            return refuse(KafkaError::UNKNOWN_TOPIC_OR_PARTITION, text);
        };
        let have = known.stores.len();
        let want = usize::try_from(topic.count).unwrap_or(0);
        if want == have {
            let text = format!("Topic already has {have} partition(s).");
            return refuse(KafkaError::INVALID_PARTITIONS, text);
        }
        if want < have {
            let text = format!(
                "The topic {} currently has {have} partition(s); {} would not be an increase.",
                topic.name, topic.count
            );
            return refuse(KafkaError::INVALID_PARTITIONS, text);
        }
        if want > PARTITIONS_PER_TOPIC_MAX as usize {
            let text = format!("a topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions, not {want}");
            return refuse(KafkaError::INVALID_PARTITIONS, text);
        }
        if let Some(assignments) = &topic.assignments {
            if assignments.len() != want - have {
                let (new, assigned) = (counted(want - have, "new partition"), assignments.len());
                let text = format!("the request is for {new} and assigns {assigned}");
                return refuse(KafkaError::INVALID_REPLICA_ASSIGNMENT, text);
            }
            assignments.iter().try_for_each(|a| self.check_assignment(&a.broker_ids))?;
        }
        Ok(want as u32)
    }
}

/// A topic that was made: partitions, what was set, and identity.
type MadeTopic = (u32, Vec<(String, String)>, TopicId);

/// What became of a topic that was to be made.
#[derive(Debug)]
struct Made {
    name: String,
    outcome: Result<MadeTopic, Refused>,
}

/// The topics of an answer.
#[derive(Debug)]
struct AllMade {
    version: i16,
    topics: Vec<Made>,
}

impl Entries for AllMade {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let Made { name, outcome } = &self.topics[entry];
        let mut topic =
            CreatedTopic { name: name.as_str().into(), configs: Some(Vec::new()), ..Default::default() };
        match outcome {
            Ok((partitions, set, id)) => {
                topic.topic_id = id.0;
                topic.num_partitions = *partitions as i32;
                topic.replication_factor = 1;
                topic.configs = Some(shown(set));
            }
            Err((error, text)) => {
                topic.error_code = *error;
                topic.error_message = Some(text.as_str().into());
            }
        }
        topic.write(out, CreateTopicsResponse::form(self.version));
        false
    }
}

fn id_of(reply: &Reply) -> TopicId {
    match reply {
        Reply::Body(body) => CreateTopicReply::decode(body).expect("the controller's own").id,
        other => unreachable!("a new topic has an id, not {other:?}"),
    }
}

/// The configuration of a new topic.
fn shown(set: &[(String, String)]) -> Vec<CreatedTopicConfig<'static>> {
    let set = configs::parse(set).expect("the controller took them");
    let configs = configs::settings(&set).map(|setting| CreatedTopicConfig {
        name: setting.config.name.into(),
        value: Some(setting.set.map_or(setting.config.default.into(), |value| value.to_owned().into())),
        read_only: false,
        config_source: source_of(setting.set.is_some()),
        is_sensitive: false,
    });
    configs.collect()
}

fn deleted(name: Option<&str>, topic_id: Uuid, outcome: Result<(), Refused>) -> DeletedTopic<'static> {
    let (error_code, text) = told(outcome);
    let name = name.map(|name| name.to_owned().into());
    DeletedTopic { name, topic_id, error_code, error_message: text.map(Into::into) }
}

fn extended(name: &str, outcome: Result<(), Refused>) -> CreatePartitionsTopicResponse<'static> {
    let (error_code, text) = told(outcome);
    let name = name.to_owned().into();
    CreatePartitionsTopicResponse { name, error_code, error_message: text.map(Into::into) }
}

/// Code and text for an answer.
pub(super) fn told(outcome: Result<(), Refused>) -> (KafkaError, Option<String>) {
    match outcome {
        Ok(()) => (KafkaError::NONE, None),
        Err((error, text)) => (error, Some(text)),
    }
}
