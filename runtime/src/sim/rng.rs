//! Randomness: independent streams derived from one seed.

use rand::SeedableRng as _;
use rand::rngs::Xoshiro256PlusPlus;

/// The generator of every stream. Its algorithm is fixed, so that failing seeds can be reproduced.
pub type SimRng = Xoshiro256PlusPlus;

/// Returns the stream with this name and number. Streams are independent: drawing from one does not affect another.
pub fn stream(seed: u64, name: &str, number: u64) -> SimRng {
    let mut hash = mix(seed);
    for byte in name.bytes() {
        hash = mix(hash ^ u64::from(byte));
    }
    SimRng::seed_from_u64(mix(hash ^ number))
}

/// One round of SplitMix64.
pub(super) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn streams_differ_by_seed_name_and_number_and_are_reproducible() {
        let first = |seed, name, number| stream(seed, name, number).next_u64();
        let all = [first(1, "disk", 0), first(2, "disk", 0), first(1, "network", 0), first(1, "disk", 1)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
        assert_eq!(all[0], first(1, "disk", 0));
    }
}
