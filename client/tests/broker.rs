//! The client and a real broker in the same process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use highwater_client::{
    AdminErrorKind, Client, Compression, FetchErrorKind, Offset, ProduceErrorKind, Record, Start, Timestamp,
};
use highwater_engine::{Broker, BrokerConfig, HostKind, TestBroker};

async fn client(broker: &TestBroker) -> Client {
    Client::connect(broker.address()).await.unwrap()
}

async fn values(client: &Client, topic: &str) -> BTreeMap<u32, Vec<String>> {
    let mut consumer = client.consumer(topic).start(Start::Earliest).until_end().await.unwrap();
    let mut values: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        for record in &batch {
            let of_partition = values.entry(record.partition()).or_default();
            assert_eq!(record.offset(), Offset(of_partition.len() as i64), "offsets are contiguous");
            of_partition.push(String::from_utf8(record.value().to_vec()).unwrap());
        }
    }
    values
}

#[tokio::test]
async fn every_codec_preserves_records_and_their_order_per_key() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    for codec in Compression::ALL {
        let topic = format!("orders-{codec}");
        client.create_topic(&topic).partitions(3).await.unwrap();
        let producer = client.producer(&topic).compression(*codec).batch_bytes(20_000).await.unwrap();
        for n in 0..20_000u32 {
            let record = Record::new(format!("{n} of {codec}")).key(format!("user {}", n % 100));
            producer.send(record).await.unwrap();
        }
        producer.close(Duration::from_secs(30)).await.unwrap();
        let mut by_key: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for value in values(&client, &topic).await.into_values().flatten() {
            let n: u32 = value.split(' ').next().unwrap().parse().unwrap();
            by_key.entry(n % 100).or_default().push(n);
        }
        assert_eq!(by_key.values().map(Vec::len).sum::<usize>(), 20_000);
        assert!(by_key.values().all(|numbers| numbers.is_sorted()));
    }
}

#[tokio::test]
async fn keys_headers_timestamps_and_tombstones_survive_the_round_trip() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    let record =
        Record::new("paid").key("u-42").header("trace", "7f3a").timestamp(Timestamp(1_700_000_000_123));
    let receipt = producer.send(record).await.unwrap().await.unwrap();
    assert_eq!((receipt.partition(), receipt.offset()), (0, Some(Offset(0))));
    assert_eq!(receipt.timestamp(), Timestamp(1_700_000_000_123));
    producer.send(Record::tombstone().key("u-42")).await.unwrap().await.unwrap();
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let mut records = Vec::new();
    while records.len() < 2 {
        let batch = consumer.next_batch().await.unwrap().unwrap();
        records.extend(batch.iter().map(|record| record.to_owned()));
    }
    assert_eq!((records[0].value(), records[0].key()), (&b"paid"[..], Some(&b"u-42"[..])));
    assert_eq!(records[0].timestamp, Timestamp(1_700_000_000_123));
    assert_eq!(&records[0].headers[0].key[..], b"trace");
    assert_eq!(records[1].value, None);
}

#[tokio::test]
async fn the_broker_returns_its_counters() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let before = client.stats().await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    for _ in 0..3 {
        producer.send(Record::new("paid")).await.unwrap().await.unwrap();
    }
    let after = client.stats().await.unwrap();
    let more = |name| after.total(name).unwrap() - before.total(name).unwrap();
    assert_eq!(more("records.appended"), 3);
    assert!(more("disk.bytes.written") > 0 && more("bytes.received") > 0 && more("bytes.sent") > 0);
    assert_eq!(after.total("no such counter"), None);
}

#[tokio::test]
async fn a_consumer_at_the_end_gets_records_written_later() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").partitions(4).await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    producer.send(Record::new("before")).await.unwrap().await.unwrap();
    let mut consumer = client.consumer("orders").start(Start::Latest).await.unwrap();
    // A partition's position is known once it is subscribed.
    let mut stream = loop {
        if consumer.status().iter().all(|status| status.position.is_some()) {
            break consumer.into_stream();
        }
        let _ = tokio::time::timeout(Duration::from_millis(1), consumer.next_batch()).await;
    };
    for n in 0..100 {
        producer.send(Record::new(format!("{n}"))).await.unwrap();
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!(record.value(), format!("{n}").as_bytes());
    }
}

#[tokio::test]
async fn a_large_record_is_accepted_only_if_the_topic_allows_it() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("small").config("max.message.bytes", "10000").await.unwrap();
    client.create_topic("large").config("max.message.bytes", "9000000").await.unwrap();
    let small = client.producer("small").await.unwrap();
    let rejected = small.send(Record::new(vec![1; 20_000])).await.unwrap_err();
    assert_eq!(rejected.kind(), ProduceErrorKind::TooLarge);
    // Batches stay below the topic's limit, whatever batch size is configured.
    for _ in 0..100 {
        small.send(Record::new(vec![1; 5000])).await.unwrap();
    }
    small.flush().await.unwrap();
    let large = client.producer("large").await.unwrap();
    large.send(Record::new(vec![2; 8_000_000])).await.unwrap().await.unwrap();
    let mut consumer = client.consumer("large").start(Start::Earliest).buffer_bytes(100_000).await.unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert!(batch.iter().next().unwrap().value() == vec![2; 8_000_000]);
}

#[tokio::test]
async fn topics_are_created_described_altered_and_deleted() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").partitions(2).config("retention.ms", "1000000").await.unwrap();
    let exists = client.create_topic("orders").await.unwrap_err();
    assert_eq!(exists.kind(), AdminErrorKind::Exists);
    assert_eq!(client.create_topic("or ders").await.unwrap_err().kind(), AdminErrorKind::Invalid);
    let producer = client.producer("orders").await.unwrap();
    client.alter_topic("orders").partitions(3).config("retention.ms", "2000000").await.unwrap();
    let described = client.describe_topic("orders").await.unwrap();
    assert_eq!(described.partitions.len(), 3);
    assert!(described.configs.contains(&("retention.ms".into(), "2000000".into(), true)));
    // The producer learns of the new partition.
    while producer.partitions() < 3 {
        tokio::task::yield_now().await;
    }
    producer.send(Record::new("x").partition(2)).await.unwrap().await.unwrap();
    let metadata = client.metadata().await.unwrap();
    assert_eq!(metadata.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["orders"]);
    client.delete_topic("orders").await.unwrap();
    assert_eq!(client.describe_topic("orders").await.unwrap_err().kind(), AdminErrorKind::NotFound);
    let gone = producer.send(Record::new("x")).await.unwrap().await.unwrap_err();
    assert_eq!(gone.kind(), ProduceErrorKind::UnknownTopic);
}

#[tokio::test]
async fn offsets_are_found_by_timestamp_and_records_before_an_offset_are_deleted() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").batch_bytes(300).await.unwrap();
    for n in 0..100 {
        let record = Record::new(format!("{n}")).timestamp(Timestamp(1_600_000_000_000 + n * 1000));
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let at = Start::Timestamp(Timestamp(1_600_000_041_500));
    let wanted = [(0, Start::Earliest), (0, Start::Latest), (0, at)];
    let found = client.list_offsets("orders", wanted).await.unwrap();
    let found: Vec<_> = found.iter().map(|listed| listed.found.unwrap().unwrap()).collect();
    assert_eq!((found[0].0, found[1].0), (Offset(0), Offset(100)));
    assert_eq!(found[2], (Offset(42), Some(Timestamp(1_600_000_042_000))));
    let first = |start| {
        let client = client.clone();
        async move {
            let mut consumer = client.consumer("orders").start(start).await.unwrap();
            consumer.next_batch().await.map(|batch| batch.unwrap().iter().next().unwrap().offset())
        }
    };
    assert_eq!(first(at).await.unwrap(), Offset(42));
    client.delete_records("orders", [(0, Offset(10))]).await.unwrap();
    assert_eq!(first(Start::Earliest).await.unwrap(), Offset(10));
    assert_eq!(first(Start::Offset(Offset(3))).await.unwrap_err().kind(), FetchErrorKind::OutOfRange);
}

#[tokio::test]
async fn a_named_consumer_continues_at_its_committed_position() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").partitions(2).await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    let send = |n: u32| {
        let producer = producer.clone();
        async move { producer.send(Record::new(format!("{n}")).partition(n % 2)).await.unwrap().await.unwrap() }
    };
    for n in 0..10 {
        send(n).await;
    }
    let consumer = || client.consumer("orders").name("billing").start(Start::Earliest);
    let mut seen = 0;
    let mut first = consumer().await.unwrap();
    while seen < 10 {
        let batch = first.next_batch().await.unwrap().unwrap();
        seen += batch.len();
        batch.commit().await.unwrap();
    }
    drop(first);
    let committed = client.committed_offsets("billing", "orders").await.unwrap();
    assert_eq!(committed.iter().map(|position| position.offset.get()).collect::<Vec<_>>(), [5, 5]);
    send(10).await;
    let mut second = consumer().await.unwrap();
    let batch = second.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().value(), b"10");
    client.commit_offsets("billing", "orders", [(0, Offset(1))]).await.unwrap();
    let mut third = consumer().partitions([0]).await.unwrap();
    assert_eq!(third.next_batch().await.unwrap().unwrap().iter().next().unwrap().value(), b"2");
}

fn start(data_dir: &Path, port: u16) -> Broker {
    let config = BrokerConfig {
        data_dir: data_dir.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], port)).into()],
        kafka_listen: Vec::new(),
        cores: Some(1),
        host: HostKind::Thread,
        stop_on_signals: false,
        ..BrokerConfig::default()
    };
    Broker::start(config).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn producer_and_consumer_survive_broker_restarts_without_loss_or_duplicates() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = start(data.path(), 0);
    let port = broker.native_addr().port();
    let client = Client::builder()
        .bootstrap([format!("127.0.0.1:{port}")])
        .reconnect_backoff(Duration::from_millis(5), Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    client.create_topic("orders").partitions(3).await.unwrap();
    let producer = client.producer("orders").batch_bytes(2000).await.unwrap();
    let consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut stream = consumer.into_stream();
        let mut seen: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for _ in 0..30_000 {
            let record = stream.next().await.unwrap().unwrap();
            let of_partition = seen.entry(record.partition).or_default();
            assert_eq!(record.offset, Offset(of_partition.len() as i64));
            of_partition.push(std::str::from_utf8(record.value()).unwrap().parse().unwrap());
        }
        seen
    });
    let mut halfway = None;
    for n in 0..30_000u32 {
        let delivery = producer.send(Record::new(format!("{n}")).partition(n % 3)).await.unwrap();
        if n % 10_000 == 5_000 {
            halfway = Some(delivery);
        }
        if n % 10_000 == 9_999 {
            // Connected again, in the middle of the stream.
            halfway.take().unwrap().await.unwrap();
            broker.shutdown();
            tokio::task::spawn_blocking(move || broker.wait()).await.unwrap();
            broker = start(data.path(), port);
        }
    }
    producer.flush().await.unwrap();
    for (partition, numbers) in reader.await.unwrap() {
        let expect: Vec<u32> = (0..30_000).filter(|n| n % 3 == partition).collect();
        assert_eq!(numbers, expect);
    }
    // The last restart may have gone unnoticed, because everything was acknowledged.
    assert!(client.metrics().disconnects >= 2);
    broker.shutdown();
    broker.wait();
}

#[tokio::test]
async fn a_producer_finds_a_topic_that_was_deleted_and_recreated() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    producer.send(Record::new("old")).await.unwrap().await.unwrap();
    client.delete_topic("orders").await.unwrap();
    client.create_topic("orders").await.unwrap();
    // The first record to the old topic reveals the deletion, at the latest.
    let _ = producer.send(Record::new("lost with the old topic, or new")).await.unwrap().await;
    producer.send(Record::new("new")).await.unwrap().await.unwrap();
    let values = values(&client, "orders").await;
    assert_eq!(values[&0].last().unwrap(), "new");
    assert!(!values[&0].contains(&"old".to_owned()));
}

#[tokio::test]
async fn a_consumer_of_all_partitions_reads_partitions_added_later() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let mut stream = client.consumer("orders").start(Start::Earliest).await.unwrap().into_stream();
    client.alter_topic("orders").partitions(2).await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    producer.send(Record::new("late").partition(1)).await.unwrap().await.unwrap();
    let record = stream.next().await.unwrap().unwrap();
    assert_eq!((record.partition, record.value()), (1, &b"late"[..]));
}

/// Polls a future once and drops it. Returns true if it was not ready.
async fn cancelled<F: Future>(future: F) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn cancelled_futures_behave_as_documented() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").linger(Duration::from_mins(1)).await.unwrap();
    let other = producer.clone();
    let flushed = producer.send(Record::new("flushed")).await.unwrap();
    assert!(cancelled(producer.flush()).await);
    assert_eq!(flushed.await.unwrap().offset(), Some(Offset(0)));
    let closed = producer.send(Record::new("closed")).await.unwrap();
    assert!(cancelled(producer.close(Duration::from_mins(1))).await);
    assert_eq!(other.send(Record::new("x")).await.unwrap_err().kind(), ProduceErrorKind::Closed);
    assert_eq!(closed.await.unwrap().offset(), Some(Offset(1)));
    let mut consumer = client.consumer("orders").name("billing").start(Start::Earliest).await.unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert!(cancelled(batch.commit()).await);
    // The dropped commit may or may not have succeeded; the next one does.
    batch.commit().await.unwrap();
    assert_eq!(client.committed_offsets("billing", "orders").await.unwrap()[0].offset, batch.next_offset());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_tasks_on_many_threads_share_a_producer() {
    let broker = TestBroker::start();
    let client = client(&broker).await;
    client.create_topic("orders").partitions(4).await.unwrap();
    let producer = client.producer("orders").batch_bytes(1000).buffer_bytes(20_000).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let mut deliveries = Vec::new();
                for n in 0..2000 {
                    let record = Record::new(format!("{task} {n}")).key(format!("{task}"));
                    deliveries.push(producer.send(record).await.unwrap());
                }
                let mut offsets = Vec::new();
                for delivery in deliveries {
                    offsets.push(delivery.await.unwrap().offset().unwrap());
                }
                assert!(offsets.is_sorted_by(|a, b| a < b));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let values = values(&client, "orders").await;
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), 16_000);
    for task in 0..8 {
        let prefix = format!("{task} ");
        let all = values.values().flatten();
        let numbers: Vec<u32> =
            all.filter_map(|value| value.strip_prefix(&prefix)).map(|n| n.parse().unwrap()).collect();
        assert!(numbers.into_iter().eq(0..2000), "of task {task}");
    }
}
