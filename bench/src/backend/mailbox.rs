//! A queue from a client's threads to the task that uses it.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Queued items, and the task that waits for them. Bounded by the number of records that the task has outstanding.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    items: Vec<T>,
    waiting: Option<Waker>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { items: Vec::new(), waiting: None }) }
    }
}

impl<T> Mailbox<T> {
    /// Adds an item, and wakes the task if it waits. Only the first of several items causes a wake-up.
    pub(crate) fn push(&self, item: T) {
        let waiting = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.items.push(item);
            inner.waiting.take()
        };
        if let Some(task) = waiting {
            task.wake();
        }
    }

    /// Moves all items to `out`. Pending if there are none; the task is woken by the next one.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, out: &mut Vec<T>) -> Poll<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.items.is_empty() {
            if inner.waiting.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
                inner.waiting = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if out.is_empty() {
            std::mem::swap(&mut inner.items, out);
        } else {
            out.append(&mut inner.items);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiting_task_is_woken_once_and_takes_everything() {
        let wakes = Arc::new(Counts(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mailbox = Mailbox::default();
        let mut out = Vec::new();

        assert!(mailbox.poll_take(&mut cx, &mut out).is_pending());
        mailbox.push(1);
        mailbox.push(2);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);

        assert!(mailbox.poll_take(&mut cx, &mut out).is_ready());
        mailbox.push(3);
        assert!(mailbox.poll_take(&mut cx, &mut out).is_ready());
        assert_eq!(out, [1, 2, 3]);
        assert!(mailbox.poll_take(&mut cx, &mut out).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the task was not waiting at the third push");
    }
}
