//! `kill -9` while producing, again and again, with a checker that remembers every acknowledgement.
//!
//! 20 cycles; `HIGHWATER_KILL_CYCLES=1000` for the long form.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater_client::{Client, Delivery, ProduceError, Producer, Receipt, Record, Start};
use tokio::sync::watch;

use crate::checker::{At, Checker};
use crate::support::{Broker, Guard, Place, from_environment, start_command};

const PARTITIONS: u32 = 4;

/// How long the producer tries for a record: longer than all restarts together.
const PATIENCE: Duration = Duration::from_hours(2);

/// A record carries its number, and then so many bytes that batches of every kind occur: packed into pages, and in pages of their own.
fn record(number: u64) -> Record {
    let filler = match number % 100 {
        0 => 150_000,
        1..10 => 3_000,
        _ => (number % 97) as usize,
    };
    let mut value = number.to_string().into_bytes();
    value.push(b' ');
    value.resize(value.len() + filler, b'a' + (number % 26) as u8);
    Record::new(value).partition((number % u64::from(PARTITIONS)) as u32)
}

fn number_of(value: &[u8]) -> u64 {
    let digits = value.split(|b| *b == b' ').next().unwrap_or_default();
    let number =
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a number in front");
    assert_eq!(record(number).value(), Some(value), "the bytes of record {number} changed");
    number
}

/// Produces until told to stop, and tells the checker of everything.
struct Load {
    acknowledged: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Checker>,
}

impl Load {
    fn start(producer: Producer) -> Self {
        let (count, acknowledged) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(produce(producer, count, stopping));
        Self { acknowledged, stop, task }
    }

    /// Waits until this many more are acknowledged.
    async fn progress(&mut self, records: usize) {
        let goal = *self.acknowledged.borrow_and_update() + records;
        self.acknowledged.wait_for(|count| *count >= goal).await.expect("the producer goes on");
    }

    /// Stops and waits for the last acknowledgement.
    async fn finish(self) -> Checker {
        self.stop.send_replace(true);
        self.task.await.expect("every record is acknowledged in the end")
    }
}

async fn produce(
    producer: Producer,
    count: watch::Sender<usize>,
    stopping: watch::Receiver<bool>,
) -> Checker {
    let mut checker = Checker::default();
    let mut in_flight: VecDeque<(u64, Delivery)> = VecDeque::new();
    let note = |checker: &mut Checker, number: u64, result: Result<Receipt, ProduceError>| {
        let receipt = result.unwrap_or_else(|e| panic!("record {number} was given up: {e}"));
        let offset = receipt.offset().expect("there are acknowledgements").get();
        checker.acknowledged(number, At { partition: receipt.partition(), offset });
        count.send_replace(checker.acknowledgements());
    };
    for number in 0.. {
        if *stopping.borrow() {
            break;
        }
        checker.sent(number);
        let delivery = producer.send(record(number)).await.expect("records of a size that is allowed");
        in_flight.push_back((number, delivery));
        // Others may go on meanwhile: what is known is noted, and now and then one is waited for.
        while let Some(result) = in_flight.front().and_then(|(_, delivery)| delivery.result()) {
            let (number, _) = in_flight.pop_front().expect("it is there");
            note(&mut checker, number, result);
        }
        if in_flight.len() > 2_000 {
            let (number, delivery) = in_flight.pop_front().expect("there are many");
            note(&mut checker, number, delivery.await);
        }
    }
    for (number, delivery) in in_flight {
        note(&mut checker, number, delivery.await);
    }
    checker
}

async fn read_all(client: &Client, topic: &str) -> Vec<(At, u64)> {
    let mut consumer =
        client.consumer(topic).start(Start::Earliest).until_end().await.expect("a topic to read");
    let mut read = Vec::new();
    while let Some(batch) = consumer.next_batch().await.expect("all of it can be read") {
        for record in &batch {
            let at = At { partition: record.partition(), offset: record.offset().get() };
            read.push((at, number_of(record.value())));
        }
    }
    read
}

#[test]
fn no_acknowledged_record_is_lost_or_doubled_however_often_the_broker_is_killed() {
    let cycles = from_environment("HIGHWATER_KILL_CYCLES", 20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = Place::new();
        let mut broker = place.start();
        let address = broker.address();
        let client = Client::connect(&address).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let producer = client.producer("t").delivery_timeout(PATIENCE).buffer_bytes(4 << 20).await;
        let mut load = Load::start(producer.expect("a producer"));
        let mut restarts = Vec::new();
        for cycle in 0..cycles {
            // Different moments: soon after the start, and with much in flight.
            load.progress(1 + (cycle * 37) % 700).await;
            broker.kill();
            let before = Instant::now();
            let restart = start_command(&place.data(), &["--listen", &address]);
            broker = tokio::task::spawn_blocking(move || Broker::start(restart))
                .await
                .expect("no panic")
                .unwrap_or_else(|ended| panic!("cycle {cycle}: {}", String::from_utf8_lossy(&ended.stderr)));
            restarts.push(before.elapsed());
        }
        load.progress(100).await;
        let checker = load.finish().await;
        let read = read_all(&client, "t").await;
        checker.judge(&read).assert_clean();
        restarts.sort();
        println!(
            "{cycles} kills, {} records acknowledged, {} read; start after a kill: median {:?}, longest {:?}",
            checker.acknowledgements(),
            read.len(),
            restarts[restarts.len() / 2],
            restarts[restarts.len() - 1],
        );
        assert_eq!(read.len(), checker.acknowledgements(), "everything sent was acknowledged in the end");
        broker.stop();
    });
}

#[test]
fn produce_carries_on_through_a_kill_and_its_lines_are_there_once() {
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
        writeln!(text, "k{}:{i}", i % 1000).expect("memory can be written");
    }
    let (half, rest) = text.split_at(text.len() / 2);
    stdin.write_all(half).expect("produce reads");
    // Something has arrived, and more is on its way.
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
    assert!(read.into_iter().eq(0..LINES), "every line once");
    broker.stop();
}

#[test]
fn a_stop_while_producing_loses_nothing_and_exits_with_zero() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = Place::new();
        let mut broker = place.start();
        let address = broker.address();
        let client = Client::connect(&address).await.expect("the broker is ready");
        client.create_topic("t").partitions(PARTITIONS).await.expect("a new topic");
        let producer = client.producer("t").delivery_timeout(PATIENCE).await.expect("a producer");
        let mut load = Load::start(producer);
        for _ in 0..3 {
            load.progress(500).await;
            let stopped = tokio::task::spawn_blocking(move || broker.stop());
            stopped.await.expect("a broker drains and exits with 0");
            let restart = start_command(&place.data(), &["--listen", &address]);
            let started = tokio::task::spawn_blocking(move || Broker::start(restart));
            broker = started.await.expect("no panic").unwrap_or_else(|ended| {
                panic!("{}", String::from_utf8_lossy(&ended.stderr));
            });
        }
        load.progress(100).await;
        let checker = load.finish().await;
        checker.judge(&read_all(&client, "t").await).assert_clean();
        broker.stop();
    });
}
