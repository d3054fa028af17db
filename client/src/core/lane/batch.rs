//! A batch on its way to the broker.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::batch::BatchBuilder;

use crate::core::ticket::Ticket;

/// Records that travel together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) records: u32,
    /// Bytes of the producer's budget it holds.
    pub(crate) charged: usize,
    pub(crate) created_at: Instant,
    pub(crate) payload: Payload,
    pub(super) state: BatchState,
    /// An earlier attempt left and was not answered.
    pub(super) maybe_written: bool,
    /// The broker said that it does not have it and cannot take it in this place.
    pub(super) refused: bool,
    /// Its records know their fate; only its place in the sequence is still of interest.
    pub(super) settled: bool,
    pub(super) renumbered: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchState {
    /// Never sent, or not under the present identity.
    Unsent,
    InFlight,
    Retry,
    /// Acknowledged; one before it is not.
    Done,
}

/// The records of a batch in the form they have at the moment.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Still growing, or waiting to be sent first.
    Building(Box<BatchBuilder>),
    /// With the driver, which makes bytes of it.
    Encoding,
    /// As it travels.
    Encoded(Bytes),
    /// Given up.
    Gone,
}

impl Batch {
    /// Splits what its records need off, leaving its place in the sequence.
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
