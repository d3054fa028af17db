//! The readers that wait for more records of a partition.

/// A reader of a native client on this shard: a subscription or a fetch. Numbers are not reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ReaderId(pub(crate) u64);

/// A Kafka client's fetch of partitions of this shard. Numbers are not reused.
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
