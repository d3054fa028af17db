//! Consumers: positions, damage, resets and ends.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{MessageKind, Start};

use super::super::fake_broker::{FakeBroker, Fault};
use crate::{CommitErrorKind, Event, FetchErrorKind};

use super::*;

#[tokio::test]
async fn a_consumer_gets_every_record_once_across_broken_connections() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[10; 10]);
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let (mut next, mut hang_ups) = (0, 0);
    while next < 1000 {
        let batch = consumer.next_batch().await.unwrap().unwrap();
        for record in &batch {
            assert_eq!(record.offset(), Offset(next));
            assert_eq!(String::from_utf8_lossy(record.value()).trim(), next.to_string());
            next += 1;
        }
        assert_eq!(batch.next_offset(), Offset(next));
        if next % 50 == 0 {
            broker.append(&[10; 5]);
        }
        // Batches that have arrived already are read without a connection: without waiting for the next one, several
        // calls could find nothing to close.
        if next % 70 == 0 {
            broker.hang_up();
            hang_ups += 1;
            broker.until(|inner| inner.connections > hang_ups).await;
        }
    }
    assert_eq!((hang_ups, broker.lock().connections), (14, 15));
}

#[tokio::test]
async fn a_named_consumer_continues_at_its_committed_position() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    let client = client(&broker).await;
    let start = || client.consumer("orders").name("billing").start(Start::Earliest);
    let mut consumer = start().await.unwrap();
    // Each data message holds one frame here, so batches are those of the log.
    let first = consumer.next_batch().await.unwrap().unwrap();
    first.commit().await.unwrap();
    drop(consumer);
    let mut consumer = start().await.unwrap();
    let second = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(second.iter().next().unwrap().offset(), Offset(2));
    consumer.commit().await.unwrap();
    assert_eq!(broker.lock().committed[0].offset, Offset(4));
    let mut unnamed = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let batch = unnamed.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.commit().await.unwrap_err().kind(), CommitErrorKind::Unnamed);
}

#[tokio::test]
async fn damaged_frames_are_fetched_again_and_reported_the_second_time() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2]);
    broker.lock().damage = 1;
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!((batch.len(), batch.next_offset()), (2, Offset(2)));
    assert_eq!(client.metrics().frames_damaged, 1);
    drop(consumer);

    // Damage both frames, both times.
    broker.lock().damage = 4;
    let mut consumer = client.consumer("orders").partitions([0]).start(Start::Earliest).await.unwrap();
    let mut result = consumer.next_batch().await;
    while let Ok(Some(_)) = result {
        result = consumer.next_batch().await;
    }
    let error = result.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Corrupt);
    consumer.seek(0, Start::Offset(Offset(3))).unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn a_position_that_no_longer_exists_is_an_error_or_reset_as_configured() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    broker.lock().log_start = 4;
    let client = client(&broker).await;
    let from = |offset| client.consumer("orders").start(Start::Offset(Offset(offset)));
    let error = from(1).await.unwrap().next_batch().await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::OutOfRange);
    assert!(error.to_string().contains("orders/0 at offset 1"), "{error}");
    let mut events = client.events();
    let mut consumer = from(1).on_out_of_range(Start::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(4));
    let reset = Event::PositionReset { topic: "orders".into(), partition: 0, from: Some(Offset(1)) };
    assert_eq!(events.next().await, Some(reset));
}

#[tokio::test]
async fn records_that_the_broker_has_lost_are_reported_once_and_reading_continues_after_them() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 3, 2, 4]);
    broker.lock().lost_frames = [1, 3].into();
    let client = client(&broker).await;
    let mut consumer =
        client.consumer("orders").partitions([0]).start(Start::Offset(Offset(3))).until_end().await.unwrap();
    let lost = consumer.next_batch().await.unwrap_err();
    assert_eq!(lost.kind(), FetchErrorKind::Faulty);
    let range = lost.damaged().unwrap();
    assert_eq!((&range.topic[..], range.partition), ("orders", 0));
    assert_eq!((range.from, range.to), (Offset(3), Offset(5)));
    assert!(lost.to_string().contains("orders/0: the records at offsets 3 to 4 are"), "{lost}");
    assert_eq!(consumer.position(0), Some(Offset(5)));
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [5, 6]);
    // The loss report at the end of the log completes the partition.
    let lost = consumer.next_batch().await.unwrap_err();
    assert_eq!(lost.damaged().map(|range| (range.from, range.to)), Some((Offset(7), Offset(11))));
    assert!(consumer.next_batch().await.unwrap().is_none());
    // A stream of single records reports the same.
    let consumer = client.consumer("orders").partitions([0]).until_end().await.unwrap();
    let mut records = consumer.into_stream();
    let mut seen = Vec::new();
    while let Some(record) = records.next().await {
        seen.push(
            record.map_or_else(|lost| -lost.damaged().unwrap().from.get(), |record| record.offset.get()),
        );
    }
    assert_eq!(seen, [0, 1, -2, 5, 6, -7]);
}

#[tokio::test]
async fn until_end_does_not_wait_for_a_partition_that_an_error_has_stopped() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    broker.lock().log_start = 4;
    let client = client(&broker).await;
    let consumer = client.consumer("orders").partitions([0]).start(Start::Offset(Offset(1)));
    let mut consumer = consumer.until_end().await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap_err().kind(), FetchErrorKind::OutOfRange);
    assert!(consumer.next_batch().await.unwrap().is_none());
    // A seek continues after the end.
    consumer.seek(0, Start::Earliest).unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(4));
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_chunk_continues_at_the_reset_position() {
    let broker = FakeBroker::start(1).await;
    // More records than one batch for the user holds.
    broker.append(&[40_000]);
    let client = client(&broker).await;
    let mut events = client.events();
    let consumer = client.consumer("orders").start(Start::Earliest);
    let mut consumer = consumer.on_out_of_range(Start::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().len(), 40_000);
    broker.lock().log_start = 40_000;
    broker.script([(MessageKind::Subscribe, Fault::Ignore)]);
    broker.end_subscriptions(ErrorCode::OffsetOutOfRange);
    while !matches!(events.next().await.unwrap(), Event::PositionReset { .. }) {}
    {
        let mut next = pin!(consumer.next_batch());
        let polled = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "nobody knows yet where it goes on");
    }
    broker.until(|inner| inner.script.is_empty()).await;
    broker.hang_up();
    broker.append(&[2]);
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(40_000));
}

#[tokio::test]
async fn until_end_stops_at_the_end_seen_first() {
    let broker = FakeBroker::start(2).await;
    broker.append(&[3, 3]);
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(Start::Earliest).until_end().await.unwrap();
    let mut records = 0;
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        records += batch.len();
        broker.append(&[3]);
    }
    assert!(consumer.status().iter().all(|status| status.end <= status.position));
    let ends: i64 = consumer.status().iter().map(|status| status.end.unwrap().get()).sum();
    assert_eq!(records as i64, ends);
}

#[tokio::test]
async fn cancelling_next_batch_loses_no_records() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    let mut seen = 0;
    for _ in 0..200 {
        broker.append(&[1]);
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            batch = consumer.next_batch() => seen += batch.unwrap().unwrap().len(),
        }
    }
    while seen < 200 {
        seen += consumer.next_batch().await.unwrap().unwrap().len();
    }
    assert_eq!((seen, consumer.position(0)), (200, Some(Offset(200))));
}

#[tokio::test]
async fn a_minimal_credit_is_enough_to_read_a_long_log() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[100; 200]);
    let client = client(&broker).await;
    let mut stream =
        client.consumer("orders").start(Start::Earliest).buffer_bytes(1).await.unwrap().into_stream();
    for offset in 0..20_000 {
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!(record.offset, Offset(offset));
    }
}
