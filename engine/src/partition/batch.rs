//! A batch on its way into the log: its bytes, in whatever buffer, and its header, which is parsed once.

use bytes::Bytes;
use highwater_protocol::batch::{
    BatchError, BatchHeader, BatchView, stamp_create_time, stamp_log_append_time,
};
use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use highwater_protocol::ids::{Timestamp, TopicPartition};
use highwater_runtime::buf::AlignedBuf;
use highwater_storage::Payload;

use super::rejected::SequenceStamp;

/// The bytes of a batch outside of the receive buffer.
#[derive(Debug)]
pub(crate) enum OwnedBatch {
    /// Copied.
    Small(Vec<u8>),
    /// Received into pages of its own.
    Bulk {
        /// The batch, after room for a frame header.
        pages: AlignedBuf,
        /// Its length.
        batch_bytes: usize,
    },
}

/// The bytes of a batch.
#[derive(Debug)]
pub(crate) enum BatchBytes<'a> {
    /// In the receive buffer.
    Borrowed(&'a [u8]),
    Owned(OwnedBatch),
}

impl BatchBytes<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(OwnedBatch::Small(bytes)) => bytes,
            Self::Owned(OwnedBatch::Bulk { pages, batch_bytes }) => {
                &pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes]
            }
        }
    }

    fn into_owned(self) -> BatchBytes<'static> {
        BatchBytes::Owned(match self {
            Self::Borrowed(bytes) => OwnedBatch::Small(bytes.to_vec()),
            Self::Owned(batch) => batch,
        })
    }
}

/// Exactly one batch with its header, which is parsed when this is created and never again.
#[derive(Debug)]
pub(crate) struct ParsedBatch<'a> {
    header: BatchHeader,
    bytes: BatchBytes<'a>,
}

impl<'a> ParsedBatch<'a> {
    /// Parses the header. The batch must fill `bytes`.
    pub(crate) fn parse(bytes: BatchBytes<'a>) -> Result<Self, BatchError> {
        let header = *BatchView::parse(bytes.as_slice())?.header();
        Ok(Self { header, bytes })
    }

    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub(super) fn view(&self) -> BatchView<'_> {
        BatchView::with_header(&self.header, self.bytes.as_slice())
    }

    pub(super) fn len(&self) -> usize {
        self.header.batch_bytes()
    }

    /// Returns whether the batch was received into pages of its own.
    pub(super) fn is_bulk(&self) -> bool {
        matches!(self.bytes, BatchBytes::Owned(OwnedBatch::Bulk { .. }))
    }

    /// Returns its place in its producer's order; `None` without an idempotent producer.
    pub(super) fn sequence_stamp(&self, tp: TopicPartition) -> Option<SequenceStamp> {
        Some(SequenceStamp::new(tp, self.header.producer()?))
    }

    pub(super) fn into_owned(self) -> ParsedBatch<'static> {
        ParsedBatch { header: self.header, bytes: self.bytes.into_owned() }
    }

    /// Returns the batch for the store, with its timestamps stamped. Borrowed bytes that have to be changed are copied to `scratch`.
    pub(super) fn into_payload<'s>(self, stamp: TimestampStamp, scratch: &'s mut Vec<u8>) -> Payload<'s>
    where
        'a: 's,
    {
        let Self { header, bytes } = self;
        match bytes {
            BatchBytes::Borrowed(bytes) if stamp == TimestampStamp::Keep => Payload::small(header, bytes),
            BatchBytes::Borrowed(bytes) => {
                scratch.clear();
                scratch.extend_from_slice(bytes);
                Payload::small(stamp.apply(header, scratch), scratch)
            }
            BatchBytes::Owned(OwnedBatch::Small(bytes)) => {
                *scratch = bytes;
                Payload::small(stamp.apply(header, scratch), scratch)
            }
            BatchBytes::Owned(OwnedBatch::Bulk { mut pages, batch_bytes }) => {
                let batch = &mut pages[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + batch_bytes];
                Payload::bulk(stamp.apply(header, batch), pages)
            }
        }
    }
}

/// The timestamp that the broker writes into a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimestampStamp {
    /// Nothing: they are correct.
    Keep,
    /// The largest timestamp of the records.
    CreateTime(Timestamp),
    /// The time of the append.
    LogAppendTime(Timestamp),
}

impl TimestampStamp {
    /// Stamps a batch with this header. Returns the stamped header.
    fn apply(self, header: BatchHeader, batch: &mut [u8]) -> BatchHeader {
        match self {
            Self::Keep => header,
            Self::CreateTime(max) => *stamp_create_time(batch, max),
            Self::LogAppendTime(at) => *stamp_log_append_time(batch, at),
        }
    }
}

/// Returns the position and length of each batch in whole frames.
pub(crate) fn batches_of(chunk: &Bytes) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Ok((header, kind)) = FrameHeader::parse(&chunk[at.min(chunk.len())..]) {
            let start = at + FRAME_HEADER_BYTES;
            at += header.frame_bytes();
            if kind == FrameKind::Batch {
                return Some((start, header.payload_bytes.get() as usize));
            }
        }
        None
    })
}
