//! A member of a group of the classic protocol.

use bytes::Bytes;

use crate::coord::groups::request::{Client, Token};

/// Approximate memory of a member without its variable-length parts, in bytes.
const MEMBER_BYTES: usize = 256;

/// Returns the approximate memory of a member that joins with this, without its assignment, in bytes.
pub(in crate::coord::groups) fn member_bytes(
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
    /// Its pending JoinGroup request, which waits for the other members.
    pub(super) joining: Option<Token>,
    /// Its pending SyncGroup request, which waits for the leader.
    pub(super) syncing: Option<Token>,
    /// Whether it waits for its first generation.
    pub(super) is_new: bool,
    /// When it is removed unless it sends a request, in milliseconds of the monotonic clock.
    pub(super) deadline: Option<u64>,
}

impl Member {
    /// Returns its metadata for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata)
    }

    /// Returns how long it may take to rejoin, in milliseconds: its session timeout if the client sent no rebalance timeout.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let ms =
            if self.rebalance_timeout_ms > 0 { self.rebalance_timeout_ms } else { self.session_timeout_ms };
        ms.max(1) as u64
    }

    /// Returns whether its session cannot expire because it waits for others. That of a new member can: its client may have disconnected.
    pub(super) fn is_exempt_from_expiry(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// Returns its approximate memory without its assignment, in bytes.
    pub(super) fn bytes(&self) -> usize {
        member_bytes(&self.protocols, &self.client, self.instance.as_deref())
    }
}
