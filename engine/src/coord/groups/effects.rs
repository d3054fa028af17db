//! Effects of an operation on a group: records to write, and replies that wait for them.

use super::limits::GroupConfig;
use super::record::Record;
use super::reply::{GroupReply, JoinReply, SyncReply};
use super::request::{Now, Token};

/// What must be durable before a reply is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WaitFor {
    /// The records of the group's members, epochs and assignments.
    Members,
    /// All records of the group.
    AllRecords,
}

/// The inputs of an operation, and its effects so far.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) records: Vec<Record>,
    pub(super) replies: Vec<(Token, GroupReply, WaitFor)>,
    /// Whether the bytes of the group's members may have changed.
    pub(super) resized: bool,
    /// Work done, in the units of [`super::limits::WORK_PER_TURN_MAX`]. Cheap operations count as 0.
    pub(super) spent: usize,
    /// Whether the operation has begun an assignment that continues in later turns.
    pub(super) begins_assigning: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(now: Now, config: &'a GroupConfig) -> Self {
        Self {
            now,
            config,
            records: Vec::new(),
            replies: Vec::new(),
            resized: false,
            spent: 0,
            begins_assigning: false,
        }
    }

    pub(super) fn persist(&mut self, record: Record) {
        self.records.push(record);
        self.resized = true;
    }

    pub(super) fn reply(&mut self, token: Token, reply: GroupReply) {
        self.replies.push((token, reply, WaitFor::Members));
    }

    pub(super) fn joined(&mut self, token: Token, reply: JoinReply) {
        self.reply(token, GroupReply::Join(reply));
    }

    pub(super) fn synced(&mut self, token: Token, reply: SyncReply) {
        self.reply(token, GroupReply::Sync(reply));
    }
}
