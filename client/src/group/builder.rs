//! Configuration of a group member.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::limits::CREDIT_BYTES_MAX;
use highwater_protocol::native::{FEATURE_GROUPS, Start};

use super::{Assignor, GroupConsumer};
#[cfg(doc)]
use crate::batch::Batch;
use crate::core::backoff::Backoff;
use crate::core::membership::{Member, Membership};
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, FetchError, FetchErrorKind, WriteOutcome};
use crate::io::cluster::Cluster;
use crate::io::consumer::{CommitTarget, ConsumerShared};
use crate::io::group::{GroupShared, MemberState};
use crate::reader::{ReadSettings, Reader};

/// Configures a member of a group; await it to join the group. Made by
/// [`ConsumerBuilder::group`](crate::ConsumerBuilder::group).
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
    auto_commit_interval: Option<Duration>,
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
            auto_commit_interval: Some(Duration::from_secs(5)),
        }
    }

    /// Adds a topic to read.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.insert(topic.into());
        self
    }

    /// Creates missing topics with this many partitions each and the broker's default configuration. Default: a missing
    /// topic is an error.
    pub fn create_if_not_exists(mut self, partitions: u32) -> Self {
        self.create = Some(partitions);
        self
    }

    /// Sets where to start in partitions without a committed position of the group. Default: [`Start::Earliest`], the
    /// first available record, as on the command line. [`Start::Latest`] skips all records written before the
    /// partition is assigned, even in partitions that are added to a topic later.
    pub fn start(mut self, start: Start) -> Self {
        self.reading.start = start;
        self
    }

    /// Sets how many received bytes may be buffered. The partitions share them, and each gets at least 64 KiB. Default:
    /// 16 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.reading.buffer_bytes = bytes;
        self
    }

    /// Ends when each assigned partition has been read up to the end it had when it was assigned.
    pub fn until_end(mut self) -> Self {
        self.reading.until_end = true;
        self
    }

    /// Sets where to continue when a position no longer exists because retention removed the record. Without this
    /// setting, `next_batch` returns an error of the kind [`FetchErrorKind::OutOfRange`], and the partition stops until
    /// [`GroupConsumer::seek`].
    pub fn on_out_of_range(mut self, start: Start) -> Self {
        self.reading.reset = Some(start);
        self
    }

    /// Sets an instance id by which the group recognises the member after a restart of its program. If the restart
    /// takes less than the session timeout, the member keeps its partitions and nothing is reassigned. Two members must
    /// not use the same instance id at the same time.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance = Some(instance_id.into());
        self
    }

    /// Sets how partitions are divided. Default: the assignor that the other members name, or [`Assignor::Uniform`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = Some(assignor);
        self
    }

    /// Sets how long a revoked partition may wait for the processing of its last batch. A member that takes longer is
    /// removed from the group and joins again. Default: 5 minutes.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.rebalance_timeout = timeout;
        self
    }

    /// Sets how often the positions of processed records are committed. Default: 5 s.
    ///
    /// A batch counts as processed when [`GroupConsumer::next_batch`] is called again. Programs that pass batches to
    /// other tasks use [`GroupBuilder::manual_commit`] instead.
    pub fn auto_commit_interval(mut self, interval: Duration) -> Self {
        self.auto_commit_interval = Some(interval);
        self
    }

    /// Commits nothing in the background: only [`Batch::commit`] and [`GroupConsumer::commit`] do.
    ///
    /// A revoked partition is still released only when [`GroupConsumer::next_batch`] is called after the last of its
    /// batches: commit before that.
    pub fn manual_commit(mut self) -> Self {
        self.auto_commit_interval = None;
        self
    }

    async fn start_up(self) -> Result<GroupConsumer, FetchError> {
        if self.group.is_empty() {
            let text = "cannot join a group: its name is empty";
            return Err(FetchError::new(FetchErrorKind::Invalid, WriteOutcome::NotWritten, text));
        }
        let what = format!("cannot join group {}", self.group);
        let failed = |error: CallError| FetchError::from_call(&what, &error);
        let mut known = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let info = self.cluster.topic_or_create(topic, self.create).await.map_err(failed)?;
            known.push((topic.clone(), info.id));
        }
        if !self.cluster.understands(FEATURE_GROUPS) {
            let text = format!(
                "{what}: the broker's version does not support groups of native clients; upgrade the broker"
            );
            let code = ErrorCode::UnsupportedVersion;
            return Err(FetchError::with_code(
                FetchErrorKind::Rejected,
                WriteOutcome::NotWritten,
                code,
                text,
            ));
        }
        let member = Member {
            group: self.group,
            id: format!("{:032x}", rand::random::<u128>()),
            instance: self.instance,
            assignor: self.assignor.map(|assignor| assignor.name().to_owned()),
            rebalance_timeout: self.rebalance_timeout,
            topics: known.clone(),
            auto_commit_interval: self.auto_commit_interval,
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
