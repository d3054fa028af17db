//! Producers: retries, outcomes, buffers and closing.

use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_protocol::native::MessageKind;

use super::super::fake_broker::{FakeBroker, Fault};
use crate::{Acks, Event, FailedRecord, ProduceErrorKind, Record, TrySendError, WriteOutcome};

use super::*;

#[tokio::test]
async fn records_are_acknowledged_with_their_offsets() {
    let broker = FakeBroker::start(1).await;
    let producer = producer(&broker).await;
    assert_eq!(send(&producer, 3).await, [0, 1, 2]);
    let many: Vec<_> = (0..5000).map(|n| producer.try_send(Record::new(format!("{n}"))).unwrap()).collect();
    for (n, delivery) in many.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset(), Some(Offset(3 + n as i64)));
    }
    assert!(broker.requests(MessageKind::Produce) < 100, "records travel in batches");
}

#[tokio::test]
async fn a_batch_whose_reply_was_lost_is_retried_without_duplicates() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Fault::LoseReply), (MessageKind::Produce, Fault::HangUp)]);
    let producer = producer(&broker).await;
    assert_eq!(send(&producer, 4).await, [0, 1, 2, 3]);
    let duplicates = broker.lock().duplicates;
    assert_eq!((duplicates, broker.lock().log.next_offset()), (1, 4));
}

#[tokio::test]
async fn losing_every_reply_once_with_five_in_flight_keeps_order_and_offsets() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").batch_bytes(100).await.unwrap();
    for _ in 0..20 {
        broker.script([(MessageKind::Produce, Fault::LoseReply)]);
        let sent: Vec<_> = (0..10).map(|_| producer.try_send(Record::new(vec![0; 50])).unwrap()).collect();
        let mut last = None;
        for delivery in sent {
            let offset = delivery.await.unwrap().offset();
            assert!(last.is_none_or(|last: Offset| last.plus(1) == offset.unwrap()));
            last = offset;
        }
    }
    assert_eq!(broker.lock().log.next_offset(), 200);
}

#[tokio::test]
async fn retryable_rejections_are_retried_and_others_fail_at_once() {
    let broker = FakeBroker::start(1).await;
    broker.script([
        (MessageKind::Produce, Fault::Refuse(ErrorCode::Overloaded)),
        (MessageKind::Produce, Fault::Refuse(ErrorCode::StorageFull)),
        (MessageKind::Produce, Fault::Refuse(ErrorCode::WrongShard)),
    ]);
    let producer = producer(&broker).await;
    assert_eq!(send(&producer, 1).await, [0]);
    broker.script([(MessageKind::Produce, Fault::Refuse(ErrorCode::InvalidTimestamp))]);
    let error = producer.send(Record::new("x")).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ProduceErrorKind::Invalid, WriteOutcome::NotWritten));
    assert_eq!(error.code(), Some(ErrorCode::InvalidTimestamp));
    assert!(!error.is_retryable());
    assert_eq!(send(&producer, 1).await, [1], "the producer goes on");
}

#[tokio::test]
async fn an_event_reports_retryable_rejections() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut events = client.events();
    broker.script([
        (MessageKind::Produce, Fault::Refuse(ErrorCode::WrongShard)),
        (MessageKind::Produce, Fault::Refuse(ErrorCode::StorageFull)),
    ]);
    assert_eq!(send(&producer, 1).await, [0]);
    let rejected = loop {
        if let Event::ProduceRejected { topic, reason } = events.next().await.unwrap() {
            break (topic, reason);
        }
    };
    assert_eq!(rejected.0, "orders");
    assert!(!rejected.1.is_empty());
}

#[tokio::test]
async fn an_unanswered_record_times_out_with_an_unknown_outcome() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").delivery_timeout(Duration::from_secs(1)).await.unwrap();
    // With a producer id and a route, the next record is sent immediately.
    send(&producer, 1).await;
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
    let error = producer.send(Record::new("x")).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ProduceErrorKind::TimedOut, WriteOutcome::Unknown));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn the_buffer_is_bounded_and_records_that_do_not_fit_are_returned() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
    let client = client(&broker).await;
    let producer = client.producer("orders").buffer_bytes(10_000).batch_bytes(1000).await.unwrap();
    let mut taken = 0;
    let back = loop {
        match producer.try_send(Record::new(vec![0; 500])) {
            Ok(_) => taken += 1,
            Err(TrySendError::Full(record)) => break record,
            Err(other) => panic!("{other}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((taken, back.value().unwrap().len()), (10_000 / 536, 500));
    // A pending send that is dropped has no effect.
    let waiting = tokio::time::timeout(Duration::from_millis(20), producer.send(back)).await;
    assert!(waiting.is_err());
    broker.until(|inner| inner.script.is_empty()).await;
    broker.hang_up();
    producer.flush().await.unwrap();
    assert_eq!(broker.lock().log.next_offset(), taken);
    // A record larger than the buffer occupies all of it.
    producer.send(Record::new(vec![0; 20_000])).await.unwrap();
    assert!(matches!(producer.try_send(Record::new("x")), Err(TrySendError::Full(_))));
    producer.flush().await.unwrap();
    let too_large = producer.send(Record::new(vec![0; BATCH_BYTES_MAX + (64 << 10)])).await.unwrap_err();
    assert_eq!(too_large.kind(), ProduceErrorKind::TooLarge);
}

#[tokio::test]
async fn the_buffer_is_bounded_without_acknowledgements_too() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Fault::Stall)]);
    let client = client(&broker).await;
    let producer = client.producer("orders").acks(Acks::None).buffer_bytes(1 << 20).await.unwrap();
    // More than the sockets can buffer.
    let mut taken = 0;
    while producer.try_send(Record::new(vec![0; 50_000])).is_ok() && taken < 2000 {
        taken += 1;
        tokio::task::yield_now().await;
    }
    assert!(taken < 2000, "{taken} records were taken and nobody read any");
    broker.hang_up();
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn closing_returns_unacknowledged_records_in_order_with_keys_and_headers() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").batch_bytes(200).await.unwrap();
    assert_eq!(send(&producer, 1).await, [0]);
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
    let other = producer.clone();
    let mut deliveries = Vec::new();
    for n in 0..20 {
        let record = Record::new(format!("value {n}")).key("k").header("h", format!("{n}"));
        deliveries.push(producer.send(record).await.unwrap());
    }
    let error = producer.close(Duration::from_millis(50)).await.unwrap_err();
    // Batches after the unanswered one may or may not be acknowledged. The returned records are in order.
    let failed = deliveries.iter().filter(|delivery| delivery.result().unwrap().is_err()).count();
    assert_eq!((error.count(), error.records().len()), (failed as u64, failed));
    assert!(failed >= 1);
    assert_eq!(error.records()[0].outcome(), WriteOutcome::Unknown);
    let records = error.into_records().into_iter();
    let numbers: Vec<u32> = records
        .map(|FailedRecord { record, .. }| {
            assert_eq!((record.key_bytes(), record.headers().len()), (Some(&b"k"[..]), 1));
            let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
            value.strip_prefix("value ").unwrap().parse().unwrap()
        })
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let rejected = other.send(Record::new("x")).await.unwrap_err();
    assert_eq!((rejected.kind(), rejected.outcome()), (ProduceErrorKind::Closed, WriteOutcome::NotWritten));
}

#[tokio::test]
async fn dropping_the_producer_still_sends_its_buffered_records() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").linger(Duration::from_mins(1)).await.unwrap();
    let delivery = producer.send(Record::new("x")).await.unwrap();
    drop(producer);
    assert_eq!(delivery.await.unwrap().offset(), Some(Offset(0)));
}

#[tokio::test]
async fn without_acknowledgements_a_delivery_has_no_offset() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").acks(Acks::None).await.unwrap();
    let receipt = producer.send(Record::new("x")).await.unwrap().await.unwrap();
    assert_eq!((receipt.partition(), receipt.offset()), (0, None));
    // The fake broker answers anyway; an answer that nobody waits for must be ignored.
    let acked = client.producer("orders").await.unwrap();
    send(&acked, 1).await;
    assert_eq!(client.metrics().disconnects, 0);
}
