//! What shards say to each other on behalf of Kafka clients.
//!
//! ```text
//!   the connection's shard                             the partition's owner
//!   Append: batches, by handle        -------------->  appended in the order in which they came
//!                                     <--------------  Appended: as durable as was asked
//!   Fetch: what to read, how much     -------------->  read, or parked until there is something
//!                                     <--------------  FetchBytes: so much is there, and not enough
//!   FetchNow: give what there is      -------------->    (nothing, if it waits for memory and others have given something)
//!                                     <--------------  Fetched: slices of pages
//!   Closed: nobody goes on from there -------------->
//! ```

use bytes::Bytes;
use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_runtime::plane::ConnId;

use crate::partition::{AppendOutcome, AppendRequest};
use crate::reply_to::RequestBatch;

/// A request of a Kafka client that waits for others. Unique on the shard of its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// See the module's doc.
#[derive(Debug)]
pub enum KafkaMessage {
    /// To an owner.
    Append(Vec<AppendRequest<'static>>),
    /// From it.
    Appended(Vec<(RequestBatch, AppendOutcome)>),
    /// To an owner.
    Fetch(FetchAsk),
    /// From it: bytes that are there and may be too few.
    FetchBytes(RequestId, usize),
    /// To it.
    FetchNow {
        /// The connection.
        conn: ConnId,
        /// The request.
        request: RequestId,
        /// Another owner has given something: who waits for memory gives nothing. If it waited on, two fetches could wait for each other.
        has_some: bool,
    },
    /// From it.
    Fetched(RequestId, Vec<Fetched>),
    /// To an owner: this connection is gone.
    Closed(ConnId),
}

/// Partitions of one owner to read.
#[derive(Debug)]
pub struct FetchAsk {
    /// The request.
    pub request: RequestId,
    /// Its connection, for which places in partitions are remembered.
    pub conn: ConnId,
    /// What to read, in this order.
    pub wants: Vec<Want>,
    /// Bytes to read at most, apart from a first batch that is larger.
    pub max_bytes: usize,
    /// Bytes that are enough.
    pub min_bytes: usize,
    /// Other owners read for the same request.
    pub shared: bool,
    /// Not to wait.
    pub now: bool,
}

/// A partition to read.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Its number in the request.
    pub number: u32,
    /// The partition.
    pub tp: TopicPartition,
    /// From where.
    pub offset: Offset,
    /// Bytes to read of it at most.
    pub max_bytes: usize,
}

/// What was read of a partition.
#[derive(Debug)]
pub struct Fetched {
    /// Its number in the request.
    pub number: u32,
    /// What went wrong.
    pub error: KafkaError,
    /// -1 with an error.
    pub high_watermark: Offset,
    /// -1 with an error.
    pub log_start: Offset,
    /// Batches.
    pub records: Vec<Bytes>,
    /// Their bytes.
    pub bytes: usize,
}

impl Fetched {
    /// Nothing, or not yet.
    pub fn nothing(number: u32, error: KafkaError) -> Self {
        Self {
            number,
            error,
            high_watermark: Offset(-1),
            log_start: Offset(-1),
            records: Vec::new(),
            bytes: 0,
        }
    }
}
