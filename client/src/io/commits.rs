//! Commits that continue when their caller stops waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::{CommitError, CommitErrorKind, WriteOutcome};

type Committed = Result<(), CommitError>;

/// Receives the error of a commit whose caller stopped waiting.
pub(super) trait OnUnreported: Fn(CommitError) + Send + Sync + 'static {}

impl<F: Fn(CommitError) + Send + Sync + 'static> OnUnreported for F {}

/// Runs a commit as a task of its own. If it fails after the caller dropped the returned future, `on_unreported` gets
/// the error.
pub(super) fn run<U: OnUnreported>(
    runtime: &Handle,
    commit: impl Future<Output = Committed> + Send + 'static,
    on_unreported: U,
) -> Commit<U> {
    let (sender, receiver) = oneshot::channel();
    let on_unreported = Arc::new(on_unreported);
    let otherwise = on_unreported.clone();
    runtime.spawn(async move {
        if let Err(Err(error)) = sender.send(commit.await) {
            otherwise(error);
        }
    });
    Commit { receiver, on_unreported }
}

/// See [`run`].
pub(super) struct Commit<U: OnUnreported> {
    receiver: oneshot::Receiver<Committed>,
    on_unreported: Arc<U>,
}

impl<U: OnUnreported> Future for Commit<U> {
    type Output = Committed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Committed> {
        Pin::new(&mut self.receiver).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| {
                let text = "the runtime stopped before the commit was answered";
                Err(CommitError::new(CommitErrorKind::Closed, WriteOutcome::Unknown, text))
            })
        })
    }
}

impl<U: OnUnreported> Drop for Commit<U> {
    fn drop(&mut self) {
        // The result may have arrived since the last poll.
        self.receiver.close();
        if let Ok(Err(error)) = self.receiver.try_recv() {
            (self.on_unreported)(error);
        }
    }
}
