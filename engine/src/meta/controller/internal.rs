//! The topics of the broker itself.

use highwater_protocol::ids::TopicId;
use highwater_protocol::topic::GROUPS_TOPIC;

use super::proposer::{Proposer, ReplyTo};
use crate::api::{ApiError, ControllerReply, Replication};
use crate::meta::{Record, TopicRecord};

/// The settings of the topic that keeps groups. The segment that is written to is not compacted, and all of it is read at every start.
const GROUPS_TOPIC_CONFIGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "4194304")];

impl Proposer {
    /// Creates the topic that keeps groups, unless it exists: with so many partitions and the id `new_id`.
    pub(super) fn create_groups_topic(&mut self, to: ReplyTo, partitions: u32, new_id: TopicId) {
        let outcome = self.propose_groups_topic(partitions, new_id).map(|()| ControllerReply::Done);
        self.answer_when_applied(to, outcome);
    }

    /// The same, without a reply.
    pub(super) fn propose_groups_topic(&mut self, partitions: u32, new_id: TopicId) -> Result<(), ApiError> {
        self.check_space()?;
        if self.tip()?.topic(GROUPS_TOPIC).is_some() {
            return Ok(());
        }
        let replicas = self.plan_replicas(None, &Replication::Default, partitions as usize)?;
        // The limits on partitions are for clients: without this topic, nobody could use a group.
        tracing::info!(topic = GROUPS_TOPIC, id = %new_id, partitions, "topic for groups and offsets created");
        self.propose(Record::TopicCreated(TopicRecord {
            id: new_id.0,
            name: GROUPS_TOPIC.to_owned(),
            replicas,
            configs: GROUPS_TOPIC_CONFIGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }))
    }
}
