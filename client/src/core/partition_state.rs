//! The state of one partition of a consumer.

use highwater_protocol::ids::Offset;
use highwater_protocol::native::Start;

use super::subscription::{CreditGrant, SubscriptionKey};

/// Whether a partition is assigned to this consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ownership {
    /// Assigned.
    Owned,
    /// Revoked: nothing more is delivered, and the partition is released once delivered records are processed and
    /// committed.
    Revoking,
    /// Not assigned.
    Released,
}

/// The state of one partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) partition: u32,
    pub(super) attempt: u64,
    pub(super) subscribed: bool,
    /// Incremented each time the partition is assigned to this consumer. Frames fetched under an earlier generation are
    /// discarded.
    pub(crate) generation: u64,
    /// Number of seeks. Frames fetched before the last one are discarded.
    pub(super) seeks: u64,
    /// Always owned without a group.
    pub(super) ownership: Ownership,
    /// Offsets below this were processed; for groups.
    pub(super) processed: Option<Offset>,
    pub(super) committed: Option<Offset>,
    /// Where reading started. None until the broker's first answer.
    pub(super) began_at: Option<Offset>,
    /// Where to subscribe. A position that the broker resolves at first, an offset afterwards.
    pub(super) start: Start,
    /// Offsets below this were delivered. None until the broker's first answer.
    pub(super) delivered: Option<Offset>,
    /// Total credit of the current subscription: granted, owed, or held by waiting bytes.
    pub(super) window_bytes: usize,
    /// Bytes received and not yet consumed.
    pub(super) waiting_bytes: usize,
    /// Bytes consumed and not yet returned as credit.
    pub(super) owed_bytes: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) log_start: Option<Offset>,
    /// The requested end, if one was requested.
    pub(crate) end: Option<Offset>,
    /// The offset at which damaged frames were received. If that happens at the same offset again, the user gets an
    /// error.
    pub(crate) damaged_at: Option<Offset>,
    /// An error was reported; the partition stops until a seek.
    pub(crate) stopped: bool,
    /// The user paused the partition: nothing is fetched.
    pub(super) paused: bool,
    /// The highest position whose commit failed after its caller stopped waiting.
    pub(super) unreported_failed_commit: Option<Offset>,
}

impl PartitionState {
    pub(super) fn new(partition: u32, start: Start) -> Self {
        Self {
            partition,
            attempt: 0,
            subscribed: false,
            generation: 0,
            seeks: 0,
            ownership: Ownership::Owned,
            processed: None,
            committed: None,
            began_at: None,
            window_bytes: 0,
            start,
            delivered: match start {
                Start::Offset(offset) => Some(offset),
                _ => None,
            },
            waiting_bytes: 0,
            owed_bytes: 0,
            leader_epoch: -1,
            high_watermark: None,
            log_start: None,
            end: None,
            damaged_at: None,
            stopped: false,
            paused: false,
            unreported_failed_commit: None,
        }
    }

    /// Returns the offset after the last record delivered. None until the broker's first answer.
    pub(crate) fn position(&self) -> Option<Offset> {
        self.delivered
    }

    pub(super) fn is_delivered_to_end(&self) -> bool {
        self.end.is_some_and(|end| self.delivered.is_some_and(|delivered| delivered >= end))
    }

    pub(super) fn is_fetched_to_end(&self) -> bool {
        self.end.is_some_and(|end| matches!(self.start, Start::Offset(next) if next >= end))
    }

    pub(super) fn update_bounds(&mut self, log_start: i64, high_watermark: i64) {
        self.log_start = Some(Offset(log_start));
        self.high_watermark = Some(Offset(high_watermark));
    }

    pub(super) fn grant_credit(&mut self, index: usize, window: usize) -> Option<CreditGrant> {
        // If the window grew, owe the difference; if it shrank, withhold it from the credit owed.
        if self.window_bytes < window {
            self.owed_bytes += window - self.window_bytes;
            self.window_bytes = window;
        } else {
            let kept = self.owed_bytes.min(self.window_bytes - window);
            self.owed_bytes -= kept;
            self.window_bytes -= kept;
        }
        if !self.subscribed || self.owed_bytes < window / 2 {
            return None;
        }
        let bytes = std::mem::take(&mut self.owed_bytes) as u64;
        Some(CreditGrant { key: SubscriptionKey { index, attempt: self.attempt }, bytes })
    }
}
