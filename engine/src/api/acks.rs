//! When a batch is acknowledged.

/// What has to hold before a producer learns that its batch was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequiredAcks {
    /// Nothing: the producer gets no acknowledgement.
    None,
    /// The batch is durable on the leader.
    Leader,
    /// The batch is committed: durable on a majority of the replicas.
    All,
}
