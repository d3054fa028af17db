//! Clients that can carry out a workload, behind one trait.
//!
//! A producer is used by one task: [`Producer::send`] takes a record without waiting, [`Producer::poll_acks`] says what became of
//! those taken before. A back end with threads of its own (librdkafka) puts results into a queue and wakes the task.

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

use crate::scenario::Scenario;

pub use kind::{BackendKind, Told};
pub use native::Native;
pub use null::Null;

/// A future that a trait object can return.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// What went wrong, in words: which address, which topic, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(pub String);

/// A kind of client, and the broker it talks to.
pub trait Backend: Send + Sync {
    /// `native`, `kafka`, `null`, ...
    fn name(&self) -> &'static str;

    /// What an acknowledgement means there, for the report: durability and replicas.
    fn acknowledgement(&self) -> String;

    /// Makes a topic.
    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()>;

    /// Makes a topic that nobody uses.
    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()>;

    /// Deletes a topic.
    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()>;

    /// A producer with connections of its own.
    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>>;

    /// A consumer of all partitions, with connections of its own.
    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>>;

    /// The offsets behind the last records of the partitions, if it can say: then reading everything back ends there. Otherwise
    /// it ends when everything acknowledged was read and nothing more comes for a while.
    fn ends<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, Option<Vec<i64>>> {
        let _ = (topic, partitions);
        Box::pin(async { Ok(None) })
    }

    /// How often the broker has made writes durable since it started, if it tells.
    fn syncs(&self) -> Pending<'_, Option<u64>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether what was sent can be read. Not so for the one that throws everything away.
    fn keeps_records(&self) -> bool {
        true
    }
}

/// Where a consumer begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the oldest record.
    Earliest,
    /// Behind the newest.
    Latest,
}

/// A record to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The sender's name for it, given back with its acknowledgement.
    pub tag: u64,
    /// Where it goes.
    pub partition: u32,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Bytes,
}

/// What became of a record.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Its name.
    pub tag: u64,
    /// Acknowledged at this offset, or the kind of error.
    pub result: Result<i64, String>,
}

/// Sends records.
pub trait Producer: Send {
    /// Takes a record, or gives it back if there is no room for it now: then `poll_acks` wakes when there is.
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing>;

    /// Everything sent so far goes without waiting for more.
    fn flush(&mut self);

    /// Appends what is known by now to `out`. Pending, with the task to be woken, if that is nothing.
    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()>;
}

/// Reads records.
pub trait Consumer: Send {
    /// Hands what has come to `take`. Pending if that is nothing.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>>;
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: &'a [u8],
}
