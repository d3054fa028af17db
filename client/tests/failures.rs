//! Records that a real broker rejects after their deliveries were dropped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_client::{
    Acks, Client, DeliveryError, ErrorCode, Offset, ProduceErrorKind, Record, Start, Timestamp,
};
use highwater_engine::TestBroker;

/// Two days in the future: more than a topic accepts by default.
fn too_late() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_hours(48);
    Timestamp(now.as_millis() as i64)
}

#[tokio::test]
async fn close_returns_rejected_records_whose_deliveries_were_dropped() {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").await.unwrap();
    for n in 0..1000 {
        drop(producer.send(Record::new(format!("{n}")).timestamp(too_late())).await.unwrap());
    }
    let error = producer.close(Duration::from_secs(10)).await.unwrap_err();
    assert_eq!((error.count(), error.records().len()), (1000, DeliveryError::RECORDS_MAX));
    assert_eq!(error.first().kind(), ProduceErrorKind::Invalid);
    assert_eq!(error.records()[0].record.value(), Some(&b"0"[..]));
}

#[tokio::test]
async fn flush_reports_rejected_records_sent_without_acknowledgement() {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").await.unwrap();
    let producer = client.producer("orders").acks(Acks::None).linger(Duration::from_mins(1)).await.unwrap();
    for n in 0..3 {
        drop(producer.send(Record::new(format!("{n}")).timestamp(too_late())).await.unwrap());
    }
    let error = producer.flush().await.unwrap_err();
    assert_eq!((error.count(), error.first().code()), (3, Some(ErrorCode::InvalidTimestamp)));
    assert!(error.records().is_empty(), "they have left");
    // The broker has closed the connection; the producer continues.
    drop(producer.send(Record::new("fine")).await.unwrap());
    producer.close(Duration::from_secs(10)).await.unwrap();
    // The broker has read the record when the close returns, and appends it some time later.
    let end = || client.list_offsets("orders", [(0, Start::Latest)]);
    while end().await.unwrap()[0].found.unwrap().unwrap().0 < Offset(1) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
