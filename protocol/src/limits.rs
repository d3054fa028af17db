//! Limits of the wire and disk formats, in one place. Each name contains the unit.

/// Total entries of all lists of one request. A broker decodes a request in one go, so this bounds how long other requests wait. It is
/// large enough for [`PARTITIONS_PER_TOPIC_MAX`] partitions, even if each is in a topic of its own.
pub const REQUEST_ENTRIES_MAX: usize = 250_000;

const _: () = assert!(REQUEST_ENTRIES_MAX >= 2 * PARTITIONS_PER_TOPIC_MAX as usize);

/// Largest record batch that a broker can be configured to accept, in bytes.
pub const BATCH_BYTES_MAX: usize = 100 << 20;

/// Largest record batch that a broker accepts by default, in bytes.
pub const BATCH_BYTES_MAX_DEFAULT: usize = 16 << 20;

/// Largest record batch of a topic without a `max.message.bytes`, in bytes. Kafka's default.
pub const BATCH_BYTES_DEFAULT: usize = 1_048_588;

/// Bytes of a native message body without a batch: metadata, topic names, offsets.
pub const CONTROL_BODY_BYTES_MAX: usize = 8 << 20;

/// Bytes of a message before the connection's hello is accepted.
pub const HELLO_BODY_BYTES_MAX: usize = 64 << 10;

/// From this many payload bytes on, a produce body is received directly into its own pages.
pub const BULK_BYTES_MIN: usize = 64 << 10;

/// Replicas of a partition.
pub const REPLICAS_PER_PARTITION_MAX: usize = 15;

/// Bytes of a topic name. Kafka's limit.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Bytes of a consumer's name.
pub const CONSUMER_NAME_BYTES_MAX: usize = 255;

/// Bytes of a group's name, a member id or an instance id. The names of named consumers share this namespace but have a lower
/// limit.
pub const GROUP_NAME_BYTES_MAX: usize = 1 << 10;

/// Bytes of the name of an assignor, protocol or state, or of an address, in descriptions of groups.
pub const GROUP_WORD_BYTES_MAX: usize = 255;

/// Bytes of the metadata string stored with a committed offset. Kafka's default.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;

/// Bytes of the key and of the value of a record about a group. The members of a classic group are in one.
pub const GROUP_RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX_DEFAULT;

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 100_000;

/// Entries of a topic's configuration.
pub const TOPIC_CONFIGS_MAX: usize = 128;

/// Bytes of a configuration value.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4096;

/// Credit that a subscription may hold, in bytes: what the server may have sent and the client has not released.
pub const CREDIT_BYTES_MAX: u64 = 64 << 20;

/// Records that a batch may claim to hold.
pub const RECORDS_PER_BATCH_MAX: u32 = 4 << 20;

/// Decompressed size of a batch, in bytes, in a broker that accepts batches of up to [`BATCH_BYTES_MAX_DEFAULT`].
pub const DECOMPRESSED_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Decompressed size of a batch as a multiple of `batch_bytes_max`, in a broker that accepts larger batches than by default.
pub const DECOMPRESSED_PER_BATCH_BYTE: usize = 8;

/// Returns the decompressed size of a batch, in bytes, in a broker that accepts batches of up to `batch_bytes_max`.
pub const fn decompressed_bytes_max(batch_bytes_max: usize) -> usize {
    if batch_bytes_max > BATCH_BYTES_MAX_DEFAULT {
        batch_bytes_max * DECOMPRESSED_PER_BATCH_BYTE
    } else {
        DECOMPRESSED_BYTES_MAX_DEFAULT
    }
}

/// Decompressed size of a batch, in bytes, in a client: the most that any broker may have accepted.
pub const DECOMPRESSED_BYTES_MAX: usize = decompressed_bytes_max(BATCH_BYTES_MAX);

/// Decompressed size, in bytes, that a broker accepts at any compression ratio.
pub const DECOMPRESSED_BYTES_ANY_RATIO: usize = 8 << 20;

/// Compression ratio that a broker accepts for larger batches. Only zstd can exceed it.
pub const DECOMPRESSED_RATIO_MAX: usize = 1040;

/// Rejected records named in the error for a batch.
pub const REJECTED_RECORDS_REPORTED_MAX: usize = 100;

/// Headers of one record.
pub const HEADERS_PER_RECORD_MAX: usize = 1024;

/// Batches of one producer remembered per partition to recognise retries. Kafka's window.
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

/// Bytes of the body of a data message or of a fetch reply. One frame with the largest batch always fits.
pub const DATA_BODY_BYTES_MAX: usize = 104 << 20;

const _: () = assert!(DATA_BODY_BYTES_MAX >= BATCH_BYTES_MAX + 4096);
