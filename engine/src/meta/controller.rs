//! The controller: decides changes of the metadata, and replies when every shard has applied them.
//!
//! ```text
//!   ask --> Proposer: checked against the tip --> record --> Applier: entry appended --(durable)--> prepared and published by every shard
//!              ^                                                                                                |
//!              +---- progress: reply <--------------------------------------------------------------(all applied)
//! ```
//!
//! The [`Proposer`] is active on the node that leads the metadata; the [`Applier`] is on every node. A record goes from one to the other when it is
//! committed. With one node, that is at once: its own log is the log of the metadata, and shards and clients only see durable changes. Runs on shard 0.

mod applier;
mod checks;
mod internal;
mod opened;
mod proposer;
mod replicas;

use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::{Completion, Disk, ShardIndex, Token};
use highwater_storage::state_log::{Fatal, Recovered, StateLog};

use crate::api::{AlterTopic, ApiError, ConfigureTopic, ControllerReply, CreateTopic, Ticket};
use crate::meta::{Metadata, MetadataRoom, Node, Opened, Publish, Record, RecoverError};

use applier::Applier;
use proposer::Proposer;

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

/// The outcome of a request.
pub(crate) type Outcome = Result<ControllerReply, ApiError>;

/// See the [module](self).
pub(crate) struct Controller {
    /// This node, as it registers itself.
    node: Node,
    proposer: Proposer,
    applier: Applier,
}

impl Controller {
    /// Creates the controller of a node with that many stores, from its recovered log.
    pub(crate) fn new(
        node: Node,
        log: StateLog,
        recovered: &Recovered,
        stores: usize,
        room: MetadataRoom,
    ) -> Result<Self, RecoverError> {
        let applier = Applier::new(&node, log, recovered, stores)?;
        Ok(Self { node, proposer: Proposer::new(stores, room, applier.progress()), applier })
    }

    /// Returns the metadata with all changes that were applied, durable or not.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.applier.metadata
    }

    /// Returns the next action.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        if let Some(((shard, ticket), outcome)) = self.proposer.poll_reply() {
            return Some(Action::Reply(shard, ticket, outcome));
        }
        self.applier.poll()
    }

    /// Returns whether the log waits for disk space.
    pub(crate) fn is_stalled(&self) -> bool {
        self.applier.progress().is_stalled
    }

    /// Returns whether all changes are durable and published, or wait for disk space.
    pub(crate) fn is_idle(&self) -> bool {
        self.applier.is_idle()
    }

    /// Passes proposed records on: with one node, they are committed by the same write that makes them durable.
    fn advance(&mut self) {
        while let Some(record) = self.proposer.poll_proposal() {
            self.applier.handle_committed(record);
        }
        self.proposer.handle_progress(self.applier.progress());
    }

    // Events.

    /// A shard has opened its stores. When all have, the metadata is published for the first time.
    pub(crate) fn handle_opened(&mut self, shard: ShardIndex, opened: Opened) {
        if self.applier.handle_opened(shard, opened, self.proposer.room) {
            self.proposer.handle_elected(&self.applier.metadata);
            self.register();
            self.advance();
        }
    }

    /// Registers this node, if something about it is new. The start does not wait for that.
    fn register(&mut self) {
        let known = self.applier.metadata.nodes().get(&self.node.id);
        if known.is_none_or(|known| **known != self.node) {
            tracing::info!(node = ?self.node, "registering this node");
            self.proposer.propose(Record::NodeRegistered(self.node.to_record()));
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
        if self.is_stalled() {
            self.proposer.handle_stalled();
        }
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
        self.advance();
    }

    // Requests.

    /// Creates a topic with the id `new_id`.
    pub(crate) fn create_topic(&mut self, to: (ShardIndex, Ticket), request: &CreateTopic, new_id: TopicId) {
        self.proposer.create_topic(to, request, new_id);
        self.advance();
    }

    /// Deletes a topic by name.
    pub(crate) fn delete_topic(&mut self, to: (ShardIndex, Ticket), name: &str) {
        self.proposer.delete_topic(to, name);
        self.advance();
    }

    /// Deletes a topic by id.
    pub(crate) fn delete_topic_by_id(&mut self, to: (ShardIndex, Ticket), id: TopicId) {
        self.proposer.delete_topic_by_id(to, id);
        self.advance();
    }

    /// Changes a topic, or only validates that.
    pub(crate) fn alter_topic(&mut self, to: (ShardIndex, Ticket), request: &AlterTopic) {
        self.proposer.alter_topic(to, request);
        self.advance();
    }

    /// Changes a topic's settings, or only validates that.
    pub(crate) fn configure_topic(&mut self, to: (ShardIndex, Ticket), request: &ConfigureTopic) {
        self.proposer.configure_topic(to, request);
        self.advance();
    }

    /// Reserves producer ids for a shard.
    pub(crate) fn producer_ids(&mut self, to: (ShardIndex, Ticket)) {
        self.proposer.producer_ids(to);
        self.advance();
    }

    /// Registers a node, or something new about one.
    pub(crate) fn register_node(&mut self, to: (ShardIndex, Ticket), node: &Node) {
        self.proposer.register_node(to, node);
        self.advance();
    }

    /// Creates the topic that keeps groups, unless it exists: with so many partitions and the id `new_id`.
    pub(crate) fn create_groups_topic(&mut self, to: (ShardIndex, Ticket), partitions: u32, new_id: TopicId) {
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
    pub(crate) fn answer_when_applied(&mut self, to: (ShardIndex, Ticket), outcome: Outcome) {
        self.proposer.answer_when_applied(to, outcome);
    }
}

#[cfg(test)]
mod tests;
