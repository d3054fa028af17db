//! Every limit of a connection. What a single message may hold is in `highwater_protocol::limits`.

use std::time::Duration;

use highwater_protocol::limits::{BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX};

/// Requests of a connection that wait for their reply; then it is not read any further. What waits together is written together.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 512;

/// What a request counts for at least, in bytes: what is kept of it until it is answered, however short it was.
pub const REQUEST_BYTES_MIN: usize = 512;

/// Bytes of a connection's requests in flight, with what their replies may hold; then it is not read any further. One request may be larger.
pub const BYTES_IN_FLIGHT_MAX: usize = 32 << 20;

/// Bytes of a connection's answers for which no room was set aside, as those to requests for metadata, until they leave; then it is
/// not read any further. One answer may be larger.
pub const UNEXPECTED_BYTES_MAX: usize = 1 << 20;

/// Subscriptions of a connection.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// From connecting to a complete hello.
pub const HELLO_TIME: Duration = Duration::from_secs(10);

/// From connecting to the first byte of a Kafka client's first request: Kafka has no hello.
pub const KAFKA_SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a Kafka client may send nothing while nothing is owed to it. Kafka's `connections.max.idle.ms`.
pub const KAFKA_IDLE_MAX: Duration = Duration::from_mins(10);

/// From the first byte of a message to its last, apart from what [`BYTES_PER_SECOND_MIN`] allows for large ones.
pub const MESSAGE_TIME: Duration = Duration::from_secs(30);

/// A message that takes longer than [`MESSAGE_TIME`] has to come at least this fast: a large batch over a thin line is no attack.
pub const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Bytes of a Kafka request that carries record batches. Kafka's `socket.request.max.bytes`. One batch of any size that a broker can be set
/// to take fits.
pub const KAFKA_PRODUCE_BYTES_MAX: usize = BATCH_BYTES_MAX + (1 << 20);

/// Partitions in one Produce. What is kept of each, and its answer, is many times as long as an empty batch.
pub const KAFKA_PRODUCE_PARTITIONS_MAX: usize = 100_000;

/// Bytes of any other Kafka request.
pub const KAFKA_REQUEST_BYTES_MAX: usize = CONTROL_BODY_BYTES_MAX;

/// Entries of all lists of one request together, of either protocol. A hundred thousand topics with a partition each fit.
pub const REQUEST_ENTRIES_MAX: usize = highwater_protocol::limits::REQUEST_ENTRIES_MAX;

/// Bytes of a string in Kafka's protocol.
pub const KAFKA_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Bytes of memory that the lists of a Kafka message may take for each of its bytes, beside [`KAFKA_DECODED_BYTES_FREE`]. Compact
/// lists of empty strings could take sixteen times this; messages of clients take half of it at most.
pub const KAFKA_DECODED_BYTES_PER_BYTE: usize = 8;

/// Bytes of memory that the lists of one Kafka request may take in all: some hundred thousand names or partitions, which is more than a
/// broker has.
pub const KAFKA_DECODED_BYTES_MAX: usize = 16 << 20;

/// Bytes of memory that the lists of any Kafka message may take.
pub const KAFKA_DECODED_BYTES_FREE: usize = 64 << 10;
