//! Records that a real broker has lost, and positions that do not exist: every kind of consumer reports them and
//! continues as configured.

use std::fs;
use std::path::Path;
use std::time::Duration;

use highwater_client::{
    Client, ConsumerBuilder, Event, FetchError, FetchErrorKind, Offset, Record, Start, Timestamp,
};
use highwater_engine::TestBroker;

/// Creates topic `orders` with one partition and this many records, each in its own batch, with timestamps 0, 1, 2, ...
async fn with_records(broker: &TestBroker, records: i64) -> Client {
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").await.unwrap();
    send(&client, 0..records).await;
    client
}

async fn send(client: &Client, numbers: std::ops::Range<i64>) {
    let producer = client.producer("orders").await.unwrap();
    for n in numbers {
        let record = Record::new(format!("record-{n:03}")).timestamp(Timestamp(n));
        producer.send(record).await.unwrap().await.unwrap();
    }
}

/// Overwrites the slab with zeros from the place where `needle` is stored to its end.
fn lose_from(data: &Path, needle: &str) {
    let slab = data.join("store-000").join("slab-000000");
    let mut bytes = fs::read(&slab).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    bytes[at..].fill(0);
    fs::write(&slab, bytes).unwrap();
}

/// A record's offset, or a lost range.
#[derive(PartialEq, Debug)]
enum Seen {
    Record(i64),
    Lost(i64, i64),
}

fn lost(error: &FetchError) -> Seen {
    assert_eq!(error.kind(), FetchErrorKind::Faulty, "{error}");
    let range = error.damaged().unwrap_or_else(|| panic!("{error}"));
    Seen::Lost(range.from.get(), range.to.get())
}

/// Reads until the consumer ends. Merges adjacent lost ranges.
async fn read(consumer: ConsumerBuilder) -> Vec<Seen> {
    let mut consumer = consumer.until_end().await.unwrap();
    let mut seen = Vec::new();
    loop {
        match consumer.next_batch().await {
            Ok(Some(batch)) => seen.extend(batch.iter().map(|record| Seen::Record(record.offset().get()))),
            Ok(None) => return seen,
            Err(error) => push_lost(&mut seen, &error),
        }
    }
}

fn push_lost(seen: &mut Vec<Seen>, error: &FetchError) {
    let range = lost(error);
    match (seen.last_mut(), &range) {
        (Some(Seen::Lost(_, end)), Seen::Lost(from, to)) if *end == *from => *end = *to,
        _ => seen.push(range),
    }
}

fn records(offsets: std::ops::Range<i64>) -> Vec<Seen> {
    offsets.map(Seen::Record).collect()
}

#[tokio::test]
async fn every_kind_of_consumer_reports_a_lost_tail_and_reads_records_after_it() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut broker = TestBroker::start_with(|config| config.data_dir.clone_from(&data));
    drop(with_records(&broker, 30).await);
    broker.stop();
    lose_from(&data, "record-012");
    broker.restart();
    let client = Client::connect(broker.address()).await.unwrap();
    let mut expected = records(0..12);
    expected.push(Seen::Lost(12, 30));
    assert_eq!(read(client.consumer("orders")).await, expected);
    for start in [Start::Offset(Offset(12)), Start::Offset(Offset(20)), Start::Timestamp(Timestamp(20))] {
        let seen = read(client.consumer("orders").start(start)).await;
        assert!(matches!(seen[..], [Seen::Lost(12..=20, 30)]), "{start:?}: {seen:?}");
    }
    // Records written after the loss are read, too.
    send(&client, 30..33).await;
    expected.extend(records(30..33));
    assert_eq!(read(client.consumer("orders")).await, expected);

    let named = || client.consumer("orders").name("reader");
    let mut consumer = named().until_end().await.unwrap();
    loop {
        match consumer.next_batch().await {
            Ok(Some(batch)) if batch.next_offset() > Offset(30) => break,
            Ok(batch) => assert!(batch.is_some(), "there is more behind what is lost"),
            Err(error) => drop(lost(&error)),
        }
        consumer.commit().await.unwrap();
    }
    assert_eq!(read(named()).await, records(30..33), "what is lost was told once");

    let group = || client.consumer("orders").group("billing").until_end();
    let mut member = group().await.unwrap();
    let mut seen = Vec::new();
    loop {
        match member.next_batch().await {
            Ok(Some(batch)) => seen.extend(batch.iter().map(|record| Seen::Record(record.offset().get()))),
            Ok(None) => break,
            Err(error) => push_lost(&mut seen, &error),
        }
    }
    member.close().await.unwrap();
    assert_eq!(seen, expected);
    let positions = client.list_group_offsets("billing").await.unwrap();
    assert_eq!(positions.get(&("orders".to_owned(), 0)), Some(&Offset(33)));

    let mut stream = client.consumer("orders").group("auditing").until_end().await.unwrap().into_stream();
    let mut seen = Vec::new();
    while let Some(record) = stream.next().await {
        match record {
            Ok(record) => seen.push(Seen::Record(record.offset.get())),
            Err(error) => push_lost(&mut seen, &error),
        }
    }
    assert_eq!(seen, expected);
    stream.close().await.unwrap();
}

#[tokio::test]
async fn a_member_that_stops_on_a_loss_report_gets_it_again_on_the_next_run() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut broker = TestBroker::start_with(|config| config.data_dir.clone_from(&data));
    drop(with_records(&broker, 5).await);
    broker.stop();
    lose_from(&data, "record-003");
    broker.restart();
    let client = Client::connect(broker.address()).await.unwrap();
    for expected in [records(0..3), Vec::new()] {
        let mut stream = client.consumer("orders").group("billing").await.unwrap().into_stream();
        let mut seen = Vec::new();
        let error = loop {
            match stream.next().await.unwrap() {
                Ok(record) => seen.push(Seen::Record(record.offset.get())),
                Err(error) => break error,
            }
        };
        assert_eq!(seen, expected);
        assert!(matches!(lost(&error), Seen::Lost(3, 4..=5)), "{error}");
        stream.close().await.unwrap();
    }
}

/// Returns the first offset read, or the kind of the error.
async fn first(consumer: ConsumerBuilder, group: Option<&str>) -> Result<i64, FetchErrorKind> {
    let batch = match group {
        None => consumer.await.unwrap().next_batch().await,
        Some(group) => {
            let mut member = consumer.group(group).await.unwrap();
            let batch = member.next_batch().await;
            member.close().await.unwrap();
            batch
        }
    };
    batch.map(|batch| batch.unwrap().iter().next().unwrap().offset().get()).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_committed_position_out_of_range_is_reset_as_configured_or_an_error() {
    let broker = TestBroker::start();
    let client = with_records(&broker, 20).await;
    client.delete_records("orders", [(0, Offset(10))]).await.unwrap();
    let mut events = client.events();
    for position in [3, 99] {
        let commit = || client.commit_offsets("reader", "orders", [(0, Offset(position))]);
        for group in [None, Some("reader")] {
            let of = || match group {
                None => client.consumer("orders").name("reader"),
                Some(_) => client.consumer("orders"),
            };
            let at = format!("position {position}, group {group:?}");
            commit().await.unwrap();
            assert_eq!(first(of(), group).await, Err(FetchErrorKind::OutOfRange), "{at}");
            assert_eq!(first(of().on_out_of_range(Start::Earliest), group).await, Ok(10), "{at}");
            let reset = loop {
                if let Event::PositionReset { topic, partition, from, .. } = events.next().await.unwrap() {
                    break (topic, partition, from);
                }
            };
            assert_eq!(reset, ("orders".to_owned(), 0, Some(Offset(position))), "{at}");
            // The group's position is now where the member continued.
            commit().await.unwrap();
            let newest = of().on_out_of_range(Start::Offset(Offset(19)));
            assert_eq!(first(newest, group).await, Ok(19), "{at}");
            while !matches!(events.next().await.unwrap(), Event::PositionReset { .. }) {}
        }
        commit().await.unwrap();
        // Without a reset position it ends, instead of waiting for records that never come.
        let mut consumer = client.consumer("orders").name("reader").until_end().await.unwrap();
        assert_eq!(consumer.next_batch().await.unwrap_err().kind(), FetchErrorKind::OutOfRange);
        assert!(consumer.next_batch().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_consumer_overtaken_by_retention_continues_at_its_reset_position() {
    let broker = TestBroker::start();
    let client = with_records(&broker, 20).await;
    let consumer = client.consumer("orders").on_out_of_range(Start::Earliest);
    let mut consumer = consumer.await.unwrap();
    assert!(consumer.next_batch().await.unwrap().is_some());
    consumer.seek(0, Start::Offset(Offset(2))).unwrap();
    client.delete_records("orders", [(0, Offset(15))]).await.unwrap();
    consumer.seek(0, Start::Offset(Offset(4))).unwrap();
    let next = tokio::time::timeout(Duration::from_mins(3), consumer.next_batch()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().iter().next().unwrap().offset(), Offset(15));
    assert_eq!(consumer.status()[0].log_start, Some(Offset(15)));
}
