//! Connects to an address and performs the handshake.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ClusterId, ShardId};
use highwater_protocol::native::{
    Body, FEATURE_DAMAGE, FEATURE_GROUPS, Hello, HelloReply, MessageKind, PROTOCOL_VERSION, error_text,
    message,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::conn::FIRST_REQUEST_ID;
use crate::core::split::{READ_BYTES_MIN, next_message};
use crate::error::{ConnectError, ConnectErrorKind, WriteOutcome};

/// Time an address has before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(300);
const HELLO_ID: u64 = FIRST_REQUEST_ID - 1;

/// What the client sends in its hello.
#[derive(Clone, Debug)]
pub(crate) struct HelloParams {
    pub(crate) client_name: String,
    pub(crate) shard: Option<ShardId>,
    /// Reject brokers of any other cluster.
    pub(crate) cluster: Option<ClusterId>,
}

/// An established connection with the broker's hello.
#[derive(Debug)]
pub(crate) struct Handshake<S> {
    pub(crate) stream: S,
    /// Bytes read after the reply to the handshake.
    pub(crate) rest: BytesMut,
    pub(crate) hello: HelloReply,
    pub(crate) address: Arc<str>,
}

/// Connects to the first of the addresses that completes the handshake and passes `check`. Each address gets a short
/// head start over the next.
pub(crate) async fn connect_first(
    addresses: &[Arc<str>],
    hello_params: &HelloParams,
    timeout: Duration,
    check: impl Fn(&HelloReply) -> Result<(), String> + Clone + Send + 'static,
) -> Result<Handshake<TcpStream>, ConnectError> {
    let mut attempts = tokio::task::JoinSet::new();
    let mut failures = Vec::new();
    let mut waiting = addresses.iter();
    loop {
        if let Some(address) = waiting.next() {
            let (address, hello_params, check) = (address.clone(), hello_params.clone(), check.clone());
            attempts.spawn(async move { connect(address, &hello_params, timeout, check).await });
        }
        let head_start = if waiting.len() > 0 { HEAD_START } else { timeout * 2 };
        match tokio::time::timeout(head_start, attempts.join_next()).await {
            Ok(Some(Ok(Ok(greeted)))) => return Ok(greeted),
            Ok(Some(Ok(Err(failure)))) => failures.push(failure),
            Ok(Some(Err(_)) | None) => {}
            Err(_) => continue,
        }
        if attempts.is_empty() && waiting.len() == 0 {
            return Err(all_failed(&failures));
        }
    }
}

fn all_failed(failures: &[ConnectError]) -> ConnectError {
    match failures {
        [] => ConnectError::new(
            ConnectErrorKind::Address,
            WriteOutcome::NotWritten,
            "there is no address to connect to; give at least one `host:port`",
        ),
        [only] => only.clone(),
        [first, ..] => {
            // If a retry may succeed at one address, report that kind.
            let kind = failures.iter().find(|failure| failure.is_retryable()).unwrap_or(first).kind();
            let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
            ConnectError::new(kind, WriteOutcome::NotWritten, texts.join("; ")).caused_by(first.clone())
        }
    }
}

async fn connect(
    address: Arc<str>,
    hello_params: &HelloParams,
    timeout: Duration,
    check: impl Fn(&HelloReply) -> Result<(), String>,
) -> Result<Handshake<TcpStream>, ConnectError> {
    let failed = |kind, text: String| ConnectError::new(kind, WriteOutcome::NotWritten, text);
    let greeted = async {
        let stream = open(&address).await?;
        greet(stream, address.clone(), hello_params).await
    };
    let greeted = tokio::time::timeout(timeout, greeted).await.unwrap_or_else(|_| {
        let text =
            format!("{address}: no answer within {} s; is it a Highwater broker?", timeout.as_secs_f64());
        Err(failed(ConnectErrorKind::Unreachable, text))
    })?;
    if let Some(cluster) = hello_params.cluster.filter(|cluster| *cluster != greeted.hello.cluster) {
        let other = greeted.hello.cluster;
        let text = format!(
            "{address}: the broker belongs to cluster {other}, but the client connected to cluster {cluster} before"
        );
        return Err(failed(ConnectErrorKind::OtherCluster, text));
    }
    match check(&greeted.hello) {
        Ok(()) => Ok(greeted),
        Err(text) => Err(failed(ConnectErrorKind::Unreachable, format!("{address}: {text}"))),
    }
}

async fn open(address: &Arc<str>) -> Result<TcpStream, ConnectError> {
    let failed = |kind, text: String| ConnectError::new(kind, WriteOutcome::NotWritten, text);
    if address.starts_with(':') {
        let text = format!("`{address}` has no host; expected `host:port`");
        return Err(failed(ConnectErrorKind::Address, text));
    }
    let resolved = tokio::net::lookup_host(&**address).await.map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::InvalidInput {
            ConnectErrorKind::Address
        } else {
            // The name server may be unavailable.
            ConnectErrorKind::Unreachable
        };
        failed(kind, format!("{address}: cannot be resolved: {error}; expected `host:port`")).caused_by(error)
    })?;
    let mut last = None;
    for resolved in resolved {
        match TcpStream::connect(resolved).await {
            Ok(stream) => {
                // The client coalesces requests itself; the kernel must not delay them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let unreachable =
        |why| failed(ConnectErrorKind::Unreachable, format!("{address}: {why}; is the broker running?"));
    Err(match last {
        None => unreachable("the name has no address".to_owned()),
        Some(error) => unreachable(error.to_string()).caused_by(error),
    })
}

/// Sends the hello and waits for the answer.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    address: Arc<str>,
    hello_params: &HelloParams,
) -> Result<Handshake<S>, ConnectError> {
    let failed =
        |kind, text: String| ConnectError::new(kind, WriteOutcome::NotWritten, format!("{address}: {text}"));
    let hello = Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: FEATURE_GROUPS | FEATURE_DAMAGE,
        shard: hello_params.shard,
        // The client compares the cluster itself, for a better error than the broker's.
        cluster: None,
        client_name: hello_params.client_name.clone(),
    };
    let io =
        |error: std::io::Error| failed(ConnectErrorKind::Unreachable, error.to_string()).caused_by(error);
    stream.write_all(&message(HELLO_ID, &hello)).await.map_err(io)?;
    let mut rest = BytesMut::with_capacity(READ_BYTES_MIN);
    let answer = loop {
        match next_message(&mut rest) {
            Ok(Some(answer)) => break answer,
            Ok(None) => {}
            Err(fault) => return Err(failed(ConnectErrorKind::NotHighwater, fault.to_string())),
        }
        if stream.read_buf(&mut rest).await.map_err(io)? == 0 {
            let text = "closed the connection without replying to the handshake; is it a Highwater broker?";
            return Err(failed(ConnectErrorKind::Unreachable, text.into()));
        }
    };
    if let Some(code) = answer.error {
        return Err(rejected(&address, code, &error_text(&answer.body)));
    }
    if answer.kind != MessageKind::Hello || answer.request_id != HELLO_ID {
        return Err(failed(ConnectErrorKind::NotHighwater, "unexpected reply to the handshake".into()));
    }
    let hello = HelloReply::decode(&answer.body)
        .map_err(|error| failed(ConnectErrorKind::NotHighwater, error.to_string()))?;
    Ok(Handshake { stream, rest, hello, address: address.clone() })
}

fn rejected(address: &str, code: ErrorCode, text: &str) -> ConnectError {
    let kind = if code.is_retryable() { ConnectErrorKind::Unreachable } else { ConnectErrorKind::Rejected };
    let text = format!("{address}: the broker rejected the connection: {text} ({code})");
    ConnectError::with_code(kind, WriteOutcome::NotWritten, code, text)
}
