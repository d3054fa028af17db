//! Requests under way, answered in the order in which they were made.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::task::coop::unconstrained;

use super::Ack;

/// A request, and what became of the records in it.
type Call = Pin<Box<dyn Future<Output = Vec<Ack>> + Send>>;

/// The requests of one producer. Their number is bounded by its user.
#[derive(Default)]
pub(crate) struct Calls {
    waiting: VecDeque<Call>,
    answered: Vec<Ack>,
}

impl Calls {
    /// Begins a request. The client puts it into its connection's queue at the first poll, which has room for all that are under
    /// way; so requests leave in this order. It is not held back by tokio's budget, or a later one could overtake it.
    pub(crate) fn begin(&mut self, call: impl Future<Output = Vec<Ack>> + Send + 'static) {
        let mut call: Call = Box::pin(unconstrained(call));
        // The waker does not matter: `poll_acks` polls the oldest again with the task's own.
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut acks) if self.waiting.is_empty() => self.answered.append(&mut acks),
            Poll::Ready(acks) => self.waiting.push_back(Box::pin(std::future::ready(acks))),
            Poll::Pending => self.waiting.push_back(call),
        }
    }

    /// Requests under way.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds what is known to `out`; pending if that is nothing.
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
    fn answers_come_in_the_order_of_the_requests() {
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
        assert!(calls.poll_acks(&mut cx, &mut out).is_pending(), "the first is not answered");
        assert_eq!(calls.len(), 3);
        first.send(()).expect("a waiting request");
        assert!(calls.poll_acks(&mut cx, &mut out).is_ready());
        assert_eq!(out.iter().map(|ack| ack.tag).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(calls.len(), 0);
    }
}
