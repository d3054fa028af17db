//! Backend for NATS JetStream: a topic is a file-based stream, its partitions are subjects.
//!
//! JetStream accepts single messages and has no batches, so `in_flight` and the batch sizes do not apply, only the number of outstanding
//! records. Offsets are the stream's sequence numbers, which all partitions share.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::{Client, ConnectOptions};
use futures_core::Stream as _;

use super::calls::Calls;
use super::{Ack, Backend, BackendError, Consumer, From, Incoming, Outgoing, Pending, Producer};
use crate::scenario::Scenario;

/// Timeout of requests. A server that syncs every message replies late under load.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Queue capacity of a connection beyond the outstanding requests.
const QUEUE_SLACK: usize = 64;

/// Maximum number of records passed on per poll.
const RECORDS_PER_POLL_MAX: usize = 10_000;

/// Default meaning of an acknowledgement.
const ACKNOWLEDGEMENT: &str = "the server's page cache unless it is configured with sync_interval: always";

/// A NATS server with JetStream.
#[derive(Clone, Debug)]
pub struct Nats {
    server: String,
    acknowledgement: String,
}

impl Nats {
    /// Creates a backend for the server at `server` (`host:port`). The meaning of an acknowledgement depends on the server's configuration,
    /// which a client cannot see, so the caller states it.
    pub fn new(server: &str, acknowledgement: Option<&str>) -> Self {
        Self {
            server: server.to_owned(),
            acknowledgement: acknowledgement.unwrap_or(ACKNOWLEDGEMENT).to_owned(),
        }
    }

    fn failed(&self, what: &str, topic: &str, why: impl std::fmt::Display) -> BackendError {
        BackendError(format!(
            "cannot {what} {topic} on NATS at {}: {why}. Is a server with JetStream listening there?",
            self.server
        ))
    }

    async fn connect(&self, outstanding: usize) -> Result<Client, async_nats::ConnectError> {
        ConnectOptions::new()
            .client_capacity(outstanding + QUEUE_SLACK)
            .connection_timeout(TIMEOUT)
            .connect(format!("nats://{}", self.server))
            .await
    }

    async fn create(&self, topic: &str, limits: Config) -> Result<(), BackendError> {
        let client = self.connect(0).await.map_err(|e| self.failed("make", topic, e))?;
        let config = Config {
            name: stream(topic),
            subjects: vec![format!("{}.*", stream(topic))],
            storage: StorageType::File,
            ..limits
        };
        context(client, QUEUE_SLACK)
            .create_stream(config)
            .await
            .map_err(|e| self.failed("make", topic, e))?;
        Ok(())
    }
}

/// Returns the name of a topic's stream, which must not contain dots.
fn stream(topic: &str) -> String {
    topic.replace('.', "-")
}

fn context(client: Client, outstanding: usize) -> async_nats::jetstream::Context {
    ContextBuilder::new()
        .timeout(TIMEOUT)
        .ack_timeout(TIMEOUT)
        .max_ack_inflight(outstanding + QUEUE_SLACK)
        .build(client)
}

/// Converts a topic's settings to those of a stream.
fn limits(scenario: &Scenario) -> Result<Config, String> {
    let mut config = Config::default();
    for (name, value) in &scenario.topic.config {
        let number =
            value.parse::<i64>().map_err(|_| format!("the setting {name}={value} is not a number"))?;
        match name.as_str() {
            "retention.bytes" => config.max_bytes = number,
            "retention.ms" if number < 0 => {}
            "retention.ms" => config.max_age = Duration::from_millis(number as u64),
            // Segmentation of the log, which a stream does not let clients configure.
            "segment.bytes" | "segment.ms" | "max.message.bytes" => {}
            _ => return Err(format!("streams have no equivalent of the setting {name}")),
        }
    }
    Ok(config)
}

impl Backend for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn acknowledgement(&self) -> String {
        self.acknowledgement.clone()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()> {
        Box::pin(async move {
            let limits = limits(scenario).map_err(|why| self.failed("make", topic, why))?;
            self.create(topic, limits).await
        })
    }

    fn create_idle_topic<'a>(&'a self, topic: &'a str, _partitions: u32) -> Pending<'a, ()> {
        // Subjects without messages cost nothing.
        Box::pin(self.create(topic, Config::default()))
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let client = self.connect(0).await.map_err(|e| self.failed("delete", topic, e))?;
            context(client, QUEUE_SLACK)
                .delete_stream(stream(topic))
                .await
                .map_err(|e| self.failed("delete", topic, e))?;
            Ok(())
        })
    }

    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>> {
        Box::pin(async move {
            let outstanding = scenario.load.outstanding as usize;
            let client = self
                .connect(outstanding)
                .await
                .map_err(|e| self.failed("create a producer for", topic, e))?;
            let name = stream(topic);
            let producer = NatsProducer {
                context: context(client, outstanding),
                subjects: (0..scenario.topic.partitions).map(|p| format!("{name}.{p}").into()).collect(),
                calls: Calls::default(),
                calls_max: outstanding.max(1),
            };
            Ok(Box::new(producer) as Box<dyn Producer>)
        })
    }

    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        _scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>> {
        Box::pin(async move {
            let client = self.connect(0).await.map_err(|e| self.failed("read", topic, e))?;
            let stream = context(client, QUEUE_SLACK)
                .get_stream(stream(topic))
                .await
                .map_err(|e| self.failed("read", topic, e))?;
            let deliver_policy = match from {
                From::Earliest => DeliverPolicy::All,
                From::Latest => DeliverPolicy::New,
            };
            let config = pull::OrderedConfig { deliver_policy, ..Default::default() };
            let consumer = stream.create_consumer(config).await.map_err(|e| self.failed("read", topic, e))?;
            let messages = consumer.messages().await.map_err(|e| self.failed("read", topic, e))?;
            Ok(Box::new(NatsConsumer { messages }) as Box<dyn Consumer>)
        })
    }
}

struct NatsProducer {
    context: async_nats::jetstream::Context,
    /// Subjects, by partition.
    subjects: Vec<async_nats::Subject>,
    calls: Calls,
    calls_max: usize,
}

impl Producer for NatsProducer {
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing> {
        if self.calls.len() >= self.calls_max {
            return Err(record);
        }
        let context = self.context.clone();
        let subject = self.subjects[record.partition as usize].clone();
        self.calls.begin(async move {
            let result = match context.publish(subject, record.value).await {
                Ok(published) => published.await,
                Err(error) => Err(error),
            };
            let result = result.map(|ack| ack.sequence as i64).map_err(|e| e.kind().to_string());
            vec![Ack { tag: record.tag, result }]
        });
        Ok(())
    }

    fn flush(&mut self) {}

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        self.calls.poll_acks(cx, out)
    }
}

struct NatsConsumer {
    messages: pull::Ordered,
}

impl Consumer for NatsConsumer {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>> {
        let failed = |why: &dyn std::fmt::Display| BackendError(format!("cannot read from NATS: {why}"));
        for count in 0..RECORDS_PER_POLL_MAX {
            let message = match Pin::new(&mut self.messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failed(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(failed(&"the stream ended"))),
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
            };
            let info = message.info().map_err(|e| failed(&e))?;
            let (_, partition) = message.subject.rsplit_once('.').unwrap_or_default();
            take(Incoming {
                partition: partition.parse().map_err(|_| failed(&format!("subject {}", message.subject)))?,
                offset: info.stream_sequence as i64,
                value: &message.payload,
            });
        }
        Poll::Ready(Ok(()))
    }
}
