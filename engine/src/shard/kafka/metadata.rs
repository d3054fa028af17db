//! Metadata: the node and its topics, made on the way if they are asked for and may be.

use std::borrow::Cow;

use highwater_net::Reply;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::CreateTopicRequest;
use highwater_protocol::topic::{is_reserved_topic_name, validate_topic_name};
use highwater_runtime::plane::Plane;

use super::topics::distinct;
use super::{Call, Named};
use crate::limits::KAFKA_CHANGES_PER_REQUEST_MAX;
use crate::message::{Answer, Ask, Message};
use crate::metadata::Topic;
use crate::shard::Shard;

/// What was asked: a name or an id, and why there is none.
struct Wanted {
    name: Option<String>,
    id: [u8; 16],
    error: Option<KafkaError>,
}

impl Shard {
    pub(super) fn kafka_metadata(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &MetadataRequest<'_>,
    ) {
        let asked = match &request.topics {
            None => return self.tell_metadata(call, None),
            Some(topics) if topics.is_empty() && call.version() == 0 => {
                return self.tell_metadata(call, None);
            }
            Some(topics) => topics,
        };
        // What is asked for is a set: the answer for a topic is many times as long as its name.
        let asked = distinct(asked.iter().map(|topic| (topic.name, topic.topic_id)));
        let mut topics: Vec<Wanted> =
            asked.map(|(name, id)| Wanted { name: name.map(str::to_owned), id, error: None }).collect();
        let may_create = request.allow_auto_topic_creation && self.setup.kafka.auto_create_topics;
        let (mut made, mut asks) = (Vec::new(), Vec::new());
        for (number, wanted) in topics.iter_mut().enumerate() {
            let Some(name) = wanted.name.as_deref().filter(|_| wanted.id == [0; 16]) else { continue };
            if validate_topic_name(name).is_err() {
                wanted.error = Some(KafkaError::INVALID_TOPIC_EXCEPTION);
            } else if may_create
                && !is_reserved_topic_name(name)
                && matches!(self.kafka_topic(name, [0; 16]), Named::Unknown { .. })
            {
                if made.len() == KAFKA_CHANGES_PER_REQUEST_MAX {
                    // Its client is told that there is none, and asks again.
                    continue;
                }
                tracing::info!(topic = name, "made because a Kafka client asked for it");
                made.push(number);
                asks.push(Ask::CreateTopic(CreateTopicRequest {
                    name: name.to_owned(),
                    partitions: self.setup.kafka.default_partitions,
                    configs: Vec::new(),
                    validate_only: false,
                }));
            }
        }
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for (number, answer) in made.into_iter().zip(answers) {
                // Somebody else may have been faster.
                if let Answer::Reply(Reply::Error { code, .. }) = answer
                    && code != ErrorCode::TopicExists
                {
                    topics[number].error = Some(code.into());
                }
            }
            shard.tell_metadata(call, Some(&topics));
        });
    }

    /// Answers with these topics; none: with all.
    fn tell_metadata(&mut self, call: Call, topics: Option<&[Wanted]>) {
        let Some(metadata) = self.metadata.clone() else { return };
        let Some(advertised) = self.advertised_to(call.conn) else { return };
        let topics = match topics {
            None => metadata.topics().map(|topic| self.metadata_topic(topic)).collect(),
            Some(topics) => topics.iter().map(|wanted| self.wanted_topic(wanted)).collect(),
        };
        let response = MetadataResponse {
            brokers: vec![MetadataBroker {
                node_id: self.kafka_node(),
                host: Cow::Owned(advertised.host),
                port: advertised.port.into(),
                rack: None,
            }],
            cluster_id: Some(Cow::Owned(self.kafka_cluster_id())),
            controller_id: self.kafka_node(),
            topics,
            ..Default::default()
        };
        self.kafka_answer(call, &response);
    }

    fn wanted_topic(&self, wanted: &Wanted) -> MetadataTopic<'static> {
        let named = self.kafka_topic(wanted.name.as_deref().unwrap_or_default(), wanted.id);
        match (&named, wanted.error) {
            (Named::Known(topic), None) => self.metadata_topic(topic),
            (named, error) => MetadataTopic {
                error_code: error.unwrap_or_else(|| named.missing()),
                name: wanted.name.clone().map(Cow::Owned),
                topic_id: wanted.id,
                ..Default::default()
            },
        }
    }

    fn metadata_topic(&self, topic: &Topic) -> MetadataTopic<'static> {
        let node = self.kafka_node();
        let partitions = topic.partitions().map(|(tp, _)| MetadataPartition {
            error_code: KafkaError::NONE,
            partition_index: tp.partition.0 as i32,
            leader_id: node,
            leader_epoch: self.kafka_leader_epoch(tp),
            replica_nodes: vec![node],
            isr_nodes: vec![node],
            offline_replicas: Vec::new(),
        });
        MetadataTopic {
            error_code: KafkaError::NONE,
            name: Some(Cow::Owned(topic.name.clone())),
            topic_id: topic.id.0,
            partitions: partitions.collect(),
            ..Default::default()
        }
    }
}
