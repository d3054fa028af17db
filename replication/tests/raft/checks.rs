//! The invariants, checked after every event by somebody who sees everything.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_replication::raft::{Config, Envelope, Message, RUNS_MAX, ReplicaId};

use crate::disk::{Entry, Log, Value};
use crate::world::Node;

/// What has happened so far.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Ghost {
    /// Every entry that some replica committed, and the term of the one that did so first.
    pub(crate) committed: Vec<(Entry, LeaderEpoch)>,
    /// Who led in each term.
    leaders: BTreeMap<LeaderEpoch, ReplicaId>,
    /// Who voted for whom in each term.
    votes: BTreeMap<(LeaderEpoch, ReplicaId), ReplicaId>,
    /// Replicas that lost what they had acknowledged.
    damaged: BTreeSet<ReplicaId>,
    /// Commit end and acknowledged end of each node since it started.
    ends: BTreeMap<ReplicaId, (LogIndex, LogIndex)>,
}

impl Ghost {
    pub(crate) fn note_damage(&mut self, id: ReplicaId) {
        self.damaged.insert(id);
    }

    pub(crate) fn handle_restart(&mut self, node: &Node) {
        let replica = &node.replica;
        self.ends.insert(replica.id(), (replica.commit_end(), replica.acknowledged_end()));
    }

    /// A replica votes for one candidate a term.
    pub(crate) fn note_sent(&mut self, envelope: &Envelope) -> Result<(), String> {
        let Message::Voted { term, granted: true } = &envelope.message else { return Ok(()) };
        let before = self.votes.insert((*term, envelope.from), envelope.to);
        match before.filter(|before| *before != envelope.to) {
            Some(before) => {
                Err(format!("{} voted for {before} and {} in term {term}", envelope.from, envelope.to))
            }
            None => Ok(()),
        }
    }

    /// Nothing that was committed is cut off.
    ///
    /// A replica that was away for more terms than are remembered may do so, if it did not know: a majority of the others has it.
    pub(crate) fn check_truncation(&self, at: usize, nodes: &[Node], from: LogIndex) -> Result<(), String> {
        let log = &nodes[at].log;
        let oldest_known = self.committed.len().checked_sub(RUNS_MAX);
        let was_away = oldest_known.is_some_and(|oldest| {
            log.get(oldest as u64) != self.committed.get(oldest).map(|(entry, _)| entry)
        });
        for index in from.0..log.end().0 {
            let committed = self.committed.get(index as usize).map(|(entry, _)| entry);
            if committed.is_none() || committed != log.get(index) {
                continue;
            }
            let others = nodes.iter().enumerate().filter(|(other, _)| *other != at);
            let copies = others.filter(|(_, node)| node.disk.log.get(index) == committed).count();
            if !was_away || copies <= nodes.len() / 2 {
                return Err(format!("node {at} cuts off its log at {from}, and entry {index} is committed"));
            }
        }
        Ok(())
    }

    /// Notes what a node leads, commits and acknowledges.
    pub(crate) fn note_progress(&mut self, at: usize, nodes: &[Node]) -> Result<(), String> {
        let (node, replica) = (&nodes[at], &nodes[at].replica);
        if node.is_leader() {
            let leader = *self.leaders.entry(replica.term()).or_insert(replica.id());
            if leader != replica.id() {
                return Err(format!("{leader} and {} lead in term {}", replica.id(), replica.term()));
            }
        }
        let start = (LogIndex(0), LogIndex(0));
        let (commit_end, acknowledged) = *self.ends.get(&replica.id()).unwrap_or(&start);
        let now = (replica.commit_end(), replica.acknowledged_end());
        if now.0 < commit_end || now.1 < acknowledged {
            return Err(format!("the commit end of {} fell from {commit_end} to {}", replica.id(), now.0));
        }
        self.ends.insert(replica.id(), now);
        for index in commit_end.0..now.0.0 {
            let Some(entry) = node.log.get(index) else { continue };
            self.note_committed(index, entry, at, nodes)?;
        }
        if node.is_leader() {
            for index in acknowledged.0..now.1.0 {
                // The configuration may have changed since.
                let copies = nodes.iter().filter(|other| self.holds(other, index, &node.log)).count();
                if copies < node.min_insync {
                    return Err(format!("entry {index} was acknowledged with {copies} copies"));
                }
            }
        }
        Ok(())
    }

    fn holds(&self, node: &Node, index: u64, log: &Log) -> bool {
        // What is below the start of a log was there, and so was what a fault has taken.
        self.damaged.iter().any(|id| id.node == node.replica.id().node)
            || index < node.disk.log.start.end.0
            || log.get(index).is_none_or(|entry| node.disk.log.get(index) == Some(entry))
    }

    fn note_committed(&mut self, index: u64, entry: &Entry, at: usize, nodes: &[Node]) -> Result<(), String> {
        let replica = &nodes[at].replica;
        if let Some((committed, _)) = self.committed.get(index as usize) {
            if entry != committed && !(entry.value == Value::Lost && replica.is_damaged()) {
                return Err(format!("node {at} commits {entry:?} at {index}; {committed:?} is committed"));
            }
            return Ok(());
        }
        assert_eq!(index as usize, self.committed.len(), "entries are committed in order");
        self.committed.push((entry.clone(), replica.term()));
        // An entry is committed under the configuration before it, or under the first one after it, which is appended when those before
        // are committed.
        let configs = nodes[at].log.configs();
        let before = configs.iter().rev().find(|config| config.index.0 <= index).unwrap_or(&configs[0]);
        let after = configs.iter().find(|config| config.index.0 >= index).unwrap_or(before);
        self.check_copies(index, &before.config, at, nodes)
            .or_else(|why| self.check_copies(index, &after.config, at, nodes).map_err(|_| why))
    }

    /// A majority of each side of a configuration has the entry durably.
    fn check_copies(&self, index: u64, config: &Config, at: usize, nodes: &[Node]) -> Result<(), String> {
        for side in [sides::old, sides::new] {
            let voters: Vec<ReplicaId> =
                config.members().iter().filter(|m| side(m.part)).map(|m| m.id).collect();
            let holds = |id: &&ReplicaId| {
                let node = nodes.iter().find(|node| node.replica.id() == **id);
                // The node's disk was wiped since.
                node.is_none_or(|node| self.holds(node, index, &nodes[at].log))
            };
            let copies = voters.iter().filter(holds).count();
            if copies <= voters.len() / 2 {
                return Err(format!("entry {index} is committed with {copies} of {} copies", voters.len()));
            }
        }
        Ok(())
    }

    /// Checks what must hold at any moment.
    pub(crate) fn check(&mut self, nodes: &[Node]) -> Result<(), String> {
        for at in 0..nodes.len() {
            self.note_progress(at, nodes)?;
            self.check_leader(&nodes[at])?;
            check_hole(&nodes[at])?;
            for other in &nodes[at + 1..] {
                check_matching(&nodes[at], other)?;
            }
        }
        Ok(())
    }

    /// A leader has everything that was committed in earlier terms, and serves once an entry of its own is committed.
    fn check_leader(&self, node: &Node) -> Result<(), String> {
        if !node.is_leader() {
            return Ok(());
        }
        let (id, term) = (node.replica.id(), node.replica.term());
        for (index, (entry, committed_in)) in self.committed.iter().enumerate() {
            let has = (index as u64) < node.log.start.end.0 || node.log.get(index as u64) == Some(entry);
            if *committed_in <= term && !has {
                return Err(format!(
                    "{id} leads term {term} without entry {index}, committed in {committed_in}"
                ));
            }
        }
        if node.replica.is_serving() && !self.committed.iter().any(|(entry, _)| entry.epoch == term) {
            return Err(format!("{id} serves before an entry of term {term} is committed"));
        }
        if node.replica.log_end().end != node.log.end() {
            return Err(format!("the log of {id} has another end than its core knows"));
        }
        Ok(())
    }
}

/// Two logs with an entry of the same index and epoch are the same up to it.
fn check_matching(a: &Node, b: &Node) -> Result<(), String> {
    let start = a.log.start.end.max(b.log.start.end).0;
    let end = a.log.end().min(b.log.end()).0;
    let same_epoch = |index: &u64| a.log.get(*index).map(|e| e.epoch) == b.log.get(*index).map(|e| e.epoch);
    let Some(last) = (start..end).rev().find(same_epoch) else { return Ok(()) };
    for index in start..=last {
        let (left, right) = (a.log.get(index), b.log.get(index));
        // What an unreadable entry was is not known. Its replica knows that: see `check_hole`.
        let lost = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.value == Value::Lost);
        if left != right && !lost(left) && !lost(right) {
            return Err(format!("entry {last} matches and entry {index} does not: {left:?}, {right:?}"));
        }
    }
    Ok(())
}

/// A replica knows of every entry that cannot be read, but for those that it is about to cut off. The core has forgotten those when it
/// asks for the cut, which waits until (term, vote) is durable.
fn check_hole(node: &Node) -> Result<(), String> {
    let replica = &node.replica;
    let end = replica.log_end();
    if !node.log.contains(end) {
        // The log is about to be restarted elsewhere.
        return Ok(());
    }
    let (from, until) = replica.hole().unwrap_or((end.end, end.end));
    for index in node.log.start.end.0..end.end.0 {
        let lost = node.log.get(index).is_some_and(|entry| entry.value == Value::Lost);
        if lost && !(from.0..until.0).contains(&index) {
            return Err(format!("{} does not know that it cannot read entry {index}", replica.id()));
        }
    }
    Ok(())
}

mod sides {
    use highwater_replication::raft::Part;

    pub(super) fn old(part: Part) -> bool {
        matches!(part, Part::Voter | Part::Outgoing | Part::Demoted)
    }

    pub(super) fn new(part: Part) -> bool {
        matches!(part, Part::Voter | Part::Incoming)
    }
}
