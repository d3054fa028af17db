//! Reading partitions: the one way from a log to a client, for both protocols.
//!
//! Every reader reads a partition in the same steps, whatever protocol it serves:
//!
//! ```text
//!   cursor, limits --> Reads::begin --> memory (SendBudget) --> store: cached ---------------> ChargedRead
//!                        ^                   |                         on disk --> handle_done --> ChargedRead
//!                        |                none: in line                                           |
//!                        |                                                       at the end, and it may wait
//!                        +---- the high watermark moves <---- Partition::wait_for_more <----------+
//! ```
//!
//! [`Reads`] reserves the memory, reads, and keeps the reads that wait for the disk, with what each is charged. [`ChargedRead`] is the
//! result: frames with their [`Charge`], or why there are none. A [`Charge`] stays with the bytes until they have been sent.
//!
//! What a client of fetches will ask for next is read from disk before it does (`ahead.rs`).
//!
//! The two kinds of readers are outside. A subscription or a fetch of the native protocol reads one partition of its own shard, in turns with the other
//! readers of its connection, and pushes frames as they are (`shard/run_readers.rs`). A Kafka fetch reads any number of partitions as a unit that is
//! answered whole, by all owners together, and takes frames apart into batches (`shard/kafka/fetch_read.rs`).

mod ahead;
mod budget;
mod charge;
mod reads;

pub(crate) use budget::{Account, InLine, SendBudget, Wanted};
pub(crate) use charge::Charge;
#[cfg(test)]
pub(crate) use charge::Gauge;
pub(crate) use reads::{ChargedRead, ReadAt, ReadFor, ReadMemory, ReadStep, Reads};

/// A reader of a native client on this shard: a subscription or a fetch. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ReaderId(pub(crate) u64);

/// A Kafka client's fetch of partitions of this shard. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FetchId(pub(crate) u64);

/// A reader that waits for the high watermark of a partition to move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Waiter {
    /// A native client's reader.
    Reader(ReaderId),
    /// A Kafka client's fetch.
    Kafka(FetchId),
}
