//! One direction of a connection.
//!
//! ```text
//! send -> [ queued ] --take--> [ in transit ] --arrive--> [ arrived ] -> read
//!                              \______ at most `window_bytes` _____/
//! ```

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use rand::RngExt as _;

use super::rng::SimRng;
use crate::plane::Instant;

/// How one direction of a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    Fin,
    Reset,
    /// The side that receives from it has had no answer for too long.
    TimedOut,
}

impl StreamEnd {
    /// Returns whether the connection broke.
    pub(super) fn is_error(self) -> bool {
        self != Self::Fin
    }
}

#[derive(Default)]
pub(super) struct Pipe {
    pub(super) queued: VecDeque<Bytes>,
    pub(super) queued_bytes: usize,
    pub(super) finish_when_sent: bool,
    pub(super) fin_sent: bool,
    pub(super) take_pending: bool,
    pub(super) in_transit: VecDeque<Segment>,
    pub(super) last_due: Option<Instant>,
    pub(super) arrived: VecDeque<Bytes>,
    pub(super) arrived_bytes: usize,
    /// Bytes taken but not yet read.
    pub(super) unread_bytes: usize,
    /// Bytes that were read, but whose acknowledgement cannot reach the sender.
    pub(super) unacknowledged_bytes: usize,
    pub(super) end: Option<StreamEnd>,
}

pub(super) enum Segment {
    /// The other side has accepted the connection.
    Established,
    Data(Bytes),
    End(StreamEnd),
}

impl Pipe {
    /// Returns how many bytes can be taken.
    pub(super) fn takeable_bytes(&self, window_bytes: usize) -> usize {
        let used = self.unread_bytes + self.unacknowledged_bytes;
        self.queued_bytes.min(window_bytes.saturating_sub(used))
    }

    /// Takes this many queued bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Bytes {
        let mut data = Vec::with_capacity(bytes);
        while let Some(first) = self.queued.front_mut().filter(|_| data.len() < bytes) {
            data.extend_from_slice(&first.split_to(first.len().min(bytes - data.len())));
            if first.is_empty() {
                self.queued.pop_front();
            }
        }
        self.queued_bytes -= bytes;
        self.unread_bytes += bytes;
        data.into()
    }

    /// Reads up to `bytes` bytes that have arrived.
    pub(super) fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(bytes.min(self.arrived_bytes));
        while let Some(first) = self.arrived.front_mut().filter(|_| data.len() < bytes) {
            let part = first.split_to(first.len().min(bytes - data.len()));
            data.extend_from_slice(&part);
            if !first.has_remaining() {
                self.arrived.pop_front();
            }
        }
        self.arrived_bytes -= data.len();
        self.unread_bytes -= data.len();
        data
    }

    /// Discards what has arrived.
    pub(super) fn drain(&mut self) {
        self.arrived.clear();
        self.unread_bytes -= std::mem::take(&mut self.arrived_bytes);
    }

    /// Discards what was not taken.
    pub(super) fn clear_queue(&mut self) {
        self.queued.clear();
        self.queued_bytes = 0;
    }
}

/// Returns a length between 1 and `most`: small, large and maximal ones are about equally likely.
pub(super) fn segment_bytes(most: usize, rng: &mut SimRng) -> usize {
    match rng.random_range(0..4) {
        0 => most,
        1 => rng.random_range(1..=most),
        _ => {
            let small = 1 << rng.random_range(0..16_u32);
            rng.random_range(1..=most.min(small))
        }
    }
}
