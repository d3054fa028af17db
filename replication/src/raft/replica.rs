//! The replica: its state, what its owner reads of it, and the actions that it asks for.

use std::collections::VecDeque;

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::config::Config;
use super::log::Outline;
use super::progress::Leader;
use super::types::{Action, ConfigEntry, Envelope, HardState, LogEnd, Message, ReplicaId, Run};
use crate::mutants::{Mutant, is_planted};

/// What a replica starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The last state that was made durable.
    pub hard: HardState,
    /// First position of the log.
    pub start: LogEnd,
    /// The runs of the log.
    pub runs: Vec<Run>,
    /// End of the log.
    pub end: LogIndex,
    /// Every entry with a lower index is durable. A storage may have to write what it found at the end again.
    pub durable_end: LogIndex,
    /// A lower bound of what is committed.
    pub commit_end: LogIndex,
    /// The configurations in the log, in order, and before them the one at its start.
    pub configs: Vec<ConfigEntry>,
    /// The end of the log is lost: the replica may have acknowledged entries that it no longer has.
    pub end_lost: bool,
}

/// What a replica is in its term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleKind {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Role {
    Follower,
    /// With those that would vote for this replica.
    PreCandidate(Vec<ReplicaId>),
    /// With those that voted for this replica, and whether the old leader asked it to take over.
    Candidate(Vec<ReplicaId>),
    Leader(Box<Leader>),
}

/// A replica of a partition. See the [module](super).
///
/// Events come in through `handle_*`, commands by their names. After either, take actions by [`poll_action`](Self::poll_action) until
/// there are none, and if the replica leads, send what is [due](Self::poll_due). Actions must take effect in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    pub(super) id: ReplicaId,
    pub(super) hard: HardState,
    /// The last hard state that is durable.
    persisted: HardState,
    /// The hard state that is being made durable.
    persisting: Option<HardState>,
    /// The log with everything that was appended.
    pub(super) log: Outline,
    /// Every entry with a lower index is on this replica's disk. Invariant: not above the log's end.
    pub(super) durable_end: LogIndex,
    /// Every entry with a lower index is the same in the log of this term's leader. Invariant: not above the log's end.
    pub(super) verified_end: LogIndex,
    /// Invariant: a follower moves it only up to what is durable here.
    pub(super) commit_end: LogIndex,
    /// Every entry with a lower index is committed, in the logs of leaders. This log may lack it, or have another entry there.
    pub(super) known_commit: LogIndex,
    pub(super) acknowledged_end: LogIndex,
    /// Configurations in the log: the last committed one and all after it. Invariant: never empty.
    pub(super) configs: Vec<ConfigEntry>,
    pub(super) role: Role,
    /// The leader of the term, if known.
    pub(super) leader: Option<ReplicaId>,
    /// The leader's lease has not ended.
    pub(super) leader_live: bool,
    /// The log is being cut off or restarted: no entries are accepted.
    pub(super) cutting: bool,
    /// Entries that are lost, with others after them.
    pub(super) hole: Option<(LogIndex, LogIndex)>,
    pub(super) min_insync: usize,
    actions: VecDeque<Action>,
    /// What follows the queued actions.
    news: News,
}

/// Actions that are not queued: they say what to look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct News {
    /// [`Action::RoleChanged`].
    role: bool,
    /// [`Action::Committed`].
    commit: bool,
}

impl Replica {
    /// Creates a replica from what its storage has. `min_insync`: how many voters have an entry before it is acknowledged; a majority
    /// if that is more.
    pub fn new(id: ReplicaId, restored: Restored, min_insync: usize) -> Self {
        let Restored { hard, start, runs, end, durable_end, commit_end, configs, end_lost } = restored;
        assert!(!configs.is_empty(), "a replica has a configuration");
        let mut log = Outline::new(start);
        log.extend(start.epoch, &runs, end);
        let commit_end = commit_end.min(end).max(start.end);
        log.forget(commit_end);
        let mut replica = Self {
            id,
            hard,
            persisted: hard,
            persisting: None,
            log,
            durable_end: durable_end.min(end),
            verified_end: LogIndex(0),
            commit_end,
            known_commit: commit_end,
            acknowledged_end: commit_end,
            configs,
            role: Role::Follower,
            leader: None,
            leader_live: false,
            cutting: false,
            hole: None,
            min_insync,
            actions: VecDeque::new(),
            news: News::default(),
        };
        // An entry of a later term than the recorded one can be durable first.
        let last = replica.log.last().epoch;
        if last > replica.hard.term {
            replica.hard.term = last;
            replica.hard.vote = None;
        }
        // The end of the log may have been recovered without that having become durable.
        replica.end_loss();
        if end_lost {
            replica.begin_new_term_without_end();
        }
        replica.trim_configs();
        replica
    }

    /// Handles, right after [`new`](Self::new), that no hard state was ever recorded: it is before anything leaves and before entries are
    /// accepted. So a replica that has entries and no state has forgotten what it promised.
    pub fn record_first_state(&mut self) {
        self.persisted = HardState { term: LeaderEpoch(-1), vote: None, lost_in: None };
    }

    /// Returns the replica's id.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Returns the term.
    pub fn term(&self) -> LeaderEpoch {
        self.hard.term
    }

    /// Returns the leader of the term, if known.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// Returns what the replica is.
    pub fn role(&self) -> RoleKind {
        match self.role {
            Role::Follower => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// Returns whether the replica leads and an entry of its term is committed, or it has [resumed](Self::resume). Before, it answers
    /// nothing: it does not know what is committed (paper, section 8).
    pub fn is_serving(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.resumed || self.commit_end > leader.term_start || is_planted(Mutant::ServeBeforeOwnEntry)
    }

    /// Returns the end of the log.
    pub fn log_end(&self) -> LogEnd {
        self.log.last()
    }

    /// Returns the commit end: no entry with a lower index changes any more. Never decreases.
    pub fn commit_end(&self) -> LogIndex {
        self.commit_end
    }

    /// Returns the acknowledged end: every entry with a lower index is committed, and on as many voters as the configuration asks for.
    /// Only meaningful on a leader. Never decreases.
    pub fn acknowledged_end(&self) -> LogIndex {
        self.acknowledged_end
    }

    /// Returns the configuration in effect: the last one in the log, committed or not (thesis, 4.1).
    pub fn config(&self) -> &Config {
        &self.configs.last().expect("a replica has a configuration").config
    }

    /// Returns whether the replica takes no part in elections because it has lost a part of its log.
    pub fn is_damaged(&self) -> bool {
        self.hole.is_some() || self.hard.lost_in.is_some()
    }

    /// Returns whether the log is being cut off or restarted: no entries are accepted.
    pub fn is_cutting(&self) -> bool {
        self.cutting
    }

    /// Returns the state that must not be forgotten.
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// Returns the heap memory that the replica uses, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let role = match &self.role {
            Role::Follower => 0,
            Role::PreCandidate(ids) | Role::Candidate(ids) => ids.capacity() * size_of::<ReplicaId>(),
            Role::Leader(leader) => {
                size_of::<Leader>() + leader.peers.capacity() * size_of::<super::progress::Progress>()
            }
        };
        let members = |entry: &ConfigEntry| size_of_val(entry.config.members());
        self.log.heap_bytes()
            + self.configs.capacity() * size_of::<ConfigEntry>()
            + self.configs.iter().map(members).sum::<usize>()
            + self.actions.capacity() * size_of::<Action>()
            + role
    }

    /// Takes the next action.
    ///
    /// (term, vote) comes first, and nothing else leaves before it is durable: every other action may depend on it.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.hard != self.persisted && self.persisting != Some(self.hard) {
            self.persisting = Some(self.hard);
            return Some(Action::Persist(self.hard));
        }
        if self.hard != self.persisted && !is_planted(Mutant::VoteNotDurable) {
            return None;
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        // An idle replica keeps no memory for actions.
        self.actions = VecDeque::new();
        // These are not queued, so that what a sole voter commits costs no memory: they say what to look at, and may come last.
        if std::mem::take(&mut self.news.role) {
            return Some(Action::RoleChanged);
        }
        std::mem::take(&mut self.news.commit).then_some(Action::Committed)
    }

    /// Handles that a hard state is durable.
    pub fn handle_persisted(&mut self, hard: HardState) {
        if hard.term < self.persisted.term {
            return;
        }
        self.persisted = hard;
        if self.hard == hard {
            self.persisting = None;
            self.count_own_vote();
        }
    }

    /// Handles the shell's limit for acknowledgements: see [`new`](Self::new).
    pub fn set_min_insync(&mut self, min_insync: usize) {
        self.min_insync = min_insync;
    }

    /// Handles that the storage has removed the entries before `start`.
    pub fn handle_log_start(&mut self, start: LogIndex) {
        assert!(start <= self.commit_end, "only committed entries are removed");
        self.log.start_at(start);
        self.hole = self.hole.and_then(|(from, until)| (start < until).then_some((from.max(start), until)));
    }

    pub(super) fn is_persisted(&self) -> bool {
        self.hard == self.persisted || is_planted(Mutant::VoteNotDurable)
    }

    pub(super) fn note_role_changed(&mut self) {
        self.news.role = true;
    }

    pub(super) fn note_committed(&mut self) {
        self.news.commit = true;
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn send(&mut self, to: ReplicaId, message: Message) {
        self.push(Action::Send(Envelope { from: self.id, to, message }));
    }

    /// Sends to all voters but this replica.
    pub(super) fn send_voters(&mut self, message: &Message) {
        let voters: Vec<ReplicaId> = self.config().voters().filter(|id| *id != self.id).collect();
        for to in voters {
            self.send(to, message.clone());
        }
    }

    /// Becomes a follower in this term, which is the current one or a later one.
    ///
    /// Whoever followed this replica hears that it does not lead any more: the lease belongs to the channel, which lasts. Otherwise nobody would look for another
    /// leader while this one can be reached, whether or not it may campaign.
    pub(super) fn become_follower(&mut self, term: LeaderEpoch, leader: Option<ReplicaId>) {
        assert!(term >= self.hard.term, "terms never decrease");
        self.end_leases();
        if term > self.hard.term {
            self.hard.term = term;
            self.hard.vote = None;
            self.verified_end = LogIndex(0);
        }
        let changed = self.leader != leader || matches!(self.role, Role::Leader(_));
        self.role = Role::Follower;
        self.leader = leader;
        self.leader_live = leader.is_some();
        if changed {
            self.note_role_changed();
        }
    }

    /// Ends the leases of this replica's followers, if it leads.
    fn end_leases(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        if is_planted(Mutant::DeposedLeaderKeepsLeases) {
            return;
        }
        let term = self.hard.term;
        let followers: Vec<ReplicaId> = leader.peers.iter().map(|peer| peer.id).collect();
        for to in followers {
            self.send(to, Message::SteppedDown { term });
        }
    }

    /// Returns what this replica holds durably, for a leader's count. What is after a hole does not count: it could not be read back.
    pub(super) fn own_end(&self) -> LogIndex {
        let end = if is_planted(Mutant::AckBeforeDurable) { self.log.end() } else { self.durable_end };
        self.hole.map_or(end, |(from, _)| end.min(from))
    }

    /// Moves the commit end.
    pub(super) fn commit(&mut self, end: LogIndex) {
        assert!(end <= self.log.end(), "what is committed is in the log");
        if end > self.commit_end || (is_planted(Mutant::HighWatermarkFalls) && end < self.commit_end) {
            self.commit_end = end;
            self.log.forget(end);
            self.trim_configs();
            self.note_committed();
        }
    }

    /// Forgets configurations before the last committed one.
    pub(super) fn trim_configs(&mut self) {
        let committed = self.configs.partition_point(|entry| entry.index < self.commit_end);
        self.configs.drain(..committed.saturating_sub(1));
    }
}
