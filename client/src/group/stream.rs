//! A group member's records as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use highwater_protocol::native::Start;

use super::GroupConsumer;
use crate::error::{CommitError, FetchError};
use crate::record::ConsumedRecord;
use crate::records::Records;

/// A stream of a group member's records. Made by [`GroupConsumer::into_stream`].
///
/// ```no_run
/// # async fn example(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut records = client.consumer("orders").group("billing").await?.into_stream();
/// while let Some(record) = records.next().await {
///     let record = record?;
///     println!("{}/{} {}: {:?}", record.topic, record.partition, record.offset, record.value());
///     // Requesting the next record marks this one as processed. Its position is committed within seconds, or now:
///     records.commit().await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// A record counts as processed when the next one is requested. Its position is then committed in the background,
/// unless the program commits [manually](super::GroupBuilder::manual_commit). When a partition is reassigned to another
/// member, that member gets the records that were not returned yet.
///
/// Cancel-safe: a record is taken only when it is returned.
#[derive(Debug)]
pub struct GroupStream {
    consumer: GroupConsumer,
    records: Records,
}

impl GroupStream {
    pub(super) fn new(consumer: GroupConsumer) -> Self {
        Self { consumer, records: Records::default() }
    }

    /// Returns the next record. None after the client was closed, or at the end with
    /// [`GroupBuilder::until_end`](super::GroupBuilder::until_end).
    ///
    /// After an error about one partition the others continue; call again.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, FetchError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Like [`GroupConsumer::commit`]: commits the position after the last record returned, in each partition.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.consumer.commit().await
    }

    /// Like [`GroupConsumer::seek`].
    pub fn seek(&mut self, topic: &str, partition: u32, to: Start) -> Result<(), FetchError> {
        self.consumer.seek(topic, partition, to)
    }

    /// Like [`GroupConsumer::pause`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.consumer.pause(topic, partition)
    }

    /// Like [`GroupConsumer::resume`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.consumer.resume(topic, partition)
    }

    /// Like [`GroupConsumer::assignment`].
    pub fn assignment(&self) -> Vec<(String, u32)> {
        self.consumer.assignment()
    }

    /// Like [`GroupConsumer::close`]. The last record counts as processed only if it was committed or the next one was
    /// requested.
    pub async fn close(self) -> Result<(), CommitError> {
        self.consumer.close().await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, FetchError>>> {
        let Self { consumer, records } = self;
        records.poll(|| consumer.poll_next_batch(cx))
    }
}

impl Stream for GroupStream {
    type Item = Result<ConsumedRecord, FetchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}
