//! Any broker that speaks Kafka's protocol, through librdkafka.
//!
//! librdkafka has threads of its own and copies what it is given: that is part of what this client costs, and the report counts it
//! as the generator's processor time. Delivery reports come on one thread a producer, and go to its task through a mailbox.

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

/// How long requests about topics may take: making ten thousand partitions takes a while.
const ADMIN_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a metadata request may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// What a batch may be larger than the records in it: headers of the batch and of its records, and a record over the limit.
const BATCH_SLACK: usize = 1 << 20;

/// Bytes that a consumer asks for at once, of one partition and in all.
const FETCH_BYTES: usize = 8 << 20;
const FETCH_BYTES_ALL: usize = 64 << 20;

/// What an acknowledgement means if nobody says: Kafka answers when the record is in the page cache.
const ACKNOWLEDGEMENT: &str = "leader's page cache unless the server is configured to flush";

/// A broker, or a cluster, that speaks Kafka's protocol.
#[derive(Clone, Debug)]
pub struct Kafka {
    servers: String,
    acknowledgement: String,
    settings: Vec<(String, String)>,
}

impl Kafka {
    /// The brokers at `servers` (`host:port,...`). What an acknowledgement means is the server's configuration, which a client cannot
    /// see: whoever started the server says it. `settings` are librdkafka's, and win over those made from a scenario.
    pub fn new(servers: &str, acknowledgement: Option<&str>, settings: &[(String, String)]) -> Self {
        Self {
            servers: servers.to_owned(),
            acknowledgement: acknowledgement.unwrap_or(ACKNOWLEDGEMENT).to_owned(),
            settings: settings.to_vec(),
        }
    }

    /// What all clients have in common.
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

    /// Requests in flight and idempotence stay as librdkafka has them, a million and off: with idempotence it allows five, and while
    /// five are out its thread spins. That took a third to four fifths of the rate, more the longer the broker takes. Records that are
    /// outstanding are bounded by the scenario anyway.
    fn producer_config(&self, scenario: &Scenario) -> ClientConfig {
        let producers = &scenario.producers;
        // The number of records is what bounds a batch of one: librdkafka counts what surrounds a record too.
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

    /// librdkafka wants a group's name of a consumer that joins none; nothing is committed under it.
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
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<(), BackendError> {
        let failed = |why: String| self.failed("make", topic, why);
        let admin: AdminClient<DefaultClientContext> =
            self.config().create().map_err(|e| failed(e.to_string()))?;
        let mut wanted = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1));
        for (name, value) in settings {
            wanted = wanted.set(name, value);
        }
        let results = admin.create_topics([&wanted], &options()).await.map_err(|e| failed(e.to_string()))?;
        for result in results {
            result.map_err(|(_, code)| failed(code.to_string()))?;
        }
        // The answer comes before every partition has a leader, and leaders before they serve: the first records would be refused and
        // tried again, behind others.
        let until = Instant::now() + ADMIN_TIMEOUT;
        let config = self.reader_config();
        loop {
            let (config, name) = (config.clone(), topic.to_owned());
            match blocking(move || consumer::ends(&config, &name, partitions)).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(failed(format!("not all its partitions serve: {error}")));
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

/// Runs what blocks on a thread for such things.
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
            self.create(topic, scenario.topic.partitions, &settings).await
        })
    }

    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()> {
        Box::pin(self.create(topic, partitions, &[]))
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
                .map_err(|e| self.failed("make a producer for", topic, e))?;
            // Connected and with the topic's metadata, before the first record is timed.
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
