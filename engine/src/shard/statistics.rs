//! The counters of this shard, published for all shards.

use highwater_net::{Reply, ReplySlot};
use highwater_protocol::ids::ShardId;
use highwater_protocol::native::StatsReply;
use highwater_runtime::plane::ConnId;

use super::Shard;
use crate::counters::Counters;

impl Shard {
    /// Publishes the counters. Called once a turn.
    pub(super) fn publish_counters(&mut self) {
        let counted = self.partitions.counted();
        let mut now = Counters {
            connections: self.connections.len() as u64,
            request_memory: self.memory_bytes() as u64,
            batches: counted.batches,
            records: counted.records,
            damaged_reads: counted.damaged_reads,
            ..self.counted
        };
        let compacted = self.partitions.compacted();
        now.compactions = compacted.passes;
        now.compactions_failed = compacted.failed;
        now.compacted_records = compacted.removed;
        now.compacted_from = compacted.bytes_before;
        now.compacted_to = compacted.bytes_after;
        now.uncompacted_batches = compacted.unreadable;
        now.dirty = compacted.dirty_bytes;
        let groups = self.groups.coordinators.usage();
        now.groups = groups.groups as u64;
        now.group_offset_bytes = groups.offsets_bytes as u64;
        now.group_member_bytes = groups.members_bytes as u64;
        self.count_peers(&mut now);
        for store in self.partitions.stores() {
            let stats = store.stats();
            now.frame_bytes += stats.bytes_appended;
            now.rounds += stats.rounds;
            now.writes += stats.writes;
            now.durable_writes += stats.durable_writes;
            now.syncs += stats.syncs;
            now.written += stats.bytes_written;
            now.reads += stats.reads_disk;
            now.read += stats.bytes_read;
            now.cached_reads += stats.reads_cached;
            now.log_memory += stats.cache_bytes + stats.unacked_bytes;
            now.slabs += stats.slab_bytes;
            now.free += stats.free_bytes;
            now.holes += stats.hole_bytes;
            now.punched += stats.punched_bytes;
        }
        self.setup.counters[usize::from(self.me)].publish(&now);
    }

    /// Replies with the counters of all shards.
    pub(super) fn reply_stats(&mut self, conn: ConnId, slot: ReplySlot) {
        self.publish_counters();
        let shards = self.setup.counters.iter().zip(0..).map(|(shard, n)| shard.read(ShardId(n))).collect();
        self.reply(conn, slot, Reply::body(&StatsReply { shards }));
    }
}
