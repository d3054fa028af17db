//! The native Rust client of the Highwater event-streaming broker.
//!
//! Topics of partitioned, durable logs: a [`Producer`] appends records, a [`Consumer`] reads them in order, as often as it likes, from
//! wherever it likes. An acknowledged record is on stable storage.
//!
//! # Quick start
//!
//! ```
//! use std::time::Duration;
//! use highwater_client::{Client, Record, Start};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! // A broker in this process, for tests and examples. Otherwise: `highwater start`, and the address is localhost:9191.
//! let broker = highwater_engine::TestBroker::start();
//! let client = Client::connect(broker.address()).await?;
//! client.create_topic("orders").partitions(8).await?;
//!
//! // Send. The first await is for room in the buffer, the second for the acknowledgement.
//! let producer = client.producer("orders").linger(Duration::from_millis(1)).await?;
//! let delivery = producer.send(Record::new("paid").key("u-42")).await?;
//! let receipt = delivery.await?;
//! println!("partition {}, offset {}", receipt.partition(), receipt.offset().unwrap());
//!
//! // Many records are sent without waiting for each, and waited for together.
//! for n in 0..1000 {
//!     producer.send(Record::new(format!("order {n}")).key(format!("u-{}", n % 10))).await?;
//! }
//! // Failures that nobody has seen come out of the next `flush` or `close`, with their records.
//! if let Err(error) = producer.close(Duration::from_secs(10)).await {
//!     eprintln!("{error}");
//!     for failed in error.records() {
//!         eprintln!("{:?}: {} ({:?})", failed.record, failed.error, failed.outcome());
//!     }
//!     return Err(error.into());
//! }
//!
//! // Receive. A named consumer goes on where it committed; without a commit, at the start it is given.
//! let mut consumer = client.consumer("orders").name("billing").start(Start::Earliest).until_end().await?;
//! let mut count = 0;
//! while let Some(batch) = consumer.next_batch().await? {
//!     for record in &batch {
//!         // Key and value are views into the buffer that the batch arrived in.
//!         let (_key, _value): (Option<&[u8]>, &[u8]) = (record.key(), record.value());
//!         count += 1;
//!     }
//!     batch.commit().await?;
//! }
//! assert_eq!(count, 1001);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can be relied on
//!
//! - **A delivery that is `Ok` is durable** in the sense of the producer's [`Acks`]. One that failed says by
//!   [`ProduceError::outcome`] whether the record was written.
//! - **A retry never duplicates.** A lost connection is made again and what was not acknowledged is sent again, with the sequence it had; the
//!   broker recognises what it has already. Order within a partition is kept.
//! - **A consumer misses nothing and gets nothing twice** across lost connections: it goes on behind the last record that arrived. What was
//!   processed but not committed comes again when a consumer of that name starts anew.
//! - **Several consumers share the work** as members of a group, with Kafka's consumers if need be: [`ConsumerBuilder::group`]. A partition has one
//!   member at a time; it goes to the next with its position committed.
//! - **Memory is bounded** by [`ProducerBuilder::buffer_bytes`] and [`ConsumerBuilder::buffer_bytes`], and by what the program keeps.
//! - **Futures can be dropped.** Each says what that means; none loses what it was given without saying so.
//!
//! # Shape
//!
//! There is one connection to each shard that something is wanted of, with many requests in flight. Everything that decides is a state
//! machine without I/O; tokio is around it. Any flavour of tokio runtime will do, with I/O and time enabled.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod admin_groups;
mod batch;
mod client;
mod config;
mod consumer;
mod core;
mod error;
mod events;
mod group;
mod io;
mod limits;
mod lock;
mod metrics;
mod producer;
mod reader;
mod record;
mod records;
mod undelivered;

pub use admin::{AdminResult, AlterTopic, CreateTopic};
pub use batch::{Batch, BatchIter, RecordRef};
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, ConsumerBuilder, PartitionStatus, RecordStream};
pub use error::{
    AdminError, AdminErrorKind, CommitError, CommitErrorKind, ConnectError, ConnectErrorKind, FetchError,
    FetchErrorKind, Outcome, ProduceError, ProduceErrorKind, TrySendError,
};
pub use events::{Event, Events};
pub use group::{Assignor, GroupBuilder, GroupConsumer, GroupStream};
pub use metrics::{LatencySnapshot, MetricsSnapshot};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt};
pub use record::{ConsumedRecord, Record, RecordHeader};
pub use undelivered::{DeliveryError, FailedRecord};

pub use highwater_protocol::batch::{Compression, Header};
pub use highwater_protocol::error::ErrorCode;
pub use highwater_protocol::ids::{ClusterId, NodeId, Offset, PartitionIndex, ShardId, Timestamp, TopicId};
pub use highwater_protocol::native::{
    Acks, CommittedOffset, DescribeGroupReply, DescribeTopicReply, GroupInfo, GroupMemberInfo, ListedOffset,
    MetadataReply, NodeInfo, PartitionDetail, PartitionInfo, ShardStats, StartAt, StartAt as Start,
    StatsReply, TopicInfo, TopicPartitions,
};
pub use highwater_protocol::partitioner::partition_for_key;
