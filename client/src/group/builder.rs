//! Configuring a member of a group.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::limits::CREDIT_BYTES_MAX;
use highwater_protocol::native::{FEATURE_GROUPS, StartAt};

use super::{Assignor, GroupConsumer};
#[cfg(doc)]
use crate::batch::Batch;
use crate::consumer::ReadSettings;
use crate::core::backoff::Backoff;
use crate::core::membership::{Member, Membership};
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, FetchError, FetchErrorKind, Outcome};
use crate::io::cluster::Cluster;
use crate::io::consumer::{CommitTarget, ConsumerShared};
use crate::io::group::{GroupShared, MemberState};
use crate::reader::Reader;

/// Configures a member of a group; await it to have joined. Made by [`ConsumerBuilder::group`](crate::ConsumerBuilder::group).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is awaited"]
pub struct GroupBuilder {
    cluster: Arc<Cluster>,
    group: String,
    topics: BTreeSet<String>,
    create: Option<u32>,
    reading: ReadSettings,
    instance: Option<String>,
    assignor: Option<Assignor>,
    rebalance_timeout: Duration,
    commit_every: Option<Duration>,
}

impl GroupBuilder {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        group: String,
        topic: String,
        create: Option<u32>,
        reading: ReadSettings,
    ) -> Self {
        Self {
            cluster,
            group,
            topics: BTreeSet::from([topic]),
            create,
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

    /// Creates the topics that are missing, with so many partitions each and the broker's default configuration. Default: a missing topic
    /// is an error.
    pub fn create_if_missing(mut self, partitions: u32) -> Self {
        self.create = Some(partitions);
        self
    }

    /// Where to begin in partitions in which the group has not committed anything. Default: [`StartAt::Earliest`], the first record there is,
    /// as on the command line. [`StartAt::Latest`] skips everything that is written before the partition is assigned, in partitions that
    /// a topic gets later, too.
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
    /// the kind [`FetchErrorKind::OutOfRange`], and the partition stops until [`GroupConsumer::seek`].
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
        if self.group.is_empty() {
            let text = "cannot join a group: its name is empty";
            return Err(FetchError::new(FetchErrorKind::Invalid, Outcome::NotWritten, text));
        }
        let what = format!("cannot join group {}", self.group);
        let failed = |error: CallError| FetchError::from_call(&what, &error);
        let mut known = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let info = self.cluster.topic_or_create(topic, self.create).await.map_err(failed)?;
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
        let shared = Arc::new_cyclic(|group: &Weak<GroupShared>| {
            let topics = known.into_iter().map(|(topic, id)| {
                let commit_target = CommitTarget::Group(group.clone());
                let core = ConsumerCore::new([], buffer_bytes, self.reading.until_end);
                let cluster = self.cluster.clone();
                Arc::new(ConsumerShared::new(
                    topic.into(),
                    id,
                    commit_target,
                    cluster,
                    self.reading.reset,
                    core,
                ))
            });
            GroupShared::new(self.cluster.clone(), topics.collect(), self.reading.start, membership)
        });
        let readers = shared.topics.iter().map(|topic| Reader::new(topic.clone())).collect();
        let consumer = GroupConsumer { shared, readers, turn: 0 };
        consumer.shared.start();
        let mut member_state = consumer.shared.member_state();
        let member_state =
            member_state.wait_for(|member_state| !matches!(member_state, MemberState::Joining)).await;
        match member_state.as_deref() {
            Ok(MemberState::Ended(error)) => Err(error.clone().unwrap_or_else(|| failed(CallError::Closed))),
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
