//! Maps keys and groups to partitions as Kafka does, so that they get the same partition in either protocol.

/// Returns the partition of a key in a topic with `partitions` partitions.
///
/// Panics if `partitions` is 0.
///
/// ```
/// use highwater_protocol::partitioner::partition_for_key;
/// assert_eq!(partition_for_key(b"foobar", 10), 6);
/// ```
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key).cast_unsigned() & 0x7fff_ffff) % partitions
}

/// Returns which of `partitions` partitions of the groups' topic keeps a group: the one that a Kafka broker would choose.
pub fn partition_of_group(group: &str, partitions: u32) -> u32 {
    // Java's `String.hashCode`, over UTF-16 units.
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // `i32::MIN` has no absolute value; Kafka uses 0.
    hash.checked_abs().unwrap_or(0).cast_unsigned() % partitions.max(1)
}

/// Computes the 32-bit MurmurHash2 with the seed that Kafka uses.
pub fn murmur2(bytes: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_the_partition_that_kafka_would_choose() {
        // Computed in Java: `Utils.abs(group.hashCode()) % partitions`.
        for (group, partitions, expected) in [
            ("", 50, 0),
            ("a", 50, 97 % 50),
            ("hello", 50, 99_162_322 % 50),
            // The hash is `i32::MIN`.
            ("polygenelubricants", 50, 0),
            // The hash is negative.
            ("The quick brown fox", 16, 1_739_336_029 % 16),
            // Two UTF-16 units.
            ("\u{1f600}", 16, 1_772_899 % 16),
        ] {
            assert_eq!(partition_of_group(group, partitions), expected, "{group:?}");
        }
    }

    #[test]
    fn hashes_match_kafka() {
        let known: &[(&[u8], i32)] = &[
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key), *hash, "{:?}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_sign_of_a_hash_is_cleared_before_the_division() {
        assert_eq!(partition_for_key(b"21", 12), 1_173_551_340 % 12);
        assert_eq!(partition_for_key(b"foobar", 7), 1_357_151_166 % 7);
        assert_eq!(partition_for_key(b"anything", 1), 0);
        for key in 0..1000_u32 {
            assert!(partition_for_key(&key.to_le_bytes(), 8) < 8);
        }
    }
}
