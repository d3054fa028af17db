//! Reads little-endian fields from untrusted bytes, never past their end and never allocating because of a claimed length.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::error::ErrorCode;
use crate::ids::Offset;
use crate::limits::REQUEST_ENTRIES_MAX;

/// Why the body of a message cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes remain than a field requires, or than a list with that many entries requires.
    #[error("{field}: {need} bytes needed, {have} remain")]
    Truncated {
        /// Name of the field.
        field: &'static str,
        /// Bytes needed, at least.
        need: usize,
        /// Bytes that remain.
        have: usize,
    },
    /// A length or a count exceeds its limit.
    #[error("{field}: {have} exceeds the limit of {max}")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// Length or count in the message.
        have: usize,
        /// The limit.
        max: usize,
    },
    /// A string is not valid UTF-8.
    #[error("{field}: not UTF-8")]
    NotUtf8 {
        /// Name of the field.
        field: &'static str,
    },
    /// A number that the field cannot have.
    #[error("{field}: {value} is not valid here")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// The number.
        value: i64,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes after the last field")]
    Trailing {
        /// Number of bytes after it.
        bytes: usize,
    },
}

impl DecodeError {
    /// Returns the code that a broker sends for this error.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::Malformed,
        }
    }
}

/// Takes fields from the front of a slice. Every method takes the field's name for its error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Entries that the lists may still have in total.
    entries: usize,
}

macro_rules! numbers {
    ($($name:ident -> $t:ty;)+) => {
        $(
            #[doc = concat!("Takes a little-endian `", stringify!($t), "`.")]
            #[inline]
            pub fn $name(&mut self, field: &'static str) -> Result<$t, DecodeError> {
                self.array(field).map(<$t>::from_le_bytes)
            }
        )+
    };
}

impl<'a> Reader<'a> {
    /// Creates a reader that starts at the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, entries: usize::MAX }
    }

    /// Creates a reader for a request, whose lists may have at most [`REQUEST_ENTRIES_MAX`] entries in total.
    pub const fn of_request(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, entries: REQUEST_ENTRIES_MAX }
    }

    /// Returns the bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the reading. Returns an error if bytes remain.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { bytes: self.rest.len() }) }
    }

    /// Takes the next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { field, need: N, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Takes the next `len` bytes, borrowed.
    #[inline]
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Truncated { field, need: len, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    numbers! {
        u8 -> u8;
        u16 -> u16;
        u32 -> u32;
        u64 -> u64;
        i16 -> i16;
        i32 -> i32;
        i64 -> i64;
    }

    /// Takes a byte that is 0 or 1.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            n => Err(DecodeError::Invalid { field, value: i64::from(n) }),
        }
    }

    /// Takes a number that is not negative.
    pub fn non_negative(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let value = self.i64(field)?;
        if value < 0 { Err(DecodeError::Invalid { field, value }) } else { Ok(value) }
    }

    /// Takes an offset, which is never negative.
    pub fn offset(&mut self, field: &'static str) -> Result<Offset, DecodeError> {
        self.non_negative(field).map(Offset)
    }

    /// Takes a presence byte and, if it is 1, the value that `read` reads.
    pub fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool(field)? { read(self).map(Some) } else { Ok(None) }
    }

    /// Takes a string of at most `max` bytes: its length as `u32`, then UTF-8.
    pub fn str(&mut self, field: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        let len = self.u32(field)? as usize;
        if len > max {
            return Err(DecodeError::TooLarge { field, have: len, max });
        }
        core::str::from_utf8(self.bytes(field, len)?).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// Like [`Reader::str`], but owned.
    pub fn string(&mut self, field: &'static str, max: usize) -> Result<String, DecodeError> {
        self.str(field, max).map(str::to_owned)
    }

    /// Takes a count as `u32` and that many entries.
    ///
    /// Every entry takes at least `entry_bytes_min` bytes. A count that the remaining bytes cannot hold is rejected before anything
    /// is allocated.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        entry_bytes_min: usize,
        count_max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32(field)? as usize;
        if count > count_max {
            return Err(DecodeError::TooLarge { field, have: count, max: count_max });
        }
        let need = count.saturating_mul(entry_bytes_min.max(1));
        if need > self.rest.len() {
            return Err(DecodeError::Truncated { field, need, have: self.rest.len() });
        }
        self.entries = self.entries.checked_sub(count).ok_or(DecodeError::TooLarge {
            field,
            have: REQUEST_ENTRIES_MAX.saturating_sub(self.entries).saturating_add(count),
            max: REQUEST_ENTRIES_MAX,
        })?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_bounded_by_the_bytes() {
        let mut r = Reader::new(&[1, 2, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(r.u8("a"), Ok(1));
        assert_eq!(r.u16("b"), Ok(2));
        assert_eq!(r.i32("c"), Ok(-1));
        assert_eq!(r.u64("d"), Err(DecodeError::Truncated { field: "d", need: 8, have: 0 }));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn an_impossible_count_is_rejected_before_allocation() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend([0; 8]);
        let result = Reader::new(&bytes).list("xs", 4, usize::MAX, |r| r.u32("x"));
        assert_eq!(result, Err(DecodeError::Truncated { field: "xs", need: u32::MAX as usize * 4, have: 8 }));
        let result = Reader::new(&bytes).list("xs", 4, 10, |r| r.u32("x"));
        assert_eq!(result, Err(DecodeError::TooLarge { field: "xs", have: u32::MAX as usize, max: 10 }));
    }

    #[test]
    fn the_total_number_of_list_entries_is_limited_in_requests_but_not_in_replies() {
        let half = REQUEST_ENTRIES_MAX / 2 + 1;
        let list = [&(half as u32).to_le_bytes()[..], &vec![0; half]].concat();
        let bytes = [&list[..], &list].concat();
        let read = |mut r: Reader<'_>| {
            r.list("xs", 1, half, |r| r.u8("x"))?;
            r.list("ys", 1, half, |r| r.u8("y")).map(|ys| ys.len())
        };
        assert_eq!(read(Reader::new(&bytes)), Ok(half));
        let error = DecodeError::TooLarge { field: "ys", have: 2 * half, max: REQUEST_ENTRIES_MAX };
        assert_eq!(read(Reader::of_request(&bytes)), Err(error));
    }

    #[test]
    fn a_string_is_bounded_by_its_limit_and_its_bytes_and_must_be_utf8() {
        let text = |len: u32, bytes: &[u8]| [&len.to_le_bytes()[..], bytes].concat();
        assert_eq!(Reader::new(&text(2, b"ab")).str("t", 2), Ok("ab"));
        assert_eq!(
            Reader::new(&text(3, b"abc")).str("t", 2),
            Err(DecodeError::TooLarge { field: "t", have: 3, max: 2 })
        );
        assert_eq!(
            Reader::new(&text(3, b"ab")).str("t", 9),
            Err(DecodeError::Truncated { field: "t", need: 3, have: 2 })
        );
        assert_eq!(Reader::new(&text(1, &[0xff])).str("t", 9), Err(DecodeError::NotUtf8 { field: "t" }));
    }

    #[test]
    fn flags_are_zero_or_one_offsets_are_not_negative_and_trailing_bytes_are_rejected() {
        assert_eq!(Reader::new(&[2]).bool("f"), Err(DecodeError::Invalid { field: "f", value: 2 }));
        let negative = (-1_i64).to_le_bytes();
        assert_eq!(Reader::new(&negative).offset("o"), Err(DecodeError::Invalid { field: "o", value: -1 }));
        assert_eq!(Reader::new(&[0, 0]).finish(), Err(DecodeError::Trailing { bytes: 2 }));
    }
}
