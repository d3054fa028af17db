//! The client against a broker that misbehaves on purpose.

mod connecting;
mod consuming;
mod producing;

use std::time::Duration;

use super::fake_broker::FakeBroker;
use crate::{Client, ClientBuilder, Producer, Record};

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

/// Sends records one by one and returns their offsets.
async fn send(producer: &Producer, count: usize) -> Vec<i64> {
    let mut offsets = Vec::new();
    for n in 0..count {
        let receipt = producer.send(Record::new(format!("{n}"))).await.unwrap().await.unwrap();
        offsets.push(receipt.offset().unwrap().get());
    }
    offsets
}
