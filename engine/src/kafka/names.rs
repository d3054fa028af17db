//! Topics and partitions that requests name.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, TopicId, TopicPartition};
use highwater_runtime::plane::ShardIndex;

use super::error::{RequestError, reject};
use crate::api::ApiError;
use crate::context::Context;
use crate::limits::KAFKA_CHANGES_PER_REQUEST_MAX;
use crate::meta::{Metadata, Targets, Topic};

/// A topic that a request names.
pub(crate) enum Named {
    Known(Arc<Topic>),
    Unknown { name: String, id: [u8; 16] },
}

impl Named {
    /// Looks a topic up by its name or, if the request has ids, by its id.
    pub(crate) fn find(metadata: Option<&Arc<Metadata>>, name: &str, id: [u8; 16]) -> Self {
        let known = metadata.and_then(|metadata| match id {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => metadata.topic(name),
            id => metadata.topic_by_id(TopicId(id)),
        });
        match known {
            Some(topic) => Self::Known(Arc::clone(topic)),
            None => Self::Unknown { name: name.to_owned(), id },
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Known(topic) => &topic.name,
            Self::Unknown { name, .. } => name,
        }
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        match self {
            Self::Known(topic) => topic.id.0,
            Self::Unknown { id, .. } => *id,
        }
    }

    /// Returns the topic, if it exists.
    pub(crate) fn known(&self) -> Option<&Arc<Topic>> {
        match self {
            Self::Known(topic) => Some(topic),
            Self::Unknown { .. } => None,
        }
    }

    /// Returns a partition of the topic, if it exists.
    pub(crate) fn partition(&self, index: i32) -> Option<TopicPartition> {
        let Self::Known(topic) = self else { return None };
        let index = u32::try_from(index).ok().filter(|index| (*index as usize) < topic.partition_count())?;
        Some(TopicPartition { topic: topic.id, partition: PartitionIndex(index) })
    }

    /// Returns the error for a topic or partition that does not exist.
    pub(crate) fn missing(&self) -> KafkaError {
        match self {
            Self::Unknown { id, .. } if *id != [0; 16] => KafkaError::UNKNOWN_TOPIC_ID,
            _ => KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        }
    }

    /// Finds a partition, and its owner.
    pub(crate) fn target(
        &self,
        targets: Targets<'_>,
        index: i32,
    ) -> Result<(TopicPartition, ShardIndex), KafkaError> {
        let (topic, index) = self.known().zip(u32::try_from(index).ok()).ok_or_else(|| self.missing())?;
        targets.partition(topic, PartitionIndex(index)).map_err(|error| match error {
            // No replica is here.
            ApiError::NotLeader { .. } => error.into(),
            _ => self.missing(),
        })
    }
}

/// Returns the current leader epoch that a request names, if it names one. The owner of the partition compares it with its own.
pub(crate) fn known_epoch(current_leader_epoch: i32) -> Option<LeaderEpoch> {
    (current_leader_epoch >= 0).then_some(LeaderEpoch(current_leader_epoch))
}

pub(super) fn find_topic(context: &Context<'_>, name: &str, id: [u8; 16]) -> Named {
    Named::find(context.metadata, name, id)
}

/// Finds a partition of a topic, and its owner.
pub(super) fn target(
    context: &Context<'_>,
    topic: &Named,
    index: i32,
) -> Result<(TopicPartition, ShardIndex), KafkaError> {
    topic.target(context.targets(), index)
}

/// Returns the values that occur more than once.
pub(super) fn repeated<T: Ord + Copy>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    all.filter(|name| !seen.insert(*name)).collect()
}

/// Returns the values without duplicates, in the order of their first occurrence.
pub(super) fn distinct<T: Ord + Copy>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut seen = BTreeSet::new();
    all.filter(move |name| seen.insert(*name))
}

/// Rejects a request with too many entries.
pub(super) fn check_count(changes: usize) -> Result<(), RequestError> {
    if changes > KAFKA_CHANGES_PER_REQUEST_MAX {
        let text =
            format!("a request may have at most {KAFKA_CHANGES_PER_REQUEST_MAX} entries, not {changes}");
        return reject(KafkaError::POLICY_VIOLATION, text);
    }
    Ok(())
}
