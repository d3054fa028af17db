//! Clients that run workloads, behind one trait.
//!
//! A producer is used by one task: [`Producer::send`] accepts a record without waiting, and [`Producer::poll_acks`] returns the outcomes of
//! earlier records. A backend with its own threads (librdkafka) puts outcomes into a queue and wakes the task.

#[cfg(any(feature = "nats", feature = "redis"))]
mod calls;
#[cfg(feature = "kafka")]
pub mod kafka;
mod kind;
#[cfg(feature = "kafka")]
mod mailbox;
mod native;
#[cfg(feature = "nats")]
pub mod nats;
mod null;
#[cfg(feature = "redis")]
pub mod redis;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::BenchError;
use crate::scenario::Scenario;

pub use kind::{BackendKind, BrokerInfo};
pub use native::Native;
pub use null::Null;

/// A future that a trait object can return.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// Error message: what failed, for which address and topic, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(pub String);

impl std::convert::From<BackendError> for BenchError {
    fn from(error: BackendError) -> Self {
        Self::Failed(error.0)
    }
}

/// A kind of client, connected to a broker.
pub trait Backend: Send + Sync {
    /// Returns its name: `native`, `kafka`, `null`, ...
    fn name(&self) -> &'static str;

    /// Returns the meaning of an acknowledgement, for the report: durability and replicas.
    fn acknowledgement(&self) -> String;

    /// Creates a topic.
    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()>;

    /// Creates a topic that is not used.
    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()>;

    /// Deletes a topic.
    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()>;

    /// Creates a producer with its own connections.
    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>>;

    /// Creates a consumer of all partitions, with its own connections.
    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>>;

    /// Returns the end offsets of the partitions, where reading everything back ends. `None` if the backend does not know them; reading
    /// then ends when all acknowledged records were read and no more arrive for a while.
    fn ends<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, Option<Vec<i64>>> {
        let _ = (topic, partitions);
        Box::pin(async { Ok(None) })
    }

    /// Returns the broker's count of syncs since its start, if it has one.
    fn syncs(&self) -> Pending<'_, Option<u64>> {
        Box::pin(async { Ok(None) })
    }

    /// Returns whether records can be read back. False for the null backend.
    fn keeps_records(&self) -> bool {
        true
    }
}

/// Where a consumer starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the first record.
    Earliest,
    /// After the last record.
    Latest,
}

/// A record to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Chosen by the sender, and returned with the outcome.
    pub tag: u64,
    /// Destination partition.
    pub partition: u32,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Bytes,
}

/// Outcome of a record.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Tag of the record.
    pub tag: u64,
    /// The acknowledged offset, or the kind of error.
    pub result: Result<i64, String>,
}

/// Sends records.
pub trait Producer: Send {
    /// Accepts a record, or returns it if the buffer is full. `poll_acks` then wakes the task when there is space.
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing>;

    /// Sends incomplete batches without waiting for more records.
    fn flush(&mut self);

    /// Appends the known outcomes to `out`. Pending if there are none; the task is woken by the next one.
    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()>;
}

/// Reads records.
pub trait Consumer: Send {
    /// Passes the received records to `take`. Pending if there are none.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>>;
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: i64,
    /// Value.
    pub value: &'a [u8],
}
