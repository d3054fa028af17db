//! Receiving records as a member of a group.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::limits::CREDIT_BYTES_MAX;
use highwater_protocol::native::{FEATURE_GROUPS, StartAt};

use crate::batch::Batch;
use crate::consumer::Reading;
use crate::core::backoff::Backoff;
use crate::core::membership::{Member, Membership};
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, FetchError, FetchErrorKind, Outcome};
use crate::io::cluster::Cluster;
use crate::io::consumer::{Committer, ConsumerShared};
use crate::io::group::{GroupShared, Standing};
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

/// Configures a member of a group; await it to have joined. Made by [`ConsumerBuilder::group`](crate::ConsumerBuilder::group).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is awaited"]
pub struct GroupBuilder {
    cluster: Arc<Cluster>,
    group: String,
    topics: BTreeSet<String>,
    reading: Reading,
    instance: Option<String>,
    assignor: Option<Assignor>,
    rebalance_timeout: Duration,
    commit_every: Option<Duration>,
}

impl GroupBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, group: String, topic: String, reading: Reading) -> Self {
        Self {
            cluster,
            group,
            topics: BTreeSet::from([topic]),
            reading,
            instance: None,
            assignor: None,
            rebalance_timeout: Duration::from_mins(5),
            commit_every: Some(Duration::from_secs(5)),
        }
    }

    /// One more topic to read.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.insert(topic.into());
        self
    }

    /// Where to begin in partitions in which the group has not committed anything. Default: [`StartAt::Latest`], what is written from
    /// now on. For new partitions of a topic, too: to miss nothing of these, [`StartAt::Earliest`].
    pub fn start(mut self, start: StartAt) -> Self {
        self.reading.start = start;
        self
    }

    /// Bytes that may have arrived and wait to be taken, shared by the partitions, each of which has
    /// at least 64 KiB. Default: 16 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.reading.buffer_bytes = bytes;
        self
    }

    /// End when everything that is assigned has been read up to what was its end when it was assigned.
    pub fn until_end(mut self) -> Self {
        self.reading.until_end = true;
        self
    }

    /// Where to go on when a position no longer exists, because retention has removed it. Without this, `next_batch` returns an error of
    /// the kind [`FetchErrorKind::OutOfRange`], and the partition stops.
    pub fn on_out_of_range(mut self, start: StartAt) -> Self {
        self.reading.reset = Some(start);
        self
    }

    /// An id by which the group knows the member again after a restart of its program: if that takes less than the session timeout, the partitions
    /// wait for it and nothing moves. No two members may have the same at a time.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// How partitions are divided. Default: whatever the others want, or [`Assignor::Uniform`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// How long the processing of a batch may hold up another member that is to have its partition. Who takes longer is out of the group, and
    /// joins again. Default: 5 minutes.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.rebalance_timeout = timeout;
        self
    }

    /// How often the positions of what was processed are committed. Default: 5 s.
    ///
    /// A batch counts as processed when [`GroupConsumer::next_batch`] is called again. Programs that hand batches on to other tasks
    /// use [`GroupBuilder::commit_by_hand`] instead.
    pub fn commit_every(mut self, interval: Duration) -> Self {
        self.commit_every = Some(interval);
        self
    }

    /// Nothing is committed but by [`Batch::commit`] and [`GroupConsumer::commit`].
    ///
    /// A partition that goes to another member is still given up only when [`GroupConsumer::next_batch`] is called after the last of
    /// its batches: commit before that.
    pub fn commit_by_hand(mut self) -> Self {
        self.commit_every = None;
        self
    }

    async fn start_up(self) -> Result<GroupConsumer, FetchError> {
        let what = format!("cannot join group {}", self.group);
        let failed = |error: CallError| FetchError::from_call(&what, &error);
        if self.group.is_empty() {
            let text = "cannot join a group: its name is empty";
            return Err(FetchError::new(FetchErrorKind::Invalid, Outcome::NotWritten, text));
        }
        let mut known = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let info = self.cluster.topic(topic, Some(Instant::now())).await.map_err(failed)?;
            known.push((topic.clone(), info.id));
        }
        if !self.cluster.understands(FEATURE_GROUPS) {
            let text =
                format!("{what}: the broker is of a version without groups for this client; update it");
            let code = ErrorCode::UnsupportedVersion;
            return Err(FetchError::with_code(FetchErrorKind::Refused, Outcome::NotWritten, code, text));
        }
        let member = Member {
            group: self.group,
            id: format!("{:032x}", rand::random::<u128>()),
            instance: self.instance,
            assignor: self.assignor.map(|assignor| assignor.name().to_owned()),
            rebalance_timeout: self.rebalance_timeout,
            topics: known.clone(),
            commit_every: self.commit_every,
        };
        let config = &self.cluster.config;
        let pause = Backoff::new(config.backoff_min, config.backoff_max);
        let membership = Membership::new(member, Instant::now(), pause);
        let buffer_bytes = self.reading.buffer_bytes.min(CREDIT_BYTES_MAX as usize) / known.len();
        let shared = Arc::new_cyclic(|group| {
            let topics = known.into_iter().map(|(topic, id)| {
                let committer = Committer::Group(group.clone());
                let core = ConsumerCore::new([], buffer_bytes, self.reading.until_end);
                let cluster = self.cluster.clone();
                Arc::new(ConsumerShared::new(topic.into(), id, committer, cluster, self.reading.reset, core))
            });
            GroupShared::new(self.cluster.clone(), topics.collect(), self.reading.start, membership)
        });
        let readers = shared.topics.iter().map(|topic| Reader::new(topic.clone())).collect();
        let consumer = GroupConsumer { shared, readers, turn: 0 };
        consumer.shared.start();
        let mut standing = consumer.shared.standing();
        let standing = standing.wait_for(|standing| !matches!(standing, Standing::Joining)).await;
        match standing.as_deref() {
            Ok(Standing::Over(error)) => Err(error.clone().unwrap_or_else(|| failed(CallError::Closed))),
            _ => Ok(consumer),
        }
    }
}

impl IntoFuture for GroupBuilder {
    type Output = Result<GroupConsumer, FetchError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start_up())
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
    /// After an error that concerns a partition the others go on; call again.
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
        let is_over = matches!(&*self.shared.standing().borrow(), Standing::Over(_));
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
    /// Cancel-safe in that nothing but the positions may be changed; they may be committed or not.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.shared.commit_delivered().await
    }

    /// Leaves the group: its partitions go to the others at once. What was processed is committed before, unless that is done by hand; the last
    /// batch counts only if it was committed or `next_batch` was called after it. An error says that some of it is not committed, or may not be:
    /// whoever has the partition next gets it again.
    ///
    /// Takes at most as long as the client's request timeout for each of the two. Dropped before it is done, it goes on in the background.
    pub async fn close(self) -> Result<(), CommitError> {
        let shared = self.shared.clone();
        drop(self);
        let mut standing = shared.standing();
        // An error is that the sender is gone, and it is here.
        let _ = standing.wait_for(|standing| matches!(standing, Standing::Over(_))).await;
        shared.left()
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.leave();
    }
}
