//! Streams of records, with and without a group, and a real broker in the same process.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_client::{Client, ConsumedRecord, FetchErrorKind, GroupStream, Offset, Record, Start};
use highwater_engine::TestBroker;

async fn started(partitions: u32) -> (TestBroker, Client) {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").partitions(partitions).await.unwrap();
    (broker, client)
}

/// Sends this many records to each partition, in one batch per partition.
async fn send(client: &Client, partitions: u32, numbers: std::ops::Range<u32>) {
    let producer = client.producer("orders").linger(Duration::from_mins(1)).await.unwrap();
    for partition in 0..partitions {
        for n in numbers.clone() {
            producer.send(Record::new(n.to_string()).partition(partition)).await.unwrap();
        }
    }
    producer.close(Duration::from_mins(1)).await.unwrap();
}

async fn member(client: &Client) -> GroupStream {
    let group = client.consumer("orders").group("billing").auto_commit_interval(Duration::from_hours(1));
    group.await.unwrap().into_stream()
}

async fn next(stream: &mut GroupStream) -> ConsumedRecord {
    stream.next().await.unwrap().unwrap()
}

async fn position(client: &Client, partition: u32) -> Option<Offset> {
    client.list_group_offsets("billing").await.unwrap().get(&("orders".to_owned(), partition)).copied()
}

#[tokio::test]
async fn a_group_stream_commits_the_position_after_the_last_record_returned() {
    let (_broker, client) = started(1).await;
    send(&client, 1, 0..10).await;
    let mut stream = member(&client).await;
    for n in 0..5 {
        let record = next(&mut stream).await;
        assert_eq!((&*record.topic, record.partition, record.offset), ("orders", 0, Offset(n)));
    }
    stream.commit().await.unwrap();
    assert_eq!(position(&client, 0).await, Some(Offset(5)));
    for _ in 0..3 {
        next(&mut stream).await;
    }
    // The last record may still be being processed.
    stream.close().await.unwrap();
    assert_eq!(position(&client, 0).await, Some(Offset(7)));
    let mut stream = member(&client).await;
    assert_eq!(next(&mut stream).await.offset, Offset(7));
    stream.close().await.unwrap();
}

#[tokio::test]
async fn a_group_member_seeks_in_both_directions_and_its_position_follows() {
    let (_broker, client) = started(1).await;
    send(&client, 1, 0..10).await;
    let mut stream = member(&client).await;
    next(&mut stream).await;
    stream.seek("orders", 0, Start::Offset(Offset(8))).unwrap();
    assert_eq!(next(&mut stream).await.offset, Offset(8));
    stream.commit().await.unwrap();
    assert_eq!(position(&client, 0).await, Some(Offset(9)));
    stream.seek("orders", 0, Start::Offset(Offset(2))).unwrap();
    assert_eq!(next(&mut stream).await.offset, Offset(2));
    stream.commit().await.unwrap();
    assert_eq!(position(&client, 0).await, Some(Offset(3)));
    for unknown in [("orders", 1), ("returns", 0)] {
        let error = stream.seek(unknown.0, unknown.1, Start::Earliest).unwrap_err();
        assert_eq!(error.kind(), FetchErrorKind::Invalid, "{error}");
    }
    stream.close().await.unwrap();
}

#[tokio::test]
async fn a_paused_partition_of_a_group_keeps_its_position_while_the_others_continue() {
    let (_broker, client) = started(2).await;
    send(&client, 2, 0..100).await;
    let mut stream = member(&client).await;
    let mut seen: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    let first = next(&mut stream).await;
    let (paused, other) = (first.partition, 1 - first.partition);
    seen.entry(paused).or_default().push(first.offset.get());
    stream.pause("orders", paused).unwrap();
    while seen.get(&other).map_or(0, Vec::len) < 100 {
        let record = next(&mut stream).await;
        seen.entry(record.partition).or_default().push(record.offset.get());
    }
    assert_eq!(seen[&paused], [0], "nothing of what had arrived is delivered");
    let idle = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    stream.resume("orders", paused).unwrap();
    while seen[&paused].len() < 100 {
        let record = next(&mut stream).await;
        seen.entry(record.partition).or_default().push(record.offset.get());
    }
    for offsets in seen.values() {
        assert!(offsets.iter().copied().eq(0..100), "{offsets:?}");
    }
    stream.close().await.unwrap();
}

#[tokio::test]
async fn records_that_a_stream_has_not_returned_go_to_the_next_owner() {
    let (_broker, client) = started(2).await;
    send(&client, 2, 0..100).await;
    let mut counts: BTreeMap<(u32, i64), u32> = BTreeMap::new();
    let mut first = member(&client).await;
    for _ in 0..10 {
        let record = next(&mut first).await;
        *counts.entry((record.partition, record.offset.get())).or_default() += 1;
    }
    // It joins while the first member is in the middle of a batch.
    let other = Client::connect(client_address(&client).await).await.unwrap();
    let mut second = member(&other).await;
    while counts.len() < 200 {
        let record = tokio::select! {
            record = first.next() => record,
            record = second.next() => record,
        };
        let record = record.unwrap().unwrap();
        *counts.entry((record.partition, record.offset.get())).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    first.close().await.unwrap();
    second.close().await.unwrap();
}

async fn client_address(client: &Client) -> String {
    client.metadata().await.unwrap().nodes[0].address.clone()
}

#[tokio::test]
async fn a_named_consumers_stream_commits_and_pauses_by_record() {
    let (_broker, client) = started(1).await;
    send(&client, 1, 0..10).await;
    let mut stream = client.consumer("orders").name("reports").await.unwrap().into_stream();
    for n in 0..4 {
        assert_eq!(stream.next().await.unwrap().unwrap().offset, Offset(n));
    }
    stream.commit().await.unwrap();
    assert_eq!(client.committed_offsets("reports", "orders").await.unwrap()[0].offset, Offset(4));
    stream.consumer().pause(0).unwrap();
    let idle = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    stream.consumer().resume(0).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().offset, Offset(4));
    stream.consumer().seek(0, Start::Offset(Offset(9))).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().offset, Offset(9));
    assert!(stream.consumer().pause(7).is_err());
    stream.close().await.unwrap();
}
