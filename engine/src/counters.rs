//! Counters of the shards, which any shard can read.
//!
//! A shard counts in its own memory and publishes once a turn, so that counting costs next to nothing and a reader needs no messages to other
//! shards. A turn publishes before its replies are sent, so a client that has an acknowledgement finds it counted.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater_protocol::ids::ShardId;
use highwater_protocol::limits::{COUNTER_NAME_BYTES_MAX, COUNTERS_MAX};
use highwater_protocol::native::ShardStats;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)+) => {
        /// The counters of a shard. Gauges are marked "now"; all others only grow.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl Counters {
            /// The names of the counters in statistics.
            pub const NAMES: &'static [&'static str] = &[$($name,)+];

            const fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field,)+]
            }
        }
    };
}

counters! {
    /// Requests received.
    requests = "requests",
    /// Requests answered with an error, and connections closed with one.
    requests_failed = "requests.failed",
    /// Record batches appended, without duplicates.
    batches = "batches.appended",
    /// Records appended.
    records = "records.appended",
    /// Bytes of frames appended.
    frame_bytes = "frames.bytes",
    /// Bytes received from clients.
    received = "bytes.received",
    /// Bytes sent to clients.
    sent = "bytes.sent",
    /// Commit rounds.
    rounds = "rounds",
    /// Disk writes of log data.
    writes = "disk.writes",
    /// Disk writes that were durable by themselves (RWF_DSYNC).
    durable_writes = "disk.writes.durable",
    /// Syncs.
    syncs = "disk.syncs",
    /// Bytes of log data written.
    written = "disk.bytes.written",
    /// Disk reads of log data.
    reads = "disk.reads",
    /// Bytes read from disk.
    read = "disk.bytes.read",
    /// Reads of records that are damaged or cannot be read.
    damaged_reads = "reads.damaged",
    /// Bytes of free space returned to the file system.
    punched = "disk.bytes.punched",
    /// Reads answered from memory.
    cached_reads = "cache.reads",
    /// Compaction passes completed.
    compactions = "compaction.passes",
    /// Compaction passes that were given up.
    compactions_failed = "compaction.passes.failed",
    /// Records removed by compaction.
    compacted_records = "compaction.records.removed",
    /// Bytes of frames that compaction has replaced.
    compacted_from = "compaction.bytes.before",
    /// Bytes of the frames that replaced them.
    compacted_to = "compaction.bytes.after",
    /// Batches that compaction left unchanged because it could not read them.
    uncompacted_batches = "compaction.batches.unread",
    /// Uncompacted bytes of compacted topics, at the last scan.
    dirty = "compaction.dirty.now",
    /// Open connections, now.
    connections = "connections.now",
    /// Connections closed because their clients did not receive while others waited for memory.
    slow_readers = "connections.cut.slow",
    /// Bytes of memory for requests and for data on its way to clients, now.
    request_memory = "memory.requests.now",
    /// Bytes of memory of the tail caches and of unwritten data, now.
    log_memory = "memory.logs.now",
    /// Bytes of slabs, now.
    slabs = "disk.slabs.now",
    /// Free bytes in slabs, now.
    free = "disk.slabs.free.now",
    /// Of these, without space on the disk: they were returned to the file system.
    holes = "disk.slabs.punched.now",
    /// Established channels to shards of other nodes, now.
    peers = "peers.now",
    /// Sessions with shards of other nodes that were established.
    peer_sessions = "peers.sessions",
    /// Channels closed because the other node violated the protocol.
    peer_violations = "peers.violations",
    /// Bytes received from other nodes.
    peer_received = "peers.bytes.received",
    /// Bytes sent to other nodes.
    peer_sent = "peers.bytes.sent",
    /// Elections that partitions of the shard have begun.
    elections = "elections",
    /// The longest turn, in microseconds.
    longest_turn = "turn.longest.us",
    /// Groups now.
    groups = "groups.now",
    /// Bytes of memory that their offsets take now.
    group_offset_bytes = "groups.offsets.bytes.now",
    /// Bytes of memory that their members take now.
    group_member_bytes = "groups.members.bytes.now",
}

/// What the groups of a coordinator take of what all groups of a broker may.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GroupUsage {
    /// Groups.
    pub groups: usize,
    /// Bytes of their offsets.
    pub offsets_bytes: usize,
    /// Bytes of their members.
    pub members_bytes: usize,
}

const COUNT: usize = Counters::NAMES.len();

const _: () = assert!(COUNT <= COUNTERS_MAX);
const _: () = {
    let mut nth = 0;
    while nth < COUNT {
        assert!(Counters::NAMES[nth].len() <= COUNTER_NAME_BYTES_MAX);
        nth += 1;
    }
};

/// The published counters of a shard, on their own cache lines because they are written once a turn.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardCounters([AtomicU64; COUNT]);

impl ShardCounters {
    /// Creates the counters of `shards` shards.
    pub fn of_shards(shards: u16) -> Box<[Self]> {
        (0..shards).map(|_| Self([const { AtomicU64::new(0) }; COUNT])).collect()
    }

    /// Publishes the counters. Each one is consistent by itself; a reader may see values of two turns together.
    pub(crate) fn publish(&self, counters: &Counters) {
        for (published, value) in self.0.iter().zip(counters.values()) {
            published.store(value, Ordering::Relaxed);
        }
    }

    /// What the groups of the shard take.
    pub(crate) fn group_usage(&self) -> GroupUsage {
        let [.., groups, offsets_bytes, members_bytes] = &self.0;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as usize;
        GroupUsage {
            groups: value(groups),
            offsets_bytes: value(offsets_bytes),
            members_bytes: value(members_bytes),
        }
    }

    pub(crate) fn read(&self, shard: ShardId) -> ShardStats {
        let values = self.0.iter().map(|value| value.load(Ordering::Relaxed));
        let names = Counters::NAMES.iter().map(|name| (*name).to_owned());
        ShardStats { shard, counters: names.zip(values).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_counters_are_read_by_name_and_names_are_unique() {
        let shards = ShardCounters::of_shards(2);
        shards[1].publish(&Counters { records: 7, free: 9, ..Counters::default() });
        let read = shards[1].read(ShardId(1));
        let value =
            |name: &str| read.counters.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        assert_eq!((value("records.appended"), value("disk.slabs.free.now")), (Some(7), Some(9)));
        assert_eq!(value("batches.appended"), Some(0));
        let of_groups =
            Counters { groups: 3, group_offset_bytes: 4, group_member_bytes: 5, ..Counters::default() };
        shards[1].publish(&of_groups);
        let usage = GroupUsage { groups: 3, offsets_bytes: 4, members_bytes: 5 };
        assert_eq!(shards[1].group_usage(), usage);
        assert!(shards[0].read(ShardId(0)).counters.iter().all(|(_, value)| *value == 0));
        let mut names = Counters::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counters::NAMES.len());
    }
}

/// Counts units per turn, of work or of anything else that is limited per turn.
#[derive(Default, Debug)]
pub(crate) struct PerTurn {
    this_turn: usize,
    most: usize,
    all: usize,
}

impl PerTurn {
    pub(crate) fn add(&mut self, units: usize) {
        self.this_turn += units;
        self.all += units;
        self.most = self.most.max(self.this_turn);
    }

    /// Ends a turn.
    pub(crate) fn end_turn(&mut self) {
        self.this_turn = 0;
    }

    /// Returns the units of this turn.
    pub(crate) fn this_turn(&self) -> usize {
        self.this_turn
    }

    /// Returns the units of all turns so far.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Returns the largest number of units in one turn so far.
    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

/// A budget of units of work.
#[derive(Debug)]
pub(crate) struct Work {
    left: usize,
    spent: usize,
}

impl Work {
    pub(crate) fn new(units: usize) -> Self {
        Self { left: units, spent: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Returns the units spent so far.
    pub(crate) fn spent(&self) -> usize {
        self.spent
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Spends units. The last piece of work may exceed the budget.
    pub(crate) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
        self.spent += units;
    }
}
