//! Consumer on librdkafka: one queue per partition, each of which wakes the task when it becomes non-empty.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::ADMIN_TIMEOUT;
use crate::backend::mailbox::Mailbox;
use crate::backend::{BackendError, Consumer, From, Incoming};

/// Maximum number of records passed on per poll, so that other tasks can run.
const RECORDS_PER_POLL_MAX: usize = 10_000;

pub(super) struct KafkaConsumer {
    consumer: Arc<BaseConsumer>,
    /// Queues, by partition.
    queues: Vec<PartitionQueue<DefaultConsumerContext>>,
    /// Partitions whose queues became non-empty.
    filled: Arc<Mailbox<usize>>,
    /// Partitions with messages, to be drained round-robin.
    ready: VecDeque<usize>,
    /// Whether each partition is in `ready`.
    is_ready: Vec<bool>,
    taken: Vec<usize>,
}

/// Returns all partitions with the offset `at`.
fn all(topic: &str, partitions: u32, at: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions as usize);
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, at)?;
    }
    Ok(list)
}

fn ends_by(consumer: &BaseConsumer, topic: &str, partitions: u32) -> KafkaResult<TopicPartitionList> {
    let ends = consumer.offsets_for_times(all(topic, partitions, Offset::End)?, ADMIN_TIMEOUT)?;
    for element in ends.elements() {
        element.error()?;
    }
    Ok(ends)
}

/// Checks that all leaders serve requests, by listing the end offsets. Blocks.
pub(super) fn ends(config: &ClientConfig, topic: &str, partitions: u32) -> KafkaResult<()> {
    ends_by(&config.create()?, topic, partitions).map(|_| ())
}

impl KafkaConsumer {
    /// Creates a consumer of all partitions of a topic, without a group. Blocks.
    pub(super) fn new(config: &ClientConfig, topic: &str, partitions: u32, from: From) -> KafkaResult<Self> {
        let consumer: Arc<BaseConsumer> = Arc::new(config.create()?);
        let assignment = match from {
            From::Earliest => all(topic, partitions, Offset::Beginning)?,
            // Resolved now, because librdkafka would resolve "end" only at the first fetch.
            From::Latest => ends_by(&consumer, topic, partitions)?,
        };
        consumer.assign(&assignment)?;
        let filled = Arc::new(Mailbox::default());
        let mut queues = Vec::with_capacity(partitions as usize);
        for partition in 0..partitions as usize {
            let mut queue = consumer
                .split_partition_queue(topic, partition as i32)
                .ok_or(KafkaError::Subscription(format!("partition {partition} has no queue")))?;
            let filled = Arc::clone(&filled);
            queue.set_nonempty_callback(move || filled.push(partition));
            queues.push(queue);
        }
        let all = 0..partitions as usize;
        Ok(Self {
            consumer,
            queues,
            filled,
            ready: all.clone().collect(),
            is_ready: all.map(|_| true).collect(),
            taken: Vec::new(),
        })
    }

    fn mark_ready(&mut self) {
        for partition in self.taken.drain(..) {
            if !std::mem::replace(&mut self.is_ready[partition], true) {
                self.ready.push_back(partition);
            }
        }
    }
}

impl Consumer for KafkaConsumer {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Incoming<'_>),
    ) -> Poll<Result<(), BackendError>> {
        let mut count = 0;
        // Errors, and messages fetched before the partitions had their own queues.
        while let Some(event) = self.consumer.poll(Timeout::After(Duration::ZERO)) {
            match event {
                Ok(message) => hand_over(&message, take, &mut count),
                Err(error) if passes(&error) => {}
                Err(error) => {
                    return Poll::Ready(Err(BackendError(format!("cannot read from Kafka: {error}"))));
                }
            }
        }
        loop {
            let wait = self.filled.poll_take(cx, &mut self.taken);
            self.mark_ready();
            while let Some(partition) = self.ready.pop_front() {
                self.is_ready[partition] = false;
                while let Some(message) = self.queues[partition].poll(Timeout::After(Duration::ZERO)) {
                    match message {
                        Ok(message) => hand_over(&message, take, &mut count),
                        Err(error) if passes(&error) => {}
                        Err(error) => {
                            return Poll::Ready(Err(BackendError(format!(
                                "cannot read partition {partition} from Kafka: {error}"
                            ))));
                        }
                    }
                    if count >= RECORDS_PER_POLL_MAX {
                        self.taken.push(partition);
                        self.mark_ready();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
            if wait.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn hand_over(message: &BorrowedMessage<'_>, take: &mut dyn FnMut(Incoming<'_>), count: &mut usize) {
    *count += 1;
    take(Incoming {
        partition: message.partition() as u32,
        offset: message.offset(),
        value: message.payload().unwrap_or_default(),
    });
}

/// Returns whether librdkafka recovers from this error by itself.
fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
        )
    )
}
