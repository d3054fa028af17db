//! Group members and a real broker in the same process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use highwater_client::{
    Client, CommitErrorKind, Event, FetchErrorKind, GroupConsumer, Offset, Record, Start,
};
use highwater_engine::{Broker, BrokerConfig, HostKind};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

struct TestBed {
    /// Declared before the directory, because the broker must stop before its files are deleted.
    broker: Broker,
    _data: tempfile::TempDir,
}

impl TestBed {
    /// Starts a broker with two shards and short group timeouts.
    fn new(session_timeout: Duration) -> Self {
        let data = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerConfig {
            data_dir: data.path().to_owned(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            kafka_listen: Vec::new(),
            cores: Some(2),
            memory_bytes: Some(256 << 20),
            host: HostKind::Thread,
            stop_on_signals: false,
            group_heartbeat_interval: Duration::from_millis(20),
            group_session_timeout: session_timeout,
            ..BrokerConfig::default()
        });
        Self { broker: broker.unwrap(), _data: data }
    }

    async fn client(&self) -> Client {
        Client::connect(self.broker.native_addr().to_string()).await.unwrap()
    }
}

/// A session timeout that does not expire during a test, however slow the machine is.
const LONG: Duration = Duration::from_mins(5);

/// A member that processes batches until it is told to stop, and then leaves. It sends what it received to the
/// receiver.
struct Worker {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

type Seen = (String, u32, u64);

async fn worker(
    client: &Client,
    topics: &[&str],
    name: u64,
    seen: mpsc::UnboundedSender<(u64, Seen)>,
) -> Worker {
    let mut builder = client.consumer(topics[0]).group("billing").start(Start::Earliest);
    for topic in &topics[1..] {
        builder = builder.topic(*topic);
    }
    spawn_worker(builder.await.unwrap(), name, seen)
}

fn spawn_worker(mut consumer: GroupConsumer, name: u64, seen: mpsc::UnboundedSender<(u64, Seen)>) -> Worker {
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        loop {
            let batch = tokio::select! {
                // First, even when stopping: the call marks the previous batch as processed.
                biased;
                batch = consumer.next_batch() => batch.unwrap().unwrap(),
                _ = &mut stopped => break,
            };
            for record in &batch {
                let number = std::str::from_utf8(record.value()).unwrap().parse().unwrap();
                seen.send((name, (batch.topic().to_owned(), record.partition(), number))).unwrap();
            }
        }
        consumer.close().await.unwrap();
    });
    Worker { stop, task }
}

/// Waits until the group has this many members, each with its target assignment.
async fn settled(client: &Client, members: usize) -> Vec<usize> {
    loop {
        let group = client.describe_group("billing").await.unwrap();
        let is_there = group.members.iter().all(|m| m.assignment == m.target);
        if group.state == "Stable" && group.members.len() == members && is_there {
            let counts = group.members.iter().map(|m| m.assignment.values().map(Vec::len).sum());
            return counts.collect();
        }
        // The broker may be too busy to answer.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn send(client: &Client, topic: &str, numbers: std::ops::Range<u64>) {
    let producer = client.producer(topic).await.unwrap();
    for n in numbers {
        producer.send(Record::new(n.to_string()).key(n.to_string())).await.unwrap();
    }
    producer.close(Duration::from_mins(1)).await.unwrap();
}

/// Receives until all these numbers were seen. Returns how often each was.
async fn until_all(
    seen: &mut mpsc::UnboundedReceiver<(u64, Seen)>,
    counts: &mut BTreeMap<(String, u64), u32>,
    topic: &str,
    numbers: std::ops::Range<u64>,
) {
    let has_all = |counts: &BTreeMap<(String, u64), u32>| {
        numbers.clone().all(|n| counts.contains_key(&(topic.to_owned(), n)))
    };
    while !has_all(counts) {
        let (_, (topic, _, number)) = seen.recv().await.unwrap();
        *counts.entry((topic, number)).or_default() += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_and_leave_share_partitions_and_get_each_record_once() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").partitions(6).await.unwrap();
    client.create_topic("returns").partitions(3).await.unwrap();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut counts = BTreeMap::new();
    let topics = ["orders", "returns"];
    let first = worker(&client, &topics, 1, sender.clone()).await;
    send(&client, "orders", 0..500).await;
    until_all(&mut seen, &mut counts, "orders", 0..500).await;
    assert_eq!(settled(&client, 1).await, [9]);
    let members = client.describe_group("billing").await.unwrap().members;
    let all = BTreeMap::from([("orders".into(), (0..6).collect()), ("returns".into(), (0..3).collect())]);
    assert_eq!(members[0].assignment, all, "topics are named");
    assert_eq!(members[0].target, all);
    let other_client = place.client().await;
    let second = worker(&other_client, &topics, 2, sender.clone()).await;
    send(&client, "orders", 500..1000).await;
    send(&client, "returns", 0..500).await;
    let mut shares = settled(&client, 2).await;
    shares.sort_unstable();
    assert_eq!(shares, [4, 5]);
    let third = worker(&other_client, &topics, 3, sender.clone()).await;
    send(&client, "orders", 1000..1500).await;
    assert_eq!(settled(&client, 3).await, [3, 3, 3]);
    first.stop.send(()).unwrap();
    send(&client, "orders", 1500..2000).await;
    first.task.await.unwrap();
    settled(&client, 2).await;
    second.stop.send(()).unwrap();
    second.task.await.unwrap();
    assert_eq!(settled(&client, 1).await, [9], "who leaves gives everything up at once");
    until_all(&mut seen, &mut counts, "orders", 0..2000).await;
    until_all(&mut seen, &mut counts, "returns", 0..500).await;
    third.stop.send(()).unwrap();
    third.task.await.unwrap();
    drop(sender);
    while let Some((_, (topic, _, number))) = seen.recv().await {
        *counts.entry((topic, number)).or_default() += 1;
    }
    assert_eq!(counts.len(), 2500);
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let positions = client.list_group_offsets("billing").await.unwrap();
    assert_eq!(positions.values().map(|offset| offset.get()).sum::<i64>(), 2500);
}

#[tokio::test]
async fn partitions_of_a_dead_member_are_reassigned_after_the_session_timeout() {
    let place = TestBed::new(Duration::from_secs(1));
    let client = place.client().await;
    client.create_topic("orders").partitions(4).await.unwrap();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let dying_client = place.client().await;
    let mut dying = dying_client.consumer("orders").group("billing").start(Start::Earliest).await.unwrap();
    let live = worker(&client, &["orders"], 1, sender).await;
    // It must ask for batches, or it releases nothing.
    let shares = tokio::select! {
        shares = settled(&client, 2) => shares,
        batch = dying.next_batch() => panic!("nothing was sent yet: {batch:?}"),
    };
    assert_eq!(shares, [2, 2]);
    // It receives something and dies in the middle of it. On a slow machine it may be out of the group for a while, and
    // the other member reads everything.
    let (got, mut enough) = oneshot::channel();
    let sender = client.clone();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while enough.try_recv() == Err(TryRecvError::Empty) {
            send(&sender, "orders", sent..sent + 200).await;
            sent += 200;
        }
        sent
    });
    dying.next_batch().await.unwrap().unwrap();
    dying_client.close();
    got.send(()).unwrap();
    let sent = sending.await.unwrap();
    let mut counts = BTreeMap::new();
    until_all(&mut seen, &mut counts, "orders", 0..sent).await;
    assert_eq!(settled(&client, 1).await, [4]);
    let error = loop {
        match dying.next_batch().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is told why"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), FetchErrorKind::Closed, "{error}");
    live.stop.send(()).unwrap();
    live.task.await.unwrap();
}

#[tokio::test]
async fn a_member_that_processes_for_too_long_is_removed_cannot_commit_and_rejoins() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").partitions(2).await.unwrap();
    send(&client, "orders", 0..100).await;
    let mut events = client.events();
    let slow = client.consumer("orders").group("billing").start(Start::Earliest).manual_commit();
    let mut slow = slow.rebalance_timeout(Duration::from_millis(100)).await.unwrap();
    // From the partition that it will have to release.
    let in_hand = loop {
        let batch = slow.next_batch().await.unwrap().unwrap();
        if batch.partition() == 1 {
            break batch;
        }
    };
    let (sender, mut seen) = mpsc::unbounded_channel();
    let quick_client = place.client().await;
    let quick = worker(&quick_client, &["orders"], 1, sender.clone()).await;
    // The batch is kept, so the group continues without its member. Nothing else would make the member release the
    // partition.
    let mut released = 0;
    while released < 2 {
        released += u32::from(matches!(events.next().await.unwrap(), Event::PartitionReleased { .. }));
    }
    let error = in_hand.commit().await.unwrap_err();
    assert_eq!(error.kind(), CommitErrorKind::Fenced, "{error}");
    drop(in_hand);
    // It may rejoin before the other member has read everything, so that both read some uncommitted records.
    let slow = spawn_worker(slow, 2, sender);
    let mut counts = BTreeMap::new();
    until_all(&mut seen, &mut counts, "orders", 0..100).await;
    assert_eq!(settled(&client, 2).await, [1, 1]);
    for member in [quick, slow] {
        member.stop.send(()).unwrap();
        member.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_group_continues_at_its_committed_position_and_can_stop_at_the_end() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").partitions(3).await.unwrap();
    for round in 0..3 {
        send(&client, "orders", round * 100..(round + 1) * 100).await;
        let member = client.consumer("orders").start(Start::Earliest).until_end().group("billing");
        let mut consumer = member.await.unwrap();
        let mut numbers = Vec::new();
        while let Some(batch) = consumer.next_batch().await.unwrap() {
            let values =
                batch.iter().map(|r| std::str::from_utf8(r.value()).unwrap().parse::<u64>().unwrap());
            numbers.extend(values);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (round * 100..(round + 1) * 100).collect::<Vec<_>>());
        consumer.close().await.unwrap();
    }
    assert_eq!(client.list_groups().await.unwrap()[0].state, "Empty");
    client.delete_group("billing").await.unwrap();
    assert!(client.list_groups().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_last_batch_before_the_end_counts_only_if_it_was_committed() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").await.unwrap();
    send(&client, "orders", 0..10).await;
    let group = || client.consumer("orders").group("billing").start(Start::Earliest);
    for _ in 0..2 {
        let mut consumer = group().await.unwrap();
        assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(0));
        consumer.close().await.unwrap();
    }
    let mut consumer = group().await.unwrap();
    let mut count = 0;
    while count < 10 {
        count += consumer.next_batch().await.unwrap().unwrap().len();
    }
    consumer.commit().await.unwrap();
    consumer.close().await.unwrap();
    let positions = client.list_group_offsets("billing").await.unwrap();
    assert_eq!(positions.into_values().collect::<Vec<_>>(), [Offset(10)]);
}

#[tokio::test]
async fn a_topic_that_is_recreated_while_commits_are_pending_is_read_again() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").partitions(2).await.unwrap();
    client.create_topic("returns").partitions(2).await.unwrap();
    send(&client, "orders", 0..100).await;
    let group = client.consumer("orders").group("billing").topic("returns").start(Start::Earliest);
    let mut consumer = group.auto_commit_interval(Duration::from_hours(1)).await.unwrap();
    // From both partitions, so that there is something to commit wherever they are assigned.
    let mut partitions = BTreeSet::new();
    while partitions.len() < 2 {
        partitions.insert(consumer.next_batch().await.unwrap().unwrap().partition());
    }
    client.delete_topic("orders").await.unwrap();
    client.create_topic("orders").partitions(2).await.unwrap();
    send(&client, "orders", 1000..1001).await;
    send(&client, "returns", 0..1).await;
    let mut new = BTreeSet::new();
    while new.len() < 2 {
        match consumer.next_batch().await {
            Ok(Some(batch)) => {
                let numbers = batch.iter().map(|r| std::str::from_utf8(r.value()).unwrap().parse().unwrap());
                let seen = numbers.map(|number: u64| (batch.topic().to_owned(), number));
                new.extend(seen.filter(|(topic, number)| topic == "returns" || *number >= 1000));
            }
            Ok(None) => panic!("it has no end"),
            // The member may learn that the topic is gone before the group assigns the new one.
            Err(error) => assert_eq!(error.kind(), FetchErrorKind::UnknownTopic, "{error}"),
        }
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn an_instance_keeps_its_partitions_over_a_restart_and_no_other_member_may_use_it() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    client.create_topic("orders").partitions(2).await.unwrap();
    let member = |instance: &str| client.consumer("orders").group("billing").instance_id(instance);
    let first = member("a").await.unwrap();
    let error = member("a").await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Group, "{error}");
    let mut second = member("b").await.unwrap();
    let shares = settled_while(&client, &mut second).await;
    assert_eq!(shares, [1, 1]);
    let epoch = client.describe_group("billing").await.unwrap().epoch;
    first.close().await.unwrap();
    let again = member("a").await.unwrap();
    assert_eq!(settled_while(&client, &mut second).await, [1, 1]);
    assert_eq!(client.describe_group("billing").await.unwrap().epoch, epoch, "nothing moved");
    again.close().await.unwrap();
}

async fn settled_while(client: &Client, consumer: &mut highwater_client::GroupConsumer) -> Vec<usize> {
    tokio::select! {
        shares = settled(client, 2) => shares,
        batch = consumer.next_batch() => panic!("nothing was sent: {batch:?}"),
    }
}

#[tokio::test]
async fn joining_fails_without_the_topic_or_a_group_name() {
    let place = TestBed::new(LONG);
    let client = place.client().await;
    let error = client.consumer("orders").group("billing").await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::UnknownTopic, "{error}");
    client.create_topic("orders").await.unwrap();
    let error = client.consumer("orders").group("").await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Invalid, "{error}");
}
