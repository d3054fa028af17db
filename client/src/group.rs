//! Group members.

mod builder;
mod stream;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use highwater_protocol::native::Start;

pub use self::builder::GroupBuilder;
pub use self::stream::GroupStream;
use crate::batch::Batch;
use crate::core::subscription::ConsumerCore;
use crate::error::{CommitError, FetchError};
use crate::io::group::{GroupShared, MemberState};
use crate::reader::Reader;

/// How a group divides partitions among its members. If members name different assignors, the majority decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// Equal numbers of partitions for all members, with as few moves as possible.
    #[default]
    Uniform,
    /// Contiguous ranges per topic; topics with equal partition counts are co-partitioned.
    Range,
}

impl Assignor {
    const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// A member of a group. Reads the partitions that the group assigns to it, each from the group's committed position.
///
/// ```
/// use highwater_client::{Client, Record, Start};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let broker = highwater_engine::TestBroker::start();
/// let client = Client::connect(broker.address()).await?;
/// client.create_topic("orders").partitions(8).await?;
/// let producer = client.producer("orders").await?;
/// producer.send(Record::new("paid").key("u-42")).await?.await?;
///
/// let mut consumer = client.consumer("orders").group("billing").start(Start::Earliest).await?;
/// while let Some(batch) = consumer.next_batch().await? {
///     for record in &batch {
///         println!("{}/{}: {} bytes", batch.topic(), record.partition(), record.value().len());
///     }
///     // Requesting the next batch marks this one as processed. Its position is committed within seconds, or now:
///     batch.commit().await?;
/// #   break;
/// }
/// consumer.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When members come and go
///
/// Heartbeats are sent in the background. When the group revokes a partition, the member stops delivering its records
/// at once. When the records delivered so far are processed (see [`GroupBuilder::auto_commit_interval`]), their position is
/// committed, and only then is the partition assigned to another member. So no record is lost and, as long as members
/// live, none is processed twice. The broker removes a dead member after its session timeout, 45 s by default; records
/// that the member had processed but not committed are delivered again.
///
/// A member that cannot reach the broker for the session timeout releases its partitions by itself and joins again when
/// it can.
///
/// Dropping the member leaves the group in the background; [`GroupConsumer::close`] waits for it.
#[derive(Debug)]
pub struct GroupConsumer {
    shared: Arc<GroupShared>,
    readers: Vec<Reader>,
    /// The index of the next topic to poll, for round-robin.
    turn: usize,
}

impl GroupConsumer {
    /// Returns the group's name.
    pub fn group(&self) -> &str {
        &self.shared.name
    }

    /// Returns the id by which the group knows this member.
    pub fn member_id(&self) -> String {
        self.shared.core().member().id.clone()
    }

    /// Returns the topics that the member subscribes to.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.shared.topics.iter().map(|topic| &*topic.topic)
    }

    /// Returns the partitions that the member currently reads, with their topics.
    pub fn assignment(&self) -> Vec<(String, u32)> {
        let membership = self.shared.core();
        let reading = membership.reading().filter_map(|tp| {
            let topic = membership.topic_of(tp.topic)?;
            Some((self.shared.topics[topic].topic.to_string(), tp.partition.get()))
        });
        let mut assignment: Vec<_> = reading.collect();
        assignment.sort_unstable();
        assignment
    }

    /// Marks the previous batch as processed and returns the next records, from any partition that has some. None after
    /// the client was closed, or at the end with [`GroupBuilder::until_end`].
    ///
    /// After an error about one partition the others continue; call again. If the error reports lost records
    /// ([`FetchError::damaged`]), its own partition continues as well, and the next call counts the lost records as
    /// processed.
    ///
    /// Cancel-safe: no records are taken unless they are returned.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, FetchError> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// Polls for the next records; see [`GroupConsumer::next_batch`].
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Batch>, FetchError>> {
        self.shared.note_processed();
        self.shared.wake_on_change(cx.waker());
        // Must be read before the readers are polled: a change in between wakes the task.
        let is_settled = self.shared.core().is_settled();
        let mut ended = 0;
        for _ in 0..self.readers.len() {
            let reader = &mut self.readers[self.turn];
            self.turn = (self.turn + 1) % self.shared.topics.len();
            match reader.poll(cx) {
                Poll::Ready(Ok(None)) => ended += 1,
                Poll::Ready(found) => return Poll::Ready(found),
                Poll::Pending => {}
            }
        }
        let is_over = matches!(&*self.shared.member_state().borrow(), MemberState::Ended(_));
        if ended == self.readers.len() && (is_settled || is_over) {
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    /// Commits the positions after all records delivered so far, including the last batch. Returns once they are
    /// durable.
    ///
    /// If a partition was reassigned to another member before its records were committed, this fails once with
    /// [`CommitErrorKind::Fenced`](crate::CommitErrorKind::Fenced), after committing the positions of the other
    /// partitions. The other member gets those records again.
    ///
    /// If the future is dropped, the commit continues in the background. If it then fails, [`GroupConsumer::close`]
    /// returns the error.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.shared.commit_delivered().await
    }

    /// Continues at another position of a partition that is assigned to this member. Records fetched before the call
    /// are not delivered after it. The next commit moves the group's position accordingly, backwards too.
    pub fn seek(&mut self, topic: &str, partition: u32, to: Start) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, |core, index| core.reset(index, to))
    }

    /// Stops reading a partition that is assigned to this member until [`GroupConsumer::resume`], which fetches again
    /// what was received but not delivered, or until the partition is assigned again. The member stays in the group and
    /// keeps the partition.
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, ConsumerCore::pause)
    }

    /// Continues with a paused partition after the last record delivered from it.
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, ConsumerCore::resume)
    }

    /// Converts the member to a stream of single records, each of which shares the receive buffer.
    pub fn into_stream(mut self) -> GroupStream {
        self.readers.iter_mut().for_each(Reader::deliver_by_record);
        GroupStream::new(self)
    }

    /// Leaves the group, which reassigns this member's partitions at once. Before leaving, positions of processed
    /// records are committed, unless the program commits manually; the last batch counts as processed only if it was
    /// committed or `next_batch` was called after it.
    ///
    /// Returns an error if positions of processed records are not committed, or may not be: the next member of those
    /// partitions gets the records again. Also returns the error of a commit that failed after its future was dropped,
    /// and an error if the broker did not confirm the leave.
    ///
    /// Each of these steps takes at most the client's request timeout. If the future is dropped, leaving continues in
    /// the background.
    pub async fn close(self) -> Result<(), CommitError> {
        let shared = self.shared.clone();
        shared.finish_commits().await;
        drop(self);
        let mut member_state = shared.member_state();
        // Fails only if the sender is gone, and `shared` holds it.
        let _ = member_state.wait_for(|member_state| matches!(member_state, MemberState::Ended(_))).await;
        shared.leave_result()
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.leave();
    }
}
