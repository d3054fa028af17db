//! Looking into one batch for a record by its time, in steps of bounded work.
//!
//! A small batch may hold records of many megabytes, and those that older versions took may not be what their headers say. What
//! cannot be decompressed or read has no record that could be found; consumers learn of it when they read the batch.

use std::ops::ControlFlow;

use bytes::Bytes;
use highwater_protocol::batch::{
    BatchView, NO_TIMESTAMP, OffsetOrder, RecordHead, RecordStream, StreamOutcome, TimestampType, Unpacker,
    Work,
};
use highwater_protocol::frame::Frame;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_protocol::limits::DECOMPRESSED_BYTES_MAX;

/// The goal of a search in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// The first record at or after a time.
    Since(Timestamp),
    /// The largest timestamp.
    Latest,
}

/// The result of a search in a batch, among the records from the log's start on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookupResult {
    Record(Offset, Timestamp),
    /// The largest timestamp, if any record has one.
    Latest(Option<Timestamp>),
    Nothing,
    /// Decompression takes so many bytes so far, more than it may.
    NeedsDecoder(usize),
}

/// Work after which the memory of the decoder is checked: about a chunk of decompressed records.
const STEP_WORK: Work = 200_000;

/// A look into a batch that is not finished.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// The frame, whole and checked.
    frame: Bytes,
    stream: Option<RecordStream>,
    wanted: Wanted,
    log_start: Offset,
    latest: Timestamp,
    /// Bytes that the decoder and what it has decompressed may take.
    decoder_bytes_max: usize,
}

impl Lookup {
    /// Begins to look into the batch of a frame that has been checked. Decompression stops soon after it takes more than `decoder_bytes_max`.
    pub(crate) fn new(frame: Bytes, wanted: Wanted, log_start: Offset, decoder_bytes_max: usize) -> Self {
        let stream = batch_of(&frame).and_then(|batch| {
            let order = OffsetOrder::Rising;
            RecordStream::new(batch.header(), order, DECOMPRESSED_BYTES_MAX, Unpacker::default()).ok()
        });
        Self { frame, stream, wanted, log_start, latest: NO_TIMESTAMP, decoder_bytes_max }
    }

    /// Looks on while there is `work` left. `None`: there is more to look at.
    pub(crate) fn step(&mut self, work: &mut Work) -> Option<LookupResult> {
        while *work > 0 {
            // A slice at a time, so that the decoder does not grow by more before its memory is checked.
            let slice = STEP_WORK.min(*work);
            let mut left = slice;
            let found = self.look_on(&mut left);
            *work = work.saturating_sub(slice - left);
            if found.is_some() {
                return found;
            }
            let bytes = self.stream.as_ref().map_or(0, RecordStream::memory_bytes);
            if bytes > self.decoder_bytes_max {
                return Some(LookupResult::NeedsDecoder(bytes));
            }
        }
        None
    }

    fn look_on(&mut self, work: &mut Work) -> Option<LookupResult> {
        let (Some(stream), Some(batch)) = (&mut self.stream, batch_of(&self.frame)) else {
            return Some(LookupResult::Nothing);
        };
        let header = batch.header();
        let (base_offset, base_timestamp) = (header.base_offset(), header.base_timestamp.get());
        let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
        let (log_start, wanted) = (self.log_start, self.wanted);
        let (mut latest, mut found) = (self.latest, None);
        let mut visit = |record: RecordHead| {
            let offset = base_offset.plus(i64::from(record.offset_delta));
            let timestamp = if stamped {
                header.max_timestamp()
            } else {
                Timestamp(base_timestamp.wrapping_add(record.timestamp_delta))
            };
            if offset < log_start {
                return ControlFlow::Continue(());
            }
            match wanted {
                Wanted::Since(at) if timestamp >= at => {
                    found = Some((offset, timestamp));
                    ControlFlow::Break(())
                }
                Wanted::Since(_) => ControlFlow::Continue(()),
                Wanted::Latest => {
                    latest = latest.max(timestamp);
                    ControlFlow::Continue(())
                }
            }
        };
        let streamed = stream.step(batch.stored_records(), work, &mut visit);
        self.latest = latest;
        if let Some((offset, timestamp)) = found {
            return Some(LookupResult::Record(offset, timestamp));
        }
        match streamed {
            Ok(StreamOutcome::More) => None,
            Ok(StreamOutcome::Stopped | StreamOutcome::End) | Err(_) if wanted == Wanted::Latest => {
                Some(LookupResult::Latest((latest > NO_TIMESTAMP).then_some(latest)))
            }
            Ok(StreamOutcome::Stopped | StreamOutcome::End) | Err(_) => Some(LookupResult::Nothing),
        }
    }
}

fn batch_of(frame: &Bytes) -> Option<BatchView<'_>> {
    Frame::parse(frame).ok()?.batch()
}
