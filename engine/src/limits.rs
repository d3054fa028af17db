//! Every limit of a shard in one place, each with its unit in its name. Those of a connection are in `highwater_net::limits`.

mod compaction;
mod groups;
mod journal;
mod metadata;
mod replicas;

use std::ops::RangeInclusive;
use std::time::Duration;

use highwater_protocol::frame::frame_bytes;
use highwater_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT, GROUP_RECORD_BYTES_MAX};
use highwater_runtime::buf::PAGE_BYTES;
use highwater_storage::StoreLimits;
use highwater_storage::limits::PRODUCER_BYTES;
use highwater_storage::state_log::PAYLOAD_BYTES_MAX;

pub use compaction::{
    COMPACTION_BUFFERS, COMPACTION_BYTES_MAX, COMPACTION_BYTES_PER_STEP, COMPACTION_DECOMPRESSED_BYTES_MAX,
    COMPACTION_FRAME_BUFFERS, COMPACTION_PART_OF_SENDS, COMPACTION_PARTITIONS_PER_SCAN_STEP,
    COMPACTION_STEP_INTERVAL,
};
pub use groups::{
    GROUP_BATCH_BYTES_MAX, GROUP_LOAD_BYTES_MAX, GROUP_LOAD_MEMORY_BYTES_MAX, GROUPS_RESTORED_PER_TURN_MAX,
    HELD_GROUP_REQUESTS_MAX,
};
use journal::journal_bytes;
pub use journal::{
    JOURNAL_BYTES, JOURNAL_PART, JOURNAL_TAIL_BYTES_LIMIT, JOURNAL_TAIL_BYTES_MAX, journal_tail_bytes_max,
};
pub use metadata::{
    CONTROLLER_BYTES_MAX, FORWARDED_REQUESTS_MAX, HELD_CONTROLLER_REQUESTS_MAX, LEADERS_MAX,
    METADATA_BATCH_BYTES_MAX, METADATA_BYTES_MAX, METADATA_BYTES_PER_ENTRY, METADATA_LOAD_BYTES_MAX,
    METADATA_LOAD_MEMORY_BYTES_MAX, METADATA_VOTERS_MAX, NODES_MAX, PARTITIONS_MAX, REMOTE_REQUESTS_MAX,
    REPLICAS_DEFAULT,
};
pub use replicas::{
    DISK_LAG_MAX, ELECTION_JITTER_MAX, ELECTION_TICK, ELECTION_WAIT_MIN, ELECTIONS_PER_TURN_MAX,
    IN_SYNC_ENTRIES_MAX, LEADERS_REPORTED_PER_TURN_MAX, LEADERS_TOLD_PER_TURN_MAX, MARKS_KEPT_MAX,
    NODE_MISSED_AFTER, NODE_OFFLINE_AFTER, PEER_EVENTS_PER_TURN_MAX, PEER_GREETINGS_MAX, PEER_JOIN_TIME,
    PEER_LINKS_MAX, PEER_PARTITIONS_PER_TURN_MAX, PEER_RETRY_INTERVAL, PEER_SENDS_PER_TURN_MAX,
    PEER_SOCKET_BYTES_MAX, TRANSFER_TIME_MAX,
};

/// Connections of a broker, over all its shards.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Connections of a shard from one address. One shard may accept all of them, and a thousand clients on one machine are no attack.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 4_000;

/// Bytes of frames in the reply to one fetch, unless a single frame is larger.
pub const FETCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of records in the answer to one fetch of a Kafka client, unless a single batch is larger.
pub const KAFKA_FETCH_BYTES_MAX: usize = 16 << 20;

/// Cursors in partitions that a shard remembers for one connection of a Kafka client.
pub const FETCH_CURSORS_MAX: usize = 10_000;

/// Longest time a fetch may wait for records.
pub const FETCH_WAIT_MAX: Duration = Duration::from_mins(1);

/// Bytes of frames that are pushed to a subscription in one message, unless a single frame is larger.
pub const PUSH_BYTES_MAX: usize = 1 << 20;

/// Bytes that are pushed in one turn to all subscriptions together. The rest follows in later turns, so that requests do not wait.
pub const PUSH_BYTES_PER_TURN_MAX: usize = 8 << 20;

/// Bytes that a read counts as at least, however little it returns: a long poll that returns nothing takes time too.
pub const READ_BYTES_COUNTED_MIN: usize = 8 << 10;

/// Partitions that all fetches of Kafka clients together read, or begin to wait for, in one turn. The rest follows in later turns.
pub const KAFKA_FETCH_READS_PER_TURN_MAX: usize = 128;

/// Bytes of records that all fetches of Kafka clients together read in one turn. The last read may exceed it.
pub const KAFKA_FETCH_BYTES_PER_TURN_MAX: usize = 2 << 20;

/// Partitions that one fetch of a Kafka client reads before another fetch has its turn.
pub const KAFKA_FETCH_READS_PER_STEP_MAX: usize = 32;

/// Units of work that the jobs of a shard do in one turn. A unit takes about half a microsecond. See `shard/work.rs`.
pub const WORK_PER_TURN_MAX: usize = 2048;

/// Units of work per turn that are reserved for metadata changes, however much was done before in the turn.
pub const PUBLISH_WORK_PER_TURN_MIN: usize = WORK_PER_TURN_MAX / 4;

/// Units of work per turn that are reserved for all other jobs, however much was done before in the turn.
pub const JOBS_WORK_PER_TURN_MIN: usize = WORK_PER_TURN_MAX / 2;

/// Units of work that one job does before the next job has its turn.
pub const WORK_PER_STEP_MAX: usize = 256;

/// Units of work that are done at once when a request or a message arrives. Whatever needs more becomes a job.
pub const WORK_AT_ONCE_MAX: usize = 64;

/// Total cost of the requests admitted in one turn, and again of those of waiting connections. A Produce costs 1: many of them in a turn make commit
/// rounds larger, and take little time.
pub const REQUESTS_PER_TURN_MAX: usize = 4096;

/// Cost of any other request, in the unit of [`REQUESTS_PER_TURN_MAX`].
pub const REQUEST_COST: usize = 4;

/// List entries of a request that add 1 to its cost, because decoding them takes as long.
pub const REQUEST_ENTRIES_PER_COST: usize = 16;

/// Bytes of a native request, without batches, that count as one list entry. An entry has at least four bytes.
pub const REQUEST_BYTES_PER_ENTRY: usize = 8;

/// List entries of large requests that one turn pays off. A request with more is decoded in one step; then no other large request is decoded for as
/// many turns as it would have taken.
pub const REQUEST_ENTRIES_PER_TURN: usize = 10_000;

/// Bytes of long answers that are encoded in one turn. The last piece may exceed it.
pub const LONG_ANSWER_BYTES_PER_TURN_MAX: usize = 128 << 10;

/// Queued bytes of a connection at which its long answer pauses.
pub const LONG_ANSWER_QUEUE_BYTES_MAX: usize = 128 << 10;

/// Encoded bytes of an answer that count as one unit of work.
pub const PIECE_BYTES_PER_UNIT: usize = 128;

/// Results that are filled into an answer for one unit of work.
pub const FOUND_PER_UNIT: usize = 16;

/// Partitions of the answer to a fetch of a Kafka client that are encoded for one unit of work.
pub const FETCHED_PER_UNIT: usize = 8;

/// Partitions of a topic that are encoded as one part of a long answer.
pub const PARTITIONS_PER_PART: usize = 256;

/// Producers of a partition that are encoded as one part of a long answer.
pub const PRODUCERS_PER_PART: usize = 256;

/// Pending Produce requests that are looked at for a unit of work, when a topic is deleted.
pub const PENDING_PER_UNIT: usize = 64;

/// Events of a store that are handled in one poll. The rest follows in the next turn.
pub const EVENTS_PER_POLL_MAX: usize = 2048;

/// Replies of the controller and of the group coordinator that are sent in one turn.
pub const ANSWERS_PER_TURN_MAX: usize = 1024;

/// Unanswered requests to shard 0 that one client request may have. Further ones are sent as these are answered.
pub const CALLS_PER_REQUEST_MAX: usize = 64;

/// Groups that one request to their coordinator may name.
pub const GROUPS_PER_CALL_MAX: usize = 32;

/// Unanswered requests of a shard to other shards. At this number it admits no further client requests. Members that wait for a rebalance are among
/// them; their memory has a lower limit.
pub const OPEN_CALLS_MAX: usize = 1 << 18;

/// Messages of a shard that wait for room in its own queue or another shard's. At this number it admits no further client requests. The messages of
/// one more request come on top: a few for each shard, and [`CALLS_PER_REQUEST_MAX`].
pub const BACKLOG_MAX: usize = 4096;

const _: () = assert!(BACKLOG_MAX + OPEN_CALLS_MAX < highwater_runtime::plane::BACKLOG_MAX / 2);

/// Bytes of a shard's memory for sending that one connection may use, for its reads and its send queue. At this number nothing more is read for it,
/// and its requests are not admitted.
pub const SEND_QUEUE_BYTES_MAX: usize = 8 << 20;

/// The same limit when many connections share that memory, and the smallest reservation of a read.
pub const SEND_QUEUE_BYTES_MIN: usize = 64 << 10;

/// Bytes of disk reads in flight on a shard, over all its stores, unless a single batch is larger. Further reads are queued. Two batches of 1 MiB fit,
/// with their headers: while one of them is sent, the disk reads the other.
pub const DISK_READS_INFLIGHT_BYTES_MAX: usize = 3 << 20;

/// Bytes of memory that a read reserves at least, however few are requested: the records can be anywhere in them.
pub const READ_MEMORY_BYTES_MIN: usize = 64 << 10;

/// Partitions of which one fetch of a Kafka client begins to read what follows.
pub const READ_AHEAD_PARTITIONS_MAX: usize = 4;

/// Partitions of a fetch that are looked at for one that can be read from disk beside the one that is being read.
pub const READ_AHEAD_LOOKS_MAX: usize = 8;

/// How long what was read ahead is kept for a client that does not fetch it.
pub const READ_AHEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Connections and fetches that wait for memory and are retried in one turn.
pub const LINE_TRIES_PER_TURN_MAX: usize = 64;

/// How often those who wait for memory are retried when nothing else happens: memory is also returned on other shards.
pub const LINE_INTERVAL: Duration = Duration::from_millis(5);

/// How often slow readers are looked for while others wait for memory.
pub const SHORTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// A client with queued data that receives less than [`SLOW_READER_BYTES_MIN`] in this time is disconnected while others wait for memory.
pub const SLOW_READER_TIME_MAX: Duration = Duration::from_secs(5);

/// See [`SLOW_READER_TIME_MAX`].
pub const SLOW_READER_BYTES_MIN: usize = 64 << 10;

/// Bytes that the answer to a fetch has for each partition, in addition to records.
pub const FETCH_ANSWER_BYTES_PER_PARTITION: usize = 64;

/// An answer to a fetch with fewer bytes than this, not counting records, is not charged for them.
pub const FETCH_ANSWER_BYTES_FREE: usize = 4 << 10;

/// Bytes of the offsets of all groups together, however much memory a broker has. A snapshot of them, with the groups' members, is one payload of a
/// state log.
pub const OFFSETS_BYTES_MAX: usize = 32 << 20;

/// Bytes of the members of all groups together.
pub const GROUPS_BYTES_MAX: usize = 12 << 20;

const _: () = assert!(OFFSETS_BYTES_MAX + 2 * GROUPS_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Producers for which a shard remembers a rejected batch that has not been sent again. Beyond that, the producer that was silent longest is
/// forgotten.
pub const REJECTED_PRODUCERS_MAX: usize = 10_000;

/// Topics and other resources that one request of a Kafka client may change.
pub const KAFKA_CHANGES_PER_REQUEST_MAX: usize = 10_000;

/// Partitions whose sizes one request of a Kafka client may request.
pub const KAFKA_SIZES_PER_REQUEST_MAX: usize = 100_000;

/// Producers that a shard describes in its part of the answer to one request.
pub const PRODUCERS_PER_ANSWER_MAX: usize = 20_000;

const _: () = assert!(PRODUCERS_PER_ANSWER_MAX >= 10_000, "the producers of one partition always fit");

/// Maximum number of filters by state or type in one ListGroups request. Fewer than ten values exist.
pub const KAFKA_FILTERS_MAX: usize = 100;

/// Bytes reserved for the answer to a request of a group's members or about offsets of partitions. It limits how many such requests of a connection
/// are in flight.
pub const KAFKA_ANSWER_BYTES_EXPECTED: usize = 1 << 20;

/// Bytes of a reply in memory that are charged with its request. A reply that may be larger waits until it is the next to be sent, and is charged to
/// the memory for sending.
pub const SMALL_REPLY_BYTES_MAX: usize = 32 << 10;

/// Bytes of memory charged for each byte of a request without batches, until it is answered: each name in it is kept by itself, with the result for
/// it.
pub const HELD_BYTES_PER_BYTE: usize = 6;

/// Bytes of memory charged for each group of an OffsetFetch until it is answered.
pub const HELD_BYTES_PER_GROUP: usize = 320;

/// Bytes of memory charged for each batch of a Produce after the first, in addition to its own bytes, until it is answered: its place, its outcome
/// and its part of the answer.
pub const HELD_BYTES_PER_BATCH: usize = 512;

/// Searches by time of a shard that read from disk at the same time, each into its own buffer. Others are queued.
pub const SEARCHES_MAX: usize = 4;

/// Memory that a search is charged for decompression, as a number of disk reads of the largest size: the decoder with its window, and its output.
pub const SEARCH_DECODER_READS: usize = 1;

/// Searches by time that begin in one turn.
pub const SEARCHES_PER_TURN_MAX: usize = 32;

/// Work of all searches in one turn, in units of `highwater_protocol::batch::Work`. Cached frames are searched at once and compressed ones have to be
/// decompressed; other requests must not wait for that.
pub const SEARCH_WORK_PER_TURN_MAX: usize = 1_000_000;

/// Work of checking a batch when it arrives, before the next request is handled, in units of `highwater_protocol::batch::Work`. An uncompressed batch
/// of 1 MiB fits.
pub const CHECK_WORK_AT_ONCE_MAX: usize = 500_000;

/// Work charged for each batch of a Kafka client's request, in addition to its records: it is routed, appended and answered.
pub const CHECK_WORK_PER_BATCH: usize = 500;

/// Work of checking arriving batches in one turn.
pub const CHECK_WORK_ON_ARRIVAL_MAX: usize = 2_000_000;

/// Work in one turn on checks that were not finished when their batches arrived.
pub const CHECK_WORK_PER_TURN_MAX: usize = 1_000_000;

/// Work after which a check counts as long, and no longer delays the short ones.
pub const CHECK_WORK_SHORT_MAX: usize = 8_000_000;

/// Unfinished short checks that keep their decoders while they wait. Others restart when they have their turn.
pub const CHECKS_OPEN_MAX: usize = 8;

/// One part in this many of the decoders' memory is for short checks that wait. The same amount each is for the short check that is running and for
/// the decoder that is kept for the next batch. A long check has the rest.
pub const DECODERS_SHORT_PART: usize = 12;

/// Memory of the decoder that is kept for the next batch, at most. The window of zstd's default level fits.
pub const DECODER_IDLE_BYTES_MAX: usize = 4 << 20;

/// How often connections are checked for missed deadlines.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// A connection that is being closed and does not receive what is queued for it is closed at once after this time.
pub const CLOSING_TIME_MAX: Duration = Duration::from_secs(10);

/// How often partitions are looked at for records to delete or to compact, unless configured.
pub const CLEANUP_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// How often a full disk is checked for space.
pub const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Free space that the stores of a broker together keep for new records, in bytes, unless configured. What is free beyond it is returned to the
/// file system.
pub const FREE_SPACE_KEPT_BYTES_DEFAULT: u64 = 1 << 30;

/// Free space that a store returns to the file system in a second, in bytes.
pub const SPACE_RETURNED_PER_SECOND_MAX: u64 = 64 << 20;

/// How long a stop waits for requests in flight before it drops them.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long a stop waits for the disk once clients have been answered. A full disk may never finish.
pub const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Stores of one shard. Each has a number in the top byte of its operations' tokens.
pub const STORES_PER_SHARD_MAX: usize = 200;

/// Warnings of one kind that a start logs one by one for each store. The rest are only counted.
pub const START_WARNINGS_MAX: usize = 10;

/// Returns the bytes of the offsets of all groups together, for a broker with `memory_bytes`.
pub const fn offsets_bytes_max(memory_bytes: u64) -> usize {
    let part = memory_bytes / OFFSETS_PART;
    if part < OFFSETS_BYTES_MAX as u64 { part as usize } else { OFFSETS_BYTES_MAX }
}

/// Returns the bytes that the members of all groups together may take in a broker with `memory_bytes`.
pub const fn members_bytes_max(memory_bytes: u64) -> usize {
    let part = memory_bytes / MEMBERS_PART;
    if part < GROUPS_BYTES_MAX as u64 { part as usize } else { GROUPS_BYTES_MAX }
}

/// Returns the bytes of free buffers that a broker with `memory_bytes` keeps for reuse. The offsets of groups use a part of the same share.
pub fn idle_buffer_bytes(memory_bytes: u64, shards: u16) -> usize {
    let part = memory_bytes / FREE_BUFFERS_PART
        - (offsets_bytes_max(memory_bytes) + members_bytes_max(memory_bytes)) as u64;
    part.min((32 << 20) * (1 + u64::from(shards))) as usize
}

/// Valid values of the limit on the bytes of a batch.
pub const BATCH_BYTES_MAX_RANGE: RangeInclusive<usize> = 1 << 20..=BATCH_BYTES_MAX;

/// The least memory of a shard for requests, for the decoders that check their batches, for data on its way to clients and for the cache of its
/// stores, if batches have at most [`BATCH_BYTES_MAX_DEFAULT`].
const REQUEST_BYTES_MIN: u64 = 20 << 20;
const DECODER_BYTES_MIN: u64 = 12 << 20;
const SEND_BYTES_MIN: u64 = 24 << 20;
const CACHE_BYTES_MIN: u64 = 16 << 20;

/// The decoders' share of the memory for requests and decoders, as numerator and denominator. Memory beyond the largest windows is of no use.
const DECODERS_PARTS: (u64, u64) = (3, 8);
const DECODERS_BYTES_MAX: u64 = 192 << 20;

/// The metadata of partitions, idempotent producers and free buffers each get one part in this many of the memory. The offsets and the members of
/// groups get parts of the share of the free buffers.
const METADATA_PART: u64 = 8;
const PRODUCERS_PART: u64 = 16;
const FREE_BUFFERS_PART: u64 = 16;
const OFFSETS_PART: u64 = 32;
const MEMBERS_PART: u64 = 64;

/// Sixteenths of the memory that remain after these three.
const OTHER_PARTS_OF_16: u64 = 16 - 16 / METADATA_PART - 16 / PRODUCERS_PART - 16 / FREE_BUFFERS_PART;

/// Returns the bytes that a shard needs in addition, for requests, for sending and for the cache each, if batches can exceed the default limit: one
/// of the largest size has to fit while others wait.
const fn more_for_batches(batch_bytes_max: usize) -> u64 {
    batch_bytes_max.saturating_sub(BATCH_BYTES_MAX_DEFAULT) as u64
}

/// Returns the least memory of a shard that accepts batches of up to `batch_bytes_max`, in whole MiB.
pub const fn shard_memory_bytes_min(batch_bytes_max: usize) -> u64 {
    let requests = REQUEST_BYTES_MIN + DECODER_BYTES_MIN;
    let least = requests + SEND_BYTES_MIN + CACHE_BYTES_MIN + 3 * more_for_batches(batch_bytes_max);
    (least * 16).div_ceil(OTHER_PARTS_OF_16).next_multiple_of(1 << 20)
}

/// The memory limits of a shard, and the sizes of its stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardLimits {
    /// Requests that have not been answered, in bytes. When it is used up, sockets are not read.
    pub request_bytes_max: usize,
    /// Decoders that check compressed batches of requests, in bytes. A batch whose decoder alone needs more is rejected; others wait.
    pub decoder_bytes_max: usize,
    /// Data on its way to clients, in bytes: reads in flight, their results, and queued answers. When it is used up, nothing is read.
    pub send_bytes_max: usize,
    /// Metadata of all partitions and topics of the broker, at [`METADATA_BYTES_PER_ENTRY`] each. When it is used up, no more can be created.
    pub metadata_bytes_max: u64,
    /// Connections.
    pub connections_max: usize,
    /// See [`CHECK_WORK_AT_ONCE_MAX`].
    pub check_work_at_once: usize,
    /// How often partitions are looked at for records to delete or to compact.
    pub cleanup_interval: Duration,
    /// The largest batch of a client, in bytes.
    pub batch_bytes_max: usize,
    /// The limits of each store. They allow the largest record of a group, whatever clients may send.
    pub store: StoreLimits,
    /// Size of the files of the metadata log and of the groups' log while they hold little.
    pub state_log_bytes: u64,
}

impl ShardLimits {
    /// Divides `memory_bytes` for one of `shards` shards with `stores` stores, for batches of up to `batch_bytes_max`. The cache gets what the other
    /// parts leave. `docs/operations.md` has the table.
    pub fn production(memory_bytes: u64, shards: u16, stores: usize, batch_bytes_max: usize) -> Self {
        let shards = shards.max(1);
        let share = memory_bytes / u64::from(shards);
        let stores = stores.max(1) as u64;
        let defaults = StoreLimits::default();
        let more = more_for_batches(batch_bytes_max);
        let requests_and_decoders = (share / 4).max(REQUEST_BYTES_MIN + DECODER_BYTES_MIN + more);
        let decoders = (requests_and_decoders * DECODERS_PARTS.0 / DECODERS_PARTS.1)
            .min(requests_and_decoders - REQUEST_BYTES_MIN - more)
            .min(DECODERS_BYTES_MAX);
        let requests = requests_and_decoders - decoders;
        let sends = (share / 4).max(SEND_BYTES_MIN + more);
        let producers = share / PRODUCERS_PART;
        let of_groups = offsets_bytes_max(memory_bytes) + members_bytes_max(memory_bytes);
        let of_broker = idle_buffer_bytes(memory_bytes, shards) + of_groups;
        let free_buffers_and_groups = of_broker as u64 / u64::from(shards);
        let others = producers + free_buffers_and_groups + share / METADATA_PART;
        let cache = share.saturating_sub(requests_and_decoders + sends + others);
        let store_producers_max = ((producers / stores / PRODUCER_BYTES) as usize).max(1);
        let unacked_bytes_max = defaults.unacked_bytes_max.max(frame_bytes(batch_bytes_max) as u64);
        let reads_inflight = (DISK_READS_INFLIGHT_BYTES_MAX / stores as usize).max(READ_MEMORY_BYTES_MIN);
        let read_bytes_max = defaults.read_bytes_max.min(reads_inflight / PAGE_BYTES * PAGE_BYTES);
        Self {
            request_bytes_max: requests as usize,
            decoder_bytes_max: decoders as usize,
            send_bytes_max: sends as usize,
            metadata_bytes_max: memory_bytes / METADATA_PART,
            connections_max: CONNECTIONS_MAX.div_ceil(usize::from(shards)),
            check_work_at_once: CHECK_WORK_AT_ONCE_MAX,
            cleanup_interval: CLEANUP_INTERVAL_DEFAULT,
            batch_bytes_max,
            store: StoreLimits {
                journal_bytes: journal_bytes(cache / stores),
                payload_bytes_max: batch_bytes_max.max(GROUP_RECORD_BYTES_MAX),
                cache_bytes_max: cache / stores,
                producers_max: defaults.producers_max.min(store_producers_max),
                store_producers_max,
                read_bytes_max,
                reads_inflight_bytes_max: reads_inflight,
                unacked_bytes_max,
                store_unacked_bytes_max: (requests / stores)
                    .clamp(unacked_bytes_max, defaults.store_unacked_bytes_max),
                ..defaults
            },
            state_log_bytes: highwater_storage::state_log::FILE_BYTES_DEFAULT,
        }
    }

    /// Divides the free space that the broker keeps for new records between its stores.
    #[must_use]
    pub fn with_free_space(mut self, bytes: u64, stores: u16) -> Self {
        self.store.free_bytes_kept = bytes / u64::from(stores.max(1));
        self
    }

    /// Returns how long a store waits after each piece of free space that it returns to the file system.
    pub fn space_return_interval(&self) -> Duration {
        Duration::from_nanos(self.store.punch_bytes_max * 1_000_000_000 / SPACE_RETURNED_PER_SECOND_MAX)
    }

    /// Returns the maximum number of topics and partitions together.
    pub const fn metadata_entries_max(&self) -> usize {
        (self.metadata_bytes_max / METADATA_BYTES_PER_ENTRY) as usize
    }

    /// Returns the memory that a broker needs for this many topics and partitions, in bytes.
    pub const fn memory_bytes_for(entries: usize) -> u64 {
        entries as u64 * METADATA_BYTES_PER_ENTRY * METADATA_PART
    }

    /// Memory that a pass of compaction takes while it runs, in bytes.
    pub fn compaction_bytes_max(&self) -> usize {
        (self.send_bytes_max / COMPACTION_PART_OF_SENDS).min(COMPACTION_BYTES_MAX)
    }

    /// Limits so small that a short simulation reaches them.
    pub const fn tiny() -> Self {
        let store = StoreLimits::tiny_with_journal();
        Self {
            request_bytes_max: 256 << 10,
            decoder_bytes_max: 4 << 20,
            send_bytes_max: 128 << 10,
            metadata_bytes_max: PARTITIONS_MAX as u64 * METADATA_BYTES_PER_ENTRY,
            connections_max: 64,
            check_work_at_once: 50,
            cleanup_interval: CLEANUP_INTERVAL_DEFAULT,
            batch_bytes_max: store.payload_bytes_max,
            // Topics in simulations have thousands of partitions, and each turn takes its time.
            store: StoreLimits { snapshot_bytes_per_turn: 16 << 10, ..store },
            state_log_bytes: 32 << 10,
        }
    }
}

#[cfg(test)]
mod tests;
