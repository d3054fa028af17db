//! What a leader knows of the other replicas.

use highwater_protocol::ids::LogIndex;

use super::config::Config;
use super::types::ReplicaId;

/// How entries are sent to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Sending {
    /// It is not known where the logs match: one message at a time.
    Probing {
        /// The message is under way.
        sent: bool,
    },
    /// The logs match up to what was sent: messages follow each other without waiting.
    Streaming,
}

/// What a leader knows of another replica. Invariant: `match_end <= next`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Progress {
    pub(crate) id: ReplicaId,
    /// The replica has every entry of the leader's log with a lower index, durably.
    pub(crate) match_end: LogIndex,
    /// Index of the next entry to send.
    pub(crate) next: LogIndex,
    /// The commit end that was sent last.
    pub(crate) commit_sent: LogIndex,
    pub(crate) sending: Sending,
    /// The replica is reachable.
    pub(crate) live: bool,
}

impl Progress {
    pub(crate) fn new(id: ReplicaId, next: LogIndex) -> Self {
        let sending = Sending::Probing { sent: false };
        Self { id, match_end: LogIndex(0), next, commit_sent: LogIndex(0), sending, live: true }
    }

    /// Returns whether there is something to send.
    pub(crate) fn is_due(&self, log_end: LogIndex, commit_end: LogIndex) -> bool {
        let has_entries = self.sending == Sending::Streaming && self.next < log_end;
        self.has_news(commit_end) || (self.live && has_entries)
    }

    /// Returns whether there is something to send also without entries: a probe, or a later commit end.
    pub(crate) fn has_news(&self, commit_end: LogIndex) -> bool {
        self.live
            && match self.sending {
                Sending::Probing { sent } => !sent,
                Sending::Streaming => self.commit_sent < commit_end.min(self.next),
            }
    }

    /// Starts over: messages that are under way may never arrive.
    pub(crate) fn probe(&mut self, next: LogIndex) {
        self.next = next.max(self.match_end);
        self.sending = Sending::Probing { sent: false };
    }

    pub(crate) fn handle_appended(&mut self, durable_end: LogIndex) {
        self.match_end = self.match_end.max(durable_end);
        self.next = self.next.max(self.match_end);
        // What was sent before the replica was out of reach may be lost.
        self.sending = if self.live { Sending::Streaming } else { Sending::Probing { sent: false } };
        self.live = true;
    }
}

/// The state of a leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    /// Index of the first entry of the leader's term.
    pub(crate) term_start: LogIndex,
    /// It has led the term before a restart, alone: every entry before `term_start` is committed.
    pub(crate) resumed: bool,
    /// The other members, ordered by id.
    pub(crate) peers: Vec<Progress>,
    /// The voter that is to take over, and whether it has been asked to.
    pub(crate) transfer: Option<(ReplicaId, bool)>,
}

impl Leader {
    pub(crate) fn peer(&self, id: ReplicaId) -> Option<&Progress> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub(crate) fn peer_mut(&mut self, id: ReplicaId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }

    /// Handles a configuration that was appended: new members are probed, and those that left are forgotten.
    pub(crate) fn handle_config(&mut self, config: &Config, me: ReplicaId, next: LogIndex) {
        self.peers.retain(|peer| config.part(peer.id).is_some());
        for member in config.members() {
            if member.id != me && self.peer(member.id).is_none() {
                self.peers.push(Progress::new(member.id, next));
            }
        }
        self.peers.sort_by_key(|peer| peer.id);
    }

    /// Returns the voter that has most of the log among those that are reachable.
    pub(crate) fn successor(&self, config: &Config) -> Option<ReplicaId> {
        let fit = self.peers.iter().filter(|peer| peer.live && config.is_voter(peer.id));
        fit.max_by_key(|peer| peer.match_end).map(|peer| peer.id)
    }
}
