//! Requests in flight, completed in the order in which they were made.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::task::coop::unconstrained;

use super::Ack;

/// A request. Resolves to the outcomes of its records.
type Call = Pin<Box<dyn Future<Output = Vec<Ack>> + Send>>;

/// The requests of one producer. The caller bounds their number.
#[derive(Default)]
pub(crate) struct Calls {
    waiting: VecDeque<Call>,
    answered: Vec<Ack>,
}

impl Calls {
    /// Starts a request. The first poll puts it into the queue of the client's connection, which has space for all requests in flight, so
    /// requests are sent in this order. It is not subject to tokio's coop budget, as a later request could overtake it otherwise.
    pub(crate) fn begin(&mut self, call: impl Future<Output = Vec<Ack>> + Send + 'static) {
        let mut call: Call = Box::pin(unconstrained(call));
        // The waker does not matter: `poll_acks` polls the oldest request again with the task's waker.
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut acks) if self.waiting.is_empty() => self.answered.append(&mut acks),
            Poll::Ready(acks) => self.waiting.push_back(Box::pin(std::future::ready(acks))),
            Poll::Pending => self.waiting.push_back(call),
        }
    }

    /// Returns the number of requests in flight.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Appends the known outcomes to `out`. Pending if there are none.
    pub(crate) fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        let before = out.len();
        out.append(&mut self.answered);
        while let Some(oldest) = self.waiting.front_mut() {
            let Poll::Ready(mut acks) = oldest.as_mut().poll(cx) else { break };
            out.append(&mut acks);
            self.waiting.pop_front();
        }
        if out.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn ack(tag: u64) -> Vec<Ack> {
        vec![Ack { tag, result: Ok(0) }]
    }

    #[test]
    fn outcomes_are_returned_in_the_order_of_the_requests() {
        let mut calls = Calls::default();
        let (first, wait_first) = oneshot::channel::<()>();
        let (second, wait_second) = oneshot::channel::<()>();
        calls.begin(async {
            wait_first.await.expect("an answer");
            ack(1)
        });
        calls.begin(async {
            wait_second.await.expect("an answer");
            ack(2)
        });
        calls.begin(async { ack(3) });
        let mut cx = Context::from_waker(Waker::noop());
        let mut out = Vec::new();

        second.send(()).expect("a waiting request");
        assert!(calls.poll_acks(&mut cx, &mut out).is_pending(), "the first request is in flight");
        assert_eq!(calls.len(), 3);
        first.send(()).expect("a waiting request");
        assert!(calls.poll_acks(&mut cx, &mut out).is_ready());
        assert_eq!(out.iter().map(|ack| ack.tag).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(calls.len(), 0);
    }
}
