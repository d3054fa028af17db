//! The null backend: acknowledges every record at once. A workload on it measures the generator itself.

use std::task::{Context, Poll, Waker};

use super::{Ack, Backend, BackendError, Consumer, From, Incoming, Outgoing, Pending, Producer};
use crate::scenario::Scenario;

/// The null backend.
#[derive(Debug)]
pub struct Null;

impl Backend for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn acknowledgement(&self) -> String {
        "nothing: records are discarded".into()
    }

    fn keeps_records(&self) -> bool {
        false
    }

    fn create_topic<'a>(&'a self, _: &'a str, _: &'a Scenario) -> Pending<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn create_idle_topic<'a>(&'a self, _: &'a str, _: u32) -> Pending<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn delete_topic<'a>(&'a self, _: &'a str) -> Pending<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn producer<'a>(&'a self, _: &'a str, _: &'a Scenario) -> Pending<'a, Box<dyn Producer>> {
        Box::pin(async { Ok(Box::<NullProducer>::default() as Box<dyn Producer>) })
    }

    fn consumer<'a>(&'a self, _: &'a str, _: From, _: &'a Scenario) -> Pending<'a, Box<dyn Consumer>> {
        Box::pin(async { Ok(Box::new(NullConsumer) as Box<dyn Consumer>) })
    }
}

#[derive(Default)]
struct NullProducer {
    acks: Vec<Ack>,
    next: i64,
    /// The task that waits for acknowledgements.
    waker: Option<Waker>,
}

impl Producer for NullProducer {
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing> {
        self.acks.push(Ack { tag: record.tag, result: Ok(self.next) });
        self.next += 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn flush(&mut self) {}

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        if self.acks.is_empty() {
            // The next record is acknowledged at once.
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        out.append(&mut self.acks);
        Poll::Ready(())
    }
}

struct NullConsumer;

impl Consumer for NullConsumer {
    fn poll_records(
        &mut self,
        _: &mut Context<'_>,
        _: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>> {
        Poll::Pending
    }
}
