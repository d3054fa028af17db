//! DescribeCluster and DescribeTopicPartitions.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use highwater_net::kafka::messages::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsCursor,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribedPartition, DescribedTopic,
};
use highwater_net::kafka::{KafkaError, response};
use highwater_protocol::ids::NodeId;

use super::Call;
use super::names::{Named, find_topic};
use crate::context::{Context, ReachableNode};
use crate::meta::{Leadership, NodeProtocol, Topic};

/// Maximum number of partitions in one response. Kafka's `max.request.partition.size.limit`.
pub(super) const PARTITIONS_PER_ANSWER_MAX: usize = 2000;

/// The endpoint type of brokers; the other one is controllers.
const ENDPOINT_BROKERS: i8 = 1;

/// Kafka's number for no node.
pub(super) const NO_NODE: i32 = -1;

pub(super) fn node(context: &Context<'_>) -> i32 {
    context.setup.identity.node.0 as i32
}

/// Returns the cluster's id in Kafka's notation.
pub(super) fn cluster_id(context: &Context<'_>) -> String {
    base64(context.setup.identity.cluster.0)
}

pub(super) fn describe_cluster(context: &mut Context<'_>, call: Call, request: &DescribeClusterRequest) {
    let Some(nodes) = context.nodes_for(call.conn, NodeProtocol::Kafka) else { return };
    let about_brokers = request.endpoint_type == ENDPOINT_BROKERS;
    // A node that cannot be reached is what Kafka calls a fenced broker.
    let is_shown = |node: &ReachableNode| !node.is_offline || request.include_fenced_brokers;
    let brokers = nodes.into_iter().filter(is_shown).map(|node| DescribeClusterBroker {
        broker_id: node.id.0 as i32,
        host: Cow::Owned(node.address.host),
        port: node.address.port.into(),
        rack: node.rack.map(Cow::Owned),
        is_fenced: node.is_offline,
    });
    let answer = DescribeClusterResponse {
        error_code: if about_brokers { KafkaError::NONE } else { KafkaError::MISMATCHED_ENDPOINT_TYPE },
        error_message: (!about_brokers)
            .then_some(Cow::Borrowed("this listener serves broker endpoints only")),
        endpoint_type: ENDPOINT_BROKERS,
        cluster_id: Cow::Owned(cluster_id(context)),
        controller_id: node(context),
        brokers: if about_brokers { brokers.collect() } else { Vec::new() },
        ..Default::default()
    };
    context.answer(call, &answer);
}

pub(super) fn describe_topic_partitions(
    context: &mut Context<'_>,
    call: Call,
    request: &DescribeTopicPartitionsRequest<'_>,
) {
    let (Some(metadata), Some(leadership)) = (context.metadata, context.leadership()) else { return };
    let first = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name);
    let mut names: Vec<&str> = match &request.topics[..] {
        // Every topic has at least one partition, so the response cannot have more topics than partitions.
        [] => metadata.names_from(first).take(PARTITIONS_PER_ANSWER_MAX + 1).collect(),
        topics => topics.iter().map(|topic| topic.name).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let (mut skip, mut next_cursor) = (0, None);
    if let Some(cursor) = &request.cursor {
        names.retain(|name| *name >= cursor.topic_name);
        if names.first() == Some(&cursor.topic_name) {
            skip = usize::try_from(cursor.partition_index).unwrap_or(0);
        }
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut left = limit.clamp(1, PARTITIONS_PER_ANSWER_MAX);
    let mut topics = Vec::new();
    for name in names {
        let from = std::mem::take(&mut skip);
        let Named::Known(topic) = find_topic(context, name, [0; 16]) else {
            topics.push(DescribedTopic {
                error_code: KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
                name: Some(Cow::Borrowed(name)),
                ..Default::default()
            });
            continue;
        };
        let count = topic.partition_count().saturating_sub(from);
        if left == 0 || count > left {
            let cursor = |at: usize| DescribeTopicPartitionsCursor {
                topic_name: Cow::Owned(topic.name.clone()),
                partition_index: at as i32,
            };
            next_cursor = Some(cursor(from + left));
        }
        if left == 0 {
            break;
        }
        topics.push(described_topic(&leadership, &topic, from, count.min(left)));
        left -= count.min(left);
        if next_cursor.is_some() {
            break;
        }
    }
    let answer = DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
    let reply = response(call.origin, &answer);
    context.kafka_reply(call, reply);
}

fn described_topic(
    leadership: &Leadership,
    topic: &Topic,
    from: usize,
    count: usize,
) -> DescribedTopic<'static> {
    let partitions = topic.partitions_from(from).take(count).map(|(tp, _)| {
        let led = leadership.of(topic, tp.partition);
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0 as i32).collect();
        DescribedPartition {
            error_code: led.leader.map_or(KafkaError::LEADER_NOT_AVAILABLE, |_| KafkaError::NONE),
            partition_index: tp.partition.0 as i32,
            leader_id: led.leader.map_or(NO_NODE, |place| place.node.0 as i32),
            leader_epoch: led.epoch.0,
            replica_nodes: ids(topic.replicas(tp.partition)),
            isr_nodes: ids(led.in_sync),
            offline_replicas: leadership.offline(topic, tp.partition).map(|node| node.0 as i32).collect(),
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
        }
    });
    DescribedTopic {
        name: Some(Cow::Owned(topic.name.clone())),
        topic_id: topic.id.0,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        ..Default::default()
    }
}

/// Returns an id in Kafka's notation: URL-safe base64 without padding.
fn base64(id: [u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_as_kafka_encodes_them() {
        // As Kafka's `Uuid.toString` does.
        assert_eq!(base64([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64([0xff; 16]), "_____________________w");
        assert_eq!(base64([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "AAAAAAAAAAAAAAAAAAAAAQ");
    }
}
