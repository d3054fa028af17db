//! The task of one connection: owns the socket, reads, writes, checks timeouts, and delivers messages to their
//! recipients.

use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use highwater_protocol::native::{Body, MetadataRequest, message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

use super::conn::{Call, Conn, wake};
use super::sink::{ProduceSink, SentBatch, Subscriber};
use crate::core::conn::ConnEvent;
use crate::core::split::{next_message, room_wanted};
use crate::error::CallError;
use crate::limits::UNACKNOWLEDGED_BATCHES_MAX;
use crate::metrics::Metrics;

/// Maximum number of slices passed to the socket in one call.
const SLICES_MAX: usize = 64;

/// When a silent connection is probed, and when it is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Silence after which a keep-alive request is sent.
    pub(crate) keep_alive_interval: Duration,
    /// Silence, with a request open, after which the connection is given up.
    pub(crate) request_timeout: Duration,
}

/// A future that reads, writes and checks timeouts until the connection ends. Resolves to the reason.
pub(crate) struct Driver<S> {
    conn: Arc<Conn>,
    stream: S,
    buf: BytesMut,
    timeouts: Timeouts,
    last_heard: Instant,
    timer: Pin<Box<Sleep>>,
    metrics: Arc<Metrics>,
    events: Vec<ConnEvent<Call, Subscriber>>,
    unacknowledged: Unacknowledged,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Creates the driver. `buf` holds the bytes read after the reply to the handshake.
    pub(crate) fn new(
        conn: Arc<Conn>,
        stream: S,
        buf: BytesMut,
        timeouts: Timeouts,
        metrics: Arc<Metrics>,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(timeouts.tick()));
        let last_heard = Instant::now();
        let (events, unacknowledged) = (Vec::new(), VecDeque::new());
        Self { conn, stream, buf, timeouts, last_heard, timer, metrics, events, unacknowledged }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.buf.capacity() - self.buf.len() < room_wanted(&self.buf) {
                self.buf.reserve(room_wanted(&self.buf));
            }
            let read = pin!(self.stream.read_buf(&mut self.buf)).poll(cx);
            match ready!(read) {
                Ok(0) => return Poll::Ready("the broker closed the connection".into()),
                Err(error) => return Poll::Ready(error.to_string()),
                Ok(n) => self.metrics.bytes_read.add(n as u64),
            }
            self.last_heard = Instant::now();
            if let Err(fault) = self.take_messages() {
                return Poll::Ready(fault);
            }
        }
    }

    fn take_messages(&mut self) -> Result<(), String> {
        let mut state = self.conn.lock();
        let mut result = Ok(());
        loop {
            match next_message(&mut self.buf).and_then(|message| match message {
                Some(message) => state.core.handle_message(message).map(Some),
                None => Ok(None),
            }) {
                Ok(Some(event)) => self.events.extend(event),
                Ok(None) => break,
                Err(fault) => {
                    result = Err(fault.to_string());
                    break;
                }
            }
        }
        drop(state);
        // Deliver without holding the lock: recipients may send on this connection.
        for event in self.events.drain(..) {
            deliver(event, &self.metrics, &mut self.unacknowledged);
        }
        result
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let ended = self.write(cx);
        // Without holding the lock, as above.
        for event in self.events.drain(..) {
            deliver(event, &self.metrics, &mut self.unacknowledged);
        }
        ended
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = self.conn.lock();
        loop {
            if let Some(reason) = &state.closed {
                return Poll::Ready(reason.to_string());
            }
            if !state.core.wants_write() {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            state.core.begin_write();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = state.core.gather(&mut slices);
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]);
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready("the broker accepts no more data".into()),
                Poll::Ready(Ok(n)) => {
                    state.core.finish_write(n, &mut self.events);
                    self.metrics.bytes_written.add(n as u64);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                Poll::Pending => {
                    // The socket or `close` wakes the task.
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.timer.as_mut().reset((now + self.timeouts.tick()).into());
            let mut state = self.conn.lock();
            let silence = now.saturating_duration_since(self.last_heard);
            if let Some(since) = state.core.oldest_unanswered() {
                let waited = silence.min(now.saturating_duration_since(since));
                if waited >= self.timeouts.request_timeout {
                    return Poll::Ready(format!("no answer within {} s", waited.as_secs_f64().round()));
                }
            } else if silence >= self.timeouts.keep_alive_interval {
                let nothing = MetadataRequest { topics: Some(Vec::new()) };
                state.core.send_call(MetadataRequest::KIND, |id| message(id, &nothing), Call::Ping, now);
                wake(state);
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = String;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<String> {
        let this = &mut *self;
        if !this.buf.is_empty()
            && let Err(fault) = this.take_messages()
        {
            return Poll::Ready(fault);
        }
        let ended = [
            this.poll_read(cx),
            this.poll_clock(cx),
            // Last, because answers and timeouts may have queued requests.
            this.poll_write(cx),
        ];
        ended.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

impl Timeouts {
    fn tick(&self) -> Duration {
        (self.keep_alive_interval.min(self.request_timeout) / 4).max(Duration::from_millis(5))
    }
}

/// However the task ends, everyone who waits is notified.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        let mut state = self.conn.lock();
        let reason = state.closed.get_or_insert_with(|| "the connection was closed".into()).clone();
        let orphans = state.core.handle_closed();
        drop(state);
        for (call, sent) in orphans.calls {
            match call {
                Call::Once(sender) => {
                    let address = self.conn.address.clone();
                    let _ = sender.send(Err(CallError::Lost { sent, address, reason: reason.clone() }));
                }
                Call::Produce(SentBatch { sink, lane, batch, .. }) => {
                    sink.handle_lost(lane, batch, sent);
                }
                Call::Ping => {}
            }
        }
        for subscriber in orphans.subscriptions {
            subscriber.sink.handle_lost(subscriber.key);
        }
    }
}

/// Batches sent without requesting an acknowledgement, to attribute late rejections. The oldest are dropped first.
type Unacknowledged = VecDeque<UnacknowledgedBatch>;

/// A batch that was written. Its producer may be gone.
struct UnacknowledgedBatch {
    id: u64,
    sink: Weak<dyn ProduceSink>,
    lane: u32,
    records: u32,
}

fn deliver(event: ConnEvent<Call, Subscriber>, metrics: &Metrics, unacknowledged: &mut Unacknowledged) {
    match event {
        ConnEvent::Answered(Call::Once(sender), answer) => {
            // The caller may have stopped waiting.
            let _ = sender.send(answer.map_err(|(code, text)| CallError::Rejected { code, text }));
        }
        ConnEvent::Answered(Call::Produce(SentBatch { sink, lane, batch, sent_at, .. }), answer) => {
            metrics.produce_latency.record(sent_at.elapsed());
            sink.handle_answer(lane, batch, answer);
        }
        ConnEvent::Sent(Call::Produce(SentBatch { sink, lane, batch, records, .. }), id) => {
            sink.handle_sent(lane, batch);
            if unacknowledged.len() == UNACKNOWLEDGED_BATCHES_MAX {
                unacknowledged.pop_front();
            }
            unacknowledged.push_back(UnacknowledgedBatch { id, sink: Arc::downgrade(&sink), lane, records });
        }
        ConnEvent::LateRejection(id, code, text) => {
            let left = unacknowledged.iter().find(|left| left.id == id);
            if let Some((left, sink)) = left.and_then(|left| Some((left, left.sink.upgrade()?))) {
                sink.handle_late_rejection(left.lane, left.records, (code, text));
            } else {
                tracing::warn!(%code, text, "the broker rejected a batch without acknowledgement");
            }
        }
        ConnEvent::Answered(Call::Ping, _) | ConnEvent::Sent(..) => {}
        ConnEvent::Subscribed(subscriber, answer) => {
            subscriber.sink.handle_subscribed(subscriber.key, answer);
        }
        ConnEvent::Pushed(subscriber, answer) => subscriber.sink.handle_pushed(subscriber.key, answer),
    }
}
