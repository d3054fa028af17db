//! The identity of a request to another shard.

/// Identifies a request to another shard; the reply echoes it. Unique on the shard that sends the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket {
    /// The call that the request belongs to.
    pub call: u64,
    /// The number of the request in the call.
    pub number: u32,
}
