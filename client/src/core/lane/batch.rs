//! A batch of a lane and its states.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::batch::BatchBuilder;

use crate::core::ticket::Ticket;

/// Records that are sent together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) records: u32,
    /// Bytes of the producer's buffer that it holds.
    pub(crate) charged: usize,
    pub(crate) created_at: Instant,
    pub(crate) payload: Payload,
    pub(super) state: BatchState,
    /// An earlier attempt was sent and not answered.
    pub(super) maybe_written: bool,
    /// The broker does not have it and rejected its sequence.
    pub(super) rejected: bool,
    /// The outcome of its records is decided; only its place in the sequence still matters.
    pub(super) settled: bool,
    pub(super) renumbered: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchState {
    /// Never sent, or not under the current identity.
    Unsent,
    InFlight,
    Retry,
    /// Acknowledged, after an unsettled batch.
    Done,
}

/// The records of a batch, in their current form.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Still growing, or queued for the first time.
    Building(Box<BatchBuilder>),
    /// Being encoded by the driver.
    Encoding,
    /// Encoded.
    Encoded(Bytes),
    /// The records were given up or split off.
    Gone,
}

impl Batch {
    /// Splits off the parts needed to settle its records, and leaves its place in the sequence.
    pub(super) fn split_off(&mut self) -> Self {
        self.settled = true;
        Self {
            id: self.id,
            ticket: self.ticket.clone(),
            records: self.records,
            charged: std::mem::take(&mut self.charged),
            created_at: self.created_at,
            payload: std::mem::replace(&mut self.payload, Payload::Gone),
            ..*self
        }
    }
}
