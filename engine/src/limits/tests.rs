//! The parts add up.

use super::*;

/// Returns the sum of all parts of a broker's memory.
fn total(memory: u64, shards: u16, stores: usize, batch_bytes_max: usize) -> u64 {
    let limits = ShardLimits::production(memory, shards, stores, batch_bytes_max);
    limits.store.assert_consistent();
    let of_store = limits.store.cache_bytes_max + limits.store.store_producers_max as u64 * PRODUCER_BYTES;
    let requests = limits.request_bytes_max + limits.decoder_bytes_max;
    let of_shard = (requests + limits.send_bytes_max) as u64 + of_store * stores as u64;
    let of_groups = offsets_bytes_max(memory) + members_bytes_max(memory);
    let of_broker = idle_buffer_bytes(memory, shards) + of_groups;
    of_shard * u64::from(shards) + of_broker as u64 + limits.metadata_bytes_max
}

#[test]
fn the_parts_of_a_brokers_memory_add_up_to_all_of_it() {
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
fn a_batch_of_the_largest_size_fits_each_part_of_the_smallest_memory_that_is_accepted() {
    for batch_bytes_max in [1 << 20, 16 << 20, 17 << 20, 100 << 20] {
        let least = shard_memory_bytes_min(batch_bytes_max);
        let limits = ShardLimits::production(least, 1, 1, batch_bytes_max);
        assert!(limits.request_bytes_max >= batch_bytes_max + (4 << 20));
        assert!(limits.decoder_bytes_max >= 12 << 20);
        assert!(limits.send_bytes_max >= batch_bytes_max + (8 << 20));
        assert!(limits.store.cache_bytes_max >= batch_bytes_max as u64);
        assert_eq!(limits.batch_bytes_max, batch_bytes_max);
        assert!(limits.store.payload_bytes_max >= GROUP_RECORD_BYTES_MAX, "groups are kept in any case");
    }
    assert_eq!(shard_memory_bytes_min(BATCH_BYTES_MAX_DEFAULT), 96 << 20);
    let offsets = [96 << 20, 256 << 20, 1 << 30, 8 << 30].map(offsets_bytes_max);
    assert_eq!(offsets, [3 << 20, 8 << 20, 32 << 20, 32 << 20]);
    let members = [96 << 20, 256 << 20, 1 << 30, 8 << 30].map(members_bytes_max);
    assert_eq!(members, [3 << 19, 4 << 20, 12 << 20, 12 << 20]);
}
