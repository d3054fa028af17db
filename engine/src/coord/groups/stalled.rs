//! Handling of a full disk: the coordinator's log is stalled, so nothing becomes durable until disk space is freed.
//!
//! ```text
//!   the log stalls --> replies that wait for a record ----------------> CoordinatorNotAvailable
//!                  \-> members that wait for others (join, sync) -----> CoordinatorNotAvailable
//!   while it is stalled: requests that would write a record ----------> CoordinatorNotAvailable
//!                        replies that report an undurable record -----> CoordinatorNotAvailable
//!                        everything else -----------------------------> handled as usual
//! ```
//!
//! A rejection does not undo a request: if it has made a record, that record is written when there is space, unless the process ends first.
//! Clients retry, and the retry finds the changes of the first request. No request waits for disk space, which may never be freed.

use super::coordinator::{GroupCoordinator, Kind};
use super::error::GroupError;
use super::reply::{ConsumerHeartbeatReply, FetchReply, GroupReply, JoinReply, LeaveReply, SyncReply};
use super::request::Now;

/// The error sent to clients. It makes them look up the coordinator again and retry.
const STALLED: GroupError = GroupError::CoordinatorNotAvailable;

impl GroupCoordinator {
    /// Sets whether the log has no disk space. Call it before the coordinator does anything else in a turn.
    pub fn handle_stalled(&mut self, now: Now, stalled: bool) {
        let was_stalled = std::mem::replace(&mut self.stalled, stalled);
        if !stalled || was_stalled {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting).into_values();
        self.ready.extend(waiting.map(|(token, reply)| (token, reply.rejected(STALLED))));
        let waits = |kind: &Kind| matches!(kind, Kind::Classic(group) if group.has_waiting_members());
        let names: Vec<String> = self
            .groups
            .iter()
            .filter(|(_, group)| waits(&group.kind))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.with(now, &name, |group, cx, _| {
                if let Kind::Classic(group) = &mut group.kind {
                    group.reject_waiting_members(cx, STALLED);
                }
            });
        }
    }
}

impl GroupReply {
    /// Turns a reply into an error of the same kind. Parts that have failed already keep their errors.
    pub(super) fn rejected(self, error: GroupError) -> Self {
        match self {
            Self::Join(reply) => Self::Join(JoinReply::refused(&reply.member, error)),
            Self::Sync(_) => Self::Sync(SyncReply::refused(error)),
            Self::Heartbeat(_) => Self::Heartbeat(Some(error)),
            Self::Leave(_) => Self::Leave(LeaveReply { error: Some(error), members: Vec::new() }),
            Self::Commit(mut outcomes) => {
                for (.., outcome) in &mut outcomes {
                    outcome.get_or_insert(error);
                }
                Self::Commit(outcomes)
            }
            Self::Fetch(replies) => {
                Self::Fetch(replies.into_iter().map(|reply| reply.rejected(error)).collect())
            }
            Self::DeleteOffsets(_) => Self::DeleteOffsets(Err(error)),
            Self::Delete(mut outcomes) => {
                for (_, outcome) in &mut outcomes {
                    outcome.get_or_insert(error);
                }
                Self::Delete(outcomes)
            }
            Self::ConsumerHeartbeat(reply) => {
                Self::ConsumerHeartbeat(ConsumerHeartbeatReply::refused(&reply.member, error))
            }
            // These report the state in memory and never wait for records.
            Self::List { .. } | Self::Describe(_) | Self::ConsumerDescribe(_) | Self::NeedsMemory { .. } => {
                self
            }
        }
    }
}

impl FetchReply {
    fn rejected(self, error: GroupError) -> Self {
        Self { error: self.error.or(Some(error)), offsets: Vec::new() }
    }
}
