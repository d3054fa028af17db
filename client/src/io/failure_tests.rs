//! Failures of records whose deliveries were dropped.

use std::task::Poll;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{MessageKind, Start};

use super::fake_broker::{FakeBroker, Fault};
use crate::{Client, DeliveryError, Event, ProduceErrorKind, Producer, Record, WriteOutcome};

async fn client(broker: &FakeBroker) -> Client {
    Client::connect(broker.address()).await.unwrap()
}

/// Sends a record that the broker rejects, and drops its delivery.
async fn send_rejected(broker: &FakeBroker, producer: &Producer, value: &'static str) {
    broker.script([(MessageKind::Produce, Fault::Refuse(ErrorCode::InvalidTimestamp))]);
    drop(producer.send(Record::new(value).key("k")).await.unwrap());
}

#[tokio::test]
async fn an_unseen_failure_is_returned_once_by_the_next_flush_with_its_record() {
    let broker = FakeBroker::start(1).await;
    let producer = client(&broker).await.producer("orders").await.unwrap();
    send_rejected(&broker, &producer, "lost").await;
    let error = producer.flush().await.unwrap_err();
    assert_eq!((error.count(), error.records().len()), (1, 1));
    let failed = &error.records()[0];
    assert_eq!((failed.record.value(), failed.record.key_bytes()), (Some(&b"lost"[..]), Some(&b"k"[..])));
    assert_eq!(
        (failed.error.kind(), failed.outcome()),
        (ProduceErrorKind::Invalid, WriteOutcome::NotWritten)
    );
    assert!(error.to_string().contains("orders/0"), "{error}");
    producer.flush().await.unwrap();
    // The returned record can be sent again as it is.
    let again = error.into_records().remove(0).record;
    producer.send(again).await.unwrap().await.unwrap();
    producer.close(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_failure_that_its_delivery_returned_is_not_reported_again() {
    let broker = FakeBroker::start(1).await;
    let producer = client(&broker).await.producer("orders").await.unwrap();
    broker.script([(MessageKind::Produce, Fault::Refuse(ErrorCode::InvalidTimestamp))]);
    let mut deliveries = Vec::new();
    for value in ["awaited", "looked at", "dropped"] {
        deliveries.push(producer.send(Record::new(value)).await.unwrap());
    }
    drop(deliveries.pop());
    let looked_at = deliveries.pop().unwrap();
    deliveries.pop().unwrap().await.unwrap_err();
    // All three were in the rejected batch. Repeated calls return the same failure.
    looked_at.result().unwrap().unwrap_err();
    looked_at.result().unwrap().unwrap_err();
    let error = producer.close(Duration::from_secs(10)).await.unwrap_err();
    assert_eq!((error.count(), error.records()[0].record.value()), (1, Some(&b"dropped"[..])));
}

#[tokio::test]
async fn a_late_flush_returns_records_that_timed_out_while_the_broker_was_unreachable() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").delivery_timeout(Duration::from_millis(100)).await.unwrap();
    broker.go_away();
    for n in 0..10 {
        drop(producer.send(Record::new(format!("{n}"))).await.unwrap());
    }
    while client.metrics().records_failed < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = producer.flush().await.unwrap_err();
    assert_eq!((error.count(), error.records().len()), (10, 10));
    assert_eq!(error.first().kind(), ProduceErrorKind::TimedOut);
    assert_eq!(error.records()[9].record.value(), Some(&b"9"[..]));
}

#[tokio::test]
async fn all_failures_are_counted_and_the_first_records_are_kept() {
    let broker = FakeBroker::start(1).await;
    let producer = client(&broker).await.producer("orders").linger(Duration::from_mins(1)).await.unwrap();
    broker.script([(MessageKind::Produce, Fault::Refuse(ErrorCode::InvalidTimestamp))]);
    for n in 0..1000 {
        drop(producer.send(Record::new(format!("{n}"))).await.unwrap());
    }
    let error = producer.flush().await.unwrap_err();
    assert_eq!((error.count(), error.records().len()), (1000, DeliveryError::RECORDS_MAX));
    assert_eq!(error.records()[99].record.value(), Some(&b"99"[..]));
}

#[tokio::test]
async fn two_flushes_that_wait_for_the_same_record_both_fail() {
    let broker = FakeBroker::start(1).await;
    let producer = client(&broker).await.producer("orders").await.unwrap();
    send_rejected(&broker, &producer, "lost").await;
    let (one, two) = tokio::join!(producer.flush(), producer.flush());
    let (one, two) = (one.unwrap_err(), two.unwrap_err());
    assert_eq!((one.count(), two.count()), (1, 1));
    assert_eq!(one.records().len() + two.records().len(), 1, "one of them has the record");
}

#[tokio::test]
async fn failures_of_a_closed_client_count_as_seen_once_their_deliveries_return_them() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
    let delivery = producer.send(Record::new("x")).await.unwrap();
    client.close();
    while delivery.result().is_none() {
        tokio::task::yield_now().await;
    }
    // `result` has returned the failure.
    producer.flush().await.unwrap();
    drop(producer);
}

#[tokio::test]
async fn dropping_a_producer_emits_an_event_for_unreported_failures() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let mut events = client.events();
    let producer = client.producer("orders").await.unwrap();
    send_rejected(&broker, &producer, "lost").await;
    drop(producer);
    loop {
        if let Event::DeliveriesFailed { topic, count, reason } = events.next().await.unwrap() {
            assert_eq!((topic.as_str(), count), ("orders", 1));
            assert!(reason.contains("orders/0"), "{reason}");
            break;
        }
    }
}

#[tokio::test]
async fn closing_a_named_consumer_returns_the_error_of_a_commit_whose_future_was_dropped() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2]);
    let client = client(&broker).await;
    let mut events = client.events();
    let mut consumer = client.consumer("orders").name("billing").await.unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    let begin = async |code: Option<ErrorCode>| {
        broker.script(code.map(|code| (MessageKind::CommitOffsets, Fault::Refuse(code))));
        let mut commit = std::pin::pin!(batch.commit());
        std::future::poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx).is_pending())).await
    };
    assert!(begin(None).await);
    broker.until(|inner| !inner.committed.is_empty()).await;
    assert!(begin(Some(ErrorCode::TooLarge)).await);
    // The position was committed before.
    consumer.close().await.unwrap();
    let mut consumer = client.consumer("orders").name("reports").start(Start::Earliest).await.unwrap();
    broker.script([(MessageKind::CommitOffsets, Fault::Refuse(ErrorCode::TooLarge))]);
    consumer.next_batch().await.unwrap().unwrap();
    {
        let mut commit = std::pin::pin!(consumer.commit());
        assert!(std::future::poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx).is_pending())).await);
    }
    let error = consumer.close().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooLarge));
    // If the consumer is dropped instead of closed, there is an event.
    while !matches!(events.next().await, Some(Event::CommitFailed { group, .. }) if group == "reports") {}
}
