//! `kill -9` while Kafka's clients produce and read: librdkafka's idempotent producer, and members of a group.
//!
//! 5 cycles; `HIGHWATER_KILL_CYCLES=200` for the long form.

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

use crate::checker::At;
use crate::kill::{
    Load, PARTITIONS, PATIENCE, Pending, Restarted, Sends, block_on, number_of, read_all, record,
};
use crate::support::from_environment;

/// What every client is told.
pub(crate) fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "20");
    config
}

/// Tells whoever waits for a record where it is.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<At, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok(At { partition: message.partition() as u32, offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        // A test that has failed does not wait any more.
        let _ = waiting.send(result);
    }
}

impl Sends for ThreadedProducer<Deliveries> {
    async fn send(&self, number: u64) -> Pending {
        let (key, value) = record(number);
        let (waiting, result) = oneshot::channel();
        let record = BaseRecord::with_opaque_to("t", Box::new(waiting)).key(&key).payload(&value);
        Self::send(self, record).map_err(|(error, _)| error).expect("there is room for some thousands");
        Box::pin(async move {
            let result = result.await.expect("librdkafka says what became of it");
            result.unwrap_or_else(|e| panic!("record {number} was given up: {e}"))
        })
    }
}

/// What a follower reads before it commits, and before it makes room for the next: the last records it does not commit.
const RECORDS_PER_COMMIT: usize = 100;
const RECORDS_PER_FOLLOWER: usize = 5 * RECORDS_PER_COMMIT + 50;

/// Offsets, by partition.
type Offsets = BTreeMap<i32, i64>;

/// Members of a group, one after the other: each goes on where the one before committed, reads and commits some, and goes.
struct Followers {
    /// How far they have to read, once that is known.
    ends: Arc<OnceLock<Offsets>>,
    thread: JoinHandle<usize>,
}

impl Followers {
    fn start(address: &str) -> Self {
        let ends = Arc::new(OnceLock::new());
        let mut config = config(address);
        config
            .set("group.id", "followers")
            // The next one has its place at once, also if it could not say good-bye because there was no broker.
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

    /// Waits until all is read and committed. Gives how many followers there were.
    fn finish(self, ends: Offsets) -> usize {
        self.ends.set(ends).expect("it ends once");
        self.thread.join().expect("everybody went on where the one before had committed")
    }
}

/// One follower.
fn follow(consumer: &BaseConsumer, committed: &mut Offsets, until: &OnceLock<Offsets>) {
    consumer.subscribe(&["t"]).expect("subscribed");
    let mut next = committed.clone();
    let mut seen = BTreeSet::new();
    let (mut read, mut due) = (0, false);
    while read < RECORDS_PER_FOLLOWER || due {
        let at_end = until.get() == Some(&next);
        // A commit that fails may have arrived or not; it is made again until it is certain.
        if (due || at_end) && commits(consumer, &next) {
            committed.clone_from(&next);
            due = false;
            if at_end {
                return;
            }
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match message {
            Ok(message) => message,
            // librdkafka tells of lost connections and goes on by itself.
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            )) => continue,
            Err(error) => panic!("{error}"),
        };
        number_of(message.key(), message.payload().expect("a value"));
        let place = next.entry(message.partition()).or_default();
        let first = seen.insert(message.partition());
        assert_eq!(
            message.offset(),
            *place,
            "partition {}: {}",
            message.partition(),
            if first { "it goes on where it was committed" } else { "there are no gaps" }
        );
        *place += 1;
        read += 1;
        due |= read % RECORDS_PER_COMMIT == 0;
    }
}

fn commits(consumer: &BaseConsumer, next: &Offsets) -> bool {
    let mut places = TopicPartitionList::new();
    for (partition, offset) in next {
        places.add_partition_offset("t", *partition, Offset::Offset(*offset)).expect("an offset");
    }
    consumer.commit(&places, CommitMode::Sync).is_ok()
}

#[test]
fn kafka_clients_lose_nothing_and_groups_resume_however_often_the_broker_is_killed() {
    let cycles = from_environment("HIGHWATER_KILL_CYCLES", 5);
    block_on(async {
        let restarted = Restarted::new();
        let client = Client::connect(&restarted.broker.address()).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let address = restarted.broker.kafka_address();
        let producer: ThreadedProducer<Deliveries> = config(&address)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .create_with_context(Deliveries)
            .expect("settings that librdkafka knows");
        let mut load = Load::start(producer);
        let followers = Followers::start(&address);
        let restarted = restarted.killed(cycles, &mut load).await;
        let checker = load.finish().await;
        let read = read_all(&client, "t").await;
        // Later places overwrite earlier ones.
        let ends = read.iter().map(|(at, _)| (at.partition as i32, at.offset + 1)).collect();
        let followed = tokio::task::spawn_blocking(move || followers.finish(ends)).await;
        println!("{} members of the group, one after the other", followed.expect("all was read"));
        restarted.judge(&checker, &read);
    });
}
