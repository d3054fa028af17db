//! Backend for Highwater's native client.

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

/// Size of a consumer's buffer.
const CONSUMER_BYTES: usize = 32 << 20;
/// Minimum size of a producer's buffer. The buffer has space for all outstanding records, so that only the generator's bound applies.
const PRODUCER_BYTES_MIN: usize = 32 << 20;
const PRODUCER_BYTES_MAX: usize = 1 << 30;
/// Overhead of a record in the client's accounting, in bytes.
const RECORD_OVERHEAD: usize = 64;

/// Default meaning of an acknowledgement.
const ACKNOWLEDGEMENT: &str = "on stable storage, 1 replica";

/// Backend for Highwater's native client.
#[derive(Debug)]
pub struct Native {
    server: Vec<String>,
    acknowledgement: String,
}

impl Native {
    /// Creates a backend for brokers at these addresses. `acknowledgement` is its meaning, if the caller knows it exactly.
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
            let mut create = client
                .create_topic(topic)
                .partitions(scenario.topic.partitions)
                .replicas(scenario.topic.replicas);
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
            let batch_records = if producers.batch_records == 0 { u32::MAX } else { producers.batch_records };
            let outstanding = scenario.load.outstanding as usize * (scenario.record.bytes + RECORD_OVERHEAD);
            let producer = self
                .client()
                .await?
                .producer(topic)
                .batch_bytes(producers.batch_bytes)
                .batch_records(batch_records)
                .buffer_bytes(outstanding.clamp(PRODUCER_BYTES_MIN, PRODUCER_BYTES_MAX))
                .linger(Duration::from_micros(producers.linger_us))
                .max_in_flight(producers.in_flight as usize)
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
            // Wait until the broker has resolved the start; otherwise `Latest` may skip records sent from now on.
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

/// Counters of the broker: syncs, and writes that are durable by themselves.
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

/// Producer on the native client. The records of a partition complete in order, so only the oldest of each is polled, and only after its
/// waker was called.
struct NativeProducer {
    producer: client::Producer,
    lanes: Vec<Lane>,
    completed: Arc<Completed>,
    /// Partitions being drained.
    ready: Vec<u32>,
    /// Records rejected by the client itself.
    rejected: Vec<Ack>,
}

struct Lane {
    sent: VecDeque<(u64, Delivery)>,
    waker: Waker,
}

/// Partitions whose oldest record has completed, and the task to wake.
#[derive(Default)]
struct Completed(Mutex<(Vec<u32>, Option<Waker>)>);

struct LaneWaker {
    completed: Arc<Completed>,
    lane: u32,
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        let mut completed = self.completed.0.lock().unwrap_or_else(PoisonError::into_inner);
        completed.0.push(self.lane);
        if let Some(task) = completed.1.take() {
            drop(completed);
            task.wake();
        }
    }
}

impl NativeProducer {
    fn new(producer: client::Producer) -> Self {
        let completed = Arc::<Completed>::default();
        let lane = |lane| Lane {
            sent: VecDeque::new(),
            waker: Arc::new(LaneWaker { completed: completed.clone(), lane }).into(),
        };
        let lanes = (0..producer.partitions()).map(lane).collect();
        Self { producer, lanes, completed, ready: Vec::new(), rejected: Vec::new() }
    }
}

impl Lane {
    /// Removes completed records, and registers wakers for the others.
    fn drain_completed(&mut self, out: &mut Vec<Ack>) {
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
                // The first record of a partition is polled at once, to register its waker.
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
        // Starting the flush is enough; it proceeds without being polled.
        let flush = pin!(self.producer.flush());
        let _ = flush.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_acks(&mut self, cx: &mut Context<'_>, out: &mut Vec<Ack>) -> Poll<()> {
        let before = out.len();
        out.append(&mut self.rejected);
        loop {
            {
                let mut completed = self.completed.0.lock().unwrap_or_else(PoisonError::into_inner);
                if completed.0.is_empty() {
                    if out.len() > before {
                        return Poll::Ready(());
                    }
                    completed.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut completed.0, &mut self.ready);
            }
            for lane in self.ready.drain(..) {
                self.lanes[lane as usize].drain_completed(out);
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
            Poll::Ready(Ok(None)) => Poll::Ready(Err(BackendError("the consumer is closed".into()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(failed(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}
