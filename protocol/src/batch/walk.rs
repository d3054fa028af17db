//! Walking over a batch's records as their bytes come, past keys and values.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::ControlFlow;

use super::error::BatchError;
use super::header::BatchHeader;
use super::varint::{take_i32, take_i64};

/// Bytes of the longest run of fields between two byte strings: length, attributes, timestamp, offset and the length of the key.
const FIELDS_BYTES_MAX: usize = 5 + 1 + 10 + 5 + 5;

/// What a record costs, in units of [`super::Work`].
const RECORD_WORK: usize = 8;

/// What one of its headers costs.
const HEADER_WORK: usize = 4;

/// More headers than these, and a record is walked over field by field, so that it can be left in the middle.
const HEADERS_AT_ONCE_MAX: u32 = 64;

/// What stands in front of a record's key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    /// Its place in the batch, from 0.
    pub number: u32,
    /// Its offset, from that of the batch.
    pub offset_delta: i32,
    /// Its timestamp, from that of the batch.
    pub timestamp_delta: i64,
    /// Whether it has a key.
    pub has_key: bool,
}

/// Which offsets the records of a batch may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetOrder {
    /// One after the other, from the batch's own on: what producers send.
    Contiguous,
    /// Rising: compaction leaves gaps.
    Rising,
}

/// Checks every length and number of a batch's records: there are as many as the header says, each takes the bytes that it says, their
/// offsets are in order and within the batch, and nothing follows the last.
#[derive(Debug)]
pub(super) struct RecordWalk {
    count: u32,
    last_offset_delta: i32,
    order: OffsetOrder,
    /// Of the record that comes, or is being passed.
    number: u32,
    /// The lowest offset that may come.
    next_delta: i32,
    place: Place,
    /// Bytes of the record behind this place.
    body: usize,
    /// Of them, bytes of a key or value to pass.
    skip: usize,
    /// Headers to come in this record.
    headers: u32,
}

/// Where a walk can be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Record,
    Value,
    HeaderCount,
    Header,
    HeaderValue,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Walked {
    /// There is no work left, or the bytes end.
    More,
    /// The visitor has what it wants.
    Stopped,
    /// All records have been passed and the bytes end with them.
    End,
}

impl RecordWalk {
    pub(super) fn new(header: &BatchHeader, order: OffsetOrder) -> Self {
        Self {
            count: header.count(),
            last_offset_delta: header.last_offset_delta.get(),
            order,
            number: 0,
            next_delta: 0,
            place: Place::Record,
            body: 0,
            skip: 0,
            headers: 0,
        }
    }

    /// Walks over `bytes`, which go on where the last ones were left, while there is `work` left. `is_last`: no others follow. Returns how
    /// many bytes were passed; a few are left if the rest of a number is missing.
    pub(super) fn walk(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<(usize, Walked), BatchError> {
        let mut rest = bytes;
        let walked = self.walk_rest(&mut rest, is_last, work, visit).map_err(|error| match error {
            Bad::Field(field) => BatchError::Record { number: self.number, field },
            Bad::Trailing(bytes) => BatchError::TrailingRecords { bytes },
        })?;
        Ok((bytes.len().saturating_sub(rest.len()), walked))
    }

    fn walk_rest(
        &mut self,
        rest: &mut &[u8],
        is_last: bool,
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<Walked, Bad> {
        loop {
            if self.skip > 0 {
                let passed = self.skip.min(rest.len());
                *rest = rest.get(passed..).unwrap_or_default();
                self.skip = self.skip.saturating_sub(passed);
                self.body = self.body.saturating_sub(passed);
            }
            if self.skip > 0 || (rest.len() < FIELDS_BYTES_MAX && !is_last) {
                return if is_last { Err(Bad::Field("length")) } else { Ok(Walked::More) };
            }
            if *work == 0 {
                return Ok(Walked::More);
            }
            if self.place != Place::Record {
                self.pass_field(rest, work)?;
                continue;
            }
            if self.number == self.count {
                return match rest.len() {
                    0 if is_last => Ok(Walked::End),
                    0 => Ok(Walked::More),
                    bytes => Err(Bad::Trailing(bytes)),
                };
            }
            if self.begin_record(rest, work, visit)?.is_break() {
                return Ok(Walked::Stopped);
            }
        }
    }

    /// Passes a whole record, or its beginning.
    #[inline]
    fn begin_record(
        &mut self,
        rest: &mut &[u8],
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Bad> {
        *work = work.saturating_sub(RECORD_WORK);
        let len = take_i32(rest).ok_or(Bad::Field("length"))?;
        let len = usize::try_from(len).map_err(|_| Bad::Field("length"))?;
        let whole = rest.split_at_checked(len);
        // Of a record that is not here in full the fields are, up to the key.
        let body = whole.map_or(*rest, |(body, _)| body);
        let mut fields = body.split_first().ok_or(Bad::Field("attributes"))?.1;
        let timestamp_delta = take_i64(&mut fields).ok_or(Bad::Field("timestamp"))?;
        let offset_delta = take_i32(&mut fields).ok_or(Bad::Field("offset"))?;
        let in_order = match self.order {
            OffsetOrder::Contiguous => offset_delta == self.next_delta,
            OffsetOrder::Rising => offset_delta >= self.next_delta,
        };
        if !in_order || offset_delta > self.last_offset_delta {
            return Err(Bad::Field("offset"));
        }
        let key = take_length(&mut fields).ok_or(Bad::Field("key"))?;
        let head = RecordHead { number: self.number, offset_delta, timestamp_delta, has_key: key.is_some() };
        self.next_delta = offset_delta.saturating_add(1);
        let key_bytes = key.unwrap_or_default();
        if let Some((_, behind)) = whole
            && pass_rest(fields, key_bytes, work)?
        {
            *rest = behind;
            self.number = self.number.saturating_add(1);
        } else {
            let passed = body.len().saturating_sub(fields.len());
            *rest = rest.get(passed..).unwrap_or_default();
            self.body = len.checked_sub(passed).ok_or(Bad::Field("length"))?;
            self.pass_string(key_bytes, "key")?;
            self.place = Place::Value;
        }
        Ok(visit(head))
    }

    /// Passes one field of a record that is not passed at once.
    fn pass_field(&mut self, rest: &mut &[u8], work: &mut usize) -> Result<(), Bad> {
        let here = rest.get(..self.body).unwrap_or(rest);
        let mut fields = here;
        let (field, string) = match self.place {
            Place::Record => return Ok(()),
            Place::Value => ("value", take_length(&mut fields)),
            Place::Header => ("headers", take_length(&mut fields).filter(Option::is_some)),
            Place::HeaderValue => ("headers", take_length(&mut fields)),
            Place::HeaderCount => {
                let count = take_i32(&mut fields).and_then(|count| u32::try_from(count).ok());
                self.headers = count.ok_or(Bad::Field("header count"))?;
                ("header count", Some(None))
            }
        };
        let string = string.ok_or(Bad::Field(field))?;
        let passed = here.len().saturating_sub(fields.len());
        *rest = rest.get(passed..).unwrap_or_default();
        self.body = self.body.saturating_sub(passed);
        self.pass_string(string.unwrap_or_default(), field)?;
        *work = work.saturating_sub(HEADER_WORK);
        self.place = match self.place {
            Place::Value => Place::HeaderCount,
            Place::Header => Place::HeaderValue,
            Place::HeaderCount | Place::HeaderValue | Place::Record if self.headers > 0 => {
                self.headers = self.headers.saturating_sub(1);
                Place::Header
            }
            Place::HeaderCount | Place::HeaderValue | Place::Record => Place::Record,
        };
        if self.place == Place::Record {
            // The value of the last header may be still to come.
            if self.body > self.skip {
                return Err(Bad::Field("length"));
            }
            self.number = self.number.saturating_add(1);
        }
        Ok(())
    }

    fn pass_string(&mut self, bytes: usize, field: &'static str) -> Result<(), Bad> {
        self.skip = bytes;
        if bytes > self.body { Err(Bad::Field(field)) } else { Ok(()) }
    }
}

/// What is wrong.
enum Bad {
    Field(&'static str),
    Trailing(usize),
}

/// Passes key, value and headers, which are all there and end with the record. False: there are too many headers to do that at once.
#[inline]
fn pass_rest(mut fields: &[u8], key_bytes: usize, work: &mut usize) -> Result<bool, Bad> {
    fields = fields.get(key_bytes..).ok_or(Bad::Field("key"))?;
    pass_nullable(&mut fields).ok_or(Bad::Field("value"))?;
    let headers = take_i32(&mut fields).ok_or(Bad::Field("header count"))?;
    let headers = u32::try_from(headers).map_err(|_| Bad::Field("header count"))?;
    if headers > HEADERS_AT_ONCE_MAX {
        return Ok(false);
    }
    for _ in 0..headers {
        let key = take_length(&mut fields).flatten().ok_or(Bad::Field("headers"))?;
        fields = fields.get(key..).ok_or(Bad::Field("headers"))?;
        pass_nullable(&mut fields).ok_or(Bad::Field("headers"))?;
        *work = work.saturating_sub(HEADER_WORK);
    }
    if fields.is_empty() { Ok(true) } else { Err(Bad::Field("length")) }
}

/// Passes a length and that many bytes.
#[inline]
fn pass_nullable(fields: &mut &[u8]) -> Option<()> {
    let bytes = take_length(fields)?.unwrap_or_default();
    *fields = fields.get(bytes..)?;
    Some(())
}

/// The length of a byte string; -1 stands for none. `None`: cannot be read.
#[inline]
#[allow(clippy::option_option, reason = "the outer one is the failure, which `?` passes on")]
fn take_length(fields: &mut &[u8]) -> Option<Option<usize>> {
    match take_i32(fields)? {
        -1 => Some(None),
        len => Some(Some(usize::try_from(len).ok()?)),
    }
}
