//! Kafka's variable-length integers: zigzag encoding, seven bits per byte, least significant first.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;

/// Takes an unsigned integer of at most `bits` bits, or returns `None` if it is truncated or too long.
#[inline]
fn take(bytes: &mut &[u8], bits: u32) -> Option<u64> {
    // Fast paths: nearly all integers in a record, lengths and deltas, take one to three bytes.
    match **bytes {
        [a, ref rest @ ..] if a < 0x80 => {
            *bytes = rest;
            Some(u64::from(a))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *bytes = rest;
            Some(u64::from(a & 0x7f) | (u64::from(b) << 7))
        }
        [a, b, c, ref rest @ ..] if c < 0x80 => {
            *bytes = rest;
            Some(u64::from(a & 0x7f) | (u64::from(b & 0x7f) << 7) | (u64::from(c) << 14))
        }
        _ => take_long(bytes, bits),
    }
}

#[cold]
fn take_long(bytes: &mut &[u8], bits: u32) -> Option<u64> {
    let mut value = 0_u64;
    let mut shift = 0_u32;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        let room = bits.checked_sub(shift)?;
        if room < 7 && low.checked_shr(room)? != 0 {
            return None;
        }
        value |= low.checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift = shift.checked_add(7)?;
    }
}

/// Takes a signed 32-bit integer from the front of `bytes`.
#[inline]
pub(super) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let value = take(bytes, 32)? as u32;
    Some((value >> 1) as i32 ^ ((value & 1) as i32).wrapping_neg())
}

/// Takes a signed 64-bit integer from the front of `bytes`.
#[inline]
pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let value = take(bytes, 64)?;
    Some((value >> 1) as i64 ^ ((value & 1) as i64).wrapping_neg())
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Returns the bytes that [`put`] writes. 32-bit and 64-bit integers have the same encoding.
#[inline]
#[allow(clippy::arithmetic_side_effects, reason = "at most 64 leading zeros")]
pub(super) const fn len(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros()).div_ceil(7) as usize
}

/// Bytes of the longest encoding.
const BYTES_MAX: usize = 10;

/// Appends an integer.
#[inline]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "64 bits take at most ten groups of seven"
)]
pub(super) fn put(out: &mut impl BufMut, value: i64) {
    let mut rest = zigzag(value);
    if rest < 0x80 {
        return out.put_u8(rest as u8);
    }
    let mut encoded = [0; BYTES_MAX];
    let mut len = 0;
    while rest >= 0x80 {
        encoded[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    encoded[len] = rest as u8;
    out.put_slice(&encoded[..=len]);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a panic fails the test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_round_trip_and_take_the_computed_length(value: i64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len(value));
            let mut rest = &bytes[..];
            prop_assert_eq!(take_i64(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take_i32(&mut &bytes[..]), i32::try_from(value).ok());
            for cut in 0..bytes.len() {
                prop_assert_eq!(take_i64(&mut &bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn encodings_match_kafkas_examples() {
        let encoded = |value| {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(-1), [1]);
        assert_eq!(encoded(1), [2]);
        assert_eq!(encoded(63), [0x7e]);
        assert_eq!(encoded(-64), [0x7f]);
        assert_eq!(encoded(64), [0x80, 1]);
        assert_eq!(encoded(i64::from(i32::MAX)), [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(encoded(i64::from(i32::MIN)), [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(encoded(i64::MIN), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn an_integer_too_long_for_its_type_is_rejected() {
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), None);
        assert_eq!(take_i64(&mut &[0xff; 11][..]), None);
        let ten = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(take_i64(&mut &ten[..]), None);
    }
}
