//! Kills the broker repeatedly while Kafka clients work: librdkafka's idempotent producer, and members of a group.
//!
//! 5 cycles by default; `HIGHWATER_KILL_CYCLES=200` for the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use highwater_client::Client;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use crate::checker::Position;
use crate::kill::{
    DELIVERY_TIMEOUT, Load, OrderedProducer, PARTITIONS, PendingDelivery, RestartedBroker,
    at_different_moments, block_on, number_of, read_all, record,
};
use crate::support::from_environment;

/// Returns the configuration common to all clients.
pub(crate) fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "20");
    config
}

/// Sends each delivery report to the future that waits for it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Position, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok(Position { partition: message.partition() as u32, offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        // The receiver is dropped if the test has failed.
        let _ = waiting.send(result);
    }
}

impl OrderedProducer for ThreadedProducer<Deliveries> {
    async fn send(&self, number: u64) -> PendingDelivery {
        let (key, value) = record(number);
        let (waiting, result) = oneshot::channel();
        let record = BaseRecord::with_opaque_to("t", Box::new(waiting)).key(&key).payload(&value);
        Self::send(self, record)
            .map_err(|(error, _)| error)
            .expect("the queue has space for thousands of records");
        Box::pin(async move {
            let result = result.await.expect("librdkafka reports every delivery");
            result.unwrap_or_else(|e| panic!("record {number} failed: {e}"))
        })
    }
}

/// Number of records that a follower reads between commits, and in all. It leaves without committing the last 50.
const RECORDS_PER_COMMIT: usize = 100;
const RECORDS_PER_FOLLOWER: usize = 5 * RECORDS_PER_COMMIT + 50;

/// Offsets, by partition.
type Offsets = BTreeMap<i32, i64>;

/// A sequence of group members. Each resumes at the commits of its predecessor, reads and commits some records, and leaves.
struct Followers {
    /// End offsets of the partitions, set once they are known.
    ends: Arc<OnceLock<Offsets>>,
    thread: JoinHandle<usize>,
}

impl Followers {
    fn start(address: &str) -> Self {
        let ends = Arc::new(OnceLock::new());
        let mut config = config(address);
        config
            .set("group.id", "followers")
            // A static member gets its partitions at once, even if its predecessor could not leave because the broker was down.
            .set("group.instance.id", "follower")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false");
        let until = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut committed = Offsets::new();
            let mut followers = 0;
            while until.get() != Some(&committed) {
                let consumer = config.create().expect("settings that librdkafka knows");
                follow(&consumer, &mut committed, &until);
                followers += 1;
            }
            followers
        });
        Self { ends, thread }
    }

    /// Waits until everything is read and committed. Returns the number of followers.
    fn finish(self, ends: Offsets) -> usize {
        self.ends.set(ends).expect("`finish` is called once");
        self.thread.join().expect("every follower resumed at its predecessor's commits")
    }
}

/// Runs one follower.
fn follow(consumer: &BaseConsumer, committed: &mut Offsets, until: &OnceLock<Offsets>) {
    consumer.subscribe(&["t"]).expect("subscribed");
    let mut next = committed.clone();
    let mut seen = BTreeSet::new();
    let (mut read, mut due) = (0, false);
    while read < RECORDS_PER_FOLLOWER || due {
        let at_end = until.get() == Some(&next);
        // A failed commit may or may not have been applied, so it is retried until it succeeds.
        if (due || at_end) && commit(consumer, &next) {
            committed.clone_from(&next);
            due = false;
            if at_end {
                return;
            }
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match message {
            Ok(message) => message,
            // librdkafka reports lost connections, and reconnects by itself.
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            )) => continue,
            Err(error) => panic!("{error}"),
        };
        number_of(message.key(), message.payload().expect("a value"));
        let expected = next.entry(message.partition()).or_default();
        let first = seen.insert(message.partition());
        assert_eq!(
            message.offset(),
            *expected,
            "partition {}: {}",
            message.partition(),
            if first { "it resumes at the committed offset" } else { "there are no gaps" }
        );
        *expected += 1;
        read += 1;
        due |= read % RECORDS_PER_COMMIT == 0;
    }
}

fn commit(consumer: &BaseConsumer, next: &Offsets) -> bool {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset("t", *partition, Offset::Offset(*offset)).expect("an offset");
    }
    consumer.commit(&offsets, CommitMode::Sync).is_ok()
}

#[test]
fn kafka_clients_lose_nothing_and_groups_resume_however_often_the_broker_is_killed() {
    let cycles = from_environment("HIGHWATER_KILL_CYCLES", 5);
    block_on(async {
        let restarted = RestartedBroker::new();
        let client = Client::connect(&restarted.broker.address()).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let address = restarted.broker.kafka_address();
        let producer: ThreadedProducer<Deliveries> = config(&address)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .create_with_context(Deliveries)
            .expect("settings that librdkafka knows");
        let mut load = Load::start(producer);
        let followers = Followers::start(&address);
        let restarted = restarted.kill_repeatedly(cycles, at_different_moments, &mut load).await;
        let checker = load.finish().await;
        let read = read_all(&client, "t").await;
        // Later offsets overwrite earlier ones.
        let ends = read.iter().map(|(at, _)| (at.partition as i32, at.offset + 1)).collect();
        let followed = tokio::task::spawn_blocking(move || followers.finish(ends)).await;
        println!("{} successive members of the group", followed.expect("everything was read"));
        restarted.verify(&checker, &read);
    });
}
