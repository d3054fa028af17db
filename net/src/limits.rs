//! Limits of a connection. Limits of a single message are in `highwater_protocol::limits`.

use std::time::Duration;

use highwater_protocol::limits::{BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX};

/// Maximum number of requests in flight on a connection. At this number, the connection is not read.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 512;

/// Minimum size of a request in bytes, for accounting: the state that is kept until it is answered.
pub const REQUEST_BYTES_MIN: usize = 512;

/// Maximum size of a connection's requests in flight and of the memory reserved for their replies, in bytes. At this size, the connection is
/// not read. A single request may be larger.
pub const BYTES_IN_FLIGHT_MAX: usize = 32 << 20;

/// Maximum size of a connection's queued replies for which no memory was reserved, such as metadata, in bytes. At this size, the connection
/// is not read. A single reply may be larger.
pub const UNEXPECTED_BYTES_MAX: usize = 1 << 20;

/// Maximum number of subscriptions of a connection.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Time from connecting to a complete hello.
pub const HELLO_TIME: Duration = Duration::from_secs(10);

/// Time from connecting to the first byte of a Kafka client's first request. (Kafka's protocol has no hello.)
pub const KAFKA_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Maximum idle time of a Kafka connection without requests in flight. Kafka's `connections.max.idle.ms`.
pub const KAFKA_IDLE_MAX: Duration = Duration::from_mins(10);

/// Time from the first byte of a message to its last. [`BYTES_PER_SECOND_MIN`] extends it for large messages.
pub const MESSAGE_TIME: Duration = Duration::from_secs(30);

/// Minimum throughput of a message that takes longer than [`MESSAGE_TIME`], so that a large batch may be sent over a slow link.
pub const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Maximum size of a Kafka request with record batches, in bytes. Kafka's `socket.request.max.bytes`. The largest batch that a broker can be
/// configured to accept fits.
pub const KAFKA_PRODUCE_BYTES_MAX: usize = BATCH_BYTES_MAX + (1 << 20);

/// Maximum number of partitions in one Produce request. The state and the response of a partition are much larger than an empty batch.
pub const KAFKA_PRODUCE_PARTITIONS_MAX: usize = 100_000;

/// Maximum size of any other Kafka request, in bytes.
pub const KAFKA_REQUEST_BYTES_MAX: usize = CONTROL_BODY_BYTES_MAX;

/// Maximum number of entries of all lists of a request together, in either protocol. 100,000 topics with one partition each fit.
pub const REQUEST_ENTRIES_MAX: usize = highwater_protocol::limits::REQUEST_ENTRIES_MAX;

/// Maximum size of a string in Kafka's protocol, in bytes.
pub const KAFKA_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Maximum memory of the decoded lists of a Kafka message per byte of the message, beyond [`KAFKA_DECODED_BYTES_FREE`]. Compact lists of empty
/// strings could take sixteen times as much; messages of real clients take at most half.
pub const KAFKA_DECODED_BYTES_PER_BYTE: usize = 8;

/// Maximum memory of the decoded lists of a Kafka request, in bytes: some hundred thousand names or partitions.
pub const KAFKA_DECODED_BYTES_MAX: usize = 16 << 20;

/// Memory that the decoded lists of any Kafka message may take regardless of its size, in bytes.
pub const KAFKA_DECODED_BYTES_FREE: usize = 64 << 10;
