//! Every limit of a shard in one place, each with its unit in its name. Those of a connection are in `highwater_net::limits`.

use std::ops::RangeInclusive;
use std::time::Duration;

use highwater_protocol::frame::frame_bytes;
use highwater_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT};
use highwater_runtime::buf::PAGE_BYTES;
use highwater_storage::StoreLimits;
use highwater_storage::limits::PRODUCER_BYTES;
use highwater_storage::state_log::PAYLOAD_BYTES_MAX;

/// The journal of a store has as many bytes as this part of its cache.
pub const JOURNAL_PART: u64 = 4;

/// The smallest and the largest journal of a store, in bytes.
pub const JOURNAL_BYTES: RangeInclusive<u64> = 1 << 20..=16 << 20;

/// Connections of a broker, over all its shards.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Connections of a shard from one address. One shard may accept all of them, and a thousand clients on one machine are no attack.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 4_000;

/// Bytes of frames in the reply to one fetch, unless a single frame is larger.
pub const FETCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of records in the answer to one fetch of a Kafka client, unless a single batch is larger.
pub const KAFKA_FETCH_BYTES_MAX: usize = 16 << 20;

/// Partitions in which a shard remembers where one connection is.
pub const FETCH_PLACES_MAX: usize = 10_000;

/// Longest time a fetch may wait for records.
pub const FETCH_WAIT_MAX: Duration = Duration::from_mins(1);

/// Bytes of frames that are pushed to a subscription in one message, unless a single frame is larger.
pub const PUSH_BYTES_MAX: usize = 1 << 20;

/// Bytes that are pushed in one turn, all subscriptions together; the rest follows in the next turn, so that requests are not kept waiting.
pub const PUSH_BYTES_PER_TURN_MAX: usize = 8 << 20;

/// What any read counts for, in bytes, however little it gives: a long poll that ends empty takes its time too.
pub const READ_BYTES_COUNTED_MIN: usize = 8 << 10;

/// Partitions that fetches of Kafka clients read in one turn, or begin to wait for, all of them together. The rest follows in the next turn.
pub const KAFKA_FETCH_READS_PER_TURN_MAX: usize = 128;

/// Bytes of records that they read in one turn. The last read may be over it.
pub const KAFKA_FETCH_BYTES_PER_TURN_MAX: usize = 2 << 20;

/// Partitions that one of them reads before it is the turn of another.
pub const KAFKA_FETCH_READS_PER_STEP_MAX: usize = 32;

/// Units of work that the jobs of a shard do in one turn; a unit is about half a microsecond. See `shard/work.rs`.
pub const WORK_PER_TURN_MAX: usize = 2048;

/// Units of work that may be done in a turn for changes of the metadata, however much was done at once before.
pub const PUBLISH_WORK_PER_TURN_MIN: usize = WORK_PER_TURN_MAX / 4;

/// The same for all other jobs, however much was done before.
pub const JOBS_WORK_PER_TURN_MIN: usize = WORK_PER_TURN_MAX / 2;

/// Units of it that one job does before it is another one's turn.
pub const WORK_PER_STEP_MAX: usize = 256;

/// Units of work that are done at once when a request or a message comes. More makes a job of it.
pub const WORK_AT_ONCE_MAX: usize = 64;

/// What the requests count for that are taken up as they come in one turn, and as much again of those that were held back. A Produce counts
/// for one: more of them in a turn make commit rounds larger, and cost little.
pub const REQUESTS_PER_TURN_MAX: usize = 4096;

/// What any other request counts for.
pub const REQUEST_COST: usize = 4;

/// Entries of a request's lists that count as much as one in [`REQUESTS_PER_TURN_MAX`]: to read them takes as long.
pub const REQUEST_ENTRIES_PER_COST: usize = 16;

/// Bytes of a native request, apart from a batch, that count as much: each entry of a list has four at least.
pub const REQUEST_BYTES_PER_ENTRY: usize = 8;

/// Entries of the lists of large requests that are read for each turn. A request that has more is read in one go, and then no other large one
/// until as many turns have passed as it would have taken.
pub const REQUEST_ENTRIES_PER_TURN: usize = 10_000;

/// Bytes of long answers that are written in one turn. A piece may be over it.
pub const LONG_ANSWER_BYTES_PER_TURN_MAX: usize = 512 << 10;

/// Bytes of a long answer that wait to be sent, before it goes on.
pub const LONG_ANSWER_QUEUE_BYTES_MAX: usize = 128 << 10;

/// Bytes of an answer that are counted in a unit of work.
pub const PIECE_BYTES_PER_UNIT: usize = 256;

/// Entries of an answer that are filled in with what was found of them for a unit of work.
pub const FOUND_PER_UNIT: usize = 16;

/// Partitions of the answer to a fetch of a Kafka client that are written for a unit of work.
pub const FETCHED_PER_UNIT: usize = 8;

/// Partitions of a topic that are written as one part of a long answer.
pub const PARTITIONS_PER_PART: usize = 256;

/// Events of a store that are handled at once. The others come in the next turn.
pub const EVENTS_PER_POLL_MAX: usize = 2048;

/// Answers of the controller and of the coordinator of groups that leave in one turn.
pub const ANSWERS_PER_TURN_MAX: usize = 1024;

/// Questions that one request has asked shard 0 and that are not answered. The others wait until these are.
pub const ASKS_PER_REQUEST_MAX: usize = 64;

/// Groups that one question to their coordinator may concern.
pub const GROUPS_PER_ASK_MAX: usize = 32;

/// Questions of a shard that others have not answered; then it takes up no further requests. Members that wait for others are among
/// them, and their memory is bounded to less.
pub const ASKED_MAX: usize = 1 << 18;

/// Messages of a shard that wait for room, here or in another shard's queue; then it takes up no further requests. What one request
/// posts comes on top: a few for each shard, and [`ASKS_PER_REQUEST_MAX`].
pub const BACKLOG_MAX: usize = 4096;

const _: () = assert!(BACKLOG_MAX + ASKED_MAX < highwater_runtime::plane::BACKLOG_MAX / 2);

/// Bytes that one connection may hold of a shard's memory for what is sent: reads for it and what waits to be sent. Then nothing more is read
/// for it, and its requests are not taken up.
pub const SEND_QUEUE_BYTES_MAX: usize = 8 << 20;

/// The same when many connections share that memory, and the least that a read begins with.
pub const SEND_QUEUE_BYTES_MIN: usize = 64 << 10;

/// Bytes of disk reads in flight of a shard, all its stores together, unless a single batch is larger. Further reads are queued, and writes
/// pass them: an append does not wait for all that clients read.
pub const DISK_READS_INFLIGHT_BYTES_MAX: usize = 2 << 20;

/// Bytes of memory that a read reserves at least, however few are wanted: what it looks for lies somewhere in them.
pub const READ_MEMORY_BYTES_MIN: usize = 64 << 10;

/// Connections and fetches that wait for memory and are tried in one turn.
pub const LINE_TRIES_PER_TURN_MAX: usize = 64;

/// How often the line of those who wait for memory is looked at when nothing else happens: memory also comes back on other shards.
pub const LINE_INTERVAL: Duration = Duration::from_millis(5);

/// How often clients that take nothing are looked for while others wait for memory.
pub const SHORTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// A client that has something to take and takes less than [`SLOW_READER_BYTES_MIN`] of it in this time is cut off while others wait for memory.
pub const SLOW_READER_TIME_MAX: Duration = Duration::from_secs(5);

/// See [`SLOW_READER_TIME_MAX`].
pub const SLOW_READER_BYTES_MIN: usize = 64 << 10;

/// Bytes that the answer to a fetch has for each partition, beside records.
pub const FETCH_ANSWER_BYTES_PER_PARTITION: usize = 64;

/// An answer to a fetch that has less than this beside records needs no memory for that.
pub const FETCH_ANSWER_BYTES_FREE: usize = 4 << 10;

/// Bytes of the offsets of all groups together, however much memory a broker has. A snapshot of them, with the groups' members, is one payload of a state log.
pub const OFFSETS_BYTES_MAX: usize = 32 << 20;

/// Bytes of the metadata of all topics together. A snapshot of it is one payload of a state log.
pub const METADATA_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(2 * METADATA_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Bytes of memory that the metadata of a partition counts for, or that of a topic: what every shard keeps of it.
pub const METADATA_BYTES_PER_ENTRY: u64 = 1 << 10;

/// Partitions of a broker, however much memory it has.
pub const PARTITIONS_MAX: usize = 1 << 20;

/// Producers of which a shard remembers that a batch was rejected and has not been sent again. Of more, the one that was silent longest is
/// forgotten.
pub const REJECTED_PRODUCERS_MAX: usize = 10_000;

/// Topics and other resources that one request of a Kafka client may change.
pub const KAFKA_CHANGES_PER_REQUEST_MAX: usize = 10_000;

/// Partitions whose sizes one request of a Kafka client may ask for.
pub const KAFKA_SIZES_PER_REQUEST_MAX: usize = 100_000;

/// Producers that a shard describes in its part of the answer to one request.
pub const PRODUCERS_PER_ANSWER_MAX: usize = 20_000;

const _: () = assert!(PRODUCERS_PER_ANSWER_MAX >= 10_000, "those of one partition always fit");

/// States and kinds of groups that a request of a Kafka client may list those of. There are fewer than ten.
pub const KAFKA_FILTERS_MAX: usize = 100;

/// Bytes that the answer to a request may have which tells of whole groups or many partitions and has to ask others. So much is set
/// aside for it, so that only so many wait at once on a connection.
pub const KAFKA_ANSWER_BYTES_EXPECTED: usize = 1 << 20;

/// Bytes of memory that a request counts for until it is answered, for each of its bytes, unless it has batches: the names that it gives are
/// kept, each by itself, with what is found out about them.
pub const HELD_BYTES_PER_BYTE: usize = 6;

/// Bytes that each group of an OffsetFetch counts for until that is answered.
pub const HELD_BYTES_PER_GROUP: usize = 320;

/// Bytes that each further batch of a Produce counts for, apart from its own, until that is answered: its place, its outcome and the answer
/// for it.
pub const HELD_BYTES_PER_BATCH: usize = 512;

/// Searches by time of a shard that read from disk at once, each into a buffer of its own. Others wait for their turn.
pub const SEARCHES_MAX: usize = 4;

/// What a search is charged for unpacking, in disk reads of the largest size: the decoder with its window, and what it has unpacked.
pub const SEARCH_DECODER_READS: usize = 1;

/// Searches by time that begin in one turn.
pub const SEARCHES_PER_TURN_MAX: usize = 32;

/// Work of all searches in one turn, in the units of `highwater_protocol::batch::Work`: what is cached is searched at once, what is
/// compressed has to be unpacked, and other requests are not to be kept waiting.
pub const SEARCH_WORK_PER_TURN_MAX: usize = 1_000_000;

/// Work of checking that a batch may take when it comes, before the next request is looked at; see `highwater_protocol::batch::Work`. A batch
/// of 1 MiB that is not compressed fits.
pub const CHECK_WORK_AT_ONCE_MAX: usize = 500_000;

/// Work that each batch of a Kafka client's request counts for, apart from its records: it is routed, appended and answered.
pub const CHECK_WORK_PER_BATCH: usize = 500;

/// Work of checking batches as they come, in one turn.
pub const CHECK_WORK_ON_ARRIVAL_MAX: usize = 2_000_000;

/// Work in one turn on the checks that were not finished when their batches came.
pub const CHECK_WORK_PER_TURN_MAX: usize = 1_000_000;

/// Work after which a check goes behind those that may take less.
pub const CHECK_WORK_SHORT_MAX: usize = 8_000_000;

/// Unfinished checks that keep their decoders while they wait. Others begin anew when it is their turn.
pub const CHECKS_OPEN_MAX: usize = 8;

/// What of the memory for decoders is for the checks that wait and do not take long: one of so many parts. As much again is for the one of
/// them that goes on, and for the decoder that is kept for the next batch; the rest is for one that takes long.
pub const DECODERS_SHORT_PART: usize = 12;

/// Bytes of memory that the decoder may take which is kept for the next batch. The window of zstd's default level fits.
pub const DECODER_IDLE_BYTES_MAX: usize = 4 << 20;

/// How often connections are looked at for having taken too long.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// A connection that was told why it ends and does not take that is cut off after this time.
pub const CLOSING_TIME_MAX: Duration = Duration::from_secs(10);

/// How often retention is enforced.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(15);

/// How often a full disk is tried again.
pub const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// What was asked before a stop is finished in this time, or dropped.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long a stop waits for the disk once clients have been answered. A disk that is full takes nothing more.
pub const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Stores that one shard can serve: each has a number in the top byte of its operations' tokens.
pub const STORES_PER_SHARD_MAX: usize = 200;

/// Warnings of one kind that a start gives one by one for each store; of the others it says how many there are.
pub const START_WARNINGS_MAX: usize = 10;

/// Bytes that the offsets of all groups together may take, of the `memory_bytes` of a broker.
pub const fn offsets_bytes_max(memory_bytes: u64) -> usize {
    let part = memory_bytes / OFFSETS_PART;
    if part < OFFSETS_BYTES_MAX as u64 { part as usize } else { OFFSETS_BYTES_MAX }
}

/// Bytes of memory that free buffers may keep, to be used again, of the `memory_bytes` of a broker. What offsets take comes out of their part.
pub fn idle_buffer_bytes(memory_bytes: u64, shards: u16) -> usize {
    let part = memory_bytes / FREE_BUFFERS_PART - offsets_bytes_max(memory_bytes) as u64;
    part.min((32 << 20) * (1 + u64::from(shards))) as usize
}

/// What the limit for the bytes of a batch may be set to.
pub const BATCH_BYTES_MAX_RANGE: RangeInclusive<usize> = 1 << 20..=BATCH_BYTES_MAX;

/// What a shard takes for requests, for the decoders that check their batches, for what is on its way to clients and for the cache of its stores, however little memory there is, where
/// batches have at most [`BATCH_BYTES_MAX_DEFAULT`].
const REQUEST_BYTES_MIN: u64 = 20 << 20;
const DECODER_BYTES_MIN: u64 = 12 << 20;
const SEND_BYTES_MIN: u64 = 24 << 20;
const CACHE_BYTES_MIN: u64 = 16 << 20;

/// What decoders take of the memory for them and for requests: so many of as many parts. More than the largest windows need is of no use.
const DECODERS_PARTS: (u64, u64) = (3, 8);
const DECODERS_BYTES_MAX: u64 = 192 << 20;

/// What the metadata of partitions, idempotent producers and free buffers take of the memory: one of so many parts each. The offsets of groups
/// take a part of the last.
const METADATA_PART: u64 = 8;
const PRODUCERS_PART: u64 = 16;
const FREE_BUFFERS_PART: u64 = 16;
const OFFSETS_PART: u64 = 32;

/// What is left of sixteen parts when these three have theirs.
const OTHER_PARTS_OF_16: u64 = 16 - 16 / METADATA_PART - 16 / PRODUCERS_PART - 16 / FREE_BUFFERS_PART;

/// What a shard needs more of each of the three where batches are larger: one of the largest size has to fit, while others wait.
const fn more_for_batches(batch_bytes_max: usize) -> u64 {
    batch_bytes_max.saturating_sub(BATCH_BYTES_MAX_DEFAULT) as u64
}

/// Memory without which a shard that takes batches of up to so many bytes does not work, in whole MiB.
pub const fn shard_memory_bytes_min(batch_bytes_max: usize) -> u64 {
    let requests = REQUEST_BYTES_MIN + DECODER_BYTES_MIN;
    let least = requests + SEND_BYTES_MIN + CACHE_BYTES_MIN + 3 * more_for_batches(batch_bytes_max);
    (least * 16).div_ceil(OTHER_PARTS_OF_16).next_multiple_of(1 << 20)
}

/// What a shard may hold in memory, and the sizes of its stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardLimits {
    /// Requests that were received and not answered, in bytes. When it is used up, sockets are not read.
    pub request_bytes_max: usize,
    /// Decoders that check compressed batches of requests. Batches that need more by themselves are rejected, others wait.
    pub decoder_bytes_max: usize,
    /// What is on its way to clients: reads under way, what they found, and answers that are queued. When it is used up, nothing is read.
    pub send_bytes_max: usize,
    /// Metadata of all partitions and topics of the broker, at [`METADATA_BYTES_PER_ENTRY`] each. When it is used up, no more are created.
    pub metadata_bytes_max: u64,
    /// Connections.
    pub connections_max: usize,
    /// See [`CHECK_WORK_AT_ONCE_MAX`].
    pub check_work_at_once: usize,
    /// Each store's own.
    pub store: StoreLimits,
    /// Size of the files of the controller's and of the groups' log while these hold little.
    pub state_log_bytes: u64,
}

impl ShardLimits {
    /// How `memory_bytes` are divided on one of `shards` shards with `stores` stores, for batches of up to `batch_bytes_max`. What the others leave
    /// is the cache's. The table is in `docs/operations.md`.
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
        let of_broker = idle_buffer_bytes(memory_bytes, shards) + offsets_bytes_max(memory_bytes);
        let free_buffers_and_offsets = of_broker as u64 / u64::from(shards);
        let others = producers + free_buffers_and_offsets + share / METADATA_PART;
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
            store: StoreLimits {
                journal_bytes: journal_bytes(cache / stores),
                payload_bytes_max: batch_bytes_max,
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

    /// Topics and partitions that a broker keeps at most, both together.
    pub const fn metadata_entries_max(&self) -> usize {
        (self.metadata_bytes_max / METADATA_BYTES_PER_ENTRY) as usize
    }

    /// The memory that a broker needs to keep so many topics and partitions, in bytes.
    pub const fn memory_bytes_for(entries: usize) -> u64 {
        entries as u64 * METADATA_BYTES_PER_ENTRY * METADATA_PART
    }

    /// Bytes of the largest batch that is taken.
    pub fn batch_bytes_max(&self) -> usize {
        self.store.payload_bytes_max
    }

    /// Limits that a short simulation runs into.
    pub const fn tiny() -> Self {
        Self {
            request_bytes_max: 256 << 10,
            decoder_bytes_max: 4 << 20,
            send_bytes_max: 128 << 10,
            metadata_bytes_max: PARTITIONS_MAX as u64 * METADATA_BYTES_PER_ENTRY,
            connections_max: 64,
            check_work_at_once: 50,
            // Topics have thousands of partitions here, and each turn takes its time.
            store: StoreLimits { snapshot_bytes_per_turn: 16 << 10, ..StoreLimits::tiny_with_journal() },
            state_log_bytes: 32 << 10,
        }
    }
}

/// The size of a store's journal: the cache keeps what the journal has until the extents have it too.
fn journal_bytes(cache_bytes: u64) -> u64 {
    let bytes = cache_bytes / JOURNAL_PART;
    1 << bytes.clamp(*JOURNAL_BYTES.start(), *JOURNAL_BYTES.end()).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a broker may hold, as it is divided.
    fn total(memory: u64, shards: u16, stores: usize, batch_bytes_max: usize) -> u64 {
        let limits = ShardLimits::production(memory, shards, stores, batch_bytes_max);
        limits.store.assert_consistent();
        let of_store =
            limits.store.cache_bytes_max + limits.store.store_producers_max as u64 * PRODUCER_BYTES;
        let requests = limits.request_bytes_max + limits.decoder_bytes_max;
        let of_shard = (requests + limits.send_bytes_max) as u64 + of_store * stores as u64;
        let of_broker = idle_buffer_bytes(memory, shards) + offsets_bytes_max(memory);
        of_shard * u64::from(shards) + of_broker as u64 + limits.metadata_bytes_max
    }

    #[test]
    fn what_a_broker_may_hold_in_memory_adds_up_to_what_it_is_given_whatever_that_is() {
        for batch_mib in [1, 2, 15, 16, 17, 20, 31, 32, 50, 64, 99, 100] {
            for batch_bytes_max in [batch_mib << 20, (batch_mib << 20) + 1] {
                if !BATCH_BYTES_MAX_RANGE.contains(&batch_bytes_max) {
                    continue;
                }
                for shards in [1, 2, 3, 4, 7, 8, 16, 64, 256] {
                    let least = shard_memory_bytes_min(batch_bytes_max) * u64::from(shards);
                    let more = [0, 1, 4097, 1 << 20, 100 << 20, 1 << 30, 10 << 30, 1 << 40];
                    for memory in more.map(|more| least + more) {
                        for stores in [1, 2, 3, 7, STORES_PER_SHARD_MAX] {
                            let all = total(memory, shards, stores, batch_bytes_max);
                            let slack = u64::from(shards) * (stores as u64 + 4) * PRODUCER_BYTES;
                            assert!(
                                all <= memory && all + slack >= memory,
                                "{all} of {memory} with {shards} shards, {stores} stores, batches of {batch_bytes_max}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_of_the_largest_size_fits_each_part_of_the_least_memory_that_is_accepted() {
        for batch_bytes_max in [1 << 20, 16 << 20, 17 << 20, 100 << 20] {
            let least = shard_memory_bytes_min(batch_bytes_max);
            let limits = ShardLimits::production(least, 1, 1, batch_bytes_max);
            assert!(limits.request_bytes_max >= batch_bytes_max + (4 << 20));
            assert!(limits.decoder_bytes_max >= 12 << 20);
            assert!(limits.send_bytes_max >= batch_bytes_max + (8 << 20));
            assert!(limits.store.cache_bytes_max >= batch_bytes_max as u64);
        }
        assert_eq!(shard_memory_bytes_min(BATCH_BYTES_MAX_DEFAULT), 96 << 20);
        let offsets = [96 << 20, 256 << 20, 1 << 30, 8 << 30].map(offsets_bytes_max);
        assert_eq!(offsets, [3 << 20, 8 << 20, 32 << 20, 32 << 20]);
    }
}
