//! Helpers for librdkafka's clients.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_engine::TestBroker;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};

/// Timeout of any operation. Test results do not depend on time otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(2);

/// Timeout of a single poll.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns the configuration common to all clients, with these settings.
pub(crate) fn config(address: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("client.id", "highwater-tests")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        // Interval of metadata requests for a topic that was just created.
        .set("topic.metadata.refresh.fast.interval.ms", "20");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

pub(crate) fn client<T: FromClientConfig>(broker: &TestBroker, settings: &[(&str, &str)]) -> T {
    config(&broker.kafka_address(), settings).create().expect("settings that librdkafka knows")
}

/// Calls `attempt` until it returns a value.
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {TIMEOUT:?}");
    }
}

/// Fetches the metadata of the broker, and of a topic or of all topics.
pub(crate) fn metadata(broker: &TestBroker, topic: Option<&str>) -> Metadata {
    let consumer: BaseConsumer = client(broker, &[("allow.auto.create.topics", "true")]);
    // librdkafka closes its bootstrap connection once it knows the broker's id, and requests on it fail.
    wait_for("metadata", || consumer.fetch_metadata(topic, TIMEOUT).ok())
}

/// Runs a future to completion.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// A record, independent of the client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Row {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
}

impl Row {
    /// Creates a record with a key, numbered by `number`.
    pub(crate) fn keyed(key: &str, number: usize) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(format!("{number} of {key}").into()),
            headers: Vec::new(),
            timestamp: 1_700_000_000_000 + number as i64,
        }
    }

    pub(crate) fn of_message(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
        }
    }
}

/// A record with its partition and offset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Placed {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) row: Row,
}

/// Outcome of a record: partition and offset, or an error.
pub(crate) type Delivered = Result<(i32, i64), RDKafkaErrorCode>;

/// Collects the outcomes of records, with their numbers.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(usize, Delivered)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().expect("an error code")),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
    }
}

/// A producer that collects the outcomes of its records.
pub(crate) struct Sender {
    client: BaseProducer<Deliveries>,
    sent: usize,
}

impl Sender {
    pub(crate) fn new(broker: &TestBroker, settings: &[(&str, &str)]) -> Self {
        let config = config(&broker.kafka_address(), settings);
        let client =
            config.create_with_context(Deliveries::default()).expect("settings that librdkafka knows");
        Self { client, sent: 0 }
    }

    pub(crate) fn send(&mut self, topic: &str, partition: Option<i32>, row: &Row) {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, self.sent);
        record.partition = partition;
        record.key = row.key.as_deref();
        record.payload = row.value.as_deref();
        record.timestamp = Some(row.timestamp);
        if !row.headers.is_empty() {
            let headers = row.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_ref() })
            });
            record.headers = Some(headers);
        }
        self.client
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the queue has space for a test's records");
        self.sent += 1;
    }

    /// Waits for all records sent since the last call. Returns their outcomes in the order of sending.
    pub(crate) fn finish(&mut self) -> Vec<Delivered> {
        self.client.flush(TIMEOUT).expect("librdkafka reports every delivery");
        let mut done =
            std::mem::take(&mut *self.client.context().0.lock().unwrap_or_else(PoisonError::into_inner));
        assert_eq!(done.len(), std::mem::take(&mut self.sent), "each record is reported once");
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Sends records and waits until they are acknowledged. Returns them with their positions.
    pub(crate) fn deliver(&mut self, topic: &str, rows: &[Row]) -> Vec<Placed> {
        for row in rows {
            self.send(topic, None, row);
        }
        let outcomes = self.finish().into_iter().zip(rows);
        outcomes
            .map(|(result, row)| {
                let (partition, offset) = result.expect("acknowledged");
                Placed { partition, offset, row: row.clone() }
            })
            .collect()
    }
}

/// Polls for the next record, for at most [`POLL_TIMEOUT`].
pub(crate) fn poll<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Placed> {
    match consumer.poll(POLL_TIMEOUT)? {
        Ok(message) => Some(Placed {
            partition: message.partition(),
            offset: message.offset(),
            row: Row::of_message(&message),
        }),
        // librdkafka reports lost connections, and reconnects by itself.
        Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
        )) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Reads the next `count` records, in the order received.
pub(crate) fn read<C: ConsumerContext>(consumer: &BaseConsumer<C>, count: usize) -> Vec<Placed> {
    let next = || wait_for("the next record", || poll(consumer));
    std::iter::repeat_with(next).take(count).collect()
}

/// Creates a consumer without a group that starts at these offsets.
pub(crate) fn reader(broker: &TestBroker, topic: &str, from: &[(i32, rdkafka::Offset)]) -> BaseConsumer {
    // librdkafka requires a group id even without joining a group; nothing is committed.
    let consumer: BaseConsumer =
        client(broker, &[("group.id", "none"), ("enable.auto.commit", "false"), ("fetch.wait.max.ms", "50")]);
    consumer.assign(&partition_list(topic, from)).expect("partitions to read");
    consumer
}

/// Reads all records of a topic, sorted by partition and offset.
pub(crate) fn read_all(broker: &TestBroker, topic: &str, partitions: i32) -> Vec<Placed> {
    let from: Vec<_> = (0..partitions).map(|partition| (partition, rdkafka::Offset::Beginning)).collect();
    let consumer = reader(broker, topic, &from);
    let ends = (0..partitions).map(|partition| {
        let (start, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT).expect("its offsets");
        (end - start) as usize
    });
    let mut all = read(&consumer, ends.sum());
    all.sort();
    all
}

pub(crate) fn partition_list(topic: &str, at: &[(i32, rdkafka::Offset)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in at {
        list.add_partition_offset(topic, *partition, *offset).expect("an offset");
    }
    list
}

/// Returns the offsets in a list.
pub(crate) fn offsets_in(list: &TopicPartitionList) -> Vec<rdkafka::Offset> {
    list.elements().iter().map(TopicPartitionListElem::offset).collect()
}

/// Asserts that the records have these offsets, in order.
#[track_caller]
pub(crate) fn assert_offsets(rows: &[Placed], expected: std::ops::Range<i64>) {
    let found: Vec<i64> = rows.iter().map(|placed| placed.offset).collect();
    assert_eq!(found, expected.collect::<Vec<i64>>());
}
