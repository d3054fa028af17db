//! Distribution of records without a key over the partitions of a real broker.

use std::time::Duration;

use highwater_client::{Client, Record, Start};
use highwater_engine::TestBroker;

const PARTITIONS: u32 = 8;

async fn records_of_each(client: &Client, topic: &str) -> Vec<i64> {
    let ends = (0..PARTITIONS).map(|partition| (partition, Start::Latest));
    let ends = client.list_offsets(topic, ends).await.unwrap();
    ends.iter().map(|end| end.found.unwrap().unwrap().0.get()).collect()
}

#[tokio::test]
async fn a_stream_of_records_without_a_key_spreads_evenly_over_the_partitions() {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").partitions(PARTITIONS).await.unwrap();
    let producer = client.producer("orders").batch_bytes(4000).await.unwrap();
    // About a hundred batches.
    let records = 40_000;
    for n in 0..records {
        producer.send(Record::new(format!("{n}"))).await.unwrap();
    }
    producer.flush().await.unwrap();
    let each = records_of_each(&client, "orders").await;
    assert_eq!(each.iter().sum::<i64>(), records);
    let fair = records / i64::from(PARTITIONS);
    assert!(each.iter().all(|of| (fair / 2..fair * 2).contains(of)), "{each:?}");
}

#[tokio::test]
async fn records_sent_one_by_one_use_every_partition() {
    let broker = TestBroker::start();
    let client = Client::connect(broker.address()).await.unwrap();
    client.create_topic("orders").partitions(PARTITIONS).await.unwrap();
    for linger in [Duration::ZERO, Duration::from_millis(2)] {
        let before = records_of_each(&client, "orders").await;
        let producer = client.producer("orders").linger(linger).await.unwrap();
        for _ in 0..8 * PARTITIONS {
            producer.send(Record::new("x")).await.unwrap().await.unwrap();
        }
        let after = records_of_each(&client, "orders").await;
        let each: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(each.iter().all(|of| (7..=9).contains(of)), "linger {linger:?}: {each:?}");
    }
}
