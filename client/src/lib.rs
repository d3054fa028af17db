//! The native Rust client of the Highwater event-streaming broker.
//!
//! A *topic* is a set of *partitions*, each a durable log. A [`Producer`] appends *records* to it; a [`Consumer`] reads them in order, as often
//! as it likes, from wherever it likes; the members of a *group* share its partitions. An acknowledged record is on stable storage.
//!
//! | task | begin at |
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
//! // A broker in this process, for tests and examples. Otherwise: `highwater start`, and the address is localhost:9191.
//! let broker = highwater_engine::TestBroker::start();
//! let client = Client::connect(broker.address()).await?;
//! client.create_topic("orders").partitions(8).await?;
//!
//! // Send. The first await is for room in the buffer, the second for the acknowledgement.
//! let producer = client.producer("orders").await?;
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
//! // Receive. A named consumer goes on where it committed; at first it begins with the first record there is.
//! let mut consumer = client.consumer("orders").name("billing").until_end().await?;
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
//! # Connect
//!
//! One [`Client`] for a program is enough: clones share its connections, one to each shard of a broker that something is wanted of. Lost connections
//! are made again for as long as the client is there; [`Client::events`] tells of them.
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
//! client.create_topic("orders").partitions(8).config("retention.ms", "604800000").if_missing().await?;
//! // With the broker's default configuration, on the way to something else:
//! let producer = client.producer("payments").create_if_missing(8).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Send records
//!
//! [`Producer::send`] waits for room in the buffer and returns a [`Delivery`], the future of the acknowledgement. Records with the same key go to
//! the same partition and stay in order; records without a key change the partition with every batch; [`ProducerBuilder::partitioner`] has
//! the last word. A producer has a topic, and sends to others if a record names one.
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
//! // To another topic, with the same buffer.
//! let audit = producer.send(Record::new("u-42 paid").topic("audit")).await?;
//! audit.await?;
//! // Many at a time: deliveries may be dropped, what fails comes out of `flush`.
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
//! The broker pushes records as they become durable; there is no polling interval. [`Consumer::next_batch`] returns views into what arrived;
//! [`Consumer::into_stream`] makes single records of it, a [`Stream`](futures_core::Stream).
//!
//! A consumer begins at [`Start::Earliest`] unless told otherwise, like `highwater consume`, and goes on for ever unless told to stop
//! [at the end](ConsumerBuilder::until_end). With a [name](ConsumerBuilder::name) it goes on where it committed.
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
//! The members of a group share the partitions of its topics, with Kafka's consumers if need be. A partition has one member at a time; it goes to
//! the next with its position committed. What was read is committed in the background once it is processed, or [by
//! hand](GroupBuilder::commit_by_hand).
//!
//! ```no_run
//! # use highwater_client::{Client, Start};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let group = client.consumer("orders").group("billing").topic("payments");
//! let mut records = group.await?.into_stream();
//! while let Some(record) = records.next().await {
//!     let record = record?;
//!     if record.value().is_empty() {
//!         // Back to the beginning of this partition, and nothing from that one for a while.
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
//! for ((topic, partition), offset) in client.group_positions("billing").await? {
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
//! Each operation has an error type of its own. `kind()` is to be matched on, `is_retryable()` says that the same call may succeed later,
//! `code()` is the broker's, `source()` the typed cause, and the text says what failed, on what, and what to do. Where something was to be changed
//! `outcome()` says whether it was.
//!
//! ```no_run
//! # use highwater_client::{Outcome, ProduceErrorKind, Producer, Record};
//! # async fn example(producer: Producer) -> Result<(), Box<dyn std::error::Error>> {
//! match producer.send(Record::new("paid")).await?.await {
//!     Ok(receipt) => println!("{receipt:?}"),
//!     Err(error) if error.outcome() == Outcome::Unknown => println!("it may have been written: {error}"),
//!     Err(error) if error.kind() == ProduceErrorKind::TimedOut => println!("later, perhaps: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! // Of the records whose deliveries were dropped.
//! if let Err(error) = producer.flush().await {
//!     println!("{error}");
//!     for failed in error.into_records() {
//!         if failed.outcome() == Outcome::NotWritten {
//!             producer.send(failed.record).await?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied on
//!
//! - **A delivery that is `Ok` is durable** in the sense of the producer's [`Acks`]. One that failed says by
//!   [`ProduceError::outcome`] whether the record was written.
//! - **No failure is lost.** What no delivery, commit or call returned comes out of the next [`Producer::flush`] or close, or is an [`Event`] if
//!   the producer or the consumer was dropped without.
//! - **A retry never duplicates.** A lost connection is made again and what was not acknowledged is sent again, with the sequence it had; the
//!   broker recognises what it has already. Order within a partition is kept.
//! - **A consumer misses nothing and gets nothing twice** across lost connections: it goes on behind the last record that arrived. What was
//!   processed but not committed comes again when a consumer of that name starts anew.
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
    AdminError, AdminErrorKind, CommitError, CommitErrorKind, ConnectError, ConnectErrorKind, DamagedRange,
    FetchError, FetchErrorKind, Outcome, ProduceError, ProduceErrorKind, TrySendError,
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
