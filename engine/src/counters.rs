//! What the shards of a broker have done, in numbers that any of them can tell.
//!
//! A shard counts in memory of its own and publishes once a turn, so that what is counted costs nothing where it happens and
//! whoever asks needs no answer from other shards. A turn publishes before its replies leave: who has an
//! acknowledgement finds it counted.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater_protocol::ids::ShardId;
use highwater_protocol::limits::{COUNTER_NAME_BYTES_MAX, COUNTERS_MAX};
use highwater_protocol::native::ShardStats;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)+) => {
        /// The counters of a shard. All but those that are named as being of now only grow.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl Counters {
            /// Their names, as clients see them.
            pub const NAMES: &'static [&'static str] = &[$($name,)+];

            const fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field,)+]
            }
        }
    };
}

counters! {
    /// Requests read.
    requests = "requests",
    /// Requests answered with an error, and connections ended with one.
    requests_refused = "requests.refused",
    /// Record batches appended; those that were there already are not counted again.
    batches = "batches.appended",
    /// Records in them.
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
    /// Of them, those that were durable by themselves.
    durable_writes = "disk.writes.durable",
    /// Syncs.
    syncs = "disk.syncs",
    /// Bytes of log data written.
    written = "disk.bytes.written",
    /// Disk reads of log data.
    reads = "disk.reads",
    /// Bytes of them.
    read = "disk.bytes.read",
    /// Reads answered from memory.
    cached_reads = "cache.reads",
    /// Passes of compaction that have ended in order.
    compactions = "compaction.passes",
    /// Those that ended early.
    compactions_failed = "compaction.passes.failed",
    /// Records that compaction has removed.
    compacted_records = "compaction.records.removed",
    /// Bytes of frames that compaction has read and replaced.
    compacted_from = "compaction.bytes.before",
    /// Bytes of frames that have replaced them.
    compacted_to = "compaction.bytes.after",
    /// Batches that compaction left as they are, because it could not read them.
    uncompacted_batches = "compaction.batches.unread",
    /// Bytes of compacted topics that were not compacted when they were last looked at.
    dirty = "compaction.dirty.now",
    /// Connections now.
    connections = "connections.now",
    /// Connections ended because their clients took nothing while others waited for memory.
    slow_readers = "connections.cut.slow",
    /// Bytes of memory that requests, and what is on its way to clients, take now.
    request_memory = "memory.requests.now",
    /// Bytes of memory that the logs' caches and what waits for the disk take now.
    log_memory = "memory.logs.now",
    /// Bytes of slabs now.
    slabs = "disk.slabs.now",
    /// Of them, free.
    free = "disk.slabs.free.now",
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

/// What a shard has published. On cache lines of its own: it is written once a turn.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardCounters([AtomicU64; COUNT]);

impl ShardCounters {
    /// For a broker of so many shards.
    pub fn of_shards(shards: u16) -> Box<[Self]> {
        (0..shards).map(|_| Self([const { AtomicU64::new(0) }; COUNT])).collect()
    }

    /// Others see these from now on. Each counter is right by itself; together they may be of two turns.
    pub(crate) fn publish(&self, counters: &Counters) {
        for (published, value) in self.0.iter().zip(counters.values()) {
            published.store(value, Ordering::Relaxed);
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
    fn what_is_published_is_read_under_its_name_and_names_are_told_once() {
        let shards = ShardCounters::of_shards(2);
        shards[1].publish(&Counters { records: 7, free: 9, ..Counters::default() });
        let read = shards[1].read(ShardId(1));
        let value =
            |name: &str| read.counters.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        assert_eq!((value("records.appended"), value("disk.slabs.free.now")), (Some(7), Some(9)));
        assert_eq!(value("batches.appended"), Some(0));
        assert!(shards[0].read(ShardId(0)).counters.iter().all(|(_, value)| *value == 0));
        let mut names = Counters::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counters::NAMES.len());
    }
}

/// Units of a shard's turns: of work, or of something else that a turn is to have only so much of.
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

    /// A turn is over.
    pub(crate) fn end_turn(&mut self) {
        self.this_turn = 0;
    }

    /// The units of this turn.
    pub(crate) fn this_turn(&self) -> usize {
        self.this_turn
    }

    /// The units of all turns so far.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// The most units of one turn so far.
    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

/// Units of work that may be done.
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

    /// What was done so far.
    pub(crate) fn spent(&self) -> usize {
        self.spent
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// So much was done. The last piece may be larger than what was left.
    pub(crate) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
        self.spent += units;
    }
}
