//! Records of a batch, borrowed from its decompressed bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use core::iter::FusedIterator;
use std::borrow::Cow;

use super::error::BatchError;
use super::header::{BatchHeader, TimestampType};
use super::varint::{take_i32, take_i64};
use crate::ids::{Offset, Timestamp};

/// A record of a batch.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Offset, computed from the batch's base offset.
    pub offset: Offset,
    /// Timestamp; the batch's max timestamp if the topic uses log append time.
    pub timestamp: Timestamp,
    /// Key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: Headers<'a>,
}

/// A header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Key. UTF-8 by convention, but not enforced.
    pub key: &'a [u8],
    /// Value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Returns the key as text, with invalid UTF-8 replaced.
    pub fn key_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

/// Iterates over the headers of a record.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: u32,
}

impl<'a> Headers<'a> {
    /// Takes `count` headers from the front of `bytes`, or returns `None` if they are malformed. Iteration can then rely on them.
    fn walk(bytes: &mut &'a [u8], count: u32) -> Option<Self> {
        let headers = Self { rest: bytes, count };
        for _ in 0..count {
            take_header(bytes)?;
        }
        Some(headers)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.count = self.count.checked_sub(1)?;
        take_header(&mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    Some(Header { key: take_nullable(bytes)??, value: take_nullable(bytes)? })
}

/// Takes a length and that many bytes from the front of `bytes`; length -1 stands for no value. Returns `None` if they are
/// malformed.
#[inline]
#[allow(clippy::option_option, reason = "the outer `None` is the failure, which `?` propagates")]
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = take_i32(bytes)?;
    if len == -1 {
        return Some(None);
    }
    let (head, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(Some(head))
}

/// Iterates over the records of one batch. Ends after the first error.
///
/// Checks every length, that offsets increase and stay within the batch, that the number of records matches the header, and that
/// nothing follows the last record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    count: u32,
    number: u32,
    base_offset: i64,
    last_delta: i32,
    last_offset_delta: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
    done: bool,
}

impl<'a> Records<'a> {
    /// Creates an iterator over `records`, the decompressed records of the batch with this header.
    pub fn new(header: &BatchHeader, records: &'a [u8]) -> Self {
        let append_time =
            (header.timestamp_type() == TimestampType::LogAppendTime).then(|| header.max_timestamp.get());
        Self {
            rest: records,
            count: header.count(),
            number: 0,
            base_offset: header.base_offset.get(),
            last_delta: -1,
            last_offset_delta: header.last_offset_delta.get(),
            base_timestamp: header.base_timestamp.get(),
            append_time,
            done: false,
        }
    }

    /// Returns an iterator that continues after the records returned so far, with those in `rest`.
    pub(super) fn on(self, rest: &[u8]) -> Records<'_> {
        let Self {
            count,
            number,
            base_offset,
            last_delta,
            last_offset_delta,
            base_timestamp,
            append_time,
            done,
            ..
        } = self;
        Records {
            rest,
            count,
            number,
            base_offset,
            last_delta,
            last_offset_delta,
            base_timestamp,
            append_time,
            done,
        }
    }

    /// Returns whether as many records were returned as the batch has.
    pub(super) fn is_complete(&self) -> bool {
        self.number == self.count
    }

    /// Returns the number of bytes after the records returned so far.
    pub(super) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let len = take_i32(&mut self.rest).ok_or("length")?;
        let len = usize::try_from(len).map_err(|_| "length")?;
        let (mut body, rest) = self.rest.split_at_checked(len).ok_or("length")?;
        self.rest = rest;
        let (_attributes, fields) = body.split_first().ok_or("attributes")?;
        body = fields;
        let timestamp_delta = take_i64(&mut body).ok_or("timestamp")?;
        let offset_delta = take_i32(&mut body).ok_or("offset")?;
        if offset_delta <= self.last_delta || offset_delta > self.last_offset_delta {
            return Err("offset");
        }
        self.last_delta = offset_delta;
        let key = take_nullable(&mut body).ok_or("key")?;
        let value = take_nullable(&mut body).ok_or("value")?;
        let headers = take_i32(&mut body).ok_or("header count")?;
        let headers = u32::try_from(headers).map_err(|_| "header count")?;
        let headers = Headers::walk(&mut body, headers).ok_or("headers")?;
        if !body.is_empty() {
            return Err("length");
        }
        Ok(Record {
            offset: Offset(self.base_offset.saturating_add(i64::from(offset_delta))),
            timestamp: Timestamp(
                self.append_time.unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            ),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.number == self.count {
            self.done = true;
            let bytes = self.rest.len();
            return (bytes > 0).then_some(Err(BatchError::TrailingRecords { bytes }));
        }
        let number = self.number;
        self.number = number.saturating_add(1);
        let record = self.read();
        self.done = record.is_err();
        Some(record.map_err(|field| BatchError::Record { number, field }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = if self.done { 0 } else { self.count.saturating_sub(self.number) as usize };
        (0, Some(left.saturating_add(1)))
    }
}

impl FusedIterator for Records<'_> {}

/// Meaning of a control record; see [`BatchHeader::is_control`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ControlKind {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// A kind that this build does not know.
    Other(i16),
}

impl ControlKind {
    /// Returns the meaning of the control record with this key, or `None` if the key is not that of a control record.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (version, rest) = key.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes(*kind) {
            0 => Self::Abort,
            1 => Self::Commit,
            n => Self::Other(n),
        })
    }
}
