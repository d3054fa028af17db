//! Requests and their answers, with retries.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::{Body, MessageKind, empty_message, message};

use super::cluster::Cluster;
use super::destination::{Destination, InGroup};
use crate::core::backoff::Backoff;
use crate::error::{CallError, WriteOutcome};

/// Whether a call may be retried when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RetryPolicy {
    /// The request is idempotent.
    Always,
    /// Only if the broker cannot have received the request.
    IfUnsent,
}

impl Cluster {
    /// Sends a request that any broker can answer, and decodes the answer.
    pub(crate) async fn call<Q: Body, A: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<A, CallError> {
        let to = Destination::any();
        let answer = self.call_raw(to, Q::KIND, |id| message(id, request), repeat).await?;
        decode(&answer)
    }

    /// Like [`Cluster::call`], for an answer without a body.
    pub(crate) async fn call_empty<Q: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<(), CallError> {
        let to = Destination::any();
        self.call_raw(to, Q::KIND, |id| message(id, request), repeat).await.map(drop)
    }

    /// Like [`Cluster::call`], for a request without a body.
    pub(crate) async fn call_without_body<A: Body>(
        self: &Arc<Self>,
        kind: MessageKind,
    ) -> Result<A, CallError> {
        let to = Destination::any();
        let answer = self.call_raw(to, kind, |id| empty_message(kind, id), RetryPolicy::Always).await?;
        decode(&answer)
    }

    /// Sends a request to the coordinator of its group, and decodes the answer.
    pub(crate) async fn call_group<Q: InGroup, A: Body>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<A, CallError> {
        let to = Destination::of_group(request.group());
        let answer = self.call_raw(to, Q::KIND, |id| message(id, request), repeat).await?;
        decode(&answer)
    }

    /// Like [`Cluster::call_group`], for an answer without a body.
    pub(crate) async fn call_group_empty<Q: InGroup>(
        self: &Arc<Self>,
        request: &Q,
        repeat: RetryPolicy,
    ) -> Result<(), CallError> {
        let to = Destination::of_group(request.group());
        self.call_raw(to, Q::KIND, |id| message(id, request), repeat).await.map(drop)
    }

    /// Sends a request to a node, once, and decodes the answer.
    pub(crate) async fn call_node<Q: Body, A: Body>(
        self: &Arc<Self>,
        node: NodeId,
        request: &Q,
    ) -> Result<A, CallError> {
        decode(&self.call_node_raw(node, request).await?)
    }

    /// Like [`Cluster::call_node`], for an answer without a body.
    pub(crate) async fn call_node_empty<Q: Body>(
        self: &Arc<Self>,
        node: NodeId,
        request: &Q,
    ) -> Result<(), CallError> {
        self.call_node_raw(node, request).await.map(drop)
    }

    async fn call_node_raw<Q: Body>(self: &Arc<Self>, node: NodeId, request: &Q) -> Result<Bytes, CallError> {
        let timeout = self.config.request_timeout;
        let call = async {
            let conn = self.node_connection(node).await.map_err(CallError::Unreachable)?;
            conn.call(Q::KIND, |id| message(id, request)).await
        };
        let timed_out = CallError::TimedOut { sent: true, seconds: timeout.as_secs_f64() };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(timed_out))
    }

    async fn call_raw(
        self: &Arc<Self>,
        mut to: Destination<'_>,
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
            let asked = Instant::now();
            let error = match tokio::time::timeout_at(deadline, to.connect(self)).await {
                Ok(Ok(conn)) => match tokio::time::timeout_at(deadline, conn.call(kind, &message)).await {
                    Ok(Ok(answer)) => {
                        self.metrics.call_latency.record(asked.elapsed());
                        return Ok(answer);
                    }
                    Ok(Err(error)) => error,
                    Err(_) => return Err(timed_out(true)),
                },
                Ok(Err(error)) => error,
                Err(_) => {
                    let unreachable = self.known().last_failure.clone().map(CallError::Unreachable);
                    return Err(unreachable.or(last).unwrap_or_else(|| timed_out(false)));
                }
            };
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let may_repeat = repeat == RetryPolicy::Always || error.outcome() == WriteOutcome::NotWritten;
            if !error.is_transient() || !may_repeat {
                return Err(error);
            }
            to.handle_failure(&error);
            let wait = tokio::time::Instant::now() + pause.fail(rand::random());
            if wait >= deadline {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep_until(wait).await;
        }
    }
}

/// Returns whether a request went to a node that does not lead what it is about.
pub(super) fn is_elsewhere(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotCoordinator | ErrorCode::NotController | ErrorCode::NotLeader)
}

/// Decodes the body of an answer.
fn decode<B: Body>(body: &[u8]) -> Result<B, CallError> {
    B::decode(body).map_err(|error| CallError::Malformed(error.to_string()))
}
