//! A group member: the task that drives its [`Membership`], and the state that the user, the task and the readers
//! share.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use highwater_protocol::ids::TopicId;
use highwater_protocol::native::{
    GroupHeartbeatReply, JOIN_EPOCH, ReadGroupOffsetsReply, ReadGroupOffsetsRequest, Start,
};
use tokio::sync::{Notify, watch};

use super::calls::RetryPolicy;
use super::cluster::Cluster;
use super::consumer::ConsumerShared;
use crate::core::assignment::ReleaseBlocker;
use crate::core::membership::{
    ChangeKind, HeartbeatOutcome, Membership, MembershipAction, PartitionChange, RequestFailure,
};
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, FetchError, FetchErrorKind, WriteOutcome};
use crate::events::Event;
use crate::lock::lock;

/// The progress of the membership.
#[derive(Clone, Debug)]
pub(crate) enum MemberState {
    /// The broker has not accepted the member yet.
    Joining,
    /// A member, or about to join again.
    Joined,
    /// No longer a member. With an error unless the user left.
    Ended(Option<FetchError>),
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub(crate) name: String,
    pub(crate) cluster: Arc<Cluster>,
    /// The topics, in the order of [`Member::topics`](crate::core::membership::Member::topics).
    pub(crate) topics: Vec<Arc<ConsumerShared>>,
    /// Where to start in partitions without a committed position.
    start: Start,
    core: Mutex<Membership>,
    /// Wakes the task.
    changed: Notify,
    member_state: watch::Sender<MemberState>,
    /// Serialises commits: a later one must not be overtaken by an earlier one.
    pub(super) committing: Arc<tokio::sync::Mutex<()>>,
    /// Read-locked by the user's pending commits.
    pub(super) user_commits: Arc<tokio::sync::RwLock<()>>,
    /// The error of the last background commit, if it failed.
    pub(super) failed_commit: Mutex<Option<CommitError>>,
    /// The error of the last user commit that failed after its caller stopped waiting.
    pub(super) unreported_commit: Mutex<Option<CommitError>>,
    /// The user's waker, woken when partitions are assigned or released.
    waker: Mutex<Option<Waker>>,
}

impl GroupShared {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        topics: Vec<Arc<ConsumerShared>>,
        start: Start,
        membership: Membership,
    ) -> Self {
        Self {
            name: membership.member().group.clone(),
            cluster,
            topics,
            start,
            core: Mutex::new(membership),
            changed: Notify::new(),
            member_state: watch::Sender::new(MemberState::Joining),
            committing: Arc::default(),
            user_commits: Arc::default(),
            failed_commit: Mutex::default(),
            unreported_commit: Mutex::default(),
            waker: Mutex::default(),
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Membership> {
        lock(&self.core)
    }

    /// Spawns the task.
    pub(crate) fn start(self: &Arc<Self>) {
        self.cluster.runtime.spawn(keep_membership(self.clone()));
    }

    pub(crate) fn member_state(&self) -> watch::Receiver<MemberState> {
        self.member_state.subscribe()
    }

    /// Stores the user's waker until partitions are assigned or released.
    pub(crate) fn wake_on_change(&self, waker: &Waker) {
        match &mut *lock(&self.waker) {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// The user asks for more records: the last batch is processed.
    pub(crate) fn note_processed(&self) {
        let mut is_awaited = false;
        for topic in &self.topics {
            is_awaited |= topic.core().note_processed();
        }
        if is_awaited {
            self.changed.notify_one();
        }
    }

    /// Leaves the group, in the background.
    pub(crate) fn leave(&self) {
        let is_over = matches!(&*self.member_state.borrow(), MemberState::Ended(_));
        for topic in &self.topics {
            let mut core = topic.core();
            core.abandon_processing();
            // From here on every processed record is committed, or reported as uncommitted.
            if !is_over {
                core.clear_lost();
            }
        }
        *lock(&self.failed_commit) = None;
        self.core().leave(Instant::now());
        self.changed.notify_one();
    }

    /// Applies `change` to a partition that is assigned to this member.
    pub(crate) fn with_partition(
        &self,
        topic: &str,
        partition: u32,
        change: impl FnOnce(&mut ConsumerCore, usize),
    ) -> Result<(), FetchError> {
        let found = self.topics.iter().find(|shared| &*shared.topic == topic);
        let index = found.and_then(|shared| {
            let mut core = shared.core();
            let index = core.index_of(partition).filter(|index| core.is_assigned(*index))?;
            change(&mut core, index);
            Some((shared, index))
        });
        let Some((shared, index)) = index else {
            let text = format!(
                "{topic}/{partition} is not assigned to this member of group {} at the moment",
                self.name
            );
            return Err(FetchError::new(FetchErrorKind::Invalid, WriteOutcome::NotWritten, text));
        };
        shared.changed(index);
        Ok(())
    }

    /// Applies pending changes to partitions and returns the next action.
    fn next(&self) -> MembershipAction {
        let mut membership = self.core();
        let ids: Vec<TopicId> = (0..self.topics.len()).map(|topic| membership.topic_id(topic)).collect();
        let action = membership.next(Instant::now(), |tp| {
            let topic = ids.iter().position(|id| *id == tp.topic).map(|topic| &self.topics[topic]);
            topic.map_or(ReleaseBlocker::None, |topic| topic.core().release_blocker(tp.partition.get()))
        });
        self.apply_changes(&mut membership);
        action
    }

    /// Called under the membership's lock, so that membership and partitions change atomically.
    fn apply_changes(&self, membership: &mut Membership) {
        while let Some(change) = membership.poll_change() {
            self.apply(change);
        }
    }

    fn apply(&self, PartitionChange { topic, partition, kind }: PartitionChange) {
        let topic = &self.topics[topic];
        let (group, name) = (self.name.clone(), topic.topic.to_string());
        let index = match kind {
            ChangeKind::Start(from) => {
                let index = topic.core().assign(partition, from.map_or(self.start, Start::Offset));
                topic.start();
                let event = Event::PartitionAssigned { group, topic: name, partition, from };
                self.cluster.events.emit(&event);
                Some(index)
            }
            ChangeKind::Stop => topic.core().revoke(partition),
            ChangeKind::Release => {
                let index = topic.core().release(partition);
                if index.is_some() {
                    self.cluster.events.emit(&Event::PartitionReleased { group, topic: name, partition });
                }
                index
            }
        };
        if let Some(index) = index {
            topic.changed(index);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    /// Looks up the current ids of the topics.
    async fn resolve(self: &Arc<Self>) -> Vec<Option<TopicId>> {
        let mut ids = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let info = self.cluster.topic(&topic.topic, Some(Instant::now())).await;
            ids.push(info.ok().map(|info| info.id));
        }
        ids
    }

    /// Ends the membership.
    fn end(&self, error: Option<FetchError>) {
        for (number, topic) in self.topics.iter().enumerate() {
            if let Some(error) = error.clone().filter(|_| number == 0) {
                topic.core().end(error);
            }
            topic.close();
        }
        self.member_state.send_modify(|member_state| {
            if !matches!(member_state, MemberState::Ended(_)) {
                *member_state = MemberState::Ended(error);
            }
        });
        self.wake();
    }
}

pub(super) fn failure(error: &CallError) -> RequestFailure {
    match error {
        CallError::Rejected { code, .. } => RequestFailure::Rejected(*code),
        CallError::Closed | CallError::Malformed(_) => RequestFailure::Fatal,
        CallError::Lost { .. } | CallError::TimedOut { .. } | CallError::Unreachable(_) => {
            RequestFailure::Unanswered
        }
    }
}

type PendingRequest<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// The result of a request other than a heartbeat.
enum CompletedRequest {
    Positions(ReadGroupOffsetsRequest, Result<ReadGroupOffsetsReply, CallError>),
    Committed(Result<(), RequestFailure>),
    Topics(Vec<Option<TopicId>>),
}

/// Runs the membership's actions until it has ended.
async fn keep_membership(shared: Arc<GroupShared>) {
    let mut heartbeat: PendingRequest<(u64, Result<GroupHeartbeatReply, CallError>)> = None;
    let mut inflight: PendingRequest<(u64, CompletedRequest)> = None;
    loop {
        match shared.next() {
            MembershipAction::Heartbeat(incarnation, request) => {
                let cluster = shared.cluster.clone();
                // The broker sends an assignment only once. If the answer was lost, the membership must know, and asks
                // for everything.
                let repeat =
                    if request.epoch < JOIN_EPOCH { RetryPolicy::Always } else { RetryPolicy::IfUnsent };
                heartbeat =
                    Some(Box::pin(async move { (incarnation, cluster.call_group(&request, repeat).await) }));
            }
            MembershipAction::ReadPositions(incarnation, request) => {
                let cluster = shared.cluster.clone();
                inflight = Some(Box::pin(async move {
                    let reply = cluster.call_group(&request, RetryPolicy::Always).await;
                    (incarnation, CompletedRequest::Positions(request, reply))
                }));
            }
            MembershipAction::Commit(incarnation) => {
                let shared = shared.clone();
                inflight = Some(Box::pin(async move {
                    (incarnation, CompletedRequest::Committed(shared.commit_processed().await))
                }));
            }
            MembershipAction::Resolve(incarnation) => {
                let shared = shared.clone();
                inflight =
                    Some(Box::pin(
                        async move { (incarnation, CompletedRequest::Topics(shared.resolve().await)) },
                    ));
            }
            MembershipAction::Sleep(until) => tokio::select! {
                () = shared.changed.notified() => {}
                () = tokio::time::sleep_until(until.into()) => {}
                (incarnation, answer) = finish(&mut heartbeat) => handle_heartbeat_reply(&shared, incarnation, answer),
                (incarnation, done) = finish(&mut inflight) => handle_completed(&shared, incarnation, done),
            },
            MembershipAction::Ended => {
                if !shared.core().is_leave_confirmed() {
                    tracing::warn!(group = shared.name, "the broker did not confirm that this member left");
                }
                return shared.end(None);
            }
        }
    }
}

async fn finish<T>(pending: &mut PendingRequest<T>) -> T {
    let Some(future) = pending else { return std::future::pending().await };
    let done = future.await;
    *pending = None;
    done
}

fn handle_heartbeat_reply(
    shared: &GroupShared,
    incarnation: u64,
    answer: Result<GroupHeartbeatReply, CallError>,
) {
    let error = answer.as_ref().err().map(|error| {
        FetchError::from_call(format_args!("cannot be a member of group {}", shared.name), error)
    });
    let mut membership = shared.core();
    let outcome =
        membership.handle_heartbeat(Instant::now(), incarnation, answer.map_err(|error| failure(&error)));
    shared.apply_changes(&mut membership);
    let is_joined = membership.is_joined();
    drop(membership);
    match (outcome, error) {
        (HeartbeatOutcome::Rejected, error) => shared.end(error),
        (HeartbeatOutcome::Ok, Some(error)) => tracing::debug!(group = shared.name, %error, "heartbeat"),
        (HeartbeatOutcome::Ok, None) => {}
    }
    if is_joined {
        shared.member_state.send_if_modified(|member_state| {
            let joins = matches!(member_state, MemberState::Joining);
            if joins {
                *member_state = MemberState::Joined;
            }
            joins
        });
        shared.wake();
    }
}

fn handle_completed(shared: &GroupShared, incarnation: u64, done: CompletedRequest) {
    let now = Instant::now();
    let mut membership = shared.core();
    match done {
        CompletedRequest::Positions(asked, answer) => {
            membership.handle_positions(now, incarnation, &asked, answer.map_err(|error| failure(&error)));
        }
        CompletedRequest::Committed(outcome) => membership.handle_committed(now, incarnation, outcome),
        CompletedRequest::Topics(ids) => membership.handle_topics(now, incarnation, &ids),
    }
    shared.apply_changes(&mut membership);
}
