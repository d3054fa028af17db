//! Every limit of what travels and what rests, in one place, each with its unit in its name.

/// Bytes of the largest record batch that a broker can be set to take.
pub const BATCH_BYTES_MAX: usize = 100 << 20;

/// Bytes of the largest record batch that a broker takes unless it is set to another limit.
pub const BATCH_BYTES_MAX_DEFAULT: usize = 16 << 20;

/// Bytes of the largest record batch of a topic that sets no `max.message.bytes`. Kafka's default.
pub const BATCH_BYTES_DEFAULT: usize = 1_048_588;

/// Bytes of a native message body other than a batch: metadata, topic names, offsets.
pub const CONTROL_BODY_BYTES_MAX: usize = 8 << 20;

/// Bytes of a message before the hello of a connection is accepted.
pub const HELLO_BODY_BYTES_MAX: usize = 64 << 10;

/// From this many payload bytes on, a produce body is received straight into pages of its own.
pub const BULK_BYTES_MIN: usize = 64 << 10;

/// Bytes of a topic name. Kafka's limit.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Bytes of a consumer's name.
pub const CONSUMER_NAME_BYTES_MAX: usize = 255;

/// Bytes of a group's name, a member's id or an instance id. A consumer's name is a group's that is not that long.
pub const GROUP_NAME_BYTES_MAX: usize = 1 << 10;

/// Bytes of an assignor's name, of a protocol's, of a state, of an address in what is told of a group.
pub const GROUP_WORD_BYTES_MAX: usize = 255;

/// Bytes of the metadata string kept with a committed offset. Kafka's default.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 100_000;

/// Entries of a topic's configuration.
pub const TOPIC_CONFIGS_MAX: usize = 128;

/// Bytes of a configuration value.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4096;

/// Credit a subscription may hold, in bytes: what the server may have sent beyond what the client has released.
pub const CREDIT_BYTES_MAX: u64 = 64 << 20;

/// Records a batch may claim to hold.
pub const RECORDS_PER_BATCH_MAX: u32 = 4 << 20;

/// Bytes a compressed batch may grow to in a broker that takes batches of up to [`BATCH_BYTES_MAX_DEFAULT`].
pub const DECOMPRESSED_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// How many times the size of its largest batch a compressed batch may grow to in a broker that takes larger ones.
pub const DECOMPRESSED_PER_BATCH_BYTE: usize = 8;

/// Bytes a compressed batch may grow to in a broker that takes batches of up to `batch_bytes_max`.
pub const fn decompressed_bytes_max(batch_bytes_max: usize) -> usize {
    if batch_bytes_max > BATCH_BYTES_MAX_DEFAULT {
        batch_bytes_max * DECOMPRESSED_PER_BATCH_BYTE
    } else {
        DECOMPRESSED_BYTES_MAX_DEFAULT
    }
}

/// Bytes a compressed batch may grow to in a client: whatever a broker may have taken.
pub const DECOMPRESSED_BYTES_MAX: usize = decompressed_bytes_max(BATCH_BYTES_MAX);

/// Bytes a batch that a broker takes may grow to however well it is compressed.
pub const DECOMPRESSED_BYTES_ANY_RATIO: usize = 8 << 20;

/// How many times its size a larger batch may grow. Only zstd can do more.
pub const DECOMPRESSED_RATIO_MAX: usize = 1040;

/// Records named in the refusal of a batch.
pub const REJECTED_RECORDS_TOLD_MAX: usize = 100;

/// Headers of one record.
pub const HEADERS_PER_RECORD_MAX: usize = 1024;

/// Batches of one producer remembered per partition, so that a retry is recognised. Kafka's window.
pub const DEDUP_BATCHES_MAX: usize = 5;

/// Bytes of a client's name in its hello, and of a broker's version in the reply.
pub const CLIENT_NAME_BYTES_MAX: usize = 255;

/// Bytes of a node's `host:port`. A DNS name has at most 253.
pub const ADDRESS_BYTES_MAX: usize = 263;

/// Bytes of a configuration entry's name.
pub const CONFIG_NAME_BYTES_MAX: usize = 255;

/// Counters of one shard in a broker's statistics.
pub const COUNTERS_MAX: usize = 256;

/// Bytes of a counter's name.
pub const COUNTER_NAME_BYTES_MAX: usize = 255;

/// Bytes of the text in an error reply.
pub const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// Bytes of the body of a data message or of a fetch reply. One frame of the largest batch always fits.
pub const DATA_BODY_BYTES_MAX: usize = 104 << 20;

const _: () = assert!(DATA_BODY_BYTES_MAX >= BATCH_BYTES_MAX + 4096);
