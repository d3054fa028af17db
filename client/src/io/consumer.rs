//! A consumer's tasks. One task per partition keeps it subscribed; connections pass frames directly to the core.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use highwater_protocol::native::{CommitOffsetsRequest, CommittedOffset, Start, SubscribeRequest};
use tokio::sync::{Notify, oneshot};
use tracing::Instrument;

use super::calls::RetryPolicy;
use super::cluster::Cluster;
use super::commits;
use super::conn::Conn;
use super::sink::{Subscriber, SubscriptionSink};
use crate::core::backoff::Backoff;
use crate::core::conn::Answer;
use crate::core::subscription::{
    ConsumerCore, CreditGrant, SubscriptionKey, SubscriptionOutcome, subscribe_reply,
};
use crate::error::{
    CallError, CommitError, CommitErrorKind, FetchError, FetchErrorKind, WriteOutcome, fetch_kind,
};
use crate::events::Event;
use crate::lock::lock;

/// State shared by the consumer, its tasks and the connections.
#[derive(Debug)]
pub(crate) struct ConsumerShared {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: TopicId,
    commit_target: CommitTarget,
    pub(crate) cluster: Arc<Cluster>,
    /// Where to continue when a position no longer exists.
    pub(crate) reset: Option<Start>,
    core: Mutex<ConsumerCore>,
    tasks: Mutex<Vec<Arc<PartitionTask>>>,
    /// Serialises commits: a later one must not be overtaken by an earlier one.
    committing: Arc<tokio::sync::Mutex<()>>,
    /// The error of the last commit that failed after its caller stopped waiting.
    unreported_commit: Mutex<Option<CommitError>>,
}

/// The future of a commit.
pub(crate) type CommitFuture = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

/// Commits batches for a group.
pub(crate) trait CommitBatch: Debug + Send + Sync {
    /// Commits the position after a batch that was delivered under this generation of its partition.
    fn commit_batch(
        self: Arc<Self>,
        topic: Arc<str>,
        generation: u64,
        position: CommittedOffset,
    ) -> CommitFuture;
}

/// Where positions are committed.
#[derive(Debug)]
pub(crate) enum CommitTarget {
    None,
    Named(String),
    Group(Weak<dyn CommitBatch>),
}

/// State shared by a partition's task and the consumer.
#[derive(Debug, Default)]
struct PartitionTask {
    /// Notified when the partition's state changes.
    changed: Notify,
    active: Mutex<Option<ActiveSubscription>>,
    /// The retryable error that ended the last subscription.
    rejected: Mutex<Option<ErrorCode>>,
}

#[derive(Debug)]
struct ActiveSubscription {
    conn: Arc<Conn>,
    subscription: u64,
    key: SubscriptionKey,
}

impl ConsumerShared {
    pub(crate) fn new(
        topic: Arc<str>,
        topic_id: TopicId,
        commit_target: CommitTarget,
        cluster: Arc<Cluster>,
        reset: Option<Start>,
        core: ConsumerCore,
    ) -> Self {
        Self {
            topic,
            topic_id,
            commit_target,
            cluster,
            reset,
            core: Mutex::new(core),
            tasks: Mutex::default(),
            committing: Arc::default(),
            unreported_commit: Mutex::default(),
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, ConsumerCore> {
        lock(&self.core)
    }

    /// Spawns a task for every partition that has none yet.
    pub(crate) fn start(self: &Arc<Self>) {
        let partitions: Vec<u32> = self.core().partitions().iter().map(|state| state.partition).collect();
        let mut tasks = lock(&self.tasks);
        for (index, partition) in partitions.into_iter().enumerate().skip(tasks.len()) {
            let task = Arc::new(PartitionTask::default());
            tasks.push(task.clone());
            let span = tracing::debug_span!("consumer", topic = %self.topic, partition);
            let future = keep_subscribed(self.clone(), task, index, partition);
            self.cluster.runtime.spawn(future.instrument(span));
        }
    }

    /// Adds partitions that are new in the topic's metadata.
    fn note_partitions(self: &Arc<Self>) {
        let Some(partitions) = self.cluster.partitions_of(&self.topic) else { return };
        {
            let mut core = self.core();
            for partition in 0..partitions {
                if core.index_of(partition).is_none() {
                    core.add(partition);
                }
            }
        }
        self.start();
    }

    /// Wakes the partition's task.
    pub(crate) fn changed(&self, index: usize) {
        if let Some(task) = self.task(index) {
            task.changed.notify_one();
        }
    }

    /// Closes the consumer.
    pub(crate) fn close(&self) {
        self.core().close();
        for task in lock(&self.tasks).iter() {
            task.changed.notify_one();
        }
    }

    pub(crate) fn credit(&self, release: CreditGrant) {
        let Some(task) = self.task(release.key.index) else { return };
        if let Some(active) = lock(&task.active).as_ref().filter(|active| active.key == release.key) {
            active.conn.credit(active.subscription, release.bytes);
        }
    }

    pub(crate) async fn commit(self: &Arc<Self>, positions: Vec<CommittedOffset>) -> Result<(), CommitError> {
        let CommitTarget::Named(name) = &self.commit_target else {
            return Err(CommitError::new(
                CommitErrorKind::Unnamed,
                WriteOutcome::NotWritten,
                format!("the consumer of {} has no name to commit under; set one with .name(..)", self.topic),
            ));
        };
        let turn = self.committing.clone().lock_owned().await;
        let asked: Vec<_> = {
            let core = self.core();
            let index = |of: &CommittedOffset| {
                (of.partition.get(), core.generation_of(of.partition.get()), of.offset)
            };
            positions.iter().map(index).collect()
        };
        let group = name.clone();
        let request = CommitOffsetsRequest { consumer: name.clone(), topic: self.topic_id, positions };
        let (shared, watching, on_failure) = (self.clone(), self.clone(), asked.clone());
        let commit = async move {
            let _turn = turn;
            let sent = shared.cluster.call_group_empty(&request, RetryPolicy::Always).await;
            sent.map_err(|error| {
                let what =
                    format_args!("cannot commit positions of {} in {}", request.consumer, shared.topic);
                CommitError::from_call(what, &error)
            })?;
            let mut core = shared.core();
            for (partition, generation, offset) in asked {
                core.mark_committed(partition, generation, offset);
            }
            Ok(())
        };
        let on_unreported = move |error: CommitError| {
            let mut core = watching.core();
            for (partition, generation, offset) in &on_failure {
                core.record_unreported_failure(*partition, *generation, *offset);
            }
            drop(core);
            let (group, reason) = (group.clone(), error.to_string());
            watching.cluster.events.emit(&Event::CommitFailed { group, reason });
            *lock(&watching.unreported_commit) = Some(error);
        };
        commits::run(&self.cluster.runtime, commit, on_unreported).await
    }

    /// Waits for pending commits. Returns the error of one that failed after its caller stopped waiting, unless a later
    /// one succeeded.
    pub(crate) async fn unreported_commit_failure(&self) -> Result<(), CommitError> {
        drop(self.committing.lock().await);
        let error = lock(&self.unreported_commit).take();
        error.filter(|_| self.core().has_unreported_failure()).map_or(Ok(()), Err)
    }

    /// Commits the position after a batch that was delivered under this generation of its partition.
    pub(crate) async fn commit_batch(
        self: &Arc<Self>,
        generation: u64,
        position: CommittedOffset,
    ) -> Result<(), CommitError> {
        let CommitTarget::Group(group) = &self.commit_target else {
            return self.commit(vec![position]).await;
        };
        let Some(group) = group.upgrade() else {
            let text = format!("the consumer of {} was closed", self.topic);
            return Err(CommitError::new(CommitErrorKind::Closed, WriteOutcome::NotWritten, text));
        };
        group.commit_batch(self.topic.clone(), generation, position).await
    }

    fn handle_error(&self, key: SubscriptionKey, code: ErrorCode, text: String) {
        let outcome = self.core().handle_rejection(key, code, text);
        self.handle_outcome(key, outcome);
    }

    fn handle_outcome(&self, key: SubscriptionKey, outcome: SubscriptionOutcome) {
        match outcome {
            SubscriptionOutcome::Applied => {
                let core = self.core();
                let over = !core.is_current(key) || !core.wants_subscription(key.index);
                drop(core);
                if over {
                    self.changed(key.index);
                }
                return;
            }
            SubscriptionOutcome::Stale => return,
            SubscriptionOutcome::Malformed(text) => {
                tracing::warn!(topic = %self.topic, %text, "the broker's answer cannot be decoded");
                if let Some(task) = self.task(key.index)
                    && let Some(active) = lock(&task.active).as_ref()
                {
                    active.conn.close("an answer cannot be decoded");
                }
                return;
            }
            SubscriptionOutcome::Ended { code, text, position } => {
                self.handle_subscription_error(key.index, code, &text, position);
            }
        }
        self.changed(key.index);
    }

    /// Handles a rejected or ended subscription: retries, continues at the reset position, or reports an error.
    fn handle_subscription_error(&self, index: usize, code: ErrorCode, text: &str, position: Option<Offset>) {
        let partition = self.core().partitions()[index].partition;
        if code.is_retryable() {
            if let Some(task) = self.task(index) {
                *lock(&task.rejected) = Some(code);
            }
            return;
        }
        if let (ErrorCode::OffsetOutOfRange, Some(to)) = (code, self.reset) {
            self.core().reset(index, to);
            let topic = self.topic.to_string();
            self.cluster.events.emit(&Event::PositionReset { topic, partition, from: position });
            return;
        }
        let at = position.map_or_else(String::new, |position| format!(" at offset {position}"));
        let text = format!("{}/{partition}{at} cannot be read: {text} ({code})", self.topic);
        let error = FetchError::with_code(fetch_kind(code), WriteOutcome::NotWritten, code, text);
        self.core().fail(index, error);
    }

    fn task(&self, index: usize) -> Option<Arc<PartitionTask>> {
        lock(&self.tasks).get(index).cloned()
    }
}

impl SubscriptionSink for ConsumerShared {
    fn handle_subscribed(&self, key: SubscriptionKey, answer: Answer) {
        match answer {
            Ok(body) => {
                let outcome = match subscribe_reply(&body) {
                    Ok(reply) => self.core().handle_subscribed(key, &reply),
                    Err(text) => SubscriptionOutcome::Malformed(text),
                };
                self.handle_outcome(key, outcome);
            }
            Err((code, text)) => self.handle_error(key, code, text),
        }
    }

    fn handle_pushed(&self, key: SubscriptionKey, answer: Answer) {
        match answer {
            Ok(body) => {
                self.cluster.metrics.frame_bytes_received.add(body.len() as u64);
                let outcome = self.core().handle_data(key, &body);
                self.handle_outcome(key, outcome);
            }
            Err((code, text)) => self.handle_error(key, code, text),
        }
    }

    fn handle_lost(&self, key: SubscriptionKey) {
        if self.core().handle_lost(key) {
            self.changed(key.index);
        }
    }
}

/// Keeps the partition subscribed until the consumer is closed.
async fn keep_subscribed(
    shared: Arc<ConsumerShared>,
    task: Arc<PartitionTask>,
    index: usize,
    partition: u32,
) {
    let config = &shared.cluster.config;
    let mut pause = Backoff::new(config.backoff_min, config.backoff_max);
    let mut misrouted = false;
    loop {
        if shared.core().is_closed() {
            return;
        }
        if !shared.core().wants_subscription(index) {
            task.changed.notified().await;
            continue;
        }
        let (conn, to) = match route(&shared, &task, index, partition, misrouted).await {
            None => continue,
            Some(Ok(route)) => route,
            Some(Err(error)) => {
                unroutable(&shared, index, partition, &error);
                continue;
            }
        };
        let key = {
            let mut active = lock(&task.active);
            let Some((key, start, credit_bytes)) = shared.core().subscribe(index) else { continue };
            let partition = PartitionIndex(partition);
            let request = SubscribeRequest { topic: to.topic, partition, start, credit_bytes };
            let subscriber = Subscriber { sink: shared.clone(), key };
            let Ok(subscription) = conn.subscribe(&request, subscriber) else { continue };
            *active = Some(ActiveSubscription { conn, subscription, key });
            key
        };
        while !shared.core().is_closed()
            && shared.core().is_current(key)
            && shared.core().wants_subscription(index)
        {
            task.changed.notified().await;
        }
        if let Some(active) = lock(&task.active).take() {
            active.conn.unsubscribe(active.subscription);
        }
        let rejected = lock(&task.rejected).take();
        misrouted = rejected.is_some_and(ErrorCode::is_misrouted);
        if rejected.is_some() {
            tokio::time::sleep(pause.fail(rand::random())).await;
        } else {
            pause.succeed();
        }
    }
}

/// Returns a connection to the partition's leader. None if the subscription is no longer wanted: a consumer that was
/// dropped must not wait for an unreachable broker.
async fn route(
    shared: &ConsumerShared,
    task: &PartitionTask,
    index: usize,
    partition: u32,
    misrouted: bool,
) -> Option<Result<(Arc<Conn>, TopicPartition), CallError>> {
    let mut route = pin!(shared.cluster.route(&shared.topic, partition, misrouted));
    loop {
        tokio::select! {
            biased;
            found = &mut route => return Some(found),
            () = task.changed.notified() => if !shared.core().wants_subscription(index) { return None },
        }
    }
}

fn unroutable(shared: &ConsumerShared, index: usize, partition: u32, error: &CallError) {
    let what = format_args!("{}/{partition} cannot be read", shared.topic);
    let error = FetchError::from_call(what, error);
    let mut core = shared.core();
    if error.kind() == FetchErrorKind::Closed {
        core.end(error);
    } else {
        core.fail(index, error);
    }
}

/// Subscribes to partitions that are added to the topic, from their first record, until `gone`.
pub(crate) async fn watch_partitions(shared: Weak<ConsumerShared>, mut gone: oneshot::Receiver<()>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.cluster.changes()) else { return };
    loop {
        // First, because partitions may have been added between the topic lookup and the subscription to changes.
        let Some(consumer) = shared.upgrade() else { return };
        consumer.note_partitions();
        drop(consumer);
        tokio::select! {
            _ = &mut gone => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
