//! A member of a group of the classic protocol.

use bytes::Bytes;

use crate::coord::groups::request::{Client, Token};

/// About what a member takes, apart from what it says.
const MEMBER_BYTES: usize = 256;

/// About what a member takes that says this, apart from its assignment.
pub(in crate::coord::groups) fn said_bytes(
    protocols: &[(String, Bytes)],
    client: &Client,
    instance: Option<&str>,
) -> usize {
    let protocols: usize = protocols.iter().map(|(name, m)| name.len() + m.len() + 32).sum();
    MEMBER_BYTES + protocols + client.id.len() + client.host.len() + instance.map_or(0, str::len)
}

#[derive(Debug)]
pub(in crate::coord::groups) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: Client,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its JoinGroup that waits for the others.
    pub(super) joining: Option<Token>,
    /// Its SyncGroup that waits for the leader.
    pub(super) syncing: Option<Token>,
    /// Whether it waits for its first generation.
    pub(super) is_new: bool,
    /// When it is gone if nothing is heard from it.
    pub(super) deadline: Option<u64>,
}

impl Member {
    /// What it said about a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata)
    }

    /// How long it may take to join again. A client that gives it no time has that of its session.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let ms =
            if self.rebalance_timeout_ms > 0 { self.rebalance_timeout_ms } else { self.session_timeout_ms };
        ms.max(1) as u64
    }

    /// Whether it is excused from heartbeats: it waits for others. Not so the first time, as a client that joins may be gone by then.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// About what it takes, apart from its assignment.
    pub(super) fn said_bytes(&self) -> usize {
        said_bytes(&self.protocols, &self.client, self.instance.as_deref())
    }
}
