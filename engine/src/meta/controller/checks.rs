//! Validates requests to change the metadata, against the tip.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::limits::PARTITIONS_PER_TOPIC_MAX;
use highwater_protocol::text::counted;
use highwater_protocol::topic::{is_reserved_topic_name, validate_topic_name};

use super::proposer::{Proposer, ReplyTo};
use crate::api::{AlterTopic, ApiError, ConfigChange, ConfigChanges, ControllerReply, CreateTopic};
use crate::limits::{METADATA_BYTES_MAX, NODES_MAX, PARTITIONS_MAX};
use crate::meta::configs::{self, ConfigError, TopicConfig};
use crate::meta::{Metadata, Node, Record, Topic};

fn invalid_config(error: &ConfigError) -> ApiError {
    ApiError::InvalidConfig(error.to_string())
}

/// Returns why a new topic cannot have a name.
fn check_new_name(tip: &Metadata, name: &str) -> Result<(), String> {
    validate_topic_name(name).map_err(|e| format!("Topic name is invalid: {name:?}: {e}"))?;
    if is_reserved_topic_name(name) {
        return Err(format!("Topic '{name}' is reserved for the broker itself; choose another name."));
    }
    match tip.topic_that_collides(name) {
        Some(other) => Err(format!("Topic '{name}' collides with existing topic: {other}")),
        None => Ok(()),
    }
}

/// Settings to set (`Some`) or to reset to their defaults (`None`).
pub(super) type Writes = Vec<(String, Option<String>)>;

impl Proposer {
    /// Validates a new topic. Returns its settings in canonical form.
    pub(super) fn check_create(&self, request: &CreateTopic) -> Result<BTreeMap<String, String>, ApiError> {
        self.check_space()?;
        let name = &request.name;
        if self.tip()?.topic(name).is_some() {
            return Err(ApiError::TopicExists(name.clone()));
        }
        check_new_name(self.tip()?, name).map_err(ApiError::InvalidTopicName)?;
        self.check_partitions(0, request.partitions)?;
        let configs = configs::parse(&request.configs).map_err(|error| invalid_config(&error))?;
        TopicConfig::resolve(&configs).map_err(|error| invalid_config(&error))?;
        Ok(configs)
    }

    fn check_partitions(&self, have: usize, want: u32) -> Result<(), ApiError> {
        let refuse = |reason: String| Err(ApiError::InvalidPartitionCount(reason));
        if want == 0 {
            return refuse("a topic has at least one partition".into());
        }
        if want > PARTITIONS_PER_TOPIC_MAX {
            return refuse(format!("a topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions, not {want}"));
        }
        let want = want as usize;
        if want < have {
            return refuse(format!(
                "it has {}, and partitions cannot be taken away",
                counted(have, "partition")
            ));
        }
        // Partitions that are being deleted still use memory.
        let tip = self.tip()?;
        let there = tip.partition_count() + self.progress.freeing_partitions;
        if there + (want - have) > PARTITIONS_MAX {
            return refuse(format!(
                "a broker has at most {PARTITIONS_MAX} partitions, of all topics together and with those that are being deleted; there are {there}"
            ));
        }
        // A topic that has no partition is new.
        let entries = want - have + usize::from(have == 0);
        if let Err(text) = self.room.check(self.entries(tip), entries) {
            return refuse(text);
        }
        if tip.snapshot_bytes() > METADATA_BYTES_MAX {
            return refuse("the metadata of all topics has reached its limit; delete topics".into());
        }
        Ok(())
    }

    /// Returns the number of topics and partitions, including those that are being deleted, which still use memory.
    fn entries(&self, tip: &Metadata) -> usize {
        let freeing = self.progress.freeing + self.progress.freeing_partitions;
        tip.topics().len() + tip.partition_count() + freeing
    }

    /// Returns why nothing can be changed now.
    pub(super) fn check_space(&self) -> Result<(), ApiError> {
        self.blocked.clone().map_or(Ok(()), Err)
    }

    pub(super) fn known(&self, name: &str) -> Result<Arc<Topic>, ApiError> {
        self.tip()?.topic(name).cloned().ok_or_else(|| ApiError::UnknownTopic(name.to_owned()))
    }

    /// Returns a topic that clients may change.
    pub(super) fn known_writable(&self, name: &str) -> Result<Arc<Topic>, ApiError> {
        let topic = self.known(name)?;
        topic.check_writable()?;
        Ok(topic)
    }

    pub(super) fn check_alter(&self, request: &AlterTopic) -> Result<(Arc<Topic>, Writes), ApiError> {
        let change = |value: &Option<String>| value.clone().map_or(ConfigChange::Reset, ConfigChange::Set);
        let named: BTreeMap<_, _> =
            request.configs.iter().map(|(name, value)| (name.clone(), change(value))).collect();
        if named.len() < request.configs.len() {
            return Err(ApiError::InvalidConfig("a setting is given twice".into()));
        }
        let (topic, writes) =
            self.check_configure(&request.name, &ConfigChanges { named, resets_others: false })?;
        // Kafka's brokers accept this from Kafka's clients, whose tools check the names.
        let is_unknown = |name: &&String| configs::find(name).is_none() && !topic.configs.contains_key(*name);
        if let Some(name) = request.configs.iter().map(|(name, _)| name).find(is_unknown) {
            return Err(invalid_config(&ConfigError::unknown(name)));
        }
        if let Some(want) = request.partitions {
            self.check_partitions(topic.partition_count(), want)?;
        }
        Ok((topic, writes))
    }

    pub(super) fn check_configure(
        &self,
        name: &str,
        changes: &ConfigChanges,
    ) -> Result<(Arc<Topic>, Writes), ApiError> {
        self.check_space()?;
        let topic = self.known_writable(name)?;
        let writes = changes.of(&topic.configs).map_err(|error| invalid_config(&error))?;
        Ok((topic, writes))
    }

    /// Registers a node, or something new about one.
    pub(super) fn register_node(&mut self, to: ReplyTo, node: &Node) {
        let outcome = self.propose_node(node).map(|()| ControllerReply::Done);
        self.answer_when_applied(to, outcome);
    }

    /// Proposes the registration of a node, if it says something new.
    pub(super) fn propose_node(&mut self, node: &Node) -> Result<(), ApiError> {
        if self.check_node(node)? {
            tracing::info!(?node, "registering a node");
            self.propose(Record::NodeRegistered(node.to_record()))?;
        }
        Ok(())
    }

    /// Returns whether a registration says something new.
    fn check_node(&self, node: &Node) -> Result<bool, ApiError> {
        self.check_space()?;
        let nodes = self.tip()?.nodes();
        let refuse = |why: String| Err(ApiError::InvalidNode(why));
        match nodes.get(&node.id) {
            Some(known) if known.incarnation > node.incarnation => {
                let (id, known, given) = (node.id, known.incarnation, node.incarnation);
                refuse(format!("node {id} has incarnation {known}, and cannot go back to {given}"))
            }
            Some(known) => Ok(**known != *node),
            None if nodes.len() >= NODES_MAX => refuse(format!("a cluster has at most {NODES_MAX} nodes")),
            None => Ok(true),
        }
    }
}
