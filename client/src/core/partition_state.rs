//! The state of one partition of a consumer.

use highwater_protocol::ids::Offset;
use highwater_protocol::native::StartAt;

use super::subscription::{CreditGrant, SubscriptionKey};

/// Whether a partition is this consumer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ownership {
    /// It is.
    Owned,
    /// Not for long: nothing of it is delivered any more.
    Revoking,
    /// It is not.
    Released,
}

/// Where one partition stands.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) partition: u32,
    pub(super) attempt: u64,
    pub(super) subscribed: bool,
    /// Counts how often the partition was given to this consumer; what was read before it was given again is worthless.
    pub(crate) generation: u64,
    /// Counts how often it went on elsewhere.
    pub(super) seeks: u64,
    /// Whether it is this consumer's. Without a group always.
    pub(super) ownership: Ownership,
    /// Offsets below this were processed, and committed, as far as a group has to know.
    pub(super) processed: Option<Offset>,
    pub(super) committed: Option<Offset>,
    /// Where it began to read. None: not known before the broker's first answer.
    pub(super) began_at: Option<Offset>,
    /// Where to subscribe: a place to be found by the broker first, a position from then on.
    pub(super) start: StartAt,
    /// Offsets below this were delivered. None: not known before the broker's first answer.
    pub(super) delivered: Option<Offset>,
    /// Credit that the current subscription works with, and has been given or is owed.
    pub(super) window_bytes: usize,
    /// Bytes that wait to be taken.
    pub(super) waiting_bytes: usize,
    /// Bytes taken and not yet credited.
    pub(super) owed_bytes: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) log_start: Option<Offset>,
    /// With an end asked for: where that is.
    pub(crate) end: Option<Offset>,
    /// Frames at this offset were damaged when they arrived; once more, and the user is told.
    pub(crate) damaged_at: Option<Offset>,
    /// The user was told of an error; nothing happens until a seek.
    pub(crate) stopped: bool,
    /// Nothing is fetched until the user resumes it.
    pub(super) paused: bool,
    /// A commit up to here failed, and whoever asked for it did not wait for the answer.
    pub(super) unreported_failed_commit: Option<Offset>,
}

impl PartitionState {
    pub(super) fn new(partition: u32, start: StartAt) -> Self {
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
                StartAt::Offset(offset) => Some(offset),
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

    /// Behind the last record delivered. None: not known before the broker's first answer.
    pub(crate) fn position(&self) -> Option<Offset> {
        self.delivered
    }

    pub(super) fn is_delivered_to_end(&self) -> bool {
        self.end.is_some_and(|end| self.delivered.is_some_and(|delivered| delivered >= end))
    }

    pub(super) fn is_fetched_to_end(&self) -> bool {
        self.end.is_some_and(|end| matches!(self.start, StartAt::Offset(next) if next >= end))
    }

    pub(super) fn update_bounds(&mut self, log_start: i64, high_watermark: i64) {
        self.log_start = Some(Offset(log_start));
        self.high_watermark = Some(Offset(high_watermark));
    }

    pub(super) fn grant_credit(&mut self, index: usize, window: usize) -> Option<CreditGrant> {
        // What the window has grown by is owed too; what it has shrunk by is kept back.
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
