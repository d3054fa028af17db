//! The records of a member of a group, one by one.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use highwater_protocol::native::StartAt;

use super::GroupConsumer;
use crate::error::{CommitError, FetchError};
use crate::record::ConsumedRecord;
use crate::records::Records;

/// The records of a member of a group. Made by [`GroupConsumer::into_stream`].
///
/// ```no_run
/// # async fn example(client: highwater_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut records = client.consumer("orders").group("billing").await?.into_stream();
/// while let Some(record) = records.next().await {
///     let record = record?;
///     println!("{}/{} {}: {:?}", record.topic, record.partition, record.offset, record.value());
///     // Asking for the next record says that this one is processed; its position is committed within seconds, or now:
///     records.commit().await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// A record counts as processed when the next one is asked for: its position is committed then, in the background unless that is done
/// [by hand](super::GroupBuilder::commit_by_hand). When a partition goes to another member, the records of it that were not given out yet go
/// there.
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

    /// The next record. None when the client was closed, or at the end if that was asked for.
    ///
    /// After an error that concerns a partition the others go on; call again.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, FetchError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// As [`GroupConsumer::commit`]: the position behind the last record that was returned, in each partition.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.consumer.commit().await
    }

    /// As [`GroupConsumer::seek`].
    pub fn seek(&mut self, topic: &str, partition: u32, to: StartAt) -> Result<(), FetchError> {
        self.consumer.seek(topic, partition, to)
    }

    /// As [`GroupConsumer::pause`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.consumer.pause(topic, partition)
    }

    /// As [`GroupConsumer::resume`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.consumer.resume(topic, partition)
    }

    /// As [`GroupConsumer::assignment`].
    pub fn assignment(&self) -> Vec<(String, u32)> {
        self.consumer.assignment()
    }

    /// As [`GroupConsumer::close`]. The last record counts as processed only if it was committed or the next one was asked for.
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
