//! Reads partitions for clients of both protocols.
//!
//! Every reader reads a partition in the same steps, whatever its protocol:
//!
//! ```text
//!   cursor, limits --> Reads::begin --> memory (SendBudget) --> store: cached ---------------> ChargedRead
//!                        ^                   |                         on disk --> handle_done --> ChargedRead
//!                        |                none: in line                                           |
//!                        |                                                       at the end, and it may wait
//!                        +---- the high watermark moves <---- Partition::wait_for_more <----------+
//! ```
//!
//! [`Reads`] reserves the memory, reads, and keeps the disk reads in flight with their charges. [`ChargedRead`] is the result: frames with their
//! [`Charge`], or the reason that there are none. A [`Charge`] stays with the bytes until they have been sent.
//!
//! The records that a client will probably fetch next are read from disk in advance (`ahead.rs`).
//!
//! The two kinds of readers are in other folders. A subscription or a fetch of the native protocol reads one partition of its own shard, round-robin with the other
//! readers of its connection, and pushes frames as they are (`shard/run_readers.rs`). A Kafka fetch reads any number of partitions on all of their owners for one
//! reply, and splits frames into batches (`shard/kafka/fetch_read.rs`).

mod ahead;
mod budget;
mod charge;
mod reads;

pub(crate) use budget::{Account, InLine, MemoryRequest, SendBudget};
pub(crate) use charge::Charge;
#[cfg(test)]
pub(crate) use charge::Gauge;
pub(crate) use reads::{ChargedRead, ReadAt, ReadFor, ReadMemory, ReadStep, Reads};
