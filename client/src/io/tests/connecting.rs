//! Connections: addresses, keep-alive, routing and shutdown.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, ShardId};
use highwater_protocol::native::{MessageKind, Start};

use super::super::fake_broker::{FakeBroker, Fault};
use crate::{Client, ConnectErrorKind, Event, FetchErrorKind, ProduceErrorKind, Record};

use super::*;

#[tokio::test]
async fn a_silent_connection_is_closed_and_re_established() {
    let broker = FakeBroker::start(1).await;
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
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
async fn an_idle_connection_is_kept_alive_by_pings() {
    let broker = FakeBroker::start(1).await;
    let client = builder(&broker).keep_alive_interval(Duration::from_millis(20)).connect().await.unwrap();
    // No data arrives on this subscription: only pings show that the broker is there.
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    tokio::select! {
        () = broker.until(|inner| inner.pings == 5) => {}
        batch = consumer.next_batch() => panic!("there is nothing: {batch:?}"),
    }
    assert_eq!((broker.lock().connections, client.metrics().disconnects), (1, 0));
}

#[tokio::test]
async fn a_missing_topic_or_partition_is_an_error_that_names_it() {
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
async fn two_concurrent_attempts_to_reach_a_shard_share_one_connection() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let mut events = client.events();
    broker.hang_up();
    while !matches!(events.next().await.unwrap(), Event::Disconnected { .. }) {}
    // Both attempts start before either has connected.
    let cluster = &client.cluster;
    let (any, of_shard) = tokio::join!(cluster.any(), cluster.connection(NodeId(1), ShardId(0)));
    let (any, of_shard) = (any.unwrap(), of_shard.unwrap());
    assert!(Arc::ptr_eq(&any, &of_shard) && !any.is_closed());
    client.close();
    assert!(any.is_closed());
}

#[tokio::test]
async fn dropped_handles_end_while_the_broker_is_unreachable() {
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
    // The stream of events ends with the client's last task.
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn partitions_that_move_to_another_shard_are_followed() {
    let broker = FakeBroker::start(1).await;
    broker.append(&[2]);
    broker.lock().shards = 3;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut consumer = client.consumer("orders").start(Start::Earliest).await.unwrap();
    assert_eq!(consumer.next_batch().await.unwrap().unwrap().len(), 2);
    broker.lock().shard = 2;
    broker.script([(MessageKind::Produce, Fault::Refuse(ErrorCode::WrongShard))]);
    assert_eq!(send(&producer, 2).await, [2, 3]);
    assert_eq!(broker.lock().connections, 2, "one for each shard");
    broker.hang_up();
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().offset(), Offset(2));
}

#[tokio::test]
async fn an_unreachable_advertised_address_falls_back_to_the_last_one_that_worked() {
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
async fn an_unreachable_address_and_a_foreign_server_are_different_errors() {
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
async fn closing_the_client_ends_its_producers_consumers_and_calls() {
    let broker = FakeBroker::start(1).await;
    let client = client(&broker).await;
    let producer = client.producer("orders").await.unwrap();
    let mut consumer = client.consumer("orders").await.unwrap();
    broker.script([(MessageKind::Produce, Fault::Ignore)]);
    let delivery = producer.send(Record::new("x")).await.unwrap();
    tokio::task::yield_now().await;
    client.close();
    assert_eq!(delivery.await.unwrap_err().kind(), ProduceErrorKind::Closed);
    assert_eq!(consumer.next_batch().await.unwrap_err().kind(), FetchErrorKind::Closed);
    assert!(consumer.next_batch().await.unwrap().is_none());
    assert!(client.metadata().await.is_err());
}
