//! Requests that any broker can answer, with retries.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::native::{Body, MessageKind, empty_message, message};

use super::cluster::Cluster;
use crate::core::backoff::Backoff;
use crate::error::{CallError, ConnectErrorKind, WriteOutcome};

/// Whether a call may be retried when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RetryPolicy {
    /// The request is idempotent.
    Always,
    /// Only if the broker cannot have received the request.
    IfUnsent,
}

impl Cluster {
    /// Sends a request to any broker and decodes the answer.
    pub(crate) async fn call<Q: Body, A: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<A, CallError> {
        let answer = self.call_raw(Q::KIND, |id| message(id, request), repeat).await?;
        decode(&answer)
    }

    /// Like [`Cluster::call`], for an answer without a body.
    pub(crate) async fn call_empty<Q: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<(), CallError> {
        self.call_raw(Q::KIND, |id| message(id, request), repeat).await.map(drop)
    }

    /// Like [`Cluster::call`], for a request without a body.
    pub(crate) async fn call_without_body<A: Body>(
        self: &Arc<Self>,
        kind: MessageKind,
    ) -> Result<A, CallError> {
        let answer = self.call_raw(kind, |id| empty_message(kind, id), RetryPolicy::Always).await?;
        decode(&answer)
    }

    async fn call_raw(
        self: &Arc<Self>,
        kind: MessageKind,
        message: impl Fn(u64) -> Bytes,
        repeat: RetryPolicy,
    ) -> Result<Bytes, CallError> {
        let timeout = self.config.request_timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        let timed_out = |sent| CallError::TimedOut { sent, seconds: timeout.as_secs_f64() };
        let mut pause = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        let mut last = None;
        loop {
            let conn = match tokio::time::timeout_at(deadline, self.any()).await {
                Ok(Ok(conn)) => conn,
                Ok(Err(error)) if error.kind() == ConnectErrorKind::Closed => return Err(CallError::Closed),
                Ok(Err(error)) => return Err(CallError::Unreachable(error)),
                Err(_) => {
                    let unreachable = self.known().last_failure.clone().map(CallError::Unreachable);
                    return Err(unreachable.or(last).unwrap_or_else(|| timed_out(false)));
                }
            };
            let asked = Instant::now();
            let error = match tokio::time::timeout_at(deadline, conn.call(kind, &message)).await {
                Ok(Ok(answer)) => {
                    self.metrics.call_latency.record(asked.elapsed());
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(timed_out(true)),
            };
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let may_repeat = repeat == RetryPolicy::Always || error.outcome() == WriteOutcome::NotWritten;
            if !error.is_transient() || !may_repeat {
                return Err(error);
            }
            let wait = tokio::time::Instant::now() + pause.fail(rand::random());
            if wait >= deadline {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep_until(wait).await;
        }
    }
}

/// Decodes the body of an answer.
fn decode<B: Body>(body: &[u8]) -> Result<B, CallError> {
    B::decode(body).map_err(|error| CallError::Malformed(error.to_string()))
}
