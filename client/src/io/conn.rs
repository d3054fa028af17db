//! A handle to one connection: queues requests for the connection's [`Driver`](super::driver::Driver).

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::ids::{NodeId, ShardId, TopicPartition};
use highwater_protocol::native::{
    Acks, Credit, MessageKind, SubscribeRequest, empty_message, message, produce_head,
};
use tokio::sync::oneshot;

use super::sink::{SentBatch, Subscriber};
use crate::core::conn::ConnCore;
use crate::error::CallError;
use crate::lock::lock;

/// The hello used the first id.
pub(crate) const FIRST_REQUEST_ID: u64 = 2;

/// The recipient of an answer.
#[derive(Debug)]
pub(crate) enum Call {
    Once(oneshot::Sender<Result<Bytes, CallError>>),
    Produce(SentBatch),
    /// None: a keep-alive request.
    Ping,
}

/// The connection is closed; nothing was sent.
#[derive(Debug)]
pub(crate) struct ConnClosed;

/// A handle to a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) node: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) address: Arc<str>,
    state: Mutex<State>,
}

/// State shared by the handle and the driver.
#[derive(Debug)]
pub(super) struct State {
    pub(super) core: ConnCore<Call, Subscriber>,
    /// Wakes the driver while it is idle.
    pub(super) waker: Option<Waker>,
    /// Why the connection is closed or must be closed.
    pub(super) closed: Option<Arc<str>>,
}

impl Conn {
    pub(crate) fn new(node: NodeId, shard: ShardId, address: Arc<str>) -> Self {
        let state = State { core: ConnCore::new(FIRST_REQUEST_ID), waker: None, closed: None };
        Self { node, shard, address, state: Mutex::new(state) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Closes the connection.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| reason.into());
        wake(state);
    }

    /// Sends a request and waits for the answer. The request is queued immediately, not when the future is first
    /// polled.
    pub(crate) fn call<M: FnOnce(u64) -> Bytes>(
        &self,
        kind: MessageKind,
        message: M,
    ) -> impl Future<Output = Result<Bytes, CallError>> + use<M> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let closed = state.closed.clone();
        if closed.is_none() {
            state.core.send_call(kind, message, Call::Once(sender), Instant::now());
            wake(state);
        }
        let address = self.address.clone();
        async move {
            if let Some(reason) = closed {
                return Err(CallError::Lost { sent: false, address, reason });
            }
            let dropped =
                |_| Err(CallError::Lost { sent: true, address, reason: "the runtime stopped".into() });
            receiver.await.unwrap_or_else(dropped)
        }
    }

    /// Sends a batch. Its sink gets the broker's answer, or a notification once the batch was written if no answer was
    /// requested.
    pub(crate) fn produce(
        &self,
        to: TopicPartition,
        acks: Acks,
        bytes: Bytes,
        sent: SentBatch,
    ) -> Result<(), ConnClosed> {
        let mut state = self.open()?;
        let (batch_bytes, sent_at) = (bytes.len(), sent.sent_at);
        let head = |id| produce_head(id, to, acks, batch_bytes);
        let is_answered = acks != Acks::None;
        state.core.send_produce(head, bytes, Call::Produce(sent), is_answered, sent_at);
        wake(state);
        Ok(())
    }

    /// Opens a subscription and returns its id.
    pub(crate) fn subscribe(
        &self,
        request: &SubscribeRequest,
        subscriber: Subscriber,
    ) -> Result<u64, ConnClosed> {
        let mut state = self.open()?;
        let id = state.core.send_subscribe(|id| message(id, request), subscriber, Instant::now());
        wake(state);
        Ok(id)
    }

    /// Grants a subscription more credit.
    pub(crate) fn credit(&self, subscription: u64, bytes: u64) {
        let Ok(mut state) = self.open() else { return };
        state.core.send_credit(subscription, message(subscription, &Credit { bytes: bytes.into() }));
        wake(state);
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&self, subscription: u64) {
        let Ok(mut state) = self.open() else { return };
        state.core.send_unsubscribe(subscription, empty_message(MessageKind::Unsubscribe, subscription));
        wake(state);
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, ConnClosed> {
        let state = self.lock();
        if state.closed.is_some() { Err(ConnClosed) } else { Ok(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Releases the lock, then wakes the driver.
pub(super) fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}
