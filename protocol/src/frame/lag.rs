//! A count of frames in 16 bits, rounded up.
//!
//! A frame header says how far its frame was ahead of what was durable, and of what was committed, when it was made. Readers subtract the
//! count from the frame's index. A count that is too large claims less than what is true; one that is too small would claim what is not.
//! So counts are rounded up. Up to 2047 they are exact, and beyond they are right to one part in 1024.
//!
//! ```text
//!   code < 2048           the count itself
//!   2048 + 1024 s + m     (1024 + m) << (s + 1)
//! ```
#![deny(clippy::arithmetic_side_effects)]

/// Counts below this are their own code.
const EXACT: u64 = 2048;

/// Codes for the counts between one power of two and the next.
const STEPS: u64 = 1024;

/// The code of this count, or of the next larger one that has a code.
pub(super) const fn encode(frames: u64) -> u16 {
    if frames < EXACT {
        return frames as u16;
    }
    let shift = (frames.ilog2() as u64).saturating_sub(10);
    let dropped = frames & !(u64::MAX << shift);
    // From STEPS to 2 * STEPS: the last is the first step of the next power of two, and so is its code.
    let step = (frames >> shift).saturating_add((dropped > 0) as u64);
    let code = EXACT.saturating_add(shift.saturating_sub(1).saturating_mul(STEPS));
    code.saturating_add(step.saturating_sub(STEPS)) as u16
}

/// The count with this code.
pub(super) const fn decode(code: u16) -> u64 {
    let Some(above) = (code as u64).checked_sub(EXACT) else { return code as u64 };
    let (shift, step) = ((above / STEPS).saturating_add(1), (above % STEPS).saturating_add(STEPS));
    if step.leading_zeros() as u64 >= shift { step << shift } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_are_exact_and_no_count_is_rounded_down_or_up_by_more_than_a_thousandth() {
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
    fn every_code_is_of_a_count_larger_than_the_one_before_until_there_are_none_larger() {
        let largest = encode(u64::MAX);
        for code in 1..=largest {
            assert!(decode(code) > decode(code - 1), "{code}");
            assert_eq!(encode(decode(code)), code);
        }
        assert_eq!(decode(u16::MAX), u64::MAX);
    }
}
