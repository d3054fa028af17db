//! The body of `Acks`: how far logs are durable, as differences.
//!
//! ```text
//!   one acknowledgement = handle   minus that of the acknowledgement before it in the message   as a varint
//!                         term     minus that of the acknowledgement before it in the message   as a varint
//!                         log end  minus the one that was sent last for the handle              as a varint
//! ```
//!
//! A varint is a zigzag-encoded `i64`, seven bits in a byte, the lowest first. An acknowledgement of a partition that goes on takes three bytes.
//! That the log end refers to an earlier message needs the messages of a session to arrive completely and in order, which channels guarantee.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use highwater_protocol::ids::{LeaderEpoch, LogIndex};
use highwater_protocol::native::{DecodeError, Reader};

/// The acknowledgement before the next one in a message.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct AckBase {
    handle: u32,
    term: i32,
}

/// Bytes of the longest acknowledgement.
pub(crate) const ACK_BYTES_MAX: usize = 3 * VARINT_BYTES_MAX;

const VARINT_BYTES_MAX: usize = 10;

/// Appends an acknowledgement. `last`: the log end that was sent last for the handle.
pub(crate) fn put_ack(
    out: &mut Vec<u8>,
    base: &mut AckBase,
    (handle, term, end): (u32, LeaderEpoch, LogIndex),
    last: LogIndex,
) {
    put_varint(out, i64::from(handle).wrapping_sub(i64::from(base.handle)));
    put_varint(out, i64::from(term.0).wrapping_sub(i64::from(base.term)));
    put_varint(out, end.0.wrapping_sub(last.0) as i64);
    *base = AckBase { handle, term: term.0 };
}

/// An acknowledgement whose log end is still a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawAck {
    pub(crate) handle: u32,
    pub(crate) term: LeaderEpoch,
    difference: i64,
}

impl RawAck {
    /// Returns the log end, given the one before it for the handle.
    pub(crate) fn end(self, last: LogIndex) -> LogIndex {
        LogIndex(last.0.wrapping_add(self.difference as u64))
    }
}

/// Takes an acknowledgement.
pub(crate) fn read_ack(reader: &mut Reader<'_>, base: &mut AckBase) -> Result<RawAck, DecodeError> {
    let handle = i64::from(base.handle).wrapping_add(read_varint(reader, "handle")?);
    let term = i64::from(base.term).wrapping_add(read_varint(reader, "term")?);
    let difference = read_varint(reader, "log end")?;
    let (Ok(handle_number), Ok(term_number)) = (u32::try_from(handle), i32::try_from(term)) else {
        let field = if u32::try_from(handle).is_err() { "handle" } else { "term" };
        return Err(DecodeError::Invalid { field, value: if field == "handle" { handle } else { term } });
    };
    *base = AckBase { handle: handle_number, term: term_number };
    Ok(RawAck { handle: handle_number, term: LeaderEpoch(term_number), difference })
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn read_varint(reader: &mut Reader<'_>, field: &'static str) -> Result<i64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8(field)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // One number has one encoding.
            if byte == 0 && shift > 0 {
                break;
            }
            return Ok((value >> 1) as i64 ^ ((value & 1) as i64).wrapping_neg());
        }
    }
    Err(DecodeError::TooLarge { field, have: VARINT_BYTES_MAX, max: VARINT_BYTES_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    }

    #[test]
    fn every_number_has_one_encoding_of_at_most_ten_bytes() {
        let powers =
            (0..64).flat_map(|n| [1_i64 << n, (1_i64 << n).wrapping_neg(), (1_i64 << n).wrapping_sub(1)]);
        for value in powers.chain([0, i64::MIN, i64::MAX]) {
            let bytes = varint(value);
            assert!(bytes.len() <= VARINT_BYTES_MAX);
            let mut reader = Reader::new(&bytes);
            assert_eq!(read_varint(&mut reader, "x"), Ok(value));
            assert!(reader.rest().is_empty());
        }
        assert_eq!(varint(-1), [1]);
        assert_eq!(varint(64), [0x80, 1]);
    }

    #[test]
    fn longer_encodings_and_numbers_that_are_too_large_are_rejected() {
        for bytes in [&[0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80; 11]]
        {
            assert!(matches!(read_varint(&mut Reader::new(bytes), "x"), Err(DecodeError::TooLarge { .. })));
        }
        assert!(matches!(read_varint(&mut Reader::new(&[0x80]), "x"), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn an_acknowledgement_of_a_partition_that_goes_on_takes_three_bytes() {
        let mut out = Vec::new();
        let mut base = AckBase::default();
        let end = LogIndex(1 << 40);
        put_ack(&mut out, &mut base, (5, LeaderEpoch(3), end), LogIndex(end.0 - 9));
        assert_eq!(out, [10, 6, 18]);
        let ack = read_ack(&mut Reader::new(&out), &mut AckBase::default()).expect("valid");
        assert_eq!((ack.handle, ack.term, ack.end(LogIndex(end.0 - 9))), (5, LeaderEpoch(3), end));
    }
}
