//! The outcome of sending a record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use highwater_protocol::ids::{Offset, Timestamp};

use crate::core::ticket::{BatchResult, Ticket};
use crate::error::ProduceError;

/// The outcome of sending one record: a future that resolves to its [`Receipt`].
///
/// It need not be awaited: the record is sent in any case. If the record fails and this future has not returned the
/// error, the next [`Producer::flush`](crate::Producer::flush) or [`Producer::close`](crate::Producer::close) returns
/// it.
///
/// Cancel-safe: it can be polled, kept and polled again.
#[derive(Debug)]
pub struct Delivery {
    pub(super) ticket: Arc<Ticket>,
    pub(super) partition: u32,
    pub(super) index: u32,
    pub(super) timestamp: Timestamp,
    pub(super) waker_index: Option<usize>,
    /// It has returned the failure of its record.
    pub(super) is_seen: AtomicBool,
}

impl Delivery {
    /// Returns the partition that the record goes to.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the result if it is known already.
    pub fn result(&self) -> Option<Result<Receipt, ProduceError>> {
        self.ticket.result().map(|result| self.receipt(result))
    }

    fn receipt(&self, result: &BatchResult) -> Result<Receipt, ProduceError> {
        match result {
            Ok(acked) => Ok(Receipt {
                partition: self.partition,
                offset: acked.base_offset.map(|base| base.plus(i64::from(self.index))),
                timestamp: acked.log_append_time.unwrap_or(self.timestamp),
            }),
            Err(failed) => {
                if !self.is_seen.swap(true, Ordering::Relaxed) {
                    failed.mark_seen(self.index);
                }
                Err(failed.error.clone())
            }
        }
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut waker_index = this.waker_index;
        let result = this.ticket.poll(cx, &mut waker_index).map(|result| this.receipt(result));
        this.waker_index = waker_index;
        result
    }
}

/// The position of an acknowledged record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    partition: u32,
    offset: Option<Offset>,
    timestamp: Timestamp,
}

impl Receipt {
    /// Returns the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the offset. None only with [`Acks::None`](crate::Acks::None).
    pub fn offset(&self) -> Option<Offset> {
        self.offset
    }

    /// Returns the timestamp: the record's own, or the broker's if the topic uses log append time.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}
