//! This project's own client.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use highwater_client as client;
use highwater_client::{Client, Delivery, Start, TrySendError};

use super::{Ack, Backend, BackendError, Consumer, From, Incoming, Outgoing, Pending, Producer};
use crate::scenario::{Compression, Scenario};

/// A consumer's buffer.
const CONSUMER_BYTES: usize = 32 << 20;
/// The least of a producer's buffer. It has room for what may be outstanding: the generator's bound is the one that counts.
const PRODUCER_BYTES_MIN: usize = 32 << 20;
const PRODUCER_BYTES_MAX: usize = 1 << 30;
/// What the client reckons for a record beside key and value.
const RECORD_OVERHEAD: usize = 64;

/// What an acknowledgement means if nobody says more.
const ACKNOWLEDGEMENT: &str = "on stable storage, 1 replica";

/// See the module's doc.
#[derive(Debug)]
pub struct Native {
    server: Vec<String>,
    acknowledgement: String,
}

impl Native {
    /// Brokers at these addresses. What an acknowledgement means is known more exactly by who started them.
    pub fn new(server: Vec<String>, acknowledgement: Option<&str>) -> Self {
        Self { server, acknowledgement: acknowledgement.unwrap_or(ACKNOWLEDGEMENT).to_owned() }
    }

    async fn client(&self) -> Result<Client, BackendError> {
        Client::builder().bootstrap(&self.server).name("highwater-bench").connect().await.map_err(failed)
    }
}

fn failed(error: impl fmt::Display) -> BackendError {
    BackendError(error.to_string())
}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn acknowledgement(&self) -> String {
        self.acknowledgement.clone()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, ()> {
        Box::pin(async move {
            let client = self.client().await?;
            let mut create = client.create_topic(topic).partitions(scenario.topic.partitions);
            for (name, value) in &scenario.topic.config {
                create = create.config(name, value);
            }
            create.await.map_err(failed).map(drop)
        })
    }

    fn create_idle_topic<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, ()> {
        Box::pin(async move {
            let client = self.client().await?;
            client.create_topic(topic).partitions(partitions).await.map_err(failed).map(drop)
        })
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> Pending<'a, ()> {
        Box::pin(async move { self.client().await?.delete_topic(topic).await.map_err(failed) })
    }

    fn producer<'a>(&'a self, topic: &'a str, scenario: &'a Scenario) -> Pending<'a, Box<dyn Producer>> {
        Box::pin(async move {
            let producers = &scenario.producers;
            // A record that is larger than the batch is a batch by itself.
            let batch_bytes = if producers.batch_records == 1 { 1 } else { producers.batch_bytes };
            if producers.batch_records > 1 {
                return Err(BackendError(
                    "the native client counts bytes of a batch, not records: batch_records is 0 or 1".into(),
                ));
            }
            let outstanding = scenario.load.outstanding as usize * (scenario.record.bytes + RECORD_OVERHEAD);
            let producer = self
                .client()
                .await?
                .producer(topic)
                .batch_bytes(batch_bytes)
                .buffer_bytes(outstanding.clamp(PRODUCER_BYTES_MIN, PRODUCER_BYTES_MAX))
                .linger(Duration::from_micros(producers.linger_us))
                .in_flight(producers.in_flight as usize)
                .compression(compression(producers.compression))
                .await
                .map_err(failed)?;
            Ok(Box::new(NativeProducer::new(producer)) as Box<dyn Producer>)
        })
    }

    fn consumer<'a>(
        &'a self,
        topic: &'a str,
        from: From,
        scenario: &'a Scenario,
    ) -> Pending<'a, Box<dyn Consumer>> {
        Box::pin(async move {
            let start = match from {
                From::Earliest => Start::Earliest,
                From::Latest => Start::Latest,
            };
            let client = self.client().await?;
            let mut consumer = client.consumer(topic).start(start).buffer_bytes(CONSUMER_BYTES);
            if scenario.removes_records() {
                consumer = consumer.on_out_of_range(Start::Earliest);
            }
            let consumer = consumer.await.map_err(failed)?;
            // Until the broker has said where it begins, "the newest" may still be behind what is sent next.
            while consumer.status().iter().any(|partition| partition.position.is_none()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Box::new(NativeConsumer(consumer)) as Box<dyn Consumer>)
        })
    }

    fn ends<'a>(&'a self, topic: &'a str, partitions: u32) -> Pending<'a, Option<Vec<i64>>> {
        Box::pin(async move {
            let wanted = (0..partitions).map(|partition| (partition, Start::Latest));
            let listed = self.client().await?.list_offsets(topic, wanted).await.map_err(failed)?;
            let end = |end: client::ListedOffset| match end.found {
                Ok(found) => Ok(found.map_or(0, |(offset, _)| offset.0)),
                Err(code) => Err(BackendError(format!("{topic}/{}: {code}", end.partition.0))),
            };
            listed.into_iter().map(end).collect::<Result<_, _>>().map(Some)
        })
    }

    fn syncs(&self) -> Pending<'_, Option<u64>> {
        Box::pin(async move {
            let stats = self.client().await?.stats().await.map_err(failed)?;
            Ok(SYNCS.iter().filter_map(|name| stats.total(name)).reduce(|a, b| a + b))
        })
    }
}

/// Counters of the broker: flushes of a disk, and writes that are durable by themselves.
const SYNCS: [&str; 2] = ["disk.syncs", "disk.writes.durable"];

fn compression(of: Compression) -> client::Compression {
    match of {
        Compression::None => client::Compression::None,
        Compression::Lz4 => client::Compression::Lz4,
        Compression::Zstd => client::Compression::Zstd,
        Compression::Snappy => client::Compression::Snappy,
        Compression::Gzip => client::Compression::Gzip,
    }
}

/// Records of a partition settle in order, so only the oldest is watched; and only the partitions are looked at whose oldest has
/// settled, which its waker tells.
struct NativeProducer {
    producer: client::Producer,
    lanes: Vec<Lane>,
    settled: Arc<Settled>,
    /// Being worked through.
    ready: Vec<u32>,
    /// Refused by the client itself.
    rejected: Vec<Ack>,
}

struct Lane {
    sent: VecDeque<(u64, Delivery)>,
    waker: Waker,
}

/// Partitions whose oldest record has settled, and whom to tell.
#[derive(Default)]
struct Settled(Mutex<(Vec<u32>, Option<Waker>)>);

struct LaneWaker {
    settled: Arc<Settled>,
    lane: u32,
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        let mut settled = self.settled.0.lock().unwrap_or_else(PoisonError::into_inner);
        settled.0.push(self.lane);
        if let Some(task) = settled.1.take() {
            drop(settled);
            task.wake();
        }
    }
}

impl NativeProducer {
    fn new(producer: client::Producer) -> Self {
        let settled = Arc::<Settled>::default();
        let lane = |lane| Lane {
            sent: VecDeque::new(),
            waker: Arc::new(LaneWaker { settled: settled.clone(), lane }).into(),
        };
        let lanes = (0..producer.partitions()).map(lane).collect();
        Self { producer, lanes, settled, ready: Vec::new(), rejected: Vec::new() }
    }
}

impl Lane {
    /// Takes out what has settled, and has the rest watched.
    fn settle(&mut self, out: &mut Vec<Ack>) {
        while let Some((tag, delivery)) = self.sent.front_mut() {
            let tag = *tag;
            match Pin::new(delivery).poll(&mut Context::from_waker(&self.waker)) {
                Poll::Pending => return,
                Poll::Ready(result) => {
                    let offset = |receipt: client::Receipt| receipt.offset().map_or(-1, |offset| offset.0);
                    let result = result.map(offset).map_err(|error| format!("{:?}", error.kind()));
                    out.push(Ack { tag, result });
                    self.sent.pop_front();
                }
            }
        }
    }
}

impl Producer for NativeProducer {
    fn send(&mut self, record: Outgoing) -> Result<(), Outgoing> {
        let Outgoing { tag, partition, key, value } = record;
        let mut new = client::Record::new(value).partition(partition);
        if let Some(key) = key {
            new = new.key(key);
        }
        match self.producer.try_send(new) {
            Ok(mut delivery) => {
                let lane = &mut self.lanes[partition as usize];
                // The oldest of a partition is watched from the beginning.
                if lane.sent.is_empty()
                    && Pin::new(&mut delivery).poll(&mut Context::from_waker(&lane.waker)).is_ready()
                {
                    lane.waker.wake_by_ref();
                }
                lane.sent.push_back((tag, delivery));
                Ok(())
            }
            Err(TrySendError::Full(record)) => {
                let (key, value) = record.into_parts();
                Err(Outgoing { tag, partition, key, value: value.unwrap_or_default() })
            }
            Err(error) => {
                let kind = match error {
                    TrySendError::Rejected { error, .. } => format!("{:?}", error.kind()),
                    other => other.to_string(),
                };
                self.rejected.push(Ack { tag, result: Err(kind) });
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        // Begun is enough: it goes on without being waited for.
        let flush = pin!(self.producer.flush());
        let _ = flush.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        let before = out.len();
        out.append(&mut self.rejected);
        loop {
            {
                let mut settled = self.settled.0.lock().unwrap_or_else(PoisonError::into_inner);
                if settled.0.is_empty() {
                    if out.len() > before {
                        return Poll::Ready(());
                    }
                    settled.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut settled.0, &mut self.ready);
            }
            for lane in self.ready.drain(..) {
                self.lanes[lane as usize].settle(out);
            }
        }
    }
}

struct NativeConsumer(client::Consumer);

impl Consumer for NativeConsumer {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>> {
        match self.0.poll_next_batch(cx) {
            Poll::Ready(Ok(Some(batch))) => {
                for record in &batch {
                    take(Incoming {
                        partition: record.partition(),
                        offset: record.offset().0,
                        value: record.value(),
                    });
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(Err(BackendError("the consumer was closed".into()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(failed(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}
