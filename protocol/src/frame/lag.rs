//! A 16-bit encoding of frame counts that rounds up.
//!
//! A frame header states how far the durable index and the commit index were behind its frame when it was written. Readers subtract
//! the count from the frame's index. A count that is too large claims too little, which is safe; one that is too small would claim too
//! much. So counts are rounded up: up to 2048 they are exact, and larger ones are accurate to one part in 1024.
//!
//! ```text
//!   code < 2048           the count itself
//!   2048 + 1024 s + m     (1024 + m) << (s + 1)
//! ```
#![deny(clippy::arithmetic_side_effects)]

/// Counts below this are encoded as themselves.
const EXACT: u64 = 2048;

/// Number of codes for the counts between consecutive powers of two.
const STEPS: u64 = 1024;

/// Returns the code of this count, or of the next larger count that has a code.
pub(super) const fn encode(frames: u64) -> u16 {
    if frames < EXACT {
        return frames as u16;
    }
    let shift = (frames.ilog2() as u64).saturating_sub(10);
    let dropped = frames & !(u64::MAX << shift);
    // From STEPS to 2 * STEPS, where the last value is the first step of the next power of two, with the same code.
    let step = (frames >> shift).saturating_add((dropped > 0) as u64);
    let code = EXACT.saturating_add(shift.saturating_sub(1).saturating_mul(STEPS));
    code.saturating_add(step.saturating_sub(STEPS)) as u16
}

/// Returns the count with this code.
pub(super) const fn decode(code: u16) -> u64 {
    let Some(above) = (code as u64).checked_sub(EXACT) else { return code as u64 };
    let (shift, step) = ((above / STEPS).saturating_add(1), (above % STEPS).saturating_add(STEPS));
    if step.leading_zeros() as u64 >= shift { step << shift } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_are_exact_and_larger_ones_are_rounded_up_by_at_most_a_thousandth() {
        let around = |n: u64| [n.saturating_sub(1), n, n.saturating_add(1)];
        let powers = (0..64).flat_map(|n| around(1 << n));
        let others = (0..64).flat_map(|n| around((u64::MAX / 3) >> n));
        for count in (0..5000).chain(powers).chain(others).chain([u64::MAX]) {
            let read = decode(encode(count));
            assert!(read >= count, "{count} became {read}");
            assert!(read - count <= count / 1024, "{count} became {read}");
            assert!(count >= EXACT || read == count);
        }
    }

    #[test]
    fn the_count_increases_with_the_code_up_to_the_largest_count() {
        let largest = encode(u64::MAX);
        for code in 1..=largest {
            assert!(decode(code) > decode(code - 1), "{code}");
            assert_eq!(encode(decode(code)), code);
        }
        assert_eq!(decode(u16::MAX), u64::MAX);
    }
}
