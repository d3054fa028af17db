//! Decides changes of the metadata, and replies to requests when the changes are applied.
//!
//! The *tip* includes every record proposed, committed or not: decisions are made on it, one after the other. Only the leader of the metadata has one. When it
//! is deposed, records that it has proposed may be lost, so it drops the tip, and fails the requests that wait: whether these take effect is unknown.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{NodeId, Offset, ProducerId, TopicId};

use super::Outcome;
use super::appends::batch_bytes;
use super::applier::Progress;
use super::checks::Writes;
use crate::api::{AlterTopic, ApiError, ConfigureTopic, ControllerReply, CreateTopic, CreatedTopic};
use crate::meta::{Entry, Metadata, MetadataRoom, PRODUCER_IDS_PER_BLOCK, Record, Topic, TopicRecord};

pub(super) use crate::api::Requester as ReplyTo;

pub(super) struct Proposer {
    /// `None` while another node leads, or nobody.
    tip: Option<Metadata>,
    stores: usize,
    /// Nodes that cannot be reached.
    pub(super) offline: BTreeSet<NodeId>,
    pub(super) room: MetadataRoom,
    pub(super) progress: Progress,
    /// Why nothing can be added to the metadata log now.
    pub(super) blocked: Option<ApiError>,
    /// Records that have not been added to the metadata log.
    proposals: VecDeque<Record>,
    /// Replies that wait for records to be durable.
    until_durable: VecDeque<Waiting>,
    /// Replies that wait for records to be applied by every shard.
    until_applied: VecDeque<Waiting>,
    replies: VecDeque<(ReplyTo, Outcome)>,
}

/// A reply that waits for the records before an offset.
struct Waiting {
    next_offset: Offset,
    to: ReplyTo,
    reply: ControllerReply,
}

impl Proposer {
    /// Creates the proposer of a node with that many stores.
    pub(super) fn new(stores: usize, room: MetadataRoom, progress: Progress) -> Self {
        Self {
            tip: None,
            stores,
            offline: BTreeSet::new(),
            room,
            progress,
            blocked: None,
            proposals: VecDeque::new(),
            until_durable: VecDeque::new(),
            until_applied: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// Returns the metadata with all proposed changes.
    pub(super) fn tip(&self) -> Result<&Metadata, ApiError> {
        self.tip.as_ref().ok_or(ApiError::NotController)
    }

    /// Returns the next record for the metadata log.
    pub(super) fn poll_proposal(&mut self) -> Option<Record> {
        self.proposals.pop_front()
    }

    /// Returns the next reply.
    pub(super) fn poll_reply(&mut self) -> Option<(ReplyTo, Outcome)> {
        self.replies.pop_front()
    }

    // Events.

    /// This node leads the metadata from now on, and has applied everything that is committed.
    pub(super) fn handle_elected(&mut self, applied: &Metadata) {
        self.tip = Some(applied.clone());
    }

    /// This node does not lead the metadata any more.
    pub(super) fn handle_deposed(&mut self) {
        self.tip = None;
        self.proposals.clear();
        self.fail_waiting(Offset(0), &ApiError::NotController);
    }

    /// This node has made progress with applying records.
    pub(super) fn handle_progress(&mut self, progress: Progress) {
        self.progress = progress;
        while let Some(waiting) =
            self.until_durable.pop_front_if(|waiting| waiting.next_offset <= progress.durable)
        {
            self.reply(waiting.to, Ok(waiting.reply));
        }
        while let Some(waiting) =
            self.until_applied.pop_front_if(|waiting| waiting.next_offset <= progress.everywhere)
        {
            self.reply(waiting.to, Ok(waiting.reply));
        }
    }

    /// The log takes no records for this reason, such as a full disk; `None`: it takes them. Fails the pending requests instead of letting clients wait.
    /// Whether these take effect is unknown: they do when there is space, unless another node leads by then.
    pub(super) fn handle_blocked(&mut self, blocked: Option<ApiError>) {
        self.blocked = blocked;
        if let Some(error) = self.blocked.clone() {
            self.fail_waiting(self.progress.durable, &error);
        }
    }

    /// Fails requests that wait for records from this offset on.
    fn fail_waiting(&mut self, durable: Offset, error: &ApiError) {
        let kept = self.until_applied.partition_point(|waiting| waiting.next_offset <= durable);
        let failed = self.until_applied.split_off(kept);
        for Waiting { to, .. } in failed.into_iter().chain(std::mem::take(&mut self.until_durable)) {
            self.reply(to, Err(error.clone()));
        }
    }

    // Requests.

    /// Creates a topic with the id `new_id`.
    pub(super) fn create_topic(&mut self, to: ReplyTo, request: &CreateTopic, new_id: TopicId) {
        let outcome = self.create(request, new_id);
        self.answer_when_applied(to, outcome);
    }

    pub(super) fn create(&mut self, request: &CreateTopic, new_id: TopicId) -> Outcome {
        let configs = self.check_create(request)?;
        let record = self.plan_replicas(None, &request.replication, request.partitions as usize)?;
        let replicas = record.counts.first().map_or(0, |count| usize::from(*count));
        if request.validate_only {
            return Ok(ControllerReply::Created(CreatedTopic { id: TopicId([0; 16]), replicas }));
        }
        tracing::info!(topic = request.name, id = %new_id, partitions = request.partitions, replicas, ?configs, "topic created");
        self.propose(Record::TopicCreated(TopicRecord {
            id: new_id.0,
            name: request.name.clone(),
            replicas: record,
            configs: configs.into_iter().collect(),
        }))?;
        Ok(ControllerReply::Created(CreatedTopic { id: new_id, replicas }))
    }

    /// Deletes a topic by name.
    pub(super) fn delete_topic(&mut self, to: ReplyTo, name: &str) {
        let topic = self.check_space().and_then(|()| self.known(name));
        self.delete(to, topic);
    }

    /// Deletes a topic by id.
    pub(super) fn delete_topic_by_id(&mut self, to: ReplyTo, id: TopicId) {
        let known = || self.tip()?.topic_by_id(id).cloned().ok_or(ApiError::UnknownTopicId(id));
        let topic = self.check_space().and_then(|()| known());
        self.delete(to, topic);
    }

    fn delete(&mut self, to: ReplyTo, topic: Result<Arc<Topic>, ApiError>) {
        let outcome = topic.and_then(|topic| {
            topic.check_writable()?;
            tracing::info!(topic = topic.name, id = %topic.id, partitions = topic.partition_count(), "topic deleted");
            self.propose(Record::TopicDeleted { id: topic.id.0 })?;
            Ok(ControllerReply::Done)
        });
        self.answer_when_applied(to, outcome);
    }

    /// Changes a topic, or only validates that.
    pub(super) fn alter_topic(&mut self, to: ReplyTo, request: &AlterTopic) {
        let outcome = self.check_alter(request).and_then(|(topic, configs)| {
            let have = topic.partition_count();
            let want = request.partitions.map_or(have, |n| n as usize);
            let new =
                (want > have).then(|| self.plan_replicas(Some(&topic), &request.replication, want - have));
            let replicas = new.transpose()?;
            if request.validate_only {
                return Ok(ControllerReply::Done);
            }
            self.propose_configs(&topic, configs)?;
            if let Some(replicas) = replicas {
                tracing::info!(topic = topic.name, from = have, to = want, "partitions added");
                self.propose(Record::PartitionsAdded { id: topic.id.0, replicas })?;
            }
            Ok(ControllerReply::Done)
        });
        self.answer_when_applied(to, outcome);
    }

    /// Changes a topic's settings, or only validates that.
    pub(super) fn configure_topic(&mut self, to: ReplyTo, request: &ConfigureTopic) {
        let outcome = self.check_configure(&request.name, &request.changes).and_then(|(topic, writes)| {
            if !request.validate_only {
                self.propose_configs(&topic, writes)?;
            }
            Ok(ControllerReply::Done)
        });
        self.answer_when_applied(to, outcome);
    }

    fn propose_configs(&mut self, topic: &Topic, configs: Writes) -> Result<(), ApiError> {
        if !configs.is_empty() {
            for (setting, value) in &configs {
                let (topic, old) = (&topic.name, topic.configs.get(setting));
                if let Some(new) = value {
                    tracing::info!(topic, setting, old, new, "topic setting changed");
                } else {
                    tracing::info!(topic, setting, old, "topic setting returned to its default");
                }
            }
            self.propose(Record::TopicConfigured { id: topic.id.0, configs })?;
        }
        Ok(())
    }

    /// Reserves producer ids for a shard.
    pub(super) fn producer_ids(&mut self, to: ReplyTo) {
        let reserved = self.check_space().and_then(|()| {
            let start = self.tip()?.producer_ids_end();
            let end = start.0.checked_add(PRODUCER_IDS_PER_BLOCK).ok_or(ApiError::ProducerIdsExhausted)?;
            self.propose(Record::ProducerIdsReserved { end })?;
            Ok(start..ProducerId(end))
        });
        match reserved {
            Ok(ids) => {
                let next_offset = self.next_offset();
                let reply = ControllerReply::ProducerIds(ids);
                self.until_durable.push_back(Waiting { next_offset, to, reply });
            }
            Err(error) => self.reply(to, Err(error)),
        }
    }

    /// Proposes a record that was checked against the tip. An error: it is too large.
    pub(super) fn propose(&mut self, record: Record) -> Result<(), ApiError> {
        // Compressed, if it is large.
        let bytes = record.encode().len();
        if self.room.check_record(bytes).is_err() {
            self.room.check_record(batch_bytes(&record)).map_err(ApiError::InvalidPartitionCount)?;
        }
        let tip = self.tip.as_mut().expect("only the leader proposes");
        let entry = tip.place(record.clone(), self.stores);
        tip.apply(&entry).expect("the record was checked");
        if let Record::TopicDeleted { id } = record {
            // When its space is free concerns the nodes that apply it.
            tip.apply(&Entry::TopicGone { id }).expect("it is being deleted");
        }
        self.proposals.push_back(record);
        Ok(())
    }

    fn next_offset(&self) -> Offset {
        self.tip.as_ref().map_or(Offset(0), Metadata::next_offset)
    }

    pub(super) fn reply(&mut self, to: ReplyTo, outcome: Outcome) {
        self.replies.push_back((to, outcome));
    }

    /// Replies when everything proposed so far is applied by every shard.
    pub(super) fn answer_when_applied(&mut self, to: ReplyTo, outcome: Outcome) {
        match outcome {
            Ok(reply) => {
                let next_offset = self.next_offset();
                self.until_applied.push_back(Waiting { next_offset, to, reply });
                self.handle_progress(self.progress);
            }
            Err(error) => self.reply(to, Err(error)),
        }
    }
}
