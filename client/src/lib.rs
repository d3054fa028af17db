//! The native Rust client of the Highwater event-streaming broker.
//!
//! A *topic* is a set of *partitions*, each a durable log. A [`Producer`] appends *records* to a topic. A [`Consumer`] reads
//! them in order, from any offset and any number of times. The members of a *group* share a topic's partitions. An
//! acknowledged record is on stable storage.
//!
//! | task | start at |
//! |---|---|
//! | [try it](#a-first-program) | |
//! | [connect](#connect) | [`Client::connect`], [`Client::builder`] |
//! | [create a topic](#create-a-topic) | [`Client::create_topic`] |
//! | [send records](#send-records) | [`Client::producer`], [`Client::multi_topic_producer`] |
//! | [read records](#read-records) | [`Client::consumer`] |
//! | [share the work in a group](#share-the-work-in-a-group) | [`ConsumerBuilder::group`] |
//! | [administer](#administer) | [`Client::describe_topic`], [`Client::describe_group`], ... |
//! | [deal with errors](#deal-with-errors) | [`ProduceError`], [`DeliveryError`], [`FetchError`], ... |
//!
//! # A first program
//!
//! ```
//! use std::time::Duration;
//! use highwater_client::{Client, Record};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! // A broker in this process, for tests and examples. For a real one run `highwater start` and connect to localhost:9191.
//! let broker = highwater_engine::TestBroker::start();
//! let client = Client::connect(broker.address()).await?;
//! client.create_topic("orders").partitions(8).await?;
//!
//! // Send. The first await waits for room in the buffer, the second for the acknowledgement.
//! let producer = client.producer("orders").await?;
//! let delivery = producer.send(Record::new("paid").key("u-42")).await?;
//! let receipt = delivery.await?;
//! println!("partition {}, offset {}", receipt.partition(), receipt.offset().unwrap());
//!
//! // To send many records, do not wait for each one; wait for all of them at the end.
//! for n in 0..1000 {
//!     producer.send(Record::new(format!("order {n}")).key(format!("u-{}", n % 10))).await?;
//! }
//! // The next `flush` or `close` returns the failures that no delivery returned, with their records.
//! if let Err(error) = producer.close(Duration::from_secs(10)).await {
//!     eprintln!("{error}");
//!     for failed in error.records() {
//!         eprintln!("{:?}: {} ({:?})", failed.record, failed.error, failed.outcome());
//!     }
//!     return Err(error.into());
//! }
//!
//! // Receive. A named consumer continues at its committed positions; without one it starts at the first record.
//! let mut consumer = client.consumer("orders").name("billing").until_end().await?;
//! let mut count = 0;
//! while let Some(batch) = consumer.next_batch().await? {
//!     for record in &batch {
//!         // Key and value are views into the receive buffer.
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
//! # Connect
//!
//! A program needs only one [`Client`]: clones share its connections, one to each broker shard in use. The client
//! re-establishes lost connections for as long as it exists; [`Client::events`] reports them.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use highwater_client::Client;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder()
//!     .bootstrap(["broker-0:9191", "broker-1:9191"])
//!     .name("billing")
//!     .request_timeout(Duration::from_secs(10))
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Create a topic
//!
//! ```no_run
//! # use highwater_client::Client;
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! client.create_topic("orders").partitions(8).config("retention.ms", "604800000").if_not_exists().await?;
//! // Or create it with the broker's default configuration when a producer needs it:
//! let producer = client.producer("payments").create_if_not_exists(8).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Send records
//!
//! [`Producer::send`] waits for room in the buffer and returns a [`Delivery`], a future of the acknowledgement. Records with
//! the same key go to the same partition and stay in order. Records without a key change the partition with every batch.
//! [`ProducerBuilder::partitioner`] overrides both. A record goes to the producer's topic unless it names another one.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use highwater_client::{Client, Compression, Record};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let producer = client
//!     .producer("orders")
//!     .linger(Duration::from_millis(5))
//!     .compression(Compression::Lz4)
//!     .delivery_timeout(Duration::from_secs(30))
//!     .await?;
//!
//! // One at a time.
//! producer.send(Record::new("paid").key("u-42").header("trace", "7f3a")).await?.await?;
//! // To another topic, through the same buffer.
//! let audit = producer.send(Record::new("u-42 paid").topic("audit")).await?;
//! audit.await?;
//! // Many at a time: deliveries may be dropped, `flush` returns the failures.
//! for n in 0..1_000_000 {
//!     producer.send(Record::new(format!("{n}"))).await?;
//! }
//! producer.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Read records
//!
//! The broker pushes records as they become durable; there is no polling interval. [`Consumer::next_batch`] returns views into
//! the receive buffer. [`Consumer::into_stream`] returns single records as a [`Stream`](futures_core::Stream).
//!
//! Like `highwater consume`, a consumer starts at [`Start::Earliest`] by default and continues until it is dropped, or
//! [until the end](ConsumerBuilder::until_end). With a [name](ConsumerBuilder::name) it starts at its committed positions.
//!
//! ```no_run
//! # use highwater_client::{Client, Start};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut records = client.consumer("orders").start(Start::Latest).await?.into_stream();
//! while let Some(record) = records.next().await {
//!     let record = record?;
//!     println!("{}/{} {}: {:?}", record.topic, record.partition, record.offset, record.value());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Share the work in a group
//!
//! The members of a group share the partitions of its topics; Kafka's consumers can be members of the same group. A partition
//! is assigned to one member at a time, and its position is committed before it is reassigned. Positions are committed in the
//! background once records are processed, or [manually](GroupBuilder::manual_commit).
//!
//! ```no_run
//! # use highwater_client::{Client, Start};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let group = client.consumer("orders").group("billing").topic("payments");
//! let mut records = group.await?.into_stream();
//! while let Some(record) = records.next().await {
//!     let record = record?;
//!     if record.value().is_empty() {
//!         // Read this partition again from the start, and pause another one.
//!         records.seek(&record.topic, record.partition, Start::Earliest)?;
//!         records.pause("payments", 0)?;
//!     }
//!     records.commit().await?;
//! }
//! records.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Administer
//!
//! ```no_run
//! # use highwater_client::{Client, Start};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! for topic in client.metadata().await?.topics {
//!     println!("{} has {} partitions", topic.name, topic.partitions.len());
//! }
//! client.alter_topic("orders").partitions(16).config("retention.ms", "86400000").await?;
//! for ((topic, partition), offset) in client.list_group_offsets("billing").await? {
//!     let end = client.list_offsets(&topic, [(partition, Start::Latest)]).await?;
//!     println!("{topic}/{partition}: at {offset}, the end is {:?}", end[0].found);
//! }
//! client.delete_topic("orders").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Deal with errors
//!
//! Each operation has its own error type. Match on `kind()`. `is_retryable()` says whether the same call may succeed later,
//! `code()` is the broker's error code, `source()` is the typed cause, and the text says what failed, on what, and what to do.
//! Errors of operations that change something have an `outcome()`: whether the change was made.
//!
//! ```no_run
//! # use highwater_client::{WriteOutcome, ProduceErrorKind, Producer, Record};
//! # async fn example(producer: Producer) -> Result<(), Box<dyn std::error::Error>> {
//! match producer.send(Record::new("paid")).await?.await {
//!     Ok(receipt) => println!("{receipt:?}"),
//!     Err(error) if error.outcome() == WriteOutcome::Unknown => println!("it may have been written: {error}"),
//!     Err(error) if error.kind() == ProduceErrorKind::TimedOut => println!("later, perhaps: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! // The failures of records whose deliveries were dropped.
//! if let Err(error) = producer.flush().await {
//!     println!("{error}");
//!     for failed in error.into_records() {
//!         if failed.outcome() == WriteOutcome::NotWritten {
//!             producer.send(failed.record).await?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - **A delivery that returns `Ok` is durable** according to the producer's [`Acks`]. For a failed one,
//!   [`ProduceError::outcome`] says whether the record was written.
//! - **No failure is lost.** The next [`Producer::flush`] or close returns every failure that no delivery, commit or call
//!   returned. If the producer or the consumer is dropped instead, the failure is an [`Event`].
//! - **A retry never duplicates.** After a lost connection the producer reconnects and sends unacknowledged batches again with
//!   their original sequences; the broker recognises those it already has. Order within a partition is kept.
//! - **A consumer neither misses nor repeats records** across lost connections: it continues after the last record received.
//!   Records that were processed but not committed are delivered again when a consumer of that name is restarted.
//! - **Memory is bounded** by [`ProducerBuilder::buffer_bytes`] and [`ConsumerBuilder::buffer_bytes`], plus the batches and
//!   records that the program keeps.
//! - **Futures can be dropped.** The documentation of each says what happens then; none silently loses its input.
//!
//! # Structure
//!
//! The client has one connection to each shard in use, with many requests in flight. All decisions are made by state machines
//! without I/O, which tasks on tokio drive. Any flavour of tokio runtime works, with I/O and time enabled.
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
mod group_description;
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
    AdminError, AdminErrorKind, CommitError, CommitErrorKind, ConnectError, ConnectErrorKind, DamagedRange,
    FetchError, FetchErrorKind, ProduceError, ProduceErrorKind, TrySendError, WriteOutcome,
};
pub use events::{Event, Events};
pub use group::{Assignor, GroupBuilder, GroupConsumer, GroupStream};
pub use group_description::{GroupDescription, GroupMember, PartitionsByTopic};
pub use metrics::{LatencySnapshot, MetricsSnapshot};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt};
pub use record::{ConsumedRecord, Record, RecordHeader};
pub use undelivered::{DeliveryError, FailedRecord};

pub use highwater_protocol::batch::{Compression, Header as HeaderRef};
pub use highwater_protocol::error::ErrorCode;
pub use highwater_protocol::ids::{ClusterId, NodeId, Offset, PartitionIndex, ShardId, Timestamp, TopicId};
pub use highwater_protocol::native::{
    Acks, CommittedOffset, CompactionDetail, DescribeTopicReply as TopicDescription, GroupInfo, ListedOffset,
    LogDetail, MetadataReply as ClusterMetadata, NodeInfo, PartitionDetail, PartitionInfo, ShardStats, Start,
    StatsReply as BrokerStats, TopicInfo,
};
pub use highwater_protocol::partitioner::partition_for_key;
