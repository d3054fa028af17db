//! The controller: decides changes of the metadata, and replies when every shard has applied them.
//!
//! ```text
//!   ask --> checked against the tip --> record appended --(durable)--> prepared and published by every shard --(all applied)--> answer
//! ```
//!
//! The *tip* includes every record appended, durable or not: decisions are made on it, one after the other. Shards and clients only see
//! durable changes. Runs on shard 0.

mod checks;
mod internal;
mod opened;
mod replicas;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{ProducerId, TopicId};
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::state_log::{Fatal, Recovered, SNAPSHOT_BYTES_PER_TURN, Seq, StateLog};

use crate::api::{AlterTopic, ApiError, ConfigureTopic, ControllerReply, CreateTopic, CreatedTopic, Ticket};
use crate::meta::record::is_old;
use crate::meta::{
    Change, Entry, Metadata, MetadataRoom, Node, Opened, PRODUCER_IDS_PER_BLOCK, Publish, Record,
    RecoverError, SnapshotWriter, Topic, TopicRecord,
};

use checks::Writes;

/// An action for shard 0.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send to every shard.
    Publish(Publish),
    /// Reply to a shard's request.
    Reply(ShardIndex, Ticket, Outcome),
    /// Every shard is ready.
    Ready(ReadyReport),
}

/// The state when every shard has opened its stores.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReadyReport {
    /// Topics.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

pub(crate) struct Controller {
    /// This node, as it registers itself.
    node: Node,
    log: StateLog,
    /// The snapshot in progress.
    snapshot: Option<SnapshotWriter>,
    /// Whether the log has entries of an earlier format, which a snapshot is to replace.
    has_old_entries: bool,
    tip: Metadata,
    stores: usize,
    room: MetadataRoom,
    /// The last recovered entry if it may come from a write that failed, and the disk had no space to write it again: a power cut may undo it. It
    /// becomes part of the tip once everything before it is published, and is published when it is certain.
    doubtful: Option<Entry>,
    /// Changes since the last mark, and whether any record was written.
    changes: Vec<Change>,
    touched: bool,
    /// Whether all of the metadata was published once, or is about to be.
    published_all: bool,
    marks: VecDeque<Mark>,
    published: u64,
    /// Replies that wait for a version to be durable.
    until_durable: VecDeque<Waiting>,
    /// Replies that wait for a version to be applied by every shard.
    until_applied: VecDeque<Waiting>,
    applied: Vec<u64>,
    opened: Vec<Option<Opened>>,
    /// The version that every shard has to have applied before clients are served.
    first_version: Option<u64>,
    ready: Option<ReadyReport>,
    /// Deleted topics whose space is being freed.
    freeing: BTreeMap<TopicId, Freeing>,
    /// Partitions of them.
    freeing_partitions: usize,
    actions: VecDeque<Action>,
}

/// Changes to publish when the log is durable up to a position.
struct Mark {
    seq: Seq,
    publish: Publish,
}

/// A deleted topic whose space is being freed.
struct Freeing {
    /// The shards that have not freed everything yet.
    shards: BTreeSet<ShardIndex>,
    /// Its partitions; 0 if it was deleted before the start.
    partitions: usize,
}

struct Waiting {
    version: u64,
    to: (ShardIndex, Ticket),
    reply: ControllerReply,
}

/// The outcome of a request.
pub(crate) type Outcome = Result<ControllerReply, ApiError>;

impl Controller {
    /// Creates the controller of a node with that many stores, from its recovered log.
    pub(crate) fn new(
        node: Node,
        log: StateLog,
        recovered: &Recovered,
        stores: usize,
        room: MetadataRoom,
    ) -> Result<Self, RecoverError> {
        let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
        let (last, before) = match recovered.records.split_last() {
            Some((last, before)) if log.certain() < log.appended() => (Some(last), before),
            _ => (None, &recovered.records[..]),
        };
        let mut tip = Metadata::recover(node.id, snapshot, before.iter().map(|payload| &payload[..]))?;
        let mut doubtful = None;
        if let Some(last) = last {
            let entry = tip.decode(last)?;
            if entry.is_visible() {
                tip.clone().apply(&entry)?;
                doubtful = Some(entry);
            } else {
                tip.apply(&entry)?;
            }
        }
        let mut payloads = recovered.snapshot.iter().chain(&recovered.records);
        let has_old_entries = payloads.any(|payload| is_old(payload));
        let shards = node.shards;
        Ok(Self {
            node,
            log,
            snapshot: None,
            has_old_entries,
            tip,
            doubtful,
            stores,
            room,
            changes: Vec::new(),
            touched: false,
            published_all: false,
            marks: VecDeque::new(),
            published: 0,
            until_durable: VecDeque::new(),
            until_applied: VecDeque::new(),
            applied: vec![0; usize::from(shards)],
            opened: (0..shards).map(|_| None).collect(),
            first_version: None,
            ready: None,
            freeing: BTreeMap::new(),
            freeing_partitions: 0,
            actions: VecDeque::new(),
        })
    }

    /// Returns the metadata with all changes, durable or not.
    pub(crate) fn tip(&self) -> &Metadata {
        &self.tip
    }

    /// Returns the next action.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A shard has applied all changes up to a version.
    pub(crate) fn handle_applied(&mut self, shard: ShardIndex, version: u64) {
        self.applied[usize::from(shard)] = version;
        let everywhere = self.applied.iter().copied().min().unwrap_or(0);
        while self.until_applied.front().is_some_and(|w| w.version <= everywhere) {
            self.answer_front(true);
        }
        if self.first_version.is_some_and(|first| first <= everywhere)
            && let Some(report) = self.ready.take()
        {
            self.actions.push_back(Action::Ready(report));
        }
    }

    /// A shard has freed the space of these topics.
    pub(crate) fn handle_gone(&mut self, shard: ShardIndex, topics: &[TopicId]) {
        for topic in topics {
            let Some(freeing) = self.freeing.get_mut(topic) else { continue };
            freeing.shards.remove(&shard);
            if freeing.shards.is_empty() {
                self.freeing_partitions -= freeing.partitions;
                self.freeing.remove(topic);
                tracing::info!(id = %topic, "space of a deleted topic freed");
                self.write_entry(&Entry::TopicGone { id: topic.0 });
            }
        }
    }

    /// Creates a topic with the id `new_id`.
    pub(crate) fn create_topic(&mut self, to: (ShardIndex, Ticket), request: &CreateTopic, new_id: TopicId) {
        let outcome = self.check_create(request).and_then(|configs| {
            let replicas = self.plan_replicas(None, &request.replication, request.partitions as usize)?;
            let factor = replicas.counts.first().map_or(0, |count| usize::from(*count));
            if request.validate_only {
                return Ok(ControllerReply::Created(CreatedTopic { id: TopicId([0; 16]), replicas: factor }));
            }
            tracing::info!(topic = request.name, id = %new_id, partitions = request.partitions, ?configs, "topic created");
            self.write(Record::TopicCreated(TopicRecord {
                id: new_id.0,
                name: request.name.clone(),
                replicas,
                configs: configs.into_iter().collect(),
            }));
            Ok(ControllerReply::Created(CreatedTopic { id: new_id, replicas: factor }))
        });
        self.answer_when_applied(to, outcome);
    }

    /// Deletes a topic by name.
    pub(crate) fn delete_topic(&mut self, to: (ShardIndex, Ticket), name: &str) {
        let topic = self.check_space().and_then(|()| self.known(name));
        self.delete(to, topic);
    }

    /// Deletes a topic by id.
    pub(crate) fn delete_topic_by_id(&mut self, to: (ShardIndex, Ticket), id: TopicId) {
        let known = || self.tip.topic_by_id(id).cloned().ok_or(ApiError::UnknownTopicId(id));
        let topic = self.check_space().and_then(|()| known());
        self.delete(to, topic);
    }

    fn delete(&mut self, to: (ShardIndex, Ticket), topic: Result<Arc<Topic>, ApiError>) {
        let outcome = topic.and_then(|topic| {
            topic.check_writable()?;
            self.begin_freeing(&topic);
            tracing::info!(topic = topic.name, id = %topic.id, partitions = topic.partition_count(), "topic deleted");
            self.write(Record::TopicDeleted { id: topic.id.0 });
            Ok(ControllerReply::Done)
        });
        self.answer_when_applied(to, outcome);
    }

    /// A topic is deleted: shards free its space.
    fn begin_freeing(&mut self, topic: &Topic) {
        let shards = self.applied.len() as u16;
        let holders: BTreeSet<_> = topic.local_partitions().map(|(_, store)| store.0 % shards).collect();
        if !holders.is_empty() {
            self.freeing.insert(topic.id, Freeing { shards: holders, partitions: topic.partition_count() });
            self.freeing_partitions += topic.partition_count();
        }
    }

    /// Changes a topic, or only validates that.
    pub(crate) fn alter_topic(&mut self, to: (ShardIndex, Ticket), request: &AlterTopic) {
        let outcome = self.check_alter(request).and_then(|(topic, configs)| {
            let have = topic.partition_count();
            let want = request.partitions.map_or(have, |n| n as usize);
            let new =
                (want > have).then(|| self.plan_replicas(Some(&topic), &request.replication, want - have));
            let replicas = new.transpose()?;
            if request.validate_only {
                return Ok(ControllerReply::Done);
            }
            self.write_configs(&topic, configs);
            if let Some(replicas) = replicas {
                tracing::info!(topic = topic.name, from = have, to = want, "partitions added");
                self.write(Record::PartitionsAdded { id: topic.id.0, replicas });
            }
            Ok(ControllerReply::Done)
        });
        self.answer_when_applied(to, outcome);
    }

    /// Changes a topic's settings, or only validates that.
    pub(crate) fn configure_topic(&mut self, to: (ShardIndex, Ticket), request: &ConfigureTopic) {
        let outcome = self.check_configure(&request.name, &request.changes).map(|(topic, writes)| {
            if !request.validate_only {
                self.write_configs(&topic, writes);
            }
            ControllerReply::Done
        });
        self.answer_when_applied(to, outcome);
    }

    fn write_configs(&mut self, topic: &Topic, configs: Writes) {
        if !configs.is_empty() {
            for (setting, value) in &configs {
                let (topic, old) = (&topic.name, topic.configs.get(setting));
                if let Some(new) = value {
                    tracing::info!(topic, setting, old, new, "topic setting changed");
                } else {
                    tracing::info!(topic, setting, old, "topic setting returned to its default");
                }
            }
            self.write(Record::TopicConfigured { id: topic.id.0, configs });
        }
    }

    /// Reserves producer ids for a shard.
    pub(crate) fn producer_ids(&mut self, to: (ShardIndex, Ticket)) {
        let start = self.tip.producer_ids_end();
        match (self.check_space(), start.0.checked_add(PRODUCER_IDS_PER_BLOCK)) {
            (Ok(()), Some(end)) => {
                self.write(Record::ProducerIdsReserved { end });
                let reply = ControllerReply::ProducerIds(start..ProducerId(end));
                self.until_durable.push_back(Waiting { version: self.tip.version(), to, reply });
            }
            (Err(error), _) => self.reply(to, Err(error)),
            (_, None) => self.reply(to, Err(ApiError::ProducerIdsExhausted)),
        }
    }

    fn write(&mut self, record: Record) {
        self.write_entry(&self.tip.place(record, self.stores));
    }

    fn write_entry(&mut self, entry: &Entry) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.before(&self.tip, entry);
        }
        let change = self.tip.apply(entry).expect("the controller checks before it writes");
        self.changes.extend(change);
        self.touched = true;
        self.log.append(&entry.encode());
    }

    fn reply(&mut self, (shard, ticket): (ShardIndex, Ticket), outcome: Outcome) {
        self.actions.push_back(Action::Reply(shard, ticket, outcome));
    }

    pub(crate) fn answer_when_applied(&mut self, to: (ShardIndex, Ticket), outcome: Outcome) {
        match outcome {
            Ok(reply) => {
                self.until_applied.push_back(Waiting { version: self.tip.version(), to, reply });
                let everywhere = self.applied.iter().copied().min().unwrap_or(0);
                while self.until_applied.front().is_some_and(|w| w.version <= everywhere) {
                    self.answer_front(true);
                }
            }
            Err(error) => self.reply(to, Err(error)),
        }
    }

    fn answer_front(&mut self, applied: bool) {
        let queue = if applied { &mut self.until_applied } else { &mut self.until_durable };
        if let Some(Waiting { to, reply, .. }) = queue.pop_front() {
            self.reply(to, Ok(reply));
        }
    }

    /// Flushes the log. Call it at the end of every turn. Returns whether there is more to do than one turn allows.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        if std::mem::take(&mut self.touched) {
            self.mark(self.log.appended());
        }
        self.log.flush(disk);
        // A snapshot has all records, the doubtful one too.
        let is_due = self.log.wants_snapshot() || (self.has_old_entries && self.can_upgrade());
        if self.doubtful.is_none() && is_due {
            self.has_old_entries = false;
            self.log.begin_snapshot();
            self.snapshot = Some(SnapshotWriter::new(&self.tip));
        }
        let more = self.continue_snapshot(disk);
        self.publish_durable();
        more
    }

    /// Returns whether entries of an earlier format can be replaced now: clients do not wait for that, so it begins after they are served.
    fn can_upgrade(&self) -> bool {
        let is_serving = self.first_version.is_some() && self.ready.is_none();
        is_serving && self.snapshot.is_none() && !self.log.is_rotating()
    }

    /// Writes the next piece of the snapshot in progress. Returns whether more follow.
    fn continue_snapshot(&mut self, disk: &mut dyn Disk) -> bool {
        let Some(snapshot) = &mut self.snapshot else { return false };
        if let Some(piece) = snapshot.next_piece(&self.tip, SNAPSHOT_BYTES_PER_TURN) {
            self.log.add_to_snapshot(&piece);
            return true;
        }
        self.snapshot = None;
        self.log.end_snapshot(disk);
        false
    }

    /// Marks a position of the log: the changes since the last mark are published when everything up to it is certain to be durable.
    fn mark(&mut self, seq: Seq) {
        // All of it once; after that, the cost is in proportion to the changes.
        let first = !std::mem::replace(&mut self.published_all, true);
        self.marks.push_back(Mark {
            seq,
            publish: Publish {
                first: first.then(|| Arc::new(self.tip.clone())),
                version: self.tip.version(),
                changes: std::mem::take(&mut self.changes).into(),
            },
        });
    }

    /// Handles the end of a disk operation of the log.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)?;
        self.publish_durable();
        if self.log.is_stalled() {
            self.fail_waiting();
        }
        Ok(())
    }

    /// The log waits for disk space: fails the pending requests instead of letting clients wait. Whether these take effect is unknown: they do
    /// when there is space, unless the process ends before.
    fn fail_waiting(&mut self) {
        let durable = self.published;
        let kept = self.until_applied.partition_point(|waiting| waiting.version <= durable);
        let applied = self.until_applied.split_off(kept);
        for Waiting { to, .. } in applied.into_iter().chain(std::mem::take(&mut self.until_durable)) {
            self.reply(to, Err(ApiError::MetadataLogFull));
        }
    }

    fn publish_durable(&mut self) {
        while self.marks.front().is_some_and(|m| m.seq <= self.log.certain()) {
            let Some(Mark { publish, .. }) = self.marks.pop_front() else { break };
            self.published = publish.version;
            self.actions.push_back(Action::Publish(publish));
        }
        while self.until_durable.front().is_some_and(|w| w.version <= self.published) {
            self.answer_front(false);
        }
    }

    /// Retries writes for which the disk had no space.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        self.log.retry_stalled(disk);
    }

    /// Returns whether the log waits for disk space.
    pub(crate) fn is_stalled(&self) -> bool {
        self.log.is_stalled()
    }

    /// Returns whether all changes are durable and published, or wait for disk space.
    pub(crate) fn is_idle(&self) -> bool {
        let is_published = !self.touched && self.marks.is_empty();
        (is_published || self.log.is_stalled()) && self.log.is_idle()
    }
}
