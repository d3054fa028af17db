//! One producer with many topics, topics created on demand, and custom partitioners.

use std::error::Error as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_client::{
    AdminErrorKind, Client, ConnectError, ProduceErrorKind, Record, Timestamp, TrySendError,
};
use highwater_engine::TestBroker;

async fn started() -> (TestBroker, Client) {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    (broker, client)
}

async fn values(client: &Client, topic: &str) -> Vec<String> {
    let mut stream = client.consumer(topic).until_end().await.unwrap().into_stream();
    let mut values = Vec::new();
    while let Some(record) = stream.next().await {
        values.push(String::from_utf8(record.unwrap().value().to_vec()).unwrap());
    }
    values
}

#[tokio::test]
async fn one_producer_sends_to_its_own_topic_and_to_topics_named_by_records() {
    let (_broker, client) = started().await;
    for topic in ["orders", "payments", "audit"] {
        client.create_topic(topic).await.unwrap();
    }
    let producer = client.producer("orders").await.unwrap();
    assert_eq!((producer.topic(), producer.partitions()), (Some("orders"), 1));
    for n in 0..100 {
        producer.send(Record::new(format!("order {n}"))).await.unwrap();
        producer.send(Record::new(format!("payment {n}")).topic("payments")).await.unwrap();
        producer.send(Record::new(format!("again {n}")).topic("orders")).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!((values(&client, "orders").await.len(), values(&client, "payments").await.len()), (200, 100));
    let any = client.multi_topic_producer().await.unwrap();
    assert_eq!((any.topic(), any.partitions()), (None, 0));
    let receipt = any.send(Record::new("x").topic("audit")).await.unwrap().await.unwrap();
    assert_eq!(receipt.partition(), 0);
    let error = any.send(Record::new("x")).await.unwrap_err();
    assert_eq!(error.kind(), ProduceErrorKind::Invalid, "{error}");
    let error = any.send(Record::new("x").topic("oders")).await.unwrap_err();
    assert_eq!(error.kind(), ProduceErrorKind::UnknownTopic, "{error}");
    assert!(error.to_string().contains("oders"), "{error}");
    let other = any.clone();
    any.close(Duration::from_secs(10)).await.unwrap();
    for topic in ["audit", "orders"] {
        let error = other.send(Record::new("x").topic(topic)).await.unwrap_err();
        assert_eq!(error.kind(), ProduceErrorKind::Closed, "{error}");
    }
}

#[tokio::test]
async fn try_send_returns_the_record_until_its_topic_is_known() {
    let (_broker, client) = started().await;
    client.create_topic("orders").await.unwrap();
    let producer = client.multi_topic_producer().await.unwrap();
    let mut record = Record::new("x").topic("orders");
    let delivery = loop {
        match producer.try_send(record) {
            Ok(delivery) => break delivery,
            Err(TrySendError::NotReady(again)) => record = again,
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    };
    delivery.await.unwrap();
}

#[tokio::test]
async fn flush_returns_the_failures_of_all_topics_and_names_the_topics() {
    let (_broker, client) = started().await;
    let producer = client.multi_topic_producer().create_if_not_exists(1).await.unwrap();
    let two_days_ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_hours(48);
    for topic in ["orders", "payments"] {
        let record = Record::new("x").timestamp(Timestamp(two_days_ahead.as_millis() as i64));
        drop(producer.send(record.topic(topic)).await.unwrap());
    }
    let error = producer.flush().await.unwrap_err();
    let mut topics: Vec<_> =
        error.records().iter().map(|failed| failed.record.topic_name().unwrap()).collect();
    topics.sort_unstable();
    assert_eq!((error.count(), topics), (2, vec!["orders", "payments"]));
    producer.close(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn missing_topics_are_created_and_existing_ones_left_unchanged() {
    let (_broker, client) = started().await;
    let id = client.create_topic("orders").partitions(3).if_not_exists().await.unwrap();
    assert_eq!(client.create_topic("orders").partitions(5).if_not_exists().await.unwrap(), id);
    assert_eq!(client.create_topic("orders").await.unwrap_err().kind(), AdminErrorKind::Exists);
    let producer = client.producer("orders").create_if_not_exists(7).await.unwrap();
    assert_eq!(producer.partitions(), 3);
    assert_eq!(client.producer("new").create_if_not_exists(2).await.unwrap().partitions(), 2);
    assert_eq!(client.producer("none").await.unwrap_err().kind(), ProduceErrorKind::UnknownTopic);
    let consumer = client.consumer("read").create_if_not_exists(4).await.unwrap();
    assert_eq!(consumer.status().len(), 4);
    let member = client.consumer("shared").create_if_not_exists(2).group("billing").topic("shared too");
    assert!(member.await.is_err(), "a name that cannot be");
    let member = client.consumer("shared").create_if_not_exists(2).group("billing").topic("shared-too");
    member.await.unwrap().close().await.unwrap();
    assert_eq!(client.describe_topic("shared-too").await.unwrap().partitions.len(), 2);
}

#[tokio::test]
async fn a_custom_partitioner_decides_unless_the_record_names_a_partition() {
    let (_broker, client) = started().await;
    client.create_topic("orders").partitions(4).await.unwrap();
    let producer = client.producer("orders").partitioner(|topic, record, partitions| {
        assert_eq!((topic, partitions), ("orders", 4));
        match record.value()?.first()? {
            b'n' => None,
            digit => Some(u32::from(digit - b'0')),
        }
    });
    let producer = producer.await.unwrap();
    for (record, partition) in [
        (Record::new("3").key("k"), 3),
        (Record::new("2"), 2),
        (Record::new("2").partition(1), 1),
        (Record::new("n").key("u-42"), highwater_client::partition_for_key(b"u-42", 4)),
    ] {
        assert_eq!(producer.send(record).await.unwrap().partition(), partition);
    }
    let error = producer.send(Record::new("9")).await.unwrap_err();
    assert_eq!(error.kind(), ProduceErrorKind::UnknownTopic, "{error}");
}

#[tokio::test]
async fn errors_have_their_causes_as_sources() {
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused);
    let broker = TestBroker::start();
    let builder = Client::builder().bootstrap([broker.address()]).request_timeout(Duration::from_millis(100));
    let client = builder.connect().await.unwrap();
    drop(broker);
    let error = loop {
        // The call may be answered or interrupted while the broker stops.
        match client.create_topic("orders").await {
            Err(error) if error.source().is_some() => break error,
            _ => tokio::task::yield_now().await,
        }
    };
    let cause = error.source().unwrap().downcast_ref::<ConnectError>().unwrap();
    let cause = cause.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    assert!(cause.is_some(), "{error:?}");
}
