//! Commits that go on when nobody waits for them any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{CommitError, CommitErrorKind, Outcome};

type Committed = Result<(), CommitError>;

/// What is done with the error of a commit whose caller did not wait for it.
pub(super) trait Unseen: Fn(CommitError) + Send + Sync + 'static {}

impl<F: Fn(CommitError) + Send + Sync + 'static> Unseen for F {}

/// Runs a commit as a task of its own. If whoever waits for this is gone when it fails, `unseen` gets the error.
pub(super) fn run<U: Unseen>(
    runtime: &Handle,
    commit: impl Future<Output = Committed> + Send + 'static,
    unseen: U,
) -> Commit<U> {
    let (sender, receiver) = oneshot::channel();
    let unseen = Arc::new(unseen);
    let otherwise = unseen.clone();
    runtime.spawn(async move {
        if let Err(Err(error)) = sender.send(commit.await) {
            otherwise(error);
        }
    });
    Commit { receiver, unseen }
}

/// See [`run`].
pub(super) struct Commit<U: Unseen> {
    receiver: oneshot::Receiver<Committed>,
    unseen: Arc<U>,
}

impl<U: Unseen> Future for Commit<U> {
    type Output = Committed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Committed> {
        Pin::new(&mut self.receiver).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| {
                let text = "the runtime stopped before the commit was answered";
                Err(CommitError::new(CommitErrorKind::Closed, Outcome::Unknown, text))
            })
        })
    }
}

impl<U: Unseen> Drop for Commit<U> {
    fn drop(&mut self) {
        // It may have been answered and not been polled since.
        self.receiver.close();
        if let Ok(Err(error)) = self.receiver.try_recv() {
            (self.unseen)(error);
        }
    }
}
