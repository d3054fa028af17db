//! Walks over the records of a batch as their bytes become available, skipping keys and values.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::ops::ControlFlow;

use super::error::BatchError;
use super::header::BatchHeader;
use super::varint::{take_i32, take_i64};

/// Bytes of the longest run of fields between two byte strings: length, attributes, timestamp, offset and the length of the key.
const FIELDS_BYTES_MAX: usize = 5 + 1 + 10 + 5 + 5;

/// Cost of a record, in units of [`super::Work`].
const RECORD_WORK: usize = 8;

/// Cost of a header.
const HEADER_WORK: usize = 4;

/// A record with more headers than this is walked field by field, so that the walk can pause inside it.
const HEADERS_AT_ONCE_MAX: u32 = 64;

/// The fields of a record before its key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    /// Position in the batch, from 0.
    pub number: u32,
    /// Offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp relative to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Whether it has a key.
    pub has_key: bool,
}

/// Which offsets the records of a batch may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetOrder {
    /// Consecutive from the base offset: what producers send.
    Contiguous,
    /// Increasing: compaction leaves gaps.
    Rising,
}

/// Checks every length and number in a batch's records: their count matches the header, each record has the length that it
/// declares, offsets are in order and within the batch, and nothing follows the last record.
#[derive(Debug)]
pub(super) struct RecordWalk {
    count: u32,
    last_offset_delta: i32,
    order: OffsetOrder,
    /// Number of the current or next record.
    number: u32,
    /// Lowest offset delta that the next record may have.
    next_delta: i32,
    position: Position,
    /// Bytes that remain of the current record.
    body: usize,
    /// Bytes to skip of the current key or value.
    skip: usize,
    /// Headers that remain in the current record.
    headers: u32,
}

/// Where the walk can pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    Record,
    Value,
    HeaderCount,
    Header,
    HeaderValue,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WalkOutcome {
    /// The work is used up, or the bytes end.
    More,
    /// The visitor stopped.
    Stopped,
    /// All records were visited, and the bytes end with the last one.
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
            position: Position::Record,
            body: 0,
            skip: 0,
            headers: 0,
        }
    }

    /// Walks over `bytes`, which continue where the previous call stopped, until `work` is used up. `is_last` means that no more
    /// bytes follow. Returns the number of bytes consumed; a few remain if they end in the middle of a number.
    pub(super) fn walk(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<(usize, WalkOutcome), BatchError> {
        let mut rest = bytes;
        let walked = self.walk_rest(&mut rest, is_last, work, visit).map_err(|error| match error {
            WalkError::Field(field) => BatchError::Record { number: self.number, field },
            WalkError::Trailing(bytes) => BatchError::TrailingRecords { bytes },
        })?;
        Ok((bytes.len().saturating_sub(rest.len()), walked))
    }

    fn walk_rest(
        &mut self,
        rest: &mut &[u8],
        is_last: bool,
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<WalkOutcome, WalkError> {
        loop {
            if self.skip > 0 {
                let passed = self.skip.min(rest.len());
                *rest = rest.get(passed..).unwrap_or_default();
                self.skip = self.skip.saturating_sub(passed);
                self.body = self.body.saturating_sub(passed);
            }
            if self.skip > 0 || (rest.len() < FIELDS_BYTES_MAX && !is_last) {
                return if is_last { Err(WalkError::Field("length")) } else { Ok(WalkOutcome::More) };
            }
            if *work == 0 {
                return Ok(WalkOutcome::More);
            }
            if self.position != Position::Record {
                self.pass_field(rest, work)?;
                continue;
            }
            if self.number == self.count {
                return match rest.len() {
                    0 if is_last => Ok(WalkOutcome::End),
                    0 => Ok(WalkOutcome::More),
                    bytes => Err(WalkError::Trailing(bytes)),
                };
            }
            if self.begin_record(rest, work, visit)?.is_break() {
                return Ok(WalkOutcome::Stopped);
            }
        }
    }

    /// Consumes a whole record, or its beginning.
    #[inline]
    fn begin_record(
        &mut self,
        rest: &mut &[u8],
        work: &mut usize,
        visit: &mut impl FnMut(RecordHead) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, WalkError> {
        *work = work.saturating_sub(RECORD_WORK);
        let len = take_i32(rest).ok_or(WalkError::Field("length"))?;
        let len = usize::try_from(len).map_err(|_| WalkError::Field("length"))?;
        let whole = rest.split_at_checked(len);
        // An incomplete record is available at least up to its key.
        let body = whole.map_or(*rest, |(body, _)| body);
        let mut fields = body.split_first().ok_or(WalkError::Field("attributes"))?.1;
        let timestamp_delta = take_i64(&mut fields).ok_or(WalkError::Field("timestamp"))?;
        let offset_delta = take_i32(&mut fields).ok_or(WalkError::Field("offset"))?;
        let in_order = match self.order {
            OffsetOrder::Contiguous => offset_delta == self.next_delta,
            OffsetOrder::Rising => offset_delta >= self.next_delta,
        };
        if !in_order || offset_delta > self.last_offset_delta {
            return Err(WalkError::Field("offset"));
        }
        let key = take_length(&mut fields).ok_or(WalkError::Field("key"))?;
        let head = RecordHead { number: self.number, offset_delta, timestamp_delta, has_key: key.is_some() };
        self.next_delta = offset_delta.saturating_add(1);
        let key_bytes = key.unwrap_or_default();
        if let Some((_, after)) = whole
            && pass_rest(fields, key_bytes, work)?
        {
            *rest = after;
            self.number = self.number.saturating_add(1);
        } else {
            let passed = body.len().saturating_sub(fields.len());
            *rest = rest.get(passed..).unwrap_or_default();
            self.body = len.checked_sub(passed).ok_or(WalkError::Field("length"))?;
            self.pass_string(key_bytes, "key")?;
            self.position = Position::Value;
        }
        Ok(visit(head))
    }

    /// Consumes one field of a record that is walked field by field.
    fn pass_field(&mut self, rest: &mut &[u8], work: &mut usize) -> Result<(), WalkError> {
        let here = rest.get(..self.body).unwrap_or(rest);
        let mut fields = here;
        let (field, string) = match self.position {
            Position::Record => return Ok(()),
            Position::Value => ("value", take_length(&mut fields)),
            Position::Header => ("headers", take_length(&mut fields).filter(Option::is_some)),
            Position::HeaderValue => ("headers", take_length(&mut fields)),
            Position::HeaderCount => {
                let count = take_i32(&mut fields).and_then(|count| u32::try_from(count).ok());
                self.headers = count.ok_or(WalkError::Field("header count"))?;
                ("header count", Some(None))
            }
        };
        let string = string.ok_or(WalkError::Field(field))?;
        let passed = here.len().saturating_sub(fields.len());
        *rest = rest.get(passed..).unwrap_or_default();
        self.body = self.body.saturating_sub(passed);
        self.pass_string(string.unwrap_or_default(), field)?;
        *work = work.saturating_sub(HEADER_WORK);
        self.position = match self.position {
            Position::Value => Position::HeaderCount,
            Position::Header => Position::HeaderValue,
            Position::HeaderCount | Position::HeaderValue | Position::Record if self.headers > 0 => {
                self.headers = self.headers.saturating_sub(1);
                Position::Header
            }
            Position::HeaderCount | Position::HeaderValue | Position::Record => Position::Record,
        };
        if self.position == Position::Record {
            // The value of the last header may still have to be skipped.
            if self.body > self.skip {
                return Err(WalkError::Field("length"));
            }
            self.number = self.number.saturating_add(1);
        }
        Ok(())
    }

    fn pass_string(&mut self, bytes: usize, field: &'static str) -> Result<(), WalkError> {
        self.skip = bytes;
        if bytes > self.body { Err(WalkError::Field(field)) } else { Ok(()) }
    }
}

/// Why a walk failed.
enum WalkError {
    Field(&'static str),
    Trailing(usize),
}

/// Skips the key, value and headers of a complete record. Returns false if there are too many headers to do that at once.
#[inline]
fn pass_rest(mut fields: &[u8], key_bytes: usize, work: &mut usize) -> Result<bool, WalkError> {
    fields = fields.get(key_bytes..).ok_or(WalkError::Field("key"))?;
    pass_nullable(&mut fields).ok_or(WalkError::Field("value"))?;
    let headers = take_i32(&mut fields).ok_or(WalkError::Field("header count"))?;
    let headers = u32::try_from(headers).map_err(|_| WalkError::Field("header count"))?;
    if headers > HEADERS_AT_ONCE_MAX {
        return Ok(false);
    }
    for _ in 0..headers {
        let key = take_length(&mut fields).flatten().ok_or(WalkError::Field("headers"))?;
        fields = fields.get(key..).ok_or(WalkError::Field("headers"))?;
        pass_nullable(&mut fields).ok_or(WalkError::Field("headers"))?;
        *work = work.saturating_sub(HEADER_WORK);
    }
    if fields.is_empty() { Ok(true) } else { Err(WalkError::Field("length")) }
}

/// Skips a length and that many bytes.
#[inline]
fn pass_nullable(fields: &mut &[u8]) -> Option<()> {
    let bytes = take_length(fields)?.unwrap_or_default();
    *fields = fields.get(bytes..)?;
    Some(())
}

/// Takes the length of a byte string; -1 stands for no value. Returns `None` if it is malformed.
#[inline]
#[allow(clippy::option_option, reason = "the outer `None` is the failure, which `?` propagates")]
fn take_length(fields: &mut &[u8]) -> Option<Option<usize>> {
    match take_i32(fields)? {
        -1 => Some(None),
        len => Some(Some(usize::try_from(len).ok()?)),
    }
}
