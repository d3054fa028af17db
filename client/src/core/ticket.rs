//! The result of a batch, shared by the deliveries of all its records with one allocation.

use std::sync::{Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use highwater_protocol::ids::{Offset, Timestamp};

use super::failures::BatchFailure;
use crate::lock::lock;

/// The broker's acknowledgement of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    /// Offset of the first record; none if no acknowledgement was requested.
    pub(crate) base_offset: Option<Offset>,
    /// The timestamp that the broker assigned to all its records, if it did.
    pub(crate) log_append_time: Option<Timestamp>,
}

pub(crate) type BatchResult = Result<Acked, BatchFailure>;

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    result: OnceLock<BatchResult>,
    waiters: Mutex<Vec<Waker>>,
}

impl Ticket {
    /// Sets the result and wakes the waiters. Later calls have no effect: a delivery's result never changes.
    pub(crate) fn resolve(&self, result: BatchResult) {
        if self.result.set(result).is_ok() {
            let waiters = std::mem::take(&mut *lock(&self.waiters));
            waiters.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn result(&self) -> Option<&BatchResult> {
        self.result.get()
    }

    /// Returns the result once it is set. `waker_index` stores the position of the caller's waker between polls; it
    /// must start as none.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, waker_index: &mut Option<usize>) -> Poll<&BatchResult> {
        if let Some(result) = self.result.get() {
            return Poll::Ready(result);
        }
        let mut waiters = lock(&self.waiters);
        // The result was set in the meantime and the waiters were woken; this one would never be.
        if let Some(result) = self.result.get() {
            return Poll::Ready(result);
        }
        if let Some(at) = *waker_index {
            waiters[at].clone_from(cx.waker());
        } else {
            *waker_index = Some(waiters.len());
            waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_waiter_is_woken_once_and_the_first_result_stays() {
        let ticket = Ticket::default();
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        let mut waker_indexes = [None; 3];
        for _ in 0..2 {
            for (count, waker_index) in counts.iter().zip(&mut waker_indexes) {
                let waker = Waker::from(count.clone());
                assert!(ticket.poll(&mut Context::from_waker(&waker), waker_index).is_pending());
            }
        }
        ticket.resolve(Ok(Acked { base_offset: Some(Offset(7)), log_append_time: None }));
        ticket.resolve(Ok(Acked { base_offset: Some(Offset(8)), log_append_time: None }));
        for (count, waker_index) in counts.iter().zip(&mut waker_indexes) {
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            let waker = Waker::from(count.clone());
            match ticket.poll(&mut Context::from_waker(&waker), waker_index) {
                Poll::Ready(Ok(acked)) => assert_eq!(acked.base_offset, Some(Offset(7))),
                other => panic!("{other:?}"),
            }
        }
    }
}
