//! What a peer that follows the protocol never sends. It costs the peer its channel, and not this process: no assertion of the core depends
//! on what peers send.
//!
//! Such a message has no effect, with one exception: a replica has entered the term of an append before it compares its entries with the log.

use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::replica::{Replica, Role};
use super::types::{Append, Message};

/// Maximum term of a message. A replica with this term starts no elections.
///
/// The terms after it are for replicas that have it and lose the ends of their logs, which takes one more each time.
pub const TERM_MAX: LeaderEpoch = LeaderEpoch(i32::MAX - (1 << 16));

/// How far one message may raise the term of a replica.
///
/// Terms are the leader epochs of Kafka's protocol, which have 31 bits, and a partition in the last one elects no leader any more. So a message
/// that is damaged, or comes from a broken peer, must not use them up. Pre-votes keep a replica that is cut off from raising its term, so terms grow
/// with the elections of a majority: at most one for each election timeout. A replica has to be away for six days in which the others do
/// nothing but elect a leader twice a second until their messages are refused; then it has to be replaced. A replica without a
/// term, which is new, enters any: it has nothing that others could lose.
pub const TERM_STEP_MAX: i32 = 1 << 20;

/// Maximum end of a log in a message.
pub const LOG_END_MAX: LogIndex = LogIndex(1 << 62);

/// Why a message cannot come from a peer that follows the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolViolation {
    /// The sender claims to lead the term that the receiver leads.
    #[error("the peer claims to lead term {0}, which this replica leads")]
    TwoLeaders(LeaderEpoch),
    /// The term is above [`TERM_MAX`].
    #[error("term {0} is above the maximum of {TERM_MAX}")]
    TermTooLarge(LeaderEpoch),
    /// The term is more than [`TERM_STEP_MAX`] above that of the receiver.
    #[error("term {term} is more than {TERM_STEP_MAX} above this replica's term {own}")]
    TermTooFarAhead {
        /// The message's term.
        term: LeaderEpoch,
        /// The receiver's term.
        own: LeaderEpoch,
    },
    /// A log would end after [`LOG_END_MAX`].
    #[error("the log end {0} is above the maximum of {LOG_END_MAX}")]
    LogEndTooLarge(LogIndex),
    /// The epochs of an append are not in order, not within its entries, or of a later term than its own.
    #[error("the entries {from}..{end} do not have the epochs that the message lists")]
    InvalidAppend {
        /// Index of the first entry.
        from: LogIndex,
        /// Index after the last entry.
        end: LogIndex,
    },
    /// The leader has another entry than it had before in this term.
    #[error("entry {index} has another epoch than this term's leader had given it")]
    EntryReplaced {
        /// Index of the entry.
        index: LogIndex,
    },
    /// The leader's log starts after an entry of a later term than its own.
    #[error("the log starts after an entry of epoch {epoch}, in term {term}")]
    InvalidStart {
        /// Epoch of the entry before the start.
        epoch: LeaderEpoch,
        /// The leader's term.
        term: LeaderEpoch,
    },
}

impl Replica {
    /// Checks a message before anything of it takes effect.
    pub(super) fn check_message(&self, message: &Message) -> Result<(), ProtocolViolation> {
        let terms = match message {
            Message::PreVote { term, .. } => [Some(*term), None],
            Message::PreVoted { asked, .. } => [message.term(), Some(*asked)],
            _ => [message.term(), None],
        };
        if let Some(term) = terms.into_iter().flatten().find(|term| *term > TERM_MAX) {
            return Err(ProtocolViolation::TermTooLarge(term));
        }
        let (own, step) = (self.hard.term, LeaderEpoch(self.hard.term.0.saturating_add(TERM_STEP_MAX)));
        if let Some(term) = message.term().filter(|term| own > LeaderEpoch(0) && *term > step) {
            return Err(ProtocolViolation::TermTooFarAhead { term, own });
        }
        let (term, end) = match message {
            Message::Append(append) => {
                let Append { term, from, end, .. } = *append;
                if !append.is_valid() {
                    return Err(ProtocolViolation::InvalidAppend { from, end });
                }
                (term, end)
            }
            Message::StartAt { term, start, .. } => {
                if start.epoch > *term || start.epoch < LeaderEpoch(0) {
                    return Err(ProtocolViolation::InvalidStart { epoch: start.epoch, term: *term });
                }
                (*term, start.end)
            }
            _ => return Ok(()),
        };
        if end > LOG_END_MAX {
            return Err(ProtocolViolation::LogEndTooLarge(end));
        }
        if term == self.hard.term && matches!(self.role, Role::Leader(_)) {
            return Err(ProtocolViolation::TwoLeaders(term));
        }
        Ok(())
    }
}
