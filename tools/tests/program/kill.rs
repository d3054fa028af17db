//! Kills the broker repeatedly while producing, and checks that every acknowledged record survives.
//!
//! 20 cycles by default; `HIGHWATER_KILL_CYCLES=1000` for the long form.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use highwater_client::{Client, Producer, Record, Start};
use tokio::sync::watch;

use crate::checker::{Checker, Position};
use crate::support::{Broker, Guard, Place, from_environment, start_command};

pub(crate) const PARTITIONS: u32 = 4;

const KEYS: u64 = 50;

/// Delivery timeout of the producer: longer than all restarts together.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_hours(2);

/// Returns the key and value of a record. The value starts with its number. Its size varies, so that some batches are packed into shared
/// pages and others get their own.
pub(crate) fn record(number: u64) -> (Vec<u8>, Vec<u8>) {
    let filler = match number % 100 {
        0 => 150_000,
        1..10 => 3_000,
        _ => (number % 97) as usize,
    };
    let mut value = number.to_string().into_bytes();
    value.push(b' ');
    value.resize(value.len() + filler, b'a' + (number % 26) as u8);
    ((number % KEYS).to_string().into_bytes(), value)
}

/// Returns the number of a record that was read, after checking its key and value.
pub(crate) fn number_of(key: Option<&[u8]>, value: &[u8]) -> u64 {
    let digits = value.split(|b| *b == b' ').next().unwrap_or_default();
    let number =
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a leading number");
    let (expected_key, expected_value) = record(number);
    assert!(key == Some(&expected_key) && value == expected_value, "the bytes of record {number} changed");
    number
}

/// A delivery in flight. Resolves to the acknowledged position.
pub(crate) type PendingDelivery = Pin<Box<dyn Future<Output = Position> + Send>>;

/// A producer that keeps the order of records across lost connections.
pub(crate) trait OrderedProducer: Send + Sync + 'static {
    /// Sends a record. Waits for space in the producer's buffer.
    fn send(&self, number: u64) -> impl Future<Output = PendingDelivery> + Send;
}

impl OrderedProducer for Producer {
    async fn send(&self, number: u64) -> PendingDelivery {
        let (key, value) = record(number);
        let record = Record::new(value).key(key).partition((number % u64::from(PARTITIONS)) as u32);
        let delivery = Self::send(self, record).await.expect("a record within the size limit");
        Box::pin(async move {
            let receipt = delivery.await.unwrap_or_else(|e| panic!("record {number} failed: {e}"));
            let offset = receipt.offset().expect("acknowledgements are enabled").get();
            Position { partition: receipt.partition(), offset }
        })
    }
}

/// A task that produces until it is stopped, and records everything in a checker.
pub(crate) struct Load {
    acknowledged: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Checker>,
}

impl Load {
    pub(crate) fn start(client: impl OrderedProducer) -> Self {
        let (count, acknowledged) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(produce(client, count, stopping));
        Self { acknowledged, stop, task }
    }

    /// Waits until this many more records are acknowledged.
    pub(crate) async fn progress(&mut self, records: usize) {
        let goal = *self.acknowledged.borrow_and_update() + records;
        self.acknowledged.wait_for(|count| *count >= goal).await.expect("the producer is running");
    }

    /// Stops and waits for the last acknowledgement.
    pub(crate) async fn finish(self) -> Checker {
        self.stop.send_replace(true);
        self.task.await.expect("every record is eventually acknowledged")
    }
}

async fn produce(
    client: impl OrderedProducer,
    count: watch::Sender<usize>,
    stopping: watch::Receiver<bool>,
) -> Checker {
    let mut checker = Checker::default();
    let mut in_flight: VecDeque<(u64, PendingDelivery)> = VecDeque::new();
    let complete = |checker: &mut Checker, number: u64, at: Position| {
        checker.acknowledged(number, at);
        count.send_replace(checker.acknowledgements());
    };
    for number in 0.. {
        if *stopping.borrow() {
            break;
        }
        checker.sent(number);
        in_flight.push_back((number, client.send(number).await));
        // Take completed deliveries without waiting, and wait only if too many are in flight.
        while let Some((number, pending)) = in_flight.front_mut()
            && let Poll::Ready(at) = pending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            complete(&mut checker, *number, at);
            in_flight.pop_front();
        }
        if in_flight.len() > 2_000 {
            let (number, pending) = in_flight.pop_front().expect("not empty");
            complete(&mut checker, number, pending.await);
        }
    }
    for (number, pending) in in_flight {
        complete(&mut checker, number, pending.await);
    }
    checker
}

pub(crate) async fn read_all(client: &Client, topic: &str) -> Vec<(Position, u64)> {
    let mut consumer =
        client.consumer(topic).start(Start::Earliest).until_end().await.expect("a topic to read");
    let mut read = Vec::new();
    while let Some(batch) = consumer.next_batch().await.expect("all records are readable") {
        for record in &batch {
            let at = Position { partition: record.partition(), offset: record.offset().get() };
            read.push((at, number_of(record.key(), record.value())));
        }
    }
    read
}

pub(crate) fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

/// Returns how many more records are acknowledged before a kill: soon after the start, or with many in flight.
pub(crate) fn at_different_moments(cycle: usize) -> usize {
    1 + (cycle * 37) % 700
}

/// A broker that is restarted repeatedly on the same data and addresses.
pub(crate) struct RestartedBroker {
    place: Place,
    pub(crate) broker: Broker,
    /// Flags of each start, besides the addresses.
    flags: &'static [&'static str],
    /// Duration of each start.
    times: Vec<Duration>,
}

impl RestartedBroker {
    pub(crate) fn new() -> Self {
        Self::with_flags(&[])
    }

    /// Like [`Self::new`], with more flags for every start.
    pub(crate) fn with_flags(flags: &'static [&'static str]) -> Self {
        let place = Place::new();
        let broker = place.start_with(flags);
        Self { place, broker, flags, times: Vec::new() }
    }

    /// Ends the broker with `end` and starts it again.
    async fn restart(self, end: fn(Broker)) -> Self {
        let Self { place, broker, flags, mut times } = self;
        let (native, kafka) = (broker.address(), broker.kafka_address());
        let (broker, time) = tokio::task::spawn_blocking({
            let addresses = ["--listen", &native, "--kafka-listen", &kafka];
            let command = start_command(&place.data(), &[&addresses, flags].concat());
            move || {
                end(broker);
                let before = Instant::now();
                let broker = Broker::start(command)
                    .unwrap_or_else(|ended| panic!("{}", String::from_utf8_lossy(&ended.stderr)));
                (broker, before.elapsed())
            }
        })
        .await
        .expect("the restart does not panic");
        times.push(time);
        Self { place, broker, flags, times }
    }

    /// Kills and restarts the broker `cycles` times, each time after `records` more are acknowledged.
    pub(crate) async fn kill_repeatedly(
        mut self,
        cycles: usize,
        records: fn(usize) -> usize,
        load: &mut Load,
    ) -> Self {
        for cycle in 0..cycles {
            load.progress(records(cycle)).await;
            self = self.restart(Broker::kill).await;
        }
        load.progress(100).await;
        self
    }

    /// Asserts that the records read are exactly those acknowledged, and stops the broker.
    pub(crate) fn verify(self, checker: &Checker, read: &[(Position, u64)]) {
        checker.check(read).assert_none();
        assert_eq!(read.len(), checker.acknowledgements(), "every record sent was acknowledged");
        self.stop(read.len());
    }

    /// Reports the restarts, and stops the broker.
    pub(crate) fn stop(mut self, acknowledged: usize) {
        self.times.sort();
        println!(
            "{} restarts, {acknowledged} records acknowledged; a start took: median {:?}, longest {:?}",
            self.times.len(),
            self.times[self.times.len() / 2],
            self.times[self.times.len() - 1],
        );
        self.broker.stop();
    }
}

#[test]
fn no_acknowledged_record_is_lost_or_duplicated_however_often_the_broker_is_killed() {
    let cycles = from_environment("HIGHWATER_KILL_CYCLES", 20);
    block_on(async {
        let restarted = RestartedBroker::new();
        let client = Client::connect(&restarted.broker.address()).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let producer = client.producer("t").delivery_timeout(DELIVERY_TIMEOUT).buffer_bytes(4 << 20).await;
        let mut load = Load::start(producer.expect("a producer"));
        let restarted = restarted.kill_repeatedly(cycles, at_different_moments, &mut load).await;
        let checker = load.finish().await;
        restarted.verify(&checker, &read_all(&client, "t").await);
    });
}

#[test]
fn produce_continues_after_a_kill_and_writes_each_line_once() {
    const LINES: usize = 200_000;
    let place = Place::new();
    let broker = place.start();
    let address = broker.address();
    broker.run(&["topic", "create", "t", "--partitions", "3"], b"");
    let mut produce = broker
        .command(&["produce", "t", "--key-separator", ":"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let guard = Guard::new(&produce);
    let mut stdin = produce.stdin.take().expect("stdin is piped");
    let mut text = Vec::new();
    for i in 0..LINES {
        writeln!(text, "k{}:{i}", i % 1000).expect("writing to memory does not fail");
    }
    let (half, rest) = text.split_at(text.len() / 2);
    stdin.write_all(half).expect("produce reads");
    // Some records have arrived, and more are in flight.
    let mut follow = broker
        .command(&["consume", "t", "--limit", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let seen = BufReader::new(follow.stdout.take().expect("stdout is piped")).lines().count();
    assert_eq!(seen, 1000);
    let _ = follow.wait();
    broker.kill();
    let broker = place.start_with(&["--listen", &address]);
    stdin.write_all(rest).expect("produce reads");
    drop(stdin);
    let status = produce.wait().expect("a child can be waited for");
    guard.release();
    assert!(status.success(), "{status}");
    let mut read: Vec<usize> = String::from_utf8(broker.run(&["consume", "t"], b""))
        .expect("text")
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    read.sort_unstable();
    assert!(read.into_iter().eq(0..LINES), "every line exactly once");
    broker.stop();
}

#[test]
fn a_stop_while_producing_loses_nothing_and_exits_with_zero() {
    block_on(async {
        let mut restarted = RestartedBroker::new();
        let client = Client::connect(&restarted.broker.address()).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let producer = client.producer("t").delivery_timeout(DELIVERY_TIMEOUT).await.expect("a producer");
        let mut load = Load::start(producer);
        for _ in 0..3 {
            load.progress(500).await;
            restarted = restarted.restart(Broker::stop).await;
        }
        load.progress(100).await;
        let checker = load.finish().await;
        restarted.verify(&checker, &read_all(&client, "t").await);
    });
}
