//! Receiving records as a member of a group.

mod builder;
mod stream;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use highwater_protocol::native::StartAt;

pub use self::builder::GroupBuilder;
pub use self::stream::GroupStream;
use crate::batch::Batch;
use crate::core::subscription::ConsumerCore;
use crate::error::{CommitError, FetchError};
use crate::io::group::{GroupShared, MemberState};
use crate::reader::Reader;

/// How the partitions are divided among the members of a group. If they differ, most decide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// The same number for each, and as few moves as possible.
    #[default]
    Uniform,
    /// Of each topic a run of neighbours for each; topics with as many partitions are cut alike, so that those of the same number meet.
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

/// A member of a group: reads the partitions that the group assigns to it, each from where the group has got to.
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
///     // Asking for the next batch says that this one is processed; its position is committed within seconds, or now:
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
/// Heartbeats go out in the background. When the group takes a partition away, nothing more of it is delivered; when what was delivered of it
/// is processed (see [`GroupBuilder::commit_every`]), its position is committed, and only then another member gets it. So nothing
/// is lost and, as long as members live, nothing is processed twice. A member that dies is missed after the session timeout of the broker, 45 s
/// by default; what it had processed and not committed is delivered again.
///
/// A member that cannot reach the broker for as long as that gives up its partitions by itself and joins again when it can.
///
/// Dropping it leaves the group in the background, [`GroupConsumer::close`] waits for it.
#[derive(Debug)]
pub struct GroupConsumer {
    shared: Arc<GroupShared>,
    readers: Vec<Reader>,
    /// The topic whose turn it is.
    turn: usize,
}

impl GroupConsumer {
    /// The group.
    pub fn group(&self) -> &str {
        &self.shared.name
    }

    /// The id that the group knows this member by.
    pub fn member_id(&self) -> String {
        self.shared.core().member().id.clone()
    }

    /// The topics that it reads.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.shared.topics.iter().map(|topic| &*topic.topic)
    }

    /// The partitions that it reads at the moment, by topic.
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

    /// The next records, of whatever partition has some; and the word that the batch before is processed. None when the client was closed, or at
    /// the end if that was asked for.
    ///
    /// After an error that concerns a partition the others go on; call again. So does that partition, if the error tells of records that are
    /// lost ([`FetchError::damaged`]): they count as processed with the next call.
    ///
    /// Cancel-safe: nothing is taken that is not returned.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, FetchError> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// [`GroupConsumer::next_batch`] for those who poll.
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Batch>, FetchError>> {
        self.shared.note_processed();
        self.shared.wake_on_change(cx.waker());
        // Asked before the readers: what comes in between wakes.
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

    /// Stores the positions behind all records delivered so far, those of the last batch included. Returns once that is durable.
    ///
    /// If a partition went to another member before its records were committed, this fails once with
    /// [`CommitErrorKind::Fenced`](crate::CommitErrorKind::Fenced), after having stored the positions in the others: the other member gets those records again.
    ///
    /// Dropped before it is done, it goes on in the background. If it fails then, [`GroupConsumer::close`] returns the error.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.shared.commit_delivered().await
    }

    /// Goes on somewhere else in a partition that is assigned to this member. Nothing that was there before is delivered after this, and the
    /// group's position follows with the next commit, backwards too.
    pub fn seek(&mut self, topic: &str, partition: u32, to: StartAt) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, |core, index| core.reset(index, to))
    }

    /// Stops reading a partition that is assigned to this member, until [`GroupConsumer::resume`] or until it is assigned anew. What has
    /// arrived of it and was not delivered is fetched again then. The member stays in the group and keeps the partition.
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, ConsumerCore::pause)
    }

    /// Goes on with a partition that was paused, behind the last record that was delivered of it.
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), FetchError> {
        self.shared.with_partition(topic, partition, ConsumerCore::resume)
    }

    /// The records one by one, each with its share of the buffer.
    pub fn into_stream(mut self) -> GroupStream {
        self.readers.iter_mut().for_each(Reader::deliver_by_record);
        GroupStream::new(self)
    }

    /// Leaves the group: its partitions go to the others at once. What was processed is committed before, unless that is done by hand; the last
    /// batch counts only if it was committed or `next_batch` was called after it. An error says that some of it is not committed, or may not be:
    /// whoever has the partition next gets it again. So it does for a commit that failed and that nobody waited for, and if the broker did not
    /// confirm that the member left.
    ///
    /// Takes at most as long as the client's request timeout for each of these. Dropped before it is done, it goes on in the background.
    pub async fn close(self) -> Result<(), CommitError> {
        let shared = self.shared.clone();
        shared.finish_commits().await;
        drop(self);
        let mut member_state = shared.member_state();
        // An error is that the sender is gone, and it is here.
        let _ = member_state.wait_for(|member_state| matches!(member_state, MemberState::Ended(_))).await;
        shared.leave_result()
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.leave();
    }
}
