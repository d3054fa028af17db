//! Backend for brokers with Kafka's protocol, on librdkafka.
//!
//! librdkafka has its own threads and copies records. That is part of the cost of this client, and the report counts it as processor time of
//! the generator. Each producer receives delivery reports on a thread, which passes them to its task through a mailbox.

mod consumer;
mod producer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{Producer as _, ThreadedProducer};

use self::consumer::KafkaConsumer;
use self::producer::{Deliveries, KafkaProducer};
use super::mailbox::Mailbox;
use super::{Backend, BackendError, Consumer, From, Pending, Producer};
use crate::scenario::{Compression, Scenario};

/// Timeout of requests that create or delete topics. Creating ten thousand partitions takes a while.
const ADMIN_TIMEOUT: Duration = Duration::from_mins(2);

/// Timeout of metadata requests.
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of a batch beyond `batch_bytes`: for headers of the batch and its records, and a record that exceeds the limit.
const BATCH_SLACK: usize = 1 << 20;

/// Maximum size of a fetch, for one partition and in total.
const FETCH_BYTES: usize = 8 << 20;
const FETCH_BYTES_ALL: usize = 64 << 20;

/// Default meaning of an acknowledgement: Kafka replies when the record is in the page cache.
const ACKNOWLEDGEMENT: &str = "leader's page cache unless the server is configured to flush";

/// A broker or cluster with Kafka's protocol.
#[derive(Clone, Debug)]
pub struct Kafka {
    servers: String,
    acknowledgement: String,
    settings: Vec<(String, String)>,
}

impl Kafka {
    /// Creates a backend for the brokers at `servers` (`host:port,...`). The meaning of an acknowledgement depends on the server's
    /// configuration, which a client cannot see, so the caller states it. `settings` are librdkafka's, and override those derived from a
    /// scenario.
    pub fn new(servers: &str, acknowledgement: Option<&str>, settings: &[(String, String)]) -> Self {
        Self {
            servers: servers.to_owned(),
            acknowledgement: acknowledgement.unwrap_or(ACKNOWLEDGEMENT).to_owned(),
            settings: settings.to_vec(),
        }
    }

    /// Returns the configuration common to all clients.
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "highwater-bench")
            .set("allow.auto.create.topics", "false")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    fn with_settings(&self, config: &mut ClientConfig) {
        for (name, value) in &self.settings {
            config.set(name, value);
        }
    }

    /// Returns the configuration of a producer. The number of requests in flight and idempotence keep librdkafka's defaults, a million and
    /// off. With idempotence it allows five requests, and its thread spins while five are in flight, which cost a third to four fifths of
    /// the rate, the more the slower the broker. The scenario bounds the outstanding records anyway.
    fn producer_config(&self, scenario: &Scenario) -> ClientConfig {
        let producers = &scenario.producers;
        // A batch of one record is bounded by the number of records, because librdkafka includes overhead in the size.
        let batch_bytes = producers.batch_bytes.max(scenario.record.bytes + 1024);
        let batch_records = if producers.batch_records == 0 { 1_000_000 } else { producers.batch_records };
        let queued_bytes = (producers.batch_bytes + BATCH_SLACK) * 4
            + (scenario.record.bytes + 64) * scenario.load.outstanding as usize;
        let mut config = self.config();
        config
            .set("acks", "all")
            .set("batch.size", batch_bytes.to_string())
            .set("batch.num.messages", batch_records.to_string())
            .set("linger.ms", format!("{}", producers.linger_us as f64 / 1000.0))
            .set("compression.codec", codec(producers.compression))
            .set("message.max.bytes", (producers.batch_bytes + BATCH_SLACK).to_string())
            .set("queue.buffering.max.messages", (scenario.load.outstanding + 1000).to_string())
            .set(
                "queue.buffering.max.kbytes",
                (queued_bytes >> 10).clamp(64 << 10, i32::MAX as usize).to_string(),
            );
        self.with_settings(&mut config);
        config
    }

    /// Returns the configuration of a consumer. librdkafka requires a group id even without joining a group; nothing is committed.
    fn reader_config(&self) -> ClientConfig {
        let mut config = self.config();
        config.set("group.id", "highwater-bench").set("enable.auto.commit", "false");
        config
    }

    fn consumer_config(&self, scenario: &Scenario) -> ClientConfig {
        let batch_bytes = scenario.producers.batch_bytes + BATCH_SLACK;
        let mut config = self.reader_config();
        config
            .set("auto.offset.reset", "earliest")
            .set("fetch.message.max.bytes", FETCH_BYTES.max(2 * batch_bytes).to_string())
            .set("fetch.max.bytes", FETCH_BYTES_ALL.to_string())
            .set("receive.message.max.bytes", (2 * FETCH_BYTES_ALL).to_string())
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "200000")
            .set("queued.max.messages.kbytes", (FETCH_BYTES_ALL >> 10).to_string());
        self.with_settings(&mut config);
        config
    }

    fn failed(&self, what: &str, topic: &str, why: impl std::fmt::Display) -> BackendError {
        BackendError(format!(
            "cannot {what} topic {topic} on Kafka at {}: {why}. Is a broker listening there?",
            self.servers
        ))
    }

    async fn create(
        &self,
        topic: &str,
        (partitions, replicas): (u32, u8),
        settings: &[(&str, &str)],
    ) -> Result<(), BackendError> {
        let failed = |why: String| self.failed("make", topic, why);
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().map_err(|e| failed(e.to_string()))?;
        let mut wanted = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(replicas.into()));
        for (name, value) in settings {
            wanted = wanted.set(name, value);
        }
        let results = admin.create_topics([&wanted], &options()).await.map_err(|e| failed(e.to_string()))?;
        for result in results {
            result.map_err(|(_, code)| failed(code.to_string()))?;
        }
        // Kafka replies before every partition has a leader that serves requests. The first records would be rejected and retried, after
        // later ones.
        let until = Instant::now() + ADMIN_TIMEOUT;
        let config = self.reader_config();
        loop {
            let (config, name) = (config.clone(), topic.to_owned());
            match blocking(move || consumer::ends(&config, &name, partitions)).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(failed(format!("not all partitions are available: {error}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

fn codec(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
        Compression::Snappy => "snappy",
        Compression::Gzip => "gzip",
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT))
}

/// Runs a blocking function on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

impl Backend for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn acknowledgement(&self) -> String {
        self.acknowledgement.clone()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()> {
        Box::pin(async move {
            let largest = (scenario.producers.batch_bytes + BATCH_SLACK).to_string();
            let mut settings: Vec<(&str, &str)> =
                scenario.topic.config.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if !scenario.topic.config.contains_key("max.message.bytes") {
                settings.push(("max.message.bytes", &largest));
            }
            self.create(topic, (scenario.topic.partitions, scenario.topic.replicas), &settings).await
        })
    }

    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()> {
        Box::pin(self.create(topic, (partitions, 1), &[]))
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let failed = |why: String| self.failed("delete", topic, why);
            let admin: AdminClient<DefaultClientContext> =
                self.config().create().map_err(|e| failed(e.to_string()))?;
            let results =
                admin.delete_topics(&[topic], &options()).await.map_err(|e| failed(e.to_string()))?;
            for result in results {
                result.map_err(|(_, code)| failed(code.to_string()))?;
            }
            Ok(())
        })
    }

    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>> {
        let config = self.producer_config(scenario);
        Box::pin(async move {
            let acks = Arc::new(Mailbox::default());
            let context = Deliveries { acks: Arc::clone(&acks) };
            let client: ThreadedProducer<Deliveries> = config
                .create_with_context(context)
                .map_err(|e| self.failed("create a producer for", topic, e))?;
            // Connect and fetch the metadata before the first record is timed.
            let (asked, name) = (client.clone(), topic.to_owned());
            blocking(move || asked.client().fetch_metadata(Some(&name), METADATA_TIMEOUT).map(|_| ()))
                .await
                .map_err(|e| self.failed("reach", topic, e))?;
            let lingers = scenario.producers.linger_us > 0;
            let producer = KafkaProducer { client: Some(client), topic: topic.to_owned(), acks, lingers };
            Ok(Box::new(producer) as Box<dyn Producer>)
        })
    }

    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>> {
        let config = self.consumer_config(scenario);
        let partitions = scenario.topic.partitions;
        Box::pin(async move {
            let name = topic.to_owned();
            let consumer = blocking(move || KafkaConsumer::new(&config, &name, partitions, from))
                .await
                .map_err(|e| self.failed("read", topic, e))?;
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        })
    }
}
