//! A group's member: the task that lets [`Membership`] talk to the broker, and what the user, the task and the readers share.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use highwater_protocol::ids::TopicId;
use highwater_protocol::native::{
    GroupHeartbeatReply, JOIN_EPOCH, ReadGroupOffsetsReply, ReadGroupOffsetsRequest, StartAt,
};
use tokio::sync::{Notify, watch};

use super::calls::Repeat;
use super::cluster::Cluster;
use super::consumer::ConsumerShared;
use crate::core::membership::{Action, Beaten, Change, Failure, Membership, What};
use crate::core::subscription::ConsumerCore;
use crate::core::tenure::Need;
use crate::error::{CallError, CommitError, FetchError, FetchErrorKind, Outcome};
use crate::events::Event;
use crate::lock::lock;

/// How far the member is.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// The broker has not taken it yet.
    Joining,
    /// It is a member, or is about to be one again.
    In,
    /// It is none any more. The error if that was not asked for.
    Over(Option<FetchError>),
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub(crate) name: String,
    pub(crate) cluster: Arc<Cluster>,
    /// The topics, in the order of the membership's.
    pub(crate) topics: Vec<Arc<ConsumerShared>>,
    /// Where to begin in partitions without a committed position.
    start: StartAt,
    core: Mutex<Membership>,
    /// The task looks again.
    changed: Notify,
    standing: watch::Sender<Standing>,
    /// Commits go one after the other: an older one must not overtake.
    pub(super) committing: Arc<tokio::sync::Mutex<()>>,
    /// Shared by the commits of the user's that are under way.
    pub(super) user_commits: Arc<tokio::sync::RwLock<()>>,
    /// Why the last commit in the background failed.
    pub(super) failed_commit: Mutex<Option<CommitError>>,
    /// Why a commit of the user's failed that nobody waited for.
    pub(super) unseen_commit: Mutex<Option<CommitError>>,
    /// Of the user, who waits for partitions.
    waker: Mutex<Option<Waker>>,
}

impl GroupShared {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        topics: Vec<Arc<ConsumerShared>>,
        start: StartAt,
        membership: Membership,
    ) -> Self {
        Self {
            name: membership.member().group.clone(),
            cluster,
            topics,
            start,
            core: Mutex::new(membership),
            changed: Notify::new(),
            standing: watch::Sender::new(Standing::Joining),
            committing: Arc::default(),
            user_commits: Arc::default(),
            failed_commit: Mutex::default(),
            unseen_commit: Mutex::default(),
            waker: Mutex::default(),
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Membership> {
        lock(&self.core)
    }

    /// Lets it talk to the broker.
    pub(crate) fn start(self: &Arc<Self>) {
        self.cluster.runtime.spawn(keep_membership(self.clone()));
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Keeps the user's waker until partitions come or go.
    pub(crate) fn wake_on_change(&self, waker: &Waker) {
        match &mut *lock(&self.waker) {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// The user asks for more: what was given out before is processed.
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
        let is_over = matches!(&*self.standing.borrow(), Standing::Over(_));
        for topic in &self.topics {
            let mut core = topic.core();
            core.abandon_processing();
            // From here on everything that is processed is committed, or that is said to have failed.
            if !is_over {
                core.forget_lost();
            }
        }
        *lock(&self.failed_commit) = None;
        self.core().leave(Instant::now());
        self.changed.notify_one();
    }

    /// Does something to a partition that is being read.
    pub(crate) fn with_place(
        &self,
        topic: &str,
        partition: u32,
        change: impl FnOnce(&mut ConsumerCore, usize),
    ) -> Result<(), FetchError> {
        let found = self.topics.iter().find(|shared| &*shared.topic == topic);
        let place = found.and_then(|shared| {
            let mut core = shared.core();
            let place = core.place_of(partition).filter(|place| core.is_assigned(*place))?;
            change(&mut core, place);
            Some((shared, place))
        });
        let Some((shared, place)) = place else {
            let text = format!(
                "{topic}/{partition} is not assigned to this member of group {} at the moment",
                self.name
            );
            return Err(FetchError::new(FetchErrorKind::Invalid, Outcome::NotWritten, text));
        };
        shared.changed(place);
        Ok(())
    }

    /// What to do next, with what partitions need done to them before that.
    fn next(&self) -> Action {
        let mut membership = self.core();
        let ids: Vec<TopicId> = (0..self.topics.len()).map(|topic| membership.topic_id(topic)).collect();
        let action = membership.next(Instant::now(), |tp| {
            let topic = ids.iter().position(|id| *id == tp.topic).map(|topic| &self.topics[topic]);
            topic.map_or(Need::Nothing, |topic| topic.core().need(tp.partition.get()))
        });
        self.apply_changes(&mut membership);
        action
    }

    /// Under the lock, so that nobody sees the one without the other.
    fn apply_changes(&self, membership: &mut Membership) {
        while let Some(change) = membership.poll_change() {
            self.apply(change);
        }
    }

    fn apply(&self, Change { topic, partition, what }: Change) {
        let topic = &self.topics[topic];
        let (group, name) = (self.name.clone(), topic.topic.to_string());
        let place = match what {
            What::Start(from) => {
                let place = topic.core().assign(partition, from.map_or(self.start, StartAt::Offset));
                topic.start();
                let event = Event::PartitionAssigned { group, topic: name, partition, from };
                self.cluster.events.emit(&event);
                Some(place)
            }
            What::Stop => topic.core().stop(partition),
            What::Free => {
                let place = topic.core().free(partition);
                if place.is_some() {
                    self.cluster.events.emit(&Event::PartitionReleased { group, topic: name, partition });
                }
                place
            }
        };
        if let Some(place) = place {
            topic.changed(place);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    /// The ids that the topics have now.
    async fn resolve(self: &Arc<Self>) -> Vec<Option<TopicId>> {
        let mut ids = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let info = self.cluster.topic(&topic.topic, Some(Instant::now())).await;
            ids.push(info.ok().map(|info| info.id));
        }
        ids
    }

    /// It is no member any more.
    fn end(&self, error: Option<FetchError>) {
        for (number, topic) in self.topics.iter().enumerate() {
            if let Some(error) = error.clone().filter(|_| number == 0) {
                topic.core().end(error);
            }
            topic.close();
        }
        self.standing.send_modify(|standing| {
            if !matches!(standing, Standing::Over(_)) {
                *standing = Standing::Over(error);
            }
        });
        self.wake();
    }
}

pub(super) fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Refused { code, .. } => Failure::Refused(*code),
        CallError::Closed | CallError::Nonsense(_) => Failure::Hopeless,
        CallError::Lost { .. } | CallError::TimedOut { .. } | CallError::Unreachable(_) => {
            Failure::Unanswered
        }
    }
}

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What came of a request beside the heartbeats.
enum Work {
    Positions(ReadGroupOffsetsRequest, Result<ReadGroupOffsetsReply, CallError>),
    Committed(Result<(), Failure>),
    Topics(Vec<Option<TopicId>>),
}

/// Does what the membership wants until it is over.
async fn keep_membership(shared: Arc<GroupShared>) {
    let mut beat: Pending<(u64, Result<GroupHeartbeatReply, CallError>)> = None;
    let mut work: Pending<(u64, Work)> = None;
    loop {
        match shared.next() {
            Action::Beat(life, request) => {
                let cluster = shared.cluster.clone();
                // The broker tells an assignment once. If that answer was lost the membership has to know, and asks in another way.
                let repeat = if request.epoch < JOIN_EPOCH { Repeat::Always } else { Repeat::Unsent };
                beat = Some(Box::pin(async move { (life, cluster.call(&request, repeat).await) }));
            }
            Action::Read(life, request) => {
                let cluster = shared.cluster.clone();
                work = Some(Box::pin(async move {
                    let reply = cluster.call(&request, Repeat::Always).await;
                    (life, Work::Positions(request, reply))
                }));
            }
            Action::Commit(life) => {
                let shared = shared.clone();
                work =
                    Some(Box::pin(async move { (life, Work::Committed(shared.commit_processed().await)) }));
            }
            Action::Resolve(life) => {
                let shared = shared.clone();
                work = Some(Box::pin(async move { (life, Work::Topics(shared.resolve().await)) }));
            }
            Action::Sleep(until) => tokio::select! {
                () = shared.changed.notified() => {}
                () = tokio::time::sleep_until(until.into()) => {}
                (life, answer) = finish(&mut beat) => heard(&shared, life, answer),
                (life, done) = finish(&mut work) => worked(&shared, life, done),
            },
            Action::Over => {
                if !shared.core().is_leave_confirmed() {
                    tracing::warn!(group = shared.name, "the broker did not confirm that this member left");
                }
                return shared.end(None);
            }
        }
    }
}

async fn finish<T>(pending: &mut Pending<T>) -> T {
    let Some(future) = pending else { return std::future::pending().await };
    let done = future.await;
    *pending = None;
    done
}

fn heard(shared: &GroupShared, life: u64, answer: Result<GroupHeartbeatReply, CallError>) {
    let error = answer.as_ref().err().map(|error| {
        FetchError::from_call(format_args!("cannot be a member of group {}", shared.name), error)
    });
    let mut membership = shared.core();
    let beaten = membership.handle_beat(Instant::now(), life, answer.map_err(|error| failure(&error)));
    shared.apply_changes(&mut membership);
    let is_in = membership.is_in();
    drop(membership);
    match (beaten, error) {
        (Beaten::Rejected, error) => shared.end(error),
        (Beaten::Fine, Some(error)) => tracing::debug!(group = shared.name, %error, "heartbeat"),
        (Beaten::Fine, None) => {}
    }
    if is_in {
        shared.standing.send_if_modified(|standing| {
            let joins = matches!(standing, Standing::Joining);
            if joins {
                *standing = Standing::In;
            }
            joins
        });
        shared.wake();
    }
}

fn worked(shared: &GroupShared, life: u64, done: Work) {
    let now = Instant::now();
    let mut membership = shared.core();
    match done {
        Work::Positions(asked, answer) => {
            membership.handle_positions(now, life, &asked, answer.map_err(|error| failure(&error)));
        }
        Work::Committed(outcome) => membership.handle_committed(now, life, outcome),
        Work::Topics(ids) => membership.handle_topics(now, life, &ids),
    }
    shared.apply_changes(&mut membership);
}
