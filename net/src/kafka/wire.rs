//! Codec of Kafka's primitive types. The decoder never reads past the end, and never allocates more than the remaining bytes can fill.
//!
//! ```text
//!   type        old form                    in flexible versions
//!   numbers     big-endian                  same
//!   string      i16 length, -1 null         unsigned varint of length + 1, 0 null
//!   bytes       i32 length, -1 null         unsigned varint of length + 1, 0 null
//!   array       i32 count, -1 null          unsigned varint of count + 1, 0 null
//!   struct      its fields                  its fields, then its tagged fields
//!   nullable    one byte, -1 null           same
//!   struct
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::error::KafkaError;
pub use super::wire_error::WireError;
use crate::limits::{
    KAFKA_DECODED_BYTES_FREE as DECODED_BYTES_FREE, KAFKA_DECODED_BYTES_MAX as DECODED_BYTES_MAX,
    KAFKA_DECODED_BYTES_PER_BYTE as DECODED_BYTES_PER_BYTE, KAFKA_STRING_BYTES_MAX as STRING_BYTES_MAX,
    REQUEST_ENTRIES_MAX,
};

/// A topic id; all zeros for none.
pub type Uuid = [u8; 16];

/// Encoding of the fields of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Version of the message.
    pub version: i16,
    /// Whether it is flexible: compact lengths, and tagged fields at the end of every struct.
    pub flexible: bool,
}

/// Decodes fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Number of bytes of the message after the slice.
    beyond: usize,
    /// Remaining memory for lists, in bytes.
    memory: usize,
    /// Remaining number of entries of lists, including tagged fields.
    entries: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader of a complete message.
    pub const fn new(bytes: &'a [u8]) -> Self {
        let memory = bytes.len().saturating_mul(DECODED_BYTES_PER_BYTE).saturating_add(DECODED_BYTES_FREE);
        Self { rest: bytes, beyond: 0, memory, entries: usize::MAX }
    }

    /// Creates a reader of the part `bytes` of a request of `request_bytes`. It has the memory of the whole request, up to the limit, and the
    /// limit of entries of a request.
    pub const fn within(bytes: &'a [u8], request_bytes: usize) -> Self {
        let memory = request_bytes.saturating_mul(DECODED_BYTES_PER_BYTE).saturating_add(DECODED_BYTES_FREE);
        let memory = if memory < DECODED_BYTES_MAX { memory } else { DECODED_BYTES_MAX };
        Self { rest: bytes, beyond: 0, memory, entries: REQUEST_ENTRIES_MAX }
    }

    /// Creates a reader of the beginning of a message, of which `beyond` more bytes follow.
    pub const fn partial(bytes: &'a [u8], beyond: usize) -> Self {
        Self { rest: bytes, beyond, memory: DECODED_BYTES_FREE, entries: REQUEST_ENTRIES_MAX }
    }

    /// Returns the number of entries of the lists of a request so far.
    pub const fn entries_read(&self) -> usize {
        REQUEST_ENTRIES_MAX.saturating_sub(self.entries)
    }

    /// Returns the number of remaining bytes of the message, including those after the slice.
    pub const fn remaining(&self) -> usize {
        self.rest.len().saturating_add(self.beyond)
    }

    /// Returns the remaining bytes of the slice.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails if bytes remain.
    pub const fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing { bytes: self.rest.len() }) }
    }

    /// Takes the next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated { field, need: N, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// Takes the next `len` bytes, borrowed.
    #[inline]
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(WireError::Truncated { field, need: len, have: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    /// Decodes an unsigned varint of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, WireError> {
        let mut value = 0_u32;
        for shift in [0_u32, 7, 14, 21, 28] {
            let [byte] = self.array(field)?;
            let low = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(WireError::Invalid { field, value: i64::from(byte) });
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Invalid { field, value: i64::from(value) })
    }

    /// Decodes a length or count: compact if flexible, otherwise an `i32`. `None` is null.
    #[inline]
    pub fn length(&mut self, form: Form, field: &'static str) -> Result<Option<usize>, WireError> {
        if form.flexible {
            return Ok((self.uvarint(field)? as usize).checked_sub(1));
        }
        match i32::from_be_bytes(self.array(field)?) {
            -1 => Ok(None),
            len => usize::try_from(len)
                .map(Some)
                .map_err(|_| WireError::Invalid { field, value: i64::from(len) }),
        }
    }

    /// Decodes a nullable string.
    #[inline]
    pub fn string(&mut self, form: Form, field: &'static str) -> Result<Option<&'a str>, WireError> {
        let len = if form.flexible {
            (self.uvarint(field)? as usize).checked_sub(1)
        } else {
            match i16::from_be_bytes(self.array(field)?) {
                -1 => None,
                len => Some(
                    usize::try_from(len).map_err(|_| WireError::Invalid { field, value: i64::from(len) })?,
                ),
            }
        };
        let Some(len) = len else { return Ok(None) };
        if len > STRING_BYTES_MAX {
            return Err(WireError::Invalid { field, value: len as i64 });
        }
        let bytes = self.take(len, field)?;
        core::str::from_utf8(bytes).map(Some).map_err(|_| WireError::NotUtf8 { field })
    }

    /// Decodes nullable bytes.
    #[inline]
    pub fn bytes(&mut self, form: Form, field: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        match self.length(form, field)? {
            Some(len) => self.take(len, field).map(Some),
            None => Ok(None),
        }
    }

    /// Decodes a nullable array.
    pub fn list<T: Wire<'a>>(
        &mut self,
        form: Form,
        field: &'static str,
    ) -> Result<Option<Vec<T>>, WireError> {
        let Some(count) = self.length(form, field)? else { return Ok(None) };
        let mut entries = self.room_for::<T>(count, T::bytes_min(form), field)?;
        for _ in 0..count {
            entries.push(T::read(self, form, field)?);
        }
        Ok(Some(entries))
    }

    /// Allocates a vector for `count` entries of at least `bytes_min` bytes each. Fails if the remaining bytes cannot hold as many.
    pub fn room_for<T>(
        &mut self,
        count: usize,
        bytes_min: usize,
        field: &'static str,
    ) -> Result<Vec<T>, WireError> {
        if count.saturating_mul(bytes_min.max(1)) > self.rest.len() {
            return Err(WireError::Count { field, count, have: self.rest.len() });
        }
        self.take_entries(count, field)?;
        self.take_memory(count.saturating_mul(size_of::<T>()), field)?;
        Ok(Vec::with_capacity(count))
    }

    /// Subtracts `count` from the remaining number of entries.
    pub fn take_entries(&mut self, count: usize, field: &'static str) -> Result<(), WireError> {
        let left = self.entries.checked_sub(count);
        self.entries = left.ok_or(WireError::TooMany {
            field,
            count: self.entries_read().saturating_add(count),
            max: REQUEST_ENTRIES_MAX,
        })?;
        Ok(())
    }

    /// Subtracts `bytes` from the remaining memory.
    pub fn take_memory(&mut self, bytes: usize, field: &'static str) -> Result<(), WireError> {
        let left = self.memory.checked_sub(bytes);
        self.memory = left.ok_or(WireError::Memory { field, bytes, have: self.memory })?;
        Ok(())
    }

    /// Decodes the tagged fields of a struct: `known` decodes those that it knows, and returns true for them; others are skipped.
    #[inline]
    pub fn tagged(
        &mut self,
        form: Form,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        const FIELD: &str = "tagged fields";
        if !form.flexible {
            return Ok(());
        }
        let count = self.uvarint(FIELD)?;
        self.take_entries(count as usize, FIELD)?;
        for _ in 0..count {
            let tag = self.uvarint(FIELD)?;
            let len = self.uvarint(FIELD)? as usize;
            let rest = self.take(len, FIELD)?;
            let mut inside = Reader { rest, beyond: 0, ..self.clone() };
            if known(tag, &mut inside)? {
                (self.memory, self.entries) = (inside.memory, inside.entries);
                inside.finish()?;
            }
        }
        Ok(())
    }
}

/// Encodes an unsigned varint.
#[inline]
pub fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Encodes a length or count; `None` is null.
#[inline]
pub fn put_length(out: &mut BytesMut, form: Form, len: Option<usize>) {
    if form.flexible {
        put_uvarint(out, len.map_or(0, |len| (len as u32).saturating_add(1)));
    } else {
        out.put_i32(len.map_or(-1, |len| len as i32));
    }
}

/// Encodes a nullable string. A longer text than a string can hold is truncated; only error messages can be that long.
pub fn put_string(out: &mut BytesMut, form: Form, text: Option<&str>) {
    let text = text.map(|text| text.split_at(text.floor_char_boundary(STRING_BYTES_MAX)).0.as_bytes());
    if form.flexible {
        put_length(out, form, text.map(<[u8]>::len));
    } else {
        out.put_i16(text.map_or(-1, |text| text.len() as i16));
    }
    out.put_slice(text.unwrap_or_default());
}

/// Encodes nullable bytes.
pub fn put_bytes(out: &mut BytesMut, form: Form, bytes: Option<&[u8]>) {
    put_length(out, form, bytes.map(<[u8]>::len));
    out.put_slice(bytes.unwrap_or_default());
}

/// Encodes a nullable array.
pub fn put_list<'a, T: Wire<'a>>(out: &mut BytesMut, form: Form, list: Option<&[T]>) {
    put_length(out, form, list.map(<[T]>::len));
    for entry in list.unwrap_or_default() {
        entry.write(out, form);
    }
}

/// A type of fields.
pub trait Wire<'a>: Sized {
    /// Returns the minimum size of a value in bytes.
    fn bytes_min(form: Form) -> usize;

    /// Decodes a value.
    fn read(r: &mut Reader<'a>, form: Form, field: &'static str) -> Result<Self, WireError>;

    /// Encodes a value.
    fn write(&self, out: &mut BytesMut, form: Form);
}

/// A nullable type.
pub trait Nullable<'a>: Wire<'a> {
    /// Returns the minimum size of a value or null in bytes.
    fn nullable_bytes_min(form: Form) -> usize;

    /// Decodes a value or null.
    fn read_nullable(r: &mut Reader<'a>, form: Form, field: &'static str) -> Result<Option<Self>, WireError>;

    /// Encodes a value or null.
    fn write_nullable(value: Option<&Self>, out: &mut BytesMut, form: Form);
}

impl<'a, T: Nullable<'a>> Wire<'a> for Option<T> {
    #[inline]
    fn bytes_min(form: Form) -> usize {
        T::nullable_bytes_min(form)
    }

    #[inline]
    fn read(r: &mut Reader<'a>, form: Form, field: &'static str) -> Result<Self, WireError> {
        T::read_nullable(r, form, field)
    }

    #[inline]
    fn write(&self, out: &mut BytesMut, form: Form) {
        T::write_nullable(self.as_ref(), out, form);
    }
}

macro_rules! numbers {
    ($($t:ty),+) => {
        $(
            impl Wire<'_> for $t {
                #[inline]
                fn bytes_min(_: Form) -> usize {
                    size_of::<$t>()
                }

                #[inline]
                fn read(r: &mut Reader<'_>, _: Form, field: &'static str) -> Result<Self, WireError> {
                    r.array(field).map(<$t>::from_be_bytes)
                }

                #[inline]
                fn write(&self, out: &mut BytesMut, _: Form) {
                    out.put_slice(&self.to_be_bytes());
                }
            }
        )+
    };
}

numbers!(i8, i16, i32, i64, f64);

impl Wire<'_> for bool {
    #[inline]
    fn bytes_min(_: Form) -> usize {
        1
    }

    #[inline]
    fn read(r: &mut Reader<'_>, _: Form, field: &'static str) -> Result<Self, WireError> {
        r.array(field).map(|[byte]| byte != 0)
    }

    #[inline]
    fn write(&self, out: &mut BytesMut, _: Form) {
        out.put_u8(u8::from(*self));
    }
}

impl Wire<'_> for KafkaError {
    #[inline]
    fn bytes_min(_: Form) -> usize {
        2
    }

    #[inline]
    fn read(r: &mut Reader<'_>, form: Form, field: &'static str) -> Result<Self, WireError> {
        i16::read(r, form, field).map(KafkaError)
    }

    #[inline]
    fn write(&self, out: &mut BytesMut, _: Form) {
        out.put_i16(self.0);
    }
}

impl Wire<'_> for Uuid {
    #[inline]
    fn bytes_min(_: Form) -> usize {
        16
    }

    #[inline]
    fn read(r: &mut Reader<'_>, _: Form, field: &'static str) -> Result<Self, WireError> {
        r.array(field)
    }

    #[inline]
    fn write(&self, out: &mut BytesMut, _: Form) {
        out.put_slice(self);
    }
}

/// Implements [`Wire`] and [`Nullable`] with a method of the reader and a function that encodes.
macro_rules! nullables {
    ($([$($generics:tt)*] $t:ty, $old_bytes:literal, $read:expr, $write:expr;)+) => {
        $(
            impl<'a, $($generics)*> Wire<'a> for $t {
                #[inline]
                fn bytes_min(form: Form) -> usize {
                    Self::nullable_bytes_min(form)
                }

                #[inline]
                fn read(r: &mut Reader<'a>, form: Form, field: &'static str) -> Result<Self, WireError> {
                    Self::read_nullable(r, form, field)?.ok_or(WireError::Null { field })
                }

                #[inline]
                fn write(&self, out: &mut BytesMut, form: Form) {
                    $write(out, form, Some(&self[..]));
                }
            }

            impl<'a, $($generics)*> Nullable<'a> for $t {
                #[inline]
                fn nullable_bytes_min(form: Form) -> usize {
                    if form.flexible { 1 } else { $old_bytes }
                }

                #[inline]
                fn read_nullable(
                    r: &mut Reader<'a>,
                    form: Form,
                    field: &'static str,
                ) -> Result<Option<Self>, WireError> {
                    $read(r, form, field)
                }

                #[inline]
                fn write_nullable(value: Option<&Self>, out: &mut BytesMut, form: Form) {
                    $write(out, form, value.map(|value| &value[..]));
                }
            }
        )+
    };
}

nullables! {
    [] &'a str, 2, Reader::string, put_string;
    [] Cow<'a, str>, 2, |r: &mut Reader<'a>, form, field| Ok(r.string(form, field)?.map(Cow::Borrowed)), put_string;
    [] &'a [u8], 4, Reader::bytes, put_bytes;
    [] Cow<'a, [u8]>, 4, |r: &mut Reader<'a>, form, field| Ok(r.bytes(form, field)?.map(Cow::Borrowed)), put_bytes;
    [T: Wire<'a>] Vec<T>, 4, Reader::list, put_list;
}
