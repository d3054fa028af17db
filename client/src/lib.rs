//! The native client of the Highwater event-streaming broker.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod batch;
mod client;
mod config;
mod consumer;
mod core;
mod error;
mod events;
mod io;
mod metrics;
mod producer;
mod record;

pub use admin::{AdminResult, AlterTopic, CreateTopic};
pub use batch::{Batch, BatchIter, RecordRef};
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, ConsumerBuilder, PartitionStatus, RecordStream};
pub use error::{
    AdminError, AdminErrorKind, CommitError, CommitErrorKind, ConnectError, ConnectErrorKind, FetchError,
    FetchErrorKind, Outcome, ProduceError, ProduceErrorKind, TrySendError,
};
pub use events::{Event, Events};
pub use io::producer::Unsent;
pub use metrics::{LatencySnapshot, MetricsSnapshot};
pub use producer::{Delivery, Producer, ProducerBuilder, Receipt};
pub use record::{ConsumedRecord, Record, RecordHeader};

pub use highwater_protocol::batch::{Compression, Header};
pub use highwater_protocol::error::ErrorCode;
pub use highwater_protocol::ids::{ClusterId, NodeId, Offset, PartitionIndex, ShardId, Timestamp, TopicId};
pub use highwater_protocol::native::{
    Acks, CommittedOffset, DescribeTopicReply, ListedOffset, MetadataReply, NodeInfo, PartitionDetail,
    PartitionInfo, StartAt, StartAt as Start, TopicInfo,
};
