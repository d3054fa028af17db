//! Identities, messages and actions of the consensus core: values without behaviour.

use std::fmt;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId};

use super::config::Config;
use super::violation::ProtocolViolation;

/// One replica of a partition.
///
/// A node whose disk was wiped or replaced has forgotten its votes and what it acknowledged. It gets a new incarnation, and so is another
/// replica: nothing that the old one promised is attributed to it, and it joins as a learner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// Node that has the replica.
    pub node: NodeId,
    /// Which of the node's disks this is. Increases when the disk is wiped or replaced.
    pub incarnation: u32,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node)?;
        if self.incarnation == 0 { Ok(()) } else { write!(f, "'{}", self.incarnation) }
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaId({self})")
    }
}

/// A position in a log: an exclusive end, and the epoch of the entry before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogEnd {
    /// Every entry before the position has a lower index.
    pub end: LogIndex,
    /// Epoch of the entry with the index `end - 1`. Epoch 0 if nothing precedes the position.
    pub epoch: LeaderEpoch,
}

impl LogEnd {
    /// The end of an empty log.
    pub const EMPTY: Self = Self { end: LogIndex(0), epoch: LeaderEpoch(0) };

    /// Returns whether a log with this end has every entry that could be committed in a log with the other end: Raft's "at least as
    /// up-to-date" (paper, 5.4.1).
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        (self.epoch, self.end) >= (other.epoch, other.end)
    }
}

/// Entries of one epoch, up to the next run or the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    /// Index of the first entry.
    pub start: LogIndex,
    /// Epoch of the entries.
    pub epoch: LeaderEpoch,
}

/// What a replica must never forget. It is durable before anything that depends on it leaves the core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HardState {
    /// The highest term that the replica has seen.
    pub term: LeaderEpoch,
    /// The candidate that got the replica's vote in this term.
    pub vote: Option<ReplicaId>,
    /// The replica has lost the end of its log, which it may have acknowledged in this term or an earlier one. `None`: it has not, or has
    /// recovered.
    pub lost_in: Option<LeaderEpoch>,
}

impl HardState {
    /// The state of a replica that has never run.
    pub const NEW: Self = Self { term: LeaderEpoch(0), vote: None, lost_in: None };
}

/// A configuration and the index of the entry that holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConfigEntry {
    /// Index of the entry. The first configuration of a partition is in no entry; its index is that of the first entry.
    pub index: LogIndex,
    /// The configuration.
    pub config: Config,
}

/// The header of a message with entries, from a leader.
///
/// The entries themselves are those of the leader's log with indexes in `prev.end..end`. The owner attaches their frames.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// The leader's term.
    pub term: LeaderEpoch,
    /// Index of the first entry.
    pub from: LogIndex,
    /// Epoch of the entry before the first. `None`: the leader only knows that the entry is committed.
    pub prev_epoch: Option<LeaderEpoch>,
    /// Index after the last entry. Equal to `from` in a heartbeat.
    pub end: LogIndex,
    /// The entries' epochs: the runs that start among them.
    pub runs: Vec<Run>,
    /// Every entry with a lower index is committed.
    pub commit_end: LogIndex,
}

impl Append {
    /// Returns the epoch of an entry of the message. `None`: the leader does not know it any more.
    pub fn epoch_of(&self, index: LogIndex) -> Option<LeaderEpoch> {
        let after = self.runs.partition_point(|run| run.start <= index);
        after.checked_sub(1).map(|at| self.runs[at].epoch).or(self.prev_epoch)
    }

    /// Returns whether the message makes sense: its runs start among its entries, in order, and none is of a later epoch than the term.
    pub(crate) fn is_valid(&self) -> bool {
        let ordered = self.runs.is_sorted_by(|a, b| a.start < b.start && a.epoch < b.epoch);
        let inside = self
            .runs
            .iter()
            .all(|run| run.start >= self.from && run.start < self.end && run.epoch <= self.term);
        let follows = match (self.prev_epoch, self.runs.first()) {
            (Some(prev), Some(first)) => prev <= first.epoch,
            (Some(prev), None) => prev <= self.term,
            (None, _) => true,
        };
        self.from <= self.end && ordered && inside && follows
    }
}

/// A message between replicas of a partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A replica that wants to become a candidate asks whether it would get a vote in this term.
    PreVote {
        /// The term in which it would be a candidate.
        term: LeaderEpoch,
        /// End of its log.
        last: LogEnd,
    },
    /// The answer to `PreVote`.
    PreVoted {
        /// The sender's term.
        term: LeaderEpoch,
        /// The term that was asked about.
        asked: LeaderEpoch,
        /// Whether the sender would vote for the receiver.
        granted: bool,
    },
    /// A candidate asks for a vote.
    Vote {
        /// The candidate's term.
        term: LeaderEpoch,
        /// End of its log.
        last: LogEnd,
        /// The leader asked the candidate to take over: voters that hear from the leader vote nevertheless.
        transfer: bool,
    },
    /// The answer to `Vote`.
    Voted {
        /// The sender's term.
        term: LeaderEpoch,
        /// Whether the receiver has the sender's vote in this term.
        granted: bool,
    },
    /// Entries, or a heartbeat.
    Append(Append),
    /// The sender's log is the leader's up to here, and durable.
    Appended {
        /// The sender's term.
        term: LeaderEpoch,
        /// Every entry with a lower index is durable.
        durable_end: LogIndex,
    },
    /// Entries were not accepted. The leader goes on from where the logs match.
    Rejected {
        /// The sender's term.
        term: LeaderEpoch,
        /// The logs match here or before.
        hint: LogEnd,
    },
    /// The leader has no entries before this position any more. The follower abandons its log and restarts it here.
    StartAt {
        /// The leader's term.
        term: LeaderEpoch,
        /// First position of the leader's log.
        start: LogEnd,
        /// The configuration there.
        config: ConfigEntry,
    },
    /// The leader asks the receiver to become a candidate at once.
    TimeoutNow {
        /// The leader's term.
        term: LeaderEpoch,
    },
    /// The sender has led this term and does not any more, and nobody else does: its lease ends now.
    SteppedDown {
        /// The term that it led. Its own may be a later one.
        term: LeaderEpoch,
    },
    /// The sender has lost the end of its log, and needs a leader of a new term. See [`HardState::lost_in`].
    LostEnd {
        /// The sender's term, higher than any in which it acknowledged what it lost.
        term: LeaderEpoch,
    },
    /// The sender cannot read these entries of its log and asks the leader for them.
    Fetch {
        /// The sender's term.
        term: LeaderEpoch,
        /// The first of the entries.
        from: LogIndex,
        /// The index after the last.
        until: LogIndex,
    },
}

impl Message {
    /// Returns the sender's term. That of a pre-vote is not the sender's, because asking changes nothing.
    pub(crate) fn term(&self) -> Option<LeaderEpoch> {
        match self {
            Self::PreVote { .. } => None,
            Self::PreVoted { term, .. }
            | Self::Vote { term, .. }
            | Self::Voted { term, .. }
            | Self::Append(Append { term, .. })
            | Self::Appended { term, .. }
            | Self::Rejected { term, .. }
            | Self::StartAt { term, .. }
            | Self::TimeoutNow { term }
            | Self::SteppedDown { term }
            | Self::LostEnd { term }
            | Self::Fetch { term, .. } => Some(*term),
        }
    }
}

/// A message with its sender and receiver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The message.
    pub message: Message,
}

/// A replica that a leader has something to send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// The replica.
    pub to: ReplicaId,
    /// Index of the next entry to send.
    pub next: LogIndex,
    /// A message is due also without entries: a probe, or a later commit end.
    pub has_news: bool,
}

/// What the owner of a replica has to do next.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Make this durable, then call `handle_persisted`. No other action follows until then.
    Persist(HardState),
    /// Append the first entry of a term that this replica leads: an epoch start, which has no offset.
    AppendEpochStart {
        /// Index of the entry.
        index: LogIndex,
        /// Its epoch.
        epoch: LeaderEpoch,
    },
    /// Append an entry with a configuration.
    AppendConfig {
        /// The entry.
        entry: ConfigEntry,
        /// Its epoch.
        epoch: LeaderEpoch,
    },
    /// Cut the log off before this index, then call `handle_truncated`. No entries are accepted until then.
    Truncate {
        /// Index of the first entry that goes.
        from: LogIndex,
    },
    /// Abandon the log and restart it here without entries, then call `handle_started`. No entries are accepted until then.
    StartAt {
        /// Where the log begins and ends.
        start: LogEnd,
        /// The configuration there.
        config: ConfigEntry,
    },
    /// Send a message.
    Send(Envelope),
    /// Send these entries, which are committed, to a replica that cannot read its own.
    SendCommitted {
        /// The replica.
        to: ReplicaId,
        /// The first of the entries.
        from: LogIndex,
        /// The index after the last.
        until: LogIndex,
    },
    /// The commit end or the acknowledged end has moved.
    Committed,
    /// The replica has become a leader, has stopped being one, or has learnt of another one.
    RoleChanged,
}

/// What to do with a message that was handled, and with the frames of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// Append the frames from this index on, in this order with everything else that the core asks for.
    Accepted {
        /// The first index that the log lacks.
        from: LogIndex,
    },
    /// Drop the frames: the log has them, or cannot take them now.
    Dropped,
    /// Drop the frames, and close the channel: the message cannot come from a peer that follows the protocol.
    Violation(ProtocolViolation),
}

/// Why a leader's command is not carried out. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// The replica does not lead.
    #[error("this replica is not the leader")]
    NotLeader,
    /// The replica leads, and no entry of its term is committed yet.
    #[error("the leader's term has no committed entry yet")]
    NotServing,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// Fewer voters are reachable than an acknowledgement needs.
    #[error("not enough replicas: {live} are reachable, {needed} are needed")]
    NotEnoughReplicas {
        /// Voters within reach, with the leader.
        live: usize,
        /// Voters that must have an entry before it is acknowledged.
        needed: usize,
    },
    /// An earlier change of the configuration is not complete.
    #[error("an earlier change of the configuration is not complete")]
    ChangeInProgress,
    /// A replica would become a voter that is not a learner with every committed entry.
    #[error("replica {0} is not a learner that has caught up")]
    NotCaughtUp(ReplicaId),
    /// The configuration would have no voter, or a replica twice.
    #[error("the configuration has no voter, or a replica twice")]
    InvalidConfig,
    /// Leadership can only be handed to another voter that is reachable.
    #[error("replica {0} is not a reachable voter")]
    NotATarget(ReplicaId),
}
