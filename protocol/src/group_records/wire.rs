//! Reads and writes the fields of a record's key or value, in Kafka's old form and in its flexible one.
//!
//! ```text
//!   type        old form                    flexible form
//!   numbers     big-endian                  same
//!   string      i16 length, -1 null         unsigned varint of length + 1, 0 null
//!   bytes       i32 length, -1 null         unsigned varint of length + 1, 0 null
//!   array       i32 count, -1 null          unsigned varint of count + 1, 0 null
//!   struct      its fields                  its fields, then its tagged fields
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::RecordError;

type Result<T> = core::result::Result<T, RecordError>;

/// Bytes of the longest unsigned varint of 32 bits.
const UVARINT_BYTES_MAX: u32 = 5;

/// Takes fields from the front of a slice. Lists grow entry by entry, so that memory stays in proportion to the bytes.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest, flexible: false }
    }

    /// Reads what follows in the flexible form.
    pub(super) const fn flexible(self) -> Self {
        Self { rest: self.rest, flexible: true }
    }

    /// Fails if bytes remain.
    pub(super) const fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing { bytes: self.rest.len() }) }
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(RecordError::Truncated { field });
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(RecordError::Truncated { field });
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn i8(&mut self, field: &'static str) -> Result<i8> {
        self.array(field).map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<[u8; 16]> {
        self.array(field)
    }

    fn uvarint(&mut self, field: &'static str) -> Result<u32> {
        let mut value = 0_u32;
        for at in 0..UVARINT_BYTES_MAX {
            let [byte] = self.array(field)?;
            let low = u32::from(byte & 0x7f);
            let shift = at.wrapping_mul(7);
            if low.checked_shl(shift).is_none_or(|shifted| shifted >> shift != low) {
                return Err(RecordError::Length { field });
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Length { field })
    }

    /// Takes a length or a count, which is written with `wide` or in two bytes in the old form. `None` is null.
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>> {
        let length = if self.flexible {
            i64::from(self.uvarint(field)?).wrapping_sub(1)
        } else if wide {
            i64::from(self.i32(field)?)
        } else {
            i64::from(self.i16(field)?)
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Length { field }),
        }
    }

    pub(super) fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>> {
        let Some(len) = self.length(field, false)? else { return Ok(None) };
        let text = core::str::from_utf8(self.take(field, len)?);
        text.map(|text| Some(text.to_owned())).map_err(|_| RecordError::NotUtf8 { field })
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String> {
        self.nullable_string(field)?.ok_or(RecordError::Null { field })
    }

    pub(super) fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>> {
        let Some(len) = self.length(field, true)? else { return Ok(None) };
        self.take(field, len).map(|bytes| Some(bytes.to_vec()))
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Vec<u8>> {
        self.nullable_bytes(field)?.ok_or(RecordError::Null { field })
    }

    pub(super) fn nullable_list<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length(field, true)? else { return Ok(None) };
        // Every entry takes at least a byte.
        if count > self.rest.len() {
            return Err(RecordError::Truncated { field });
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(Some(entries))
    }

    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_list(field, read)?.ok_or(RecordError::Null { field })
    }

    /// Takes the tagged fields at the end of a struct. `read` returns whether it knows the tag and has read the field; others are
    /// skipped.
    pub(super) fn tagged(&mut self, mut read: impl FnMut(u32, &mut Self) -> Result<bool>) -> Result<()> {
        const FIELD: &str = "tagged fields";
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint(FIELD)? {
            let tag = self.uvarint(FIELD)?;
            let len = self.uvarint(FIELD)? as usize;
            let mut inside = Reader { rest: self.take(FIELD, len)?, flexible: true };
            if read(tag, &mut inside)? {
                inside.finish()?;
            }
        }
        Ok(())
    }
}

/// Appends fields.
pub(super) struct Writer {
    out: Vec<u8>,
    flexible: bool,
}

impl Writer {
    /// Begins a key or a value with its version.
    pub(super) fn new(version: i16, flexible: bool) -> Self {
        Self { out: version.to_be_bytes().to_vec(), flexible }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: [u8; 16]) {
        self.out.extend(value);
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, len: Option<usize>) {
        let len = len.map(|len| i32::try_from(len).expect("a record is smaller than 2 GiB"));
        match (self.flexible, len) {
            (true, len) => self.uvarint(len.map_or(0, |len| (len as u32).wrapping_add(1))),
            (false, len) => self.i32(len.unwrap_or(-1)),
        }
    }

    pub(super) fn nullable_string(&mut self, text: Option<&str>) {
        if self.flexible {
            self.length(text.map(str::len));
        } else {
            let len = text.map(|text| i16::try_from(text.len()).expect("names are shorter than 32 KiB"));
            self.out.extend(len.unwrap_or(-1).to_be_bytes());
        }
        self.out.extend(text.unwrap_or_default().as_bytes());
    }

    pub(super) fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    pub(super) fn nullable_bytes(&mut self, bytes: Option<&[u8]>) {
        self.length(bytes.map(<[u8]>::len));
        self.out.extend(bytes.unwrap_or_default());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.nullable_bytes(Some(bytes));
    }

    pub(super) fn list<T>(&mut self, entries: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.length(Some(entries.len()));
        for entry in entries {
            write(self, entry);
        }
    }

    /// Ends a struct with these tagged fields, in ascending order of their tags. `None` is a field with its default, which is not written.
    pub(super) fn tagged(&mut self, fields: &[(u32, Option<Vec<u8>>)]) {
        if !self.flexible {
            return;
        }
        self.uvarint(fields.iter().filter(|(_, field)| field.is_some()).count() as u32);
        for (tag, field) in fields {
            let Some(field) = field else { continue };
            self.uvarint(*tag);
            self.uvarint(u32::try_from(field.len()).expect("a record is smaller than 2 GiB"));
            self.out.extend(field);
        }
    }

    /// Returns the content of a tagged field.
    pub(super) fn field(write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut field = Self { out: Vec::new(), flexible: true };
        write(&mut field);
        field.out
    }
}
