//! The controller: decides what the metadata becomes, and when everybody has heard.
//!
//! ```text
//!   ask --> checked against the tip --> record appended --(durable)--> published to every shard --(all applied)--> answer
//! ```
//!
//! The *tip* holds every record appended, durable or not: decisions are made on it, one after the other. What shards and clients
//! see is only ever durable. Lives on shard 0.

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{ProducerId, TopicId};
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::state_log::{Fatal, Recovered, SNAPSHOT_BYTES_PER_TURN, Seq, StateLog};

use crate::api::{AlterTopic, ApiError, ConfigureTopic, ControllerReply, CreateTopic};
use crate::message::{Opened, Publish, Ticket};
use crate::meta::{
    Change, Metadata, MetadataRoom, PRODUCER_IDS_PER_BLOCK, Record, RecoverError, SnapshotWriter, Topic,
    TopicRecord, place,
};

use checks::Writes;

/// Something for shard 0 to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Tell every shard.
    Publish(Publish),
    /// Reply to a shard's request.
    Reply(ShardIndex, Ticket, Outcome),
    /// Every shard serves.
    Ready(ReadyReport),
}

/// What there was when every shard had opened its stores.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReadyReport {
    /// Topics.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// What a person should read.
    pub warnings: Vec<String>,
}

pub(crate) struct Controller {
    log: StateLog,
    /// The snapshot that is being written.
    snapshot: Option<SnapshotWriter>,
    tip: Metadata,
    stores: usize,
    room: MetadataRoom,
    /// Changes since the last mark, and whether there was anything else.
    changes: Vec<Change>,
    touched: bool,
    /// All of the metadata was published, or is about to be.
    told_all: bool,
    marks: VecDeque<Mark>,
    published: u64,
    /// Replies that wait for a version to be durable.
    until_durable: VecDeque<Waiting>,
    /// Replies that wait for a version to be in effect everywhere.
    until_applied: VecDeque<Waiting>,
    applied: Vec<u64>,
    opened: Vec<Option<Opened>>,
    /// The version that every shard has to have applied before clients are served.
    first_version: Option<u64>,
    ready: Option<ReadyReport>,
    /// Deleted topics.
    freeing: BTreeMap<TopicId, Freeing>,
    /// Partitions of them.
    freeing_partitions: usize,
    actions: VecDeque<Action>,
}

/// What is published when the log is durable up to a position.
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

/// What a request comes to.
pub(crate) type Outcome = Result<ControllerReply, ApiError>;

impl Controller {
    /// The controller of a broker with that many stores and shards, from what its log held.
    pub(crate) fn new(
        log: StateLog,
        recovered: &Recovered,
        stores: usize,
        shards: u16,
        room: MetadataRoom,
    ) -> Result<Self, RecoverError> {
        let snapshot = recovered.snapshot.iter().map(|piece| &piece[..]);
        let tip = Metadata::recover(snapshot, recovered.records.iter().map(|r| &r[..]))?;
        Ok(Self {
            log,
            snapshot: None,
            tip,
            stores,
            room,
            changes: Vec::new(),
            touched: false,
            told_all: false,
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

    /// All of the metadata, durable or not.
    pub(crate) fn tip(&self) -> &Metadata {
        &self.tip
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A shard has opened its stores. When all have, the metadata is published for the first time.
    pub(crate) fn handle_opened(&mut self, shard: ShardIndex, opened: Opened) {
        self.opened[usize::from(shard)] = Some(opened);
        if !self.opened.iter().all(Option::is_some) {
            return;
        }
        let mut report = ReadyReport {
            topics: self.tip.topics().len(),
            partitions: self.tip.partition_count(),
            warnings: Vec::new(),
        };
        let mut holders: BTreeMap<TopicId, BTreeSet<ShardIndex>> = BTreeMap::new();
        for (shard, opened) in self.opened.iter_mut().enumerate() {
            let opened = std::mem::take(opened).expect("checked above");
            for topic in opened.topics {
                holders.entry(topic).or_default().insert(shard as ShardIndex);
            }
            for (tp, epoch) in opened.epochs {
                if self.tip.topic_by_id(tp.topic).is_some() {
                    self.tip.learn_epoch(tp, epoch);
                }
            }
            report.warnings.extend(opened.warnings);
        }
        let deleting: Vec<TopicId> = self.tip.deleting().keys().copied().collect();
        self.changes = self.tip.topics().map(|t| Change::Topic(Arc::clone(t))).collect();
        let mut gone = Vec::new();
        for topic in deleting {
            match holders.remove(&topic) {
                Some(shards) => {
                    self.freeing.insert(topic, Freeing { shards, partitions: 0 });
                    self.changes.push(Change::Deleted(topic));
                }
                None => gone.push(topic),
            }
        }
        for topic in holders.into_keys().filter(|t| self.tip.topic_by_id(*t).is_none()) {
            report.warnings.push(format!(
                "partitions of topic {topic} rest on disk and the metadata does not know it; they are kept and not served"
            ));
        }
        report.warnings.extend(self.room.warning(self.entries()));
        self.first_version = Some(self.tip.version());
        self.ready = Some(report);
        // What was recovered is durable: no client waits for a record of the start, for which a full disk may have no space.
        self.mark();
        for topic in gone {
            self.write(&Record::TopicGone { id: topic.0 });
        }
    }

    /// A shard has put everything up to a version into effect.
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

    /// Nothing of these topics is left on a shard's stores.
    pub(crate) fn handle_gone(&mut self, shard: ShardIndex, topics: &[TopicId]) {
        for topic in topics {
            let Some(freeing) = self.freeing.get_mut(topic) else { continue };
            freeing.shards.remove(&shard);
            if freeing.shards.is_empty() {
                self.freeing_partitions -= freeing.partitions;
                self.freeing.remove(topic);
                tracing::info!(id = %topic, "space of a deleted topic freed");
                self.write(&Record::TopicGone { id: topic.0 });
            }
        }
    }

    /// Creates a topic. `new_id` is the identity it gets.
    pub(crate) fn create_topic(&mut self, to: (ShardIndex, Ticket), request: &CreateTopic, new_id: TopicId) {
        let outcome = self.check_create(request).map(|configs| {
            if request.validate_only {
                return ControllerReply::Created(TopicId([0; 16]));
            }
            let stores = self.stores;
            let placed = place(&self.tip.loads(stores), &vec![0; stores], request.partitions as usize);
            tracing::info!(topic = request.name, id = %new_id, partitions = request.partitions, ?configs, "topic created");
            self.write(&Record::TopicCreated(TopicRecord {
                id: new_id.0,
                name: request.name.clone(),
                stores: placed.iter().map(|s| s.0).collect(),
                configs: configs.into_iter().collect(),
            }));
            ControllerReply::Created(new_id)
        });
        self.answer_when_applied(to, outcome);
    }

    /// Deletes a topic. Gives its identity if that happens.
    pub(crate) fn delete_topic(&mut self, to: (ShardIndex, Ticket), name: &str) -> Option<TopicId> {
        let topic = self.check_space().and_then(|()| self.known(name));
        self.delete(to, topic)
    }

    /// Deletes the topic of this identity.
    pub(crate) fn delete_topic_by_id(&mut self, to: (ShardIndex, Ticket), id: TopicId) -> Option<TopicId> {
        let known = || self.tip.topic_by_id(id).cloned().ok_or(ApiError::UnknownTopicId(id));
        let topic = self.check_space().and_then(|()| known());
        self.delete(to, topic)
    }

    fn delete(&mut self, to: (ShardIndex, Ticket), topic: Result<Arc<Topic>, ApiError>) -> Option<TopicId> {
        let deleted = topic.as_ref().ok().map(|t| t.id);
        let outcome = topic.map(|topic| {
            let shards = self.applied.len() as u16;
            let holders = topic.stores.iter().map(|s| s.0 % shards).collect();
            self.freeing.insert(topic.id, Freeing { shards: holders, partitions: topic.stores.len() });
            self.freeing_partitions += topic.stores.len();
            tracing::info!(topic = topic.name, id = %topic.id, partitions = topic.stores.len(), "topic deleted");
            self.write(&Record::TopicDeleted { id: topic.id.0 });
            ControllerReply::Done
        });
        self.answer_when_applied(to, outcome);
        deleted
    }

    /// Changes a topic, or only validates that.
    pub(crate) fn alter_topic(&mut self, to: (ShardIndex, Ticket), request: &AlterTopic) {
        let outcome = self.check_alter(request).map(|(topic, configs)| {
            if request.validate_only {
                return ControllerReply::Done;
            }
            self.write_configs(&topic, configs);
            let have = topic.stores.len();
            let want = request.partitions.map_or(have, |n| n as usize);
            if want > have {
                let placed = place(&self.tip.loads(self.stores), &topic.loads(self.stores), want - have);
                let stores = placed.iter().map(|s| s.0).collect();
                tracing::info!(topic = topic.name, from = have, to = want, "partitions added");
                self.write(&Record::PartitionsAdded { id: topic.id.0, stores });
            }
            ControllerReply::Done
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
            self.write(&Record::TopicConfigured { id: topic.id.0, configs });
        }
    }

    /// Gives a shard producer ids of its own.
    pub(crate) fn producer_ids(&mut self, to: (ShardIndex, Ticket)) {
        let start = self.tip.producer_ids_end();
        match (self.check_space(), start.0.checked_add(PRODUCER_IDS_PER_BLOCK)) {
            (Ok(()), Some(end)) => {
                self.write(&Record::ProducerIdsReserved { end });
                let reply = ControllerReply::ProducerIds(start..ProducerId(end));
                self.until_durable.push_back(Waiting { version: self.tip.version(), to, reply });
            }
            (Err(error), _) => self.reply(to, Err(error)),
            (_, None) => self.reply(to, Err(ApiError::ProducerIdsExhausted)),
        }
    }

    fn write(&mut self, record: &Record) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.before(&self.tip, record);
        }
        let change = self.tip.apply(record).expect("the controller checks before it writes");
        self.changes.extend(change);
        self.touched = true;
        self.log.append(&record.encode());
    }

    fn reply(&mut self, (shard, ticket): (ShardIndex, Ticket), outcome: Outcome) {
        self.actions.push_back(Action::Reply(shard, ticket, outcome));
    }

    fn answer_when_applied(&mut self, to: (ShardIndex, Ticket), outcome: Outcome) {
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

    /// To be called at the end of every turn. Returns true if there is more to do than one turn may take.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        if std::mem::take(&mut self.touched) {
            self.mark();
        }
        self.log.flush(disk);
        if self.log.wants_snapshot() {
            self.log.begin_snapshot();
            self.snapshot = Some(SnapshotWriter::new(&self.tip));
        }
        let more = self.continue_snapshot(disk);
        self.publish_durable();
        more
    }

    /// Writes the next piece of the snapshot, if there is one. Returns true if it is not complete.
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

    /// What has changed since the last mark is published when everything appended so far is durable.
    fn mark(&mut self) {
        // All of it once; then a change costs what it is large, and not what there is.
        let first = !std::mem::replace(&mut self.told_all, true);
        self.marks.push_back(Mark {
            seq: self.log.appended(),
            publish: Publish {
                first: first.then(|| Arc::new(self.tip.clone())),
                version: self.tip.version(),
                changes: std::mem::take(&mut self.changes).into(),
            },
        });
    }

    /// An operation of the log is done.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.log.on_disk(disk, token, completion)?;
        self.publish_durable();
        if self.log.is_stalled() {
            self.refuse_waiting();
        }
        Ok(())
    }

    /// The log waits for space on the disk: nobody is to be kept waiting with it. What was asked for is unknown then: it takes effect when
    /// there is space, unless the process ends before.
    fn refuse_waiting(&mut self) {
        let durable = self.published;
        let kept = self.until_applied.partition_point(|waiting| waiting.version <= durable);
        let applied = self.until_applied.split_off(kept);
        for Waiting { to, .. } in applied.into_iter().chain(std::mem::take(&mut self.until_durable)) {
            self.reply(to, Err(ApiError::MetadataLogFull));
        }
    }

    fn publish_durable(&mut self) {
        while self.marks.front().is_some_and(|m| m.seq <= self.log.durable()) {
            let Some(Mark { publish, .. }) = self.marks.pop_front() else { break };
            self.published = publish.version;
            self.actions.push_back(Action::Publish(publish));
        }
        while self.until_durable.front().is_some_and(|w| w.version <= self.published) {
            self.answer_front(false);
        }
    }

    /// Tries again what the disk had no space for.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        self.log.retry_stalled(disk);
    }

    /// Whether the log waits for space on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        self.log.is_stalled()
    }

    /// Whether everything decided is durable, or waits for space on the disk.
    pub(crate) fn is_idle(&self) -> bool {
        let is_published = !self.touched && self.marks.is_empty();
        (is_published || self.log.is_stalled()) && self.log.is_idle()
    }
}
