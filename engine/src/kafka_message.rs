//! Messages between shards on behalf of Kafka clients.
//!
//! ```text
//!   the connection's shard                             the partition's owner
//!   Append: batches, by handle        -------------->  appended in order of arrival
//!                                     <--------------  Appended: the required acks are satisfied
//!   Fetch: what to read, how much     -------------->  reads, or parks until there is enough
//!                                     <--------------  FetchBytes: bytes so far, fewer than the minimum
//!   FetchNow: reply without waiting   -------------->    (with nothing, if it waits for memory and another owner has replied with records)
//!                                     <--------------  Fetched: slices of the log's pages
//!   Closed: drop the cursors          -------------->
//! ```

use bytes::Bytes;
use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::{LeaderEpoch, Offset, TopicPartition};
use highwater_runtime::plane::ConnId;

use crate::partition::{AppendOutcome, AppendRequest};
use crate::reply_to::{RequestBatch, RequestId};

/// See the module's doc.
#[derive(Debug)]
pub enum KafkaMessage {
    /// To an owner.
    Append(Vec<AppendRequest<'static>>),
    /// From an owner.
    Appended(Vec<(RequestBatch, AppendOutcome)>),
    /// To an owner.
    Fetch(OwnerFetch),
    /// From an owner: the bytes read so far, fewer than the minimum.
    FetchBytes(RequestId, usize),
    /// To an owner: reply without waiting any longer.
    FetchNow {
        /// The connection.
        conn: ConnId,
        /// The request.
        request: RequestId,
        /// Whether another owner has returned records. If so, an owner that waits for memory returns nothing: two fetches could wait for each
        /// other's memory otherwise.
        has_some: bool,
    },
    /// From an owner: the results.
    Fetched(RequestId, Vec<Fetched>),
    /// To an owner: this connection is closed.
    Closed(ConnId),
}

/// The part of a fetch that one owner reads.
#[derive(Debug)]
pub struct OwnerFetch {
    /// The request.
    pub request: RequestId,
    /// Its connection; owners keep its cursors.
    pub conn: ConnId,
    /// The partitions to read, in order.
    pub reads: Vec<PartitionRead>,
    /// Maximum bytes to read, unless the first batch is larger.
    pub max_bytes: usize,
    /// Minimum bytes to read before replying.
    pub min_bytes: usize,
    /// Whether other owners read for the same request.
    pub shared: bool,
    /// Whether to reply without waiting for more records.
    pub no_wait: bool,
}

/// A partition to read.
#[derive(Clone, Copy, Debug)]
pub struct PartitionRead {
    /// Its number in the request.
    pub number: u32,
    /// The partition.
    pub tp: TopicPartition,
    /// The leader epoch that the client believes to be current, if it names one.
    pub known_epoch: Option<LeaderEpoch>,
    /// The first offset to read.
    pub offset: Offset,
    /// Maximum bytes to read of this partition.
    pub max_bytes: usize,
}

/// The result of reading a partition.
#[derive(Debug)]
pub struct Fetched {
    /// Its number in the request.
    pub number: u32,
    /// The error, or `NONE`.
    pub error: KafkaError,
    /// -1 with an error.
    pub high_watermark: Offset,
    /// -1 with an error.
    pub log_start: Offset,
    /// Slices of batches.
    pub records: Vec<Bytes>,
    /// The size of the batches in bytes.
    pub bytes: usize,
}

impl Fetched {
    /// Creates a result without records.
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
