//! NATS JetStream: a topic is a stream in files, its partitions are subjects.
//!
//! JetStream takes one message at a time and has no batches; `in_flight` and the sizes of batches do not apply, only how many
//! records may be outstanding. Offsets are the stream's sequence numbers, which all partitions share.

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

/// How long a request may take. A server that makes every message durable by itself answers late under load.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that a connection queues beyond those outstanding.
const QUEUE_SLACK: usize = 64;

/// Records handed out in one turn.
const RECORDS_A_TURN: usize = 10_000;

/// What an acknowledgement means if nobody says.
const ACKNOWLEDGEMENT: &str = "the server's page cache unless it is configured with sync_interval: always";

/// A NATS server with JetStream.
#[derive(Clone, Debug)]
pub struct Nats {
    server: String,
    acknowledgement: String,
}

impl Nats {
    /// The server at `server` (`host:port`). What an acknowledgement means is the server's configuration, which a client cannot see:
    /// whoever started the server says it.
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

/// A stream's name has no dots.
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

/// The settings of a topic that a stream has too.
fn limits(scenario: &Scenario) -> Result<Config, String> {
    let mut config = Config::default();
    for (name, value) in &scenario.topic.config {
        let number =
            value.parse::<i64>().map_err(|_| format!("the setting {name}={value} is not a number"))?;
        match name.as_str() {
            "retention.bytes" => config.max_bytes = number,
            "retention.ms" if number < 0 => {}
            "retention.ms" => config.max_age = Duration::from_millis(number as u64),
            // How a log is cut into files, which is the server's own affair there.
            "segment.bytes" | "segment.ms" | "max.message.bytes" => {}
            _ => return Err(format!("a stream has nothing like the setting {name}")),
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
        // Subjects cost nothing until something is published.
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
            let client =
                self.connect(outstanding).await.map_err(|e| self.failed("make a producer for", topic, e))?;
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
    /// By partition.
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
        for count in 0..RECORDS_A_TURN {
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
