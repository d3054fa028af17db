//! The leader table of a node, on its shard 0: what its shards say about the partitions that they lead, and what the other nodes say.
//!
//! ```text
//!   shards of this node --- statements --> LeaderTable --- what changed --> shards 0 of the other nodes
//!   shards 0 of others  --- statements -->      |
//!   channels to them    --- up, down ---->      +------- Leaders, a snapshot --> every shard of this node
//! ```
//!
//! A node speaks for itself only, and all nodes speak to each other, so no statement goes through a third node. A channel loses nothing while its session lasts. In a
//! new session a node says everything that it leads, some of it in each turn, and what changes meanwhile beside it.
//!
//! A node is *offline* when there has been no session with its shard 0 for [`NODE_OFFLINE_AFTER`]. A connection that was reset is back before that.
//!
//! Invariant: after every turn, an established session has carried every statement of this node that is newer than the last one that the session has carried
//! about its partition, up to where the telling of everything has come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use highwater_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicPartition};
use highwater_replication::peer::limits::LEADERS_PER_MESSAGE_MAX;
use highwater_replication::peer::{LeaderNews, LeaderStatement};
use highwater_runtime::plane::Instant;

use super::SessionNumber;
use crate::leaders::{Leaders, SaidIn};
use crate::limits::{LEADERS_TOLD_PER_TURN_MAX, NODE_OFFLINE_AFTER};
use crate::mutants::{Mutant, is_planted};

const _: () = assert!(LEADERS_TOLD_PER_TURN_MAX <= LEADERS_PER_MESSAGE_MAX);

/// What has happened between this node's shard 0 and that of another node.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    /// A session has begun.
    Up(SessionNumber),
    /// It has ended.
    Down,
    /// The node has said something.
    Said(SessionNumber, LeaderNews),
}

/// Another node.
#[derive(Debug)]
struct Link {
    session: Option<SessionNumber>,
    /// How far everything has been said in the session.
    telling: Telling,
    /// When the last session ended, or the node became known.
    down_since: Instant,
    is_offline: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Telling {
    /// What this node leads of the partitions after this one has not been said.
    From(Bound<TopicPartition>),
    Complete,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct LeaderTable {
    me: NodeId,
    leaders: Leaders,
    /// What this node leads.
    own: BTreeMap<TopicPartition, LeaderStatement>,
    /// What has not been said to anyone.
    unsaid: Vec<LeaderStatement>,
    links: BTreeMap<NodeId, Link>,
    has_changed: bool,
}

impl LeaderTable {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            leaders: Leaders::default(),
            own: BTreeMap::new(),
            unsaid: Vec::new(),
            links: BTreeMap::new(),
            has_changed: false,
        }
    }

    // Getters.

    /// Returns when [`handle_time`](Self::handle_time) is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.links.values().filter(|link| link.session.is_none() && !link.is_offline);
        waiting.map(|link| link.down_since.after(NODE_OFFLINE_AFTER)).min()
    }

    /// Returns whether [`poll_news`](Self::poll_news) has more for another turn.
    pub(crate) fn has_news(&self) -> bool {
        let told = |link: &Link| link.session.is_none() || link.telling == Telling::Complete;
        !self.unsaid.is_empty() || !self.links.values().all(told)
    }

    // Events.

    /// Handles the nodes of the cluster that this one connects to.
    pub(crate) fn handle_nodes(&mut self, now: Instant, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().filter(|node| *node != self.me).collect();
        for (node, _) in self.links.extract_if(.., |node, _| !nodes.contains(node)) {
            self.leaders.set_offline(node, true);
            self.has_changed = true;
        }
        for node in nodes {
            if self.links.contains_key(&node) {
                continue;
            }
            let telling = Telling::From(Bound::Unbounded);
            self.links.insert(node, Link { session: None, telling, down_since: now, is_offline: false });
            self.leaders.set_offline(node, false);
            self.has_changed = true;
        }
    }

    /// Handles what this node's shards say.
    pub(crate) fn handle_local(&mut self, statements: Vec<LeaderStatement>) {
        for statement in statements {
            let partition = statement.partition;
            // Also if another node is known to lead in a later epoch.
            if self.own.get(&partition).is_some_and(|own| own.epoch <= statement.epoch) {
                self.own.remove(&partition);
            }
            let holds = self.leaders.put(self.me, &statement, SaidIn::default());
            self.has_changed |= holds;
            if holds && statement.leads {
                self.own.insert(partition, statement.clone());
            }
            // Others may not know the later leader, and have been told of this one.
            if holds || !statement.leads {
                self.unsaid.push(statement);
            }
        }
    }

    /// Handles an event of the channel to the shard 0 of another node.
    pub(crate) fn handle_event(&mut self, now: Instant, node: NodeId, event: NodeEvent) {
        let Some(link) = self.links.get_mut(&node) else { return };
        match event {
            NodeEvent::Up(session) => {
                link.session = Some(session);
                if !is_planted(Mutant::LeadersNotToldAgain) {
                    link.telling = Telling::From(Bound::Unbounded);
                }
                if std::mem::take(&mut link.is_offline) {
                    tracing::info!(node = node.0, "the node can be reached again");
                    self.leaders.set_offline(node, false);
                    self.has_changed = true;
                }
            }
            NodeEvent::Down => {
                link.session = None;
                link.down_since = now;
            }
            NodeEvent::Said(session, news) => self.handle_news(node, session, &news),
        }
    }

    fn handle_news(&mut self, node: NodeId, session: SessionNumber, news: &LeaderNews) {
        let said_in = SaidIn(session.0);
        for statement in &news.statements {
            if self.leaders.put(node, statement, said_in) {
                self.has_changed = true;
                // A replica of this node that led before does not any more, whether it knows that yet or not.
                let before = self.own.remove(&statement.partition);
                self.unsaid.extend(before.map(|before| LeaderStatement { leads: false, ..before }));
            }
        }
        if news.is_complete {
            self.leaders.hold_from(node, said_in);
            self.has_changed = true;
        }
    }

    /// Handles that time has passed.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        for (node, link) in &mut self.links {
            let is_due = link.session.is_none() && link.down_since.after(NODE_OFFLINE_AFTER) <= now;
            if is_due && !link.is_offline {
                link.is_offline = true;
                tracing::warn!(node = node.0, "the node cannot be reached");
                self.leaders.set_offline(*node, true);
                self.has_changed = true;
            }
        }
    }

    /// Handles that a topic was deleted.
    pub(crate) fn handle_deleted(&mut self, topic: TopicId) {
        let at = |index| TopicPartition { topic, partition: PartitionIndex(index) };
        let gone = at(0)..=at(u32::MAX);
        self.own.extract_if(gone, |_, _| true).for_each(drop);
        self.has_changed |= self.leaders.forget_topic(topic);
    }

    // What follows.

    /// Returns what is to be said to other nodes in this turn. Call [`has_news`](Self::has_news) afterwards.
    pub(crate) fn poll_news(&mut self) -> Vec<(NodeId, SessionNumber, LeaderNews)> {
        let unsaid = std::mem::take(&mut self.unsaid);
        let mut all = Vec::new();
        for (node, link) in &mut self.links {
            let Some(session) = link.session else { continue };
            for statements in unsaid.chunks(LEADERS_PER_MESSAGE_MAX) {
                let statements = statements.to_vec();
                all.push((*node, session, LeaderNews { is_complete: false, statements }));
            }
            let Telling::From(from) = link.telling else { continue };
            let rest = self.own.range((from, Bound::Unbounded));
            let statements: Vec<_> =
                rest.take(LEADERS_TOLD_PER_TURN_MAX).map(|(_, statement)| statement.clone()).collect();
            let is_complete = statements.len() < LEADERS_TOLD_PER_TURN_MAX;
            link.telling = match statements.last() {
                Some(last) if !is_complete => Telling::From(Bound::Excluded(last.partition)),
                _ => Telling::Complete,
            };
            all.push((*node, session, LeaderNews { is_complete, statements }));
        }
        all
    }

    /// Returns the table, if it has changed since the last call.
    pub(crate) fn poll_leaders(&mut self) -> Option<Leaders> {
        std::mem::take(&mut self.has_changed).then(|| self.leaders.clone())
    }
}

#[cfg(test)]
mod tests;
