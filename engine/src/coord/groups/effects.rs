//! What an operation on a group leads to: records to write down, and replies that wait for them.

use super::limits::GroupConfig;
use super::record::Record;
use super::reply::{GroupReply, JoinReply, SyncReply};
use super::request::{Now, Token};

/// What has to be durable before a reply may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WaitFor {
    /// The group's members, epochs and assignments.
    Members,
    /// All of the group.
    AllRecords,
}

/// The surroundings of an operation.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) records: Vec<Record>,
    pub(super) replies: Vec<(Token, GroupReply, WaitFor)>,
    /// Whether what the group takes may have changed.
    pub(super) resized: bool,
    /// Work that it took, in the units of [`super::limits::WORK_PER_TURN_MAX`]; nothing for what is small.
    pub(super) spent: usize,
    /// Whether the group has an assignment to go on with in later turns.
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
