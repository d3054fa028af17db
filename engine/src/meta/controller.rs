//! The controller: decides changes of the metadata, and replies when every shard has applied them.
//!
//! ```text
//!   ask --> Proposer: checked against the tip --> record --> Appends: batch --> log of the metadata
//!              ^                                                                      | committed
//!              |                                                                      v
//!              |                                     Applier: entry appended --(durable)--> prepared and published by every shard
//!              |                                                                                            |
//!              +---- progress: reply <---------------------------------------------------------(all applied)
//! ```
//!
//! The [`Proposer`] is active on the node that leads the metadata; the [`Applier`] is on every node. Between them is the log, which is the partition
//! [`METADATA_PARTITION`](highwater_protocol::topic::METADATA_PARTITION). A cluster of one has none: its state log commits what it makes durable. The log begins
//! when the first other node has registered, with a snapshot ([`LogSnapshot`]). From then on shard 0 appends what [`poll_append`](Controller::poll_append) returns, and brings every
//! record below the high watermark to [`handle_committed`](Controller::handle_committed), on the leader as on all others. Runs on shard 0.
//!
//! A node decides from the moment when it leads in a term and has applied all that is in its log ([`LogView`]), until it does not lead in that term any more.
//! So what it decides on is what is committed, and what it has proposed itself.
//!
//! Invariant: a record is applied only if it is committed, and once.

mod appends;
mod applier;
mod checks;
mod internal;
mod joining;
mod log_snapshot;
mod opened;
mod proposer;
mod replicas;

use std::collections::BTreeSet;

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, NodeId, Offset, TopicId};
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::AppendError;
use highwater_storage::state_log::{Fatal, Recovered, StateLog};

use crate::api::{AlterTopic, ApiError, ConfigureTopic, ControllerReply, CreateTopic, Requester};
use crate::limits::METADATA_LOAD_BYTES_MAX;
use crate::meta::{ApplyError, Metadata, MetadataRoom, Node, Opened, Publish, Record, RecoverError};
use crate::mutants::{Mutant, is_planted};

use appends::Appends;
use applier::{Applier, Progress};
use log_snapshot::LogSnapshot;
use proposer::Proposer;

/// An action for shard 0.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send to every shard.
    Publish(Publish),
    /// Reply to a request.
    Reply(Requester, Outcome),
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

/// The outcome of a request.
pub(crate) type Outcome = Result<ControllerReply, ApiError>;

/// What this node's replica of the log of the metadata is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogView {
    /// The term in which it leads, if it may answer.
    pub(crate) led: Option<LeaderEpoch>,
    /// No other replica can lead.
    pub(crate) is_alone: bool,
    /// Where the log ends, committed or not.
    pub(crate) end: Offset,
    /// Records in it wait for disk space.
    pub(crate) waits_for_space: bool,
}

/// See the [module](self).
pub(crate) struct Controller {
    /// This node, as it registers itself.
    node: Node,
    /// Another node has founded the cluster.
    has_joined: bool,
    /// The log of the metadata. `None` in a cluster of one that has none: what is decided is committed by this node's state log.
    log: Option<LogView>,
    /// The term in which this node decides.
    term: Option<LeaderEpoch>,
    /// The snapshot with which the log begins, if this node has begun it in its term.
    log_snapshot: Option<LogSnapshot>,
    proposer: Proposer,
    appends: Appends,
    applier: Applier,
}

impl Controller {
    /// Creates the controller of a node with that many stores, from its recovered log. `has_joined`: another node has founded the cluster.
    pub(crate) fn new(
        node: Node,
        has_joined: bool,
        log: StateLog,
        recovered: &Recovered,
        stores: usize,
        room: MetadataRoom,
    ) -> Result<Self, RecoverError> {
        let applier = Applier::new(&node, has_joined, log, (recovered, stores), room)?;
        let proposer = Proposer::new(stores, room, applier.progress());
        let appends = Appends::new(room.batch_bytes_max());
        Ok(Self { node, has_joined, log: None, term: None, log_snapshot: None, proposer, appends, applier })
    }

    /// Returns the metadata with all changes that were applied, durable or not.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.applier.metadata
    }

    /// Returns the next action.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        if let Some((to, outcome)) = self.proposer.poll_reply() {
            return Some(Action::Reply(to, outcome));
        }
        self.applier.poll()
    }

    /// Returns whether a change waits for disk space.
    pub(crate) fn is_stalled(&self) -> bool {
        let log_waits = self.log.is_some_and(|log| log.waits_for_space);
        self.applier.progress().is_stalled || log_waits || self.appends.blocked().is_some()
    }

    /// Returns whether this node decides.
    pub(crate) fn decides(&self) -> bool {
        if self.log.is_some() { self.term.is_some() } else { !self.needs_log() }
    }

    /// Returns whether this node is about to decide: no other can, and it has not applied everything yet, or the log does not begin with a snapshot yet.
    pub(crate) fn is_starting(&self) -> bool {
        if self.is_stalled() {
            return false;
        }
        match self.log {
            Some(log) => log.is_alone && !self.may_add_replicas(),
            None => self.needs_log(),
        }
    }

    /// Returns whether there has to be a log: there are other nodes, or were.
    fn needs_log(&self) -> bool {
        let is_alone = |id: &NodeId| *id == self.node.id;
        self.has_joined || !self.applier.metadata.nodes().keys().all(is_alone)
    }

    /// Returns where the log of the metadata begins, if it has to and has not: everything before is applied everywhere, and nothing waits.
    pub(crate) fn wants_log(&self) -> Option<Offset> {
        let next = self.applier.metadata.next_offset();
        let Progress { durable, everywhere, .. } = self.applier.progress();
        let has_decided = self.proposer.tip().is_ok();
        let is_certain = self.applier.is_certain();
        let is_settled = !has_decided || (durable, everywhere) == (next, next);
        (self.log.is_none() && self.needs_log() && is_certain && is_settled).then_some(next)
    }

    /// Returns whether every shard of this node has applied the records before `end`, or a full disk keeps it from that.
    pub(crate) fn has_applied(&self, end: Offset) -> bool {
        let Progress { everywhere, is_stalled, .. } = self.applier.progress();
        everywhere >= end || is_stalled
    }

    /// Returns this node as it is to be registered, if another node decides and the metadata has something else.
    pub(crate) fn wants_registration(&self) -> Option<&Node> {
        let known = self.applier.metadata.nodes().get(&self.node.id);
        let is_new = known.is_none_or(|known| **known != self.node);
        (self.applier.is_open() && !self.decides() && !self.is_starting() && is_new).then_some(&self.node)
    }

    /// Returns whether the log has everything that a new replica needs, if this node decides.
    pub(crate) fn may_add_replicas(&self) -> bool {
        let is_complete = self.log_snapshot.as_ref().is_some_and(LogSnapshot::is_complete);
        self.term.is_some() && (is_complete || self.log.is_some_and(|log| !log.is_alone))
    }

    /// Returns whether this node has nothing yet, because it has just joined: it begins with the next snapshot in the log.
    pub(crate) fn is_blank(&self) -> bool {
        self.applier.is_blank()
    }

    /// Returns the offset of the next record to bring to [`handle_committed`](Self::handle_committed); `None` while this node cannot apply any.
    pub(crate) fn wants_from(&self) -> Option<Offset> {
        let is_stalled = self.applier.progress().is_stalled;
        (self.applier.has_opened() && !is_stalled).then(|| self.applier.metadata.next_offset())
    }

    /// Returns the next batch for the log, with its number for [`handle_appended`](Self::handle_appended).
    pub(crate) fn poll_append(&mut self, wall_ms: i64) -> Option<(u64, Bytes)> {
        self.appends.poll(wall_ms)
    }

    /// Returns whether all changes are durable and published, or wait for disk space.
    pub(crate) fn is_idle(&self) -> bool {
        self.applier.is_idle()
    }

    /// Passes proposed records on to the log, and progress to those who wait for it.
    fn advance(&mut self) {
        while let Some(record) = self.proposer.poll_proposal() {
            if self.log.is_some() {
                self.appends.push(&record);
            } else {
                self.applier.handle_committed(record).expect("it was checked");
            }
        }
        self.proposer.handle_progress(self.applier.progress());
        let is_full = self.applier.progress().is_stalled || self.log.is_some_and(|log| log.waits_for_space);
        let blocked = self.appends.blocked().map(|error| match error {
            ApiError::Append { error: AppendError::StorageFull, .. } => ApiError::MetadataLogFull,
            error => error.clone(),
        });
        self.proposer.handle_blocked(blocked.or(is_full.then_some(ApiError::MetadataLogFull)));
    }

    // Events.

    /// Sets the nodes that cannot be reached, which get no new replicas.
    pub(crate) fn set_offline(&mut self, nodes: BTreeSet<NodeId>) {
        self.proposer.offline = nodes;
    }

    /// A shard has opened its stores. When all have, the metadata is published for the first time.
    pub(crate) fn handle_opened(&mut self, shard: ShardIndex, opened: Opened) {
        self.applier.handle_opened(shard, opened);
        if self.applier.is_open() && !self.needs_log() {
            self.proposer.handle_elected(&self.applier.metadata);
            self.register();
            self.advance();
        }
    }

    /// Follows this node's replica of the log: call it whenever it may have changed. Returns whether this node has begun to decide.
    pub(crate) fn handle_log(&mut self, log: LogView) -> bool {
        if self.log.replace(log).is_none() {
            // What was decided without a log is applied.
            self.proposer.handle_deposed();
        }
        if self.term.is_some() && self.term != log.led {
            tracing::info!(led = ?self.term, "this node does not lead the cluster's metadata any more");
            self.term = None;
            self.log_snapshot = None;
            self.appends.clear();
            if !is_planted(Mutant::DeposedControllerReplies) {
                self.proposer.handle_deposed();
            }
        }
        let has_applied_all = self.applier.is_open() && self.applier.metadata.next_offset() == log.end;
        let begins = self.term.is_none() && log.led.is_some() && has_applied_all;
        if begins {
            tracing::info!(term = ?log.led, "this node leads the cluster's metadata");
            self.term = log.led;
            self.appends.begin(log.end);
            self.proposer.handle_elected(&self.applier.metadata);
            self.register();
        }
        self.continue_log_snapshot();
        self.advance();
        begins
    }

    /// Adds the next part of the snapshot to the log, before there is another replica. Requests wait until it is complete.
    fn continue_log_snapshot(&mut self) {
        if self.term.is_none() || !self.log.is_some_and(|log| log.is_alone) {
            return;
        }
        let snapshot = self.log_snapshot.get_or_insert_default();
        let proposer = &mut self.proposer;
        let mut bytes = 0;
        while bytes < METADATA_LOAD_BYTES_MAX
            && let Ok(tip) = proposer.tip()
            && let Some(record) = snapshot.next_record(tip)
        {
            bytes += record.encode().len();
            if let Err(error) = proposer.propose(record) {
                tracing::error!("the log of the metadata cannot be replicated: {error}");
                return;
            }
        }
    }

    /// Handles the outcome of an append: the offset of the first record, which is in the log, committed or not.
    pub(crate) fn handle_appended(&mut self, number: u64, outcome: Result<Offset, ApiError>) {
        self.appends.handle_appended(number, outcome);
        self.advance();
    }

    /// Applies a committed record, at this offset of the log. Those that were applied before are skipped.
    pub(crate) fn handle_committed(&mut self, offset: Offset, value: &[u8]) -> Result<(), RecoverError> {
        let next = self.applier.metadata.next_offset();
        if offset < next {
            return Ok(());
        }
        let record = Record::decode(value)?;
        if offset > next && self.is_blank() {
            // It begins with a snapshot.
            return match record {
                Record::SnapshotBegan { .. } => Ok(self.applier.handle_snapshot(offset, record)?),
                _ => Ok(()),
            };
        }
        if offset > next {
            let error = format!("its log goes on with record {offset}, and record {next} was not applied");
            return Err(ApplyError(error).into());
        }
        self.applier.handle_committed(record)?;
        Ok(())
    }

    /// Registers this node, if something about it is new. The start does not wait for that.
    fn register(&mut self) {
        let known = self.applier.metadata.nodes().get(&self.node.id);
        if known.is_none_or(|known| **known != self.node) {
            tracing::info!(node = ?self.node, "registering this node");
            let proposed = self.proposer.propose(Record::NodeRegistered(self.node.to_record()));
            proposed.expect("the record of a node is small");
        }
    }

    /// A shard has applied all changes up to a version.
    pub(crate) fn handle_applied(&mut self, shard: ShardIndex, version: u64) {
        self.applier.handle_applied(shard, version);
        self.advance();
    }

    /// A shard has freed the space of these topics.
    pub(crate) fn handle_gone(&mut self, shard: ShardIndex, topics: &[TopicId]) {
        self.applier.handle_gone(shard, topics);
        self.advance();
    }

    /// Handles the end of a disk operation of the log.
    pub(crate) fn on_disk(
        &mut self,
        disk: &mut dyn Disk,
        token: Token,
        completion: Completion,
    ) -> Result<(), Fatal> {
        self.applier.on_disk(disk, token, completion)?;
        self.advance();
        Ok(())
    }

    /// Flushes the log. Call it at the end of every turn. Returns whether there is more to do than one turn allows.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        let more = self.applier.flush(disk);
        self.advance();
        more
    }

    /// Retries writes for which the disk had no space.
    pub(crate) fn retry_stalled(&mut self, disk: &mut dyn Disk) {
        self.applier.retry_stalled(disk);
        self.appends.retry();
        self.advance();
    }

    // Requests.

    /// Creates a topic with the id `new_id`.
    pub(crate) fn create_topic(&mut self, to: Requester, request: &CreateTopic, new_id: TopicId) {
        self.proposer.create_topic(to, request, new_id);
        self.advance();
    }

    /// Deletes a topic by name.
    pub(crate) fn delete_topic(&mut self, to: Requester, name: &str) {
        self.proposer.delete_topic(to, name);
        self.advance();
    }

    /// Deletes a topic by id.
    pub(crate) fn delete_topic_by_id(&mut self, to: Requester, id: TopicId) {
        self.proposer.delete_topic_by_id(to, id);
        self.advance();
    }

    /// Changes a topic, or only validates that.
    pub(crate) fn alter_topic(&mut self, to: Requester, request: &AlterTopic) {
        self.proposer.alter_topic(to, request);
        self.advance();
    }

    /// Changes a topic's settings, or only validates that.
    pub(crate) fn configure_topic(&mut self, to: Requester, request: &ConfigureTopic) {
        self.proposer.configure_topic(to, request);
        self.advance();
    }

    /// Reserves producer ids for a shard.
    pub(crate) fn producer_ids(&mut self, to: Requester) {
        self.proposer.producer_ids(to);
        self.advance();
    }

    /// Registers a node, or something new about one.
    pub(crate) fn register_node(&mut self, to: Requester, node: &Node) {
        self.proposer.register_node(to, node);
        self.advance();
    }

    /// Creates the topic that keeps groups, unless it exists: with so many partitions and the id `new_id`.
    pub(crate) fn create_groups_topic(&mut self, to: Requester, partitions: u32, new_id: TopicId) {
        self.proposer.create_groups_topic(to, partitions, new_id);
        self.advance();
    }

    /// The same, without a reply.
    pub(crate) fn write_groups_topic(&mut self, partitions: u32, new_id: TopicId) -> Result<(), ApiError> {
        let outcome = self.proposer.propose_groups_topic(partitions, new_id);
        self.advance();
        outcome
    }

    /// Replies when everything decided so far is applied by every shard.
    pub(crate) fn answer_when_applied(&mut self, to: Requester, outcome: Outcome) {
        self.proposer.answer_when_applied(to, outcome);
    }
}

#[cfg(test)]
mod tests;
