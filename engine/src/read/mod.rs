//! Readers of partitions: who they are. What they do is in `shard/readers.rs` and `shard/kafka/fetch_read.rs`.

/// A reader of a native client on this shard: a subscription or a fetch. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ReaderId(pub(crate) u64);

/// A Kafka client's fetch of partitions of this shard. Numbers are not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FetchId(pub(crate) u64);

/// Who waits for the high watermark of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Waiter {
    /// A native client's reader.
    Reader(ReaderId),
    /// A Kafka client's fetch.
    Kafka(FetchId),
}
