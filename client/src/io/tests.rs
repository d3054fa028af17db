//! The client against a broker that misbehaves on purpose.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, ShardId};
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_protocol::native::{MessageKind, StartAt};

use super::fake_broker::{FakeBroker, Instead};
use crate::{
    Acks, Client, ClientBuilder, CommitErrorKind, ConnectErrorKind, Event, FailedRecord, FetchErrorKind,
    Outcome, ProduceErrorKind, Producer, Record, TrySendError,
};

fn builder(broker: &FakeBroker) -> ClientBuilder {
    let (short, long) = (Duration::from_millis(1), Duration::from_millis(20));
    Client::builder().bootstrap([broker.address()]).reconnect_backoff(short, long)
}

async fn client(broker: &FakeBroker) -> Client {
    builder(broker).connect().await.unwrap()
}

async fn producer(broker: &FakeBroker) -> Producer {
    client(broker).await.producer("orders").await.unwrap()
}

/// Sends records one by one; the offsets they got.
async fn send(producer: &Producer, count: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    for n in 0..count {
        let receipt = producer.send(Record::new(format!("{n}"))).await.unwrap().await.unwrap();
        offsets.push(receipt.offset().unwrap().get());
    }
    offsets
}

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
async fn a_lost_reply_is_asked_for_again_and_duplicates_nothing() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Instead::LoseReply), (MessageKind::Produce, Instead::HangUp)]);
    let producer = producer(&broker).await;
    assert_eq!(send(&producer, 4).await, [0, 1, 2, 3]);
    let duplicates = broker.lock().duplicates;
    assert_eq!((duplicates, broker.lock().log.next_offset()), (1, 4));
}

#[tokio::test]
async fn every_reply_lost_once_with_five_in_flight_keeps_order_and_offsets() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").batch_bytes(100).await.unwrap();
    for _ in 0..20 {
        broker.script([(MessageKind::Produce, Instead::LoseReply)]);
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
async fn what_can_be_tried_again_is_and_what_cannot_fails_at_once() {
    let broker = FakeBroker::start(1).await;
    broker.script([
        (MessageKind::Produce, Instead::Refuse(ErrorCode::Overloaded)),
        (MessageKind::Produce, Instead::Refuse(ErrorCode::StorageFull)),
        (MessageKind::Produce, Instead::Refuse(ErrorCode::WrongShard)),
    ]);
    let producer = producer(&broker).await;
    assert_eq!(send(&producer, 1).await, [0]);
    broker.script([(MessageKind::Produce, Instead::Refuse(ErrorCode::InvalidTimestamp))]);
    let error = producer.send(Record::new("x")).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ProduceErrorKind::Invalid, Outcome::NotWritten));
    assert_eq!(error.code(), Some(ErrorCode::InvalidTimestamp));
    assert!(!error.is_retryable());
    assert_eq!(send(&producer, 1).await, [1], "the producer goes on");
}

#[tokio::test]
async fn that_a_broker_cannot_take_records_just_now_is_told_while_they_are_sent_again() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut events = client.events();
    broker.script([
        (MessageKind::Produce, Instead::Refuse(ErrorCode::WrongShard)),
        (MessageKind::Produce, Instead::Refuse(ErrorCode::StorageFull)),
    ]);
    assert_eq!(send(&producer, 1).await, [0]);
    let refused = loop {
        if let Event::ProduceRefused { topic, reason } = events.next().await.unwrap() {
            break (topic, reason);
        }
    };
    assert_eq!(refused.0, "orders");
    assert!(!refused.1.is_empty());
}

#[tokio::test]
async fn a_record_without_an_answer_times_out_with_an_unknown_outcome() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").delivery_timeout(Duration::from_secs(1)).await.unwrap();
    // With a producer id and a way to the leader the next record leaves at once.
    send(&producer, 1).await;
    broker.script([(MessageKind::Produce, Instead::Ignore)]);
    let error = producer.send(Record::new("x")).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ProduceErrorKind::TimedOut, Outcome::Unknown));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_given_up_and_made_again() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Instead::Ignore)]);
    let client = builder(&broker).request_timeout(Duration::from_secs(1)).connect().await.unwrap();
    let mut events = client.events();
    let producer = client.producer("orders").await.unwrap();
    assert_eq!(send(&producer, 1).await, [0]);
    let disconnected = loop {
        if let Event::Disconnected { reason, .. } = events.next().await.unwrap() {
            break reason;
        }
    };
    assert!(disconnected.starts_with("no answer within"), "{disconnected}");
}

#[tokio::test]
async fn an_idle_connection_is_kept_alive_by_asking() {
    let broker = FakeBroker::start(1).await;
    let client = builder(&broker).keep_alive(Duration::from_millis(20)).connect().await.unwrap();
    // Subscribed to nothing that happens: only asking shows that the broker is there.
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
    tokio::select! {
        () = broker.until(|inner| inner.pings == 5) => {}
        batch = consumer.next_batch() => panic!("there is nothing: {batch:?}"),
    }
    assert_eq!((broker.lock().connections, client.metrics().disconnects), (1, 0));
}

#[tokio::test]
async fn the_buffer_is_bounded_and_what_does_not_fit_comes_back() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Instead::Ignore)]);
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
    // A send waits; dropped, it leaves nothing behind.
    let waiting = tokio::time::timeout(Duration::from_millis(20), producer.send(back)).await;
    assert!(waiting.is_err());
    broker.hang_up();
    producer.flush().await.unwrap();
    assert_eq!(broker.lock().log.next_offset(), taken);
    // A record that is larger than the buffer has it to itself.
    producer.send(Record::new(vec![0; 20_000])).await.unwrap();
    assert!(matches!(producer.try_send(Record::new("x")), Err(TrySendError::Full(_))));
    producer.flush().await.unwrap();
    let too_large = producer.send(Record::new(vec![0; BATCH_BYTES_MAX + (64 << 10)])).await.unwrap_err();
    assert_eq!(too_large.kind(), ProduceErrorKind::TooLarge);
}

#[tokio::test]
async fn the_buffer_is_bounded_without_acknowledgements_too() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Instead::Stall)]);
    let client = client(&broker).await;
    let producer = client.producer("orders").acks(Acks::None).buffer_bytes(1 << 20).await.unwrap();
    // More than sockets hold.
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
async fn closing_gives_back_what_was_not_acknowledged_with_key_headers_and_order() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").batch_bytes(200).await.unwrap();
    assert_eq!(send(&producer, 1).await, [0]);
    broker.script([(MessageKind::Produce, Instead::Ignore)]);
    let other = producer.clone();
    let mut deliveries = Vec::new();
    for n in 0..20 {
        let record = Record::new(format!("value {n}")).key("k").header("h", format!("{n}"));
        deliveries.push(producer.send(record).await.unwrap());
    }
    let error = producer.close(Duration::from_millis(50)).await.unwrap_err();
    // Whatever was behind the one that got no answer was acknowledged or not; what comes back is in order.
    let failed = deliveries.iter().filter(|delivery| delivery.result().unwrap().is_err()).count();
    assert_eq!((error.count(), error.records().len()), (failed as u64, failed));
    assert!(failed >= 1);
    assert_eq!(error.records()[0].outcome(), Outcome::Unknown);
    let records = error.into_records().into_iter();
    let numbers: Vec<u32> = records
        .map(|FailedRecord { record, .. }| {
            assert_eq!((record.key_bytes(), record.headers().len()), (Some(&b"k"[..]), 1));
            let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
            value.strip_prefix("value ").unwrap().parse().unwrap()
        })
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let refused = other.send(Record::new("x")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome()), (ProduceErrorKind::Closed, Outcome::NotWritten));
}

#[tokio::test]
async fn dropping_the_producer_still_sends_what_it_took() {
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
    // The fake answers all the same; an answer nobody waits for disturbs nothing.
    let acked = client.producer("orders").await.unwrap();
    send(&acked, 1).await;
    assert_eq!(client.metrics().disconnects, 0);
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_said_so() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let error = client.producer("oders").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ProduceErrorKind::UnknownTopic, Some(ErrorCode::UnknownTopic)));
    let error = client.consumer("oders").await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::UnknownTopic);
    assert!(error.to_string().contains("oders"), "{error}");
    let error = client.consumer("orders").partitions([3]).await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::UnknownTopic);
}

#[tokio::test]
async fn a_consumer_gets_everything_once_although_connections_break() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[10; 10]);
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
    let mut next = 0;
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
        if next % 70 == 0 {
            broker.hang_up();
        }
    }
    assert!(broker.lock().connections > 5);
}

#[tokio::test]
async fn a_named_consumer_goes_on_where_it_committed() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    let client = client(&broker).await;
    let start = || client.consumer("orders").name("billing").start(StartAt::Earliest);
    let mut consumer = start().await.unwrap();
    // A message holds a frame here, so batches are those of the log.
    let first = consumer.next_batch().await.unwrap().unwrap();
    first.commit().await.unwrap();
    drop(consumer);
    let mut consumer = start().await.unwrap();
    let second = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(second.iter().next().unwrap().offset(), Offset(2));
    consumer.commit().await.unwrap();
    assert_eq!(broker.lock().committed[0].offset, Offset(4));
    let mut unnamed = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
    let batch = unnamed.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.commit().await.unwrap_err().kind(), CommitErrorKind::Unnamed);
}

#[tokio::test]
async fn damaged_bytes_are_asked_for_again_and_reported_the_second_time() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2]);
    broker.lock().damage = 1;
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!((batch.len(), batch.next_offset()), (2, Offset(2)));
    assert_eq!(client.metrics().frames_damaged, 1);
    drop(consumer);

    // Both frames, both times.
    broker.lock().damage = 4;
    let mut consumer = client.consumer("orders").partitions([0]).start(StartAt::Earliest).await.unwrap();
    let mut result = consumer.next_batch().await;
    while let Ok(Some(_)) = result {
        result = consumer.next_batch().await;
    }
    let error = result.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Corrupt);
    consumer.seek(0, StartAt::Offset(Offset(3))).unwrap();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn a_position_that_no_longer_exists_is_an_error_or_reset_as_asked() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    broker.lock().log_start = 4;
    let client = client(&broker).await;
    let from = |offset| client.consumer("orders").start(StartAt::Offset(Offset(offset)));
    let error = from(1).await.unwrap().next_batch().await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::OutOfRange);
    assert!(error.to_string().contains("orders/0 at offset 1"), "{error}");
    let mut events = client.events();
    let mut consumer = from(1).on_out_of_range(StartAt::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(4));
    let reset = Event::PositionReset { topic: "orders".into(), partition: 0, from: Some(Offset(1)) };
    assert_eq!(events.next().await, Some(reset));
}

#[tokio::test]
async fn records_that_the_broker_has_lost_are_told_once_with_their_offsets_and_reading_goes_on_behind_them() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 3, 2, 4]);
    broker.lock().lost_frames = [1, 3].into();
    let client = client(&broker).await;
    let mut consumer = client
        .consumer("orders")
        .partitions([0])
        .start(StartAt::Offset(Offset(3)))
        .until_end()
        .await
        .unwrap();
    let lost = consumer.next_batch().await.unwrap_err();
    assert_eq!(lost.kind(), FetchErrorKind::Faulty);
    let range = lost.damaged().unwrap();
    assert_eq!((&range.topic[..], range.partition), ("orders", 0));
    assert_eq!((range.from, range.to), (Offset(3), Offset(5)));
    assert!(lost.to_string().contains("orders/0: the records at offsets 3 to 4 are"), "{lost}");
    assert_eq!(consumer.position(0), Some(Offset(5)));
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().map(|record| record.offset().get()).collect::<Vec<_>>(), [5, 6]);
    // A lost end is no end that is waited for.
    let lost = consumer.next_batch().await.unwrap_err();
    assert_eq!(lost.damaged().map(|range| (range.from, range.to)), Some((Offset(7), Offset(11))));
    assert!(consumer.next_batch().await.unwrap().is_none());
    // By record it is the same.
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
async fn a_partition_that_an_error_has_stopped_is_not_waited_for_at_the_end() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2, 2, 2]);
    broker.lock().log_start = 4;
    let client = client(&broker).await;
    let consumer = client.consumer("orders").partitions([0]).start(StartAt::Offset(Offset(1)));
    let mut consumer = consumer.until_end().await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap_err().kind(), FetchErrorKind::OutOfRange);
    assert!(consumer.next_batch().await.unwrap().is_none());
    // It is not over for good.
    consumer.seek(0, StartAt::Earliest).unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().iter().next().unwrap().offset(), Offset(4));
}

#[tokio::test]
async fn a_reset_while_half_of_what_arrived_is_read_goes_on_where_it_was_asked_to() {
    let broker = FakeBroker::start(1).await;
    // More than a batch for the user holds.
    broker.append(&[40_000]);
    let client = client(&broker).await;
    let mut events = client.events();
    let consumer = client.consumer("orders").start(StartAt::Earliest);
    let mut consumer = consumer.on_out_of_range(StartAt::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().len(), 40_000);
    broker.lock().log_start = 40_000;
    broker.script([(MessageKind::Subscribe, Instead::Ignore)]);
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
async fn two_ways_to_the_same_shard_end_in_one_connection() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let mut events = client.events();
    broker.hang_up();
    while !matches!(events.next().await.unwrap(), Event::Disconnected { .. }) {}
    // Neither knows of the other before both are through.
    let cluster = &client.cluster;
    let (any, of_shard) = tokio::join!(cluster.any(), cluster.connection(NodeId(1), ShardId(0)));
    let (any, of_shard) = (any.unwrap(), of_shard.unwrap());
    assert!(Arc::ptr_eq(&any, &of_shard) && !any.is_closed());
    client.close();
    assert!(any.is_closed());
}

#[tokio::test]
async fn what_is_dropped_while_the_broker_is_away_ends() {
    let broker = FakeBroker::start(2).await;
    let client = client(&broker).await;
    let mut events = client.events();
    let producer = client.producer("orders").delivery_timeout(Duration::from_millis(100)).await.unwrap();
    let consumer = client.consumer("orders").await.unwrap();
    broker.until(|inner| inner.starts.len() == 2).await;
    broker.go_away();
    while !matches!(events.next().await.unwrap(), Event::ConnectFailed { .. }) {}
    let delivery = producer.send(Record::new("x")).await.unwrap();
    assert_eq!(delivery.await.unwrap_err().kind(), ProduceErrorKind::TimedOut);
    drop((producer, consumer, client));
    // They end with the client's last task.
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn until_end_stops_at_what_was_the_end() {
    let broker = FakeBroker::start(2).await;
    broker.append(&[3, 3]);
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).until_end().await.unwrap();
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
async fn the_next_batch_survives_being_cancelled() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
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
async fn a_small_credit_is_enough_for_a_long_log() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[100; 200]);
    let client = client(&broker).await;
    let mut stream =
        client.consumer("orders").start(StartAt::Earliest).buffer_bytes(1).await.unwrap().into_stream();
    for offset in 0..20_000 {
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!(record.offset, Offset(offset));
    }
}

#[tokio::test]
async fn partitions_that_move_to_another_shard_are_followed() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2]);
    broker.lock().shards = 3;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut consumer = client.consumer("orders").start(StartAt::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().len(), 2);
    broker.lock().shard = 2;
    broker.script([(MessageKind::Produce, Instead::Refuse(ErrorCode::WrongShard))]);
    assert_eq!(send(&producer, 2).await, [2, 3]);
    assert_eq!(broker.lock().connections, 2, "one for each shard");
    broker.hang_up();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().offset(), Offset(2));
}

#[tokio::test]
async fn an_address_that_leads_nowhere_falls_back_to_the_one_that_worked() {
    let broker = FakeBroker::start(1).await;
    for advertised in ["0.0.0.0:9191", "127.0.0.1:1", "no-such-host.invalid:9191"] {
        broker.lock().address = advertised.into();
        let client = client(&broker).await;
        let producer = client.producer("orders").await.unwrap();
        broker.hang_up();
        send(&producer, 1).await;
    }
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let gone = FakeBroker::start(1).await.address();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    assert!(error.to_string().contains("127.0.0.1:1") && error.is_retryable(), "{error}");
    let error = Client::connect(&elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::NotHighwater, "{error}");
    let error = Client::connect("localhost:none").await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Address, "{error}");
    let error = Client::builder().connect().await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Address, "{error}");
    let client = Client::builder().bootstrap(["127.0.0.1:1".to_owned(), elsewhere, gone]).connect().await;
    assert!(client.is_ok(), "one that answers is enough");
}

#[tokio::test]
async fn closing_the_client_ends_everything() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut consumer = client.consumer("orders").await.unwrap();
    broker.script([(MessageKind::Produce, Instead::Ignore)]);
    let delivery = producer.send(Record::new("x")).await.unwrap();
    tokio::task::yield_now().await;
    client.close();
    assert_eq!(delivery.await.unwrap_err().kind(), ProduceErrorKind::Closed);
    assert_eq!(consumer.next_batch().await.unwrap_err().kind(), FetchErrorKind::Closed);
    assert!(consumer.next_batch().await.unwrap().is_none());
    assert!(client.metadata().await.is_err());
}
