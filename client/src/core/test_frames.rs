//! Frames as a broker stores them, for tests.

use std::ops::Range;

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BatchHeader, BatchProducer, Compression, NewRecord, stamp};
use highwater_protocol::frame::{
    FRAME_HEADER_BYTES, FramePlace, frame_bytes, write_batch_frame, write_epoch_start, write_padding,
};
use highwater_protocol::ids::{Incarnation, LeaderEpoch, LogIndex, Offset, Timestamp};
use highwater_protocol::native::{DataPrefix, MessageKind, WIRE_HEADER_BYTES, data_head};

const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// The frames of one partition.
#[derive(Default)]
pub(crate) struct Log {
    frames: Vec<(Vec<u8>, i64)>,
}

impl Log {
    /// Creates a log with batches of these numbers of records. A record's value is its offset.
    pub(crate) fn new(batches: &[usize], codec: Compression) -> Self {
        let mut log = Self { frames: Vec::new() };
        for records in batches {
            log.batch(*records, codec);
        }
        log
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.frames.last().map_or(0, |(_, next)| *next)
    }

    fn place(&self) -> FramePlace {
        let index = LogIndex(self.frames.len() as u64);
        FramePlace {
            incarnation: Incarnation(1),
            index,
            durable_index: LogIndex(0),
            commit_index: LogIndex(0),
            partition_tag: 7,
            mac: 3,
        }
    }

    pub(crate) fn batch(&mut self, records: usize, codec: Compression) {
        let mut builder = BatchBuilder::new(codec, 0);
        for at in 0..records as i64 {
            let value = format!("{:>32}", self.next_offset() + at);
            let record = NewRecord::new(Timestamp(at), Some(b"key"), Some(value.as_bytes()));
            builder.append(&record).unwrap();
        }
        self.append(&builder.finish(BatchProducer::NONE).unwrap());
    }

    /// Appends a producer's batch and returns its base offset.
    pub(crate) fn append(&mut self, batch: &[u8]) -> i64 {
        let base = self.next_offset();
        let mut frame = vec![0; frame_bytes(batch.len())];
        let payload = &mut frame[FRAME_HEADER_BYTES..][..batch.len()];
        payload.copy_from_slice(batch);
        stamp(payload, Offset(base), EPOCH);
        let header = *BatchHeader::parse(payload).unwrap();
        write_batch_frame(&mut frame, &header, self.place());
        self.frames.push((frame, header.next_offset().0));
        base
    }

    pub(crate) fn padding(&mut self) {
        let mut gap = vec![0; 4096];
        write_padding(&mut gap, self.place(), Offset(self.next_offset()), EPOCH);
        self.frames.push((gap, self.next_offset()));
    }

    pub(crate) fn epoch_start(&mut self) {
        let mut frame = [0; FRAME_HEADER_BYTES];
        write_epoch_start(&mut frame, self.place(), Offset(self.next_offset()), EPOCH);
        self.frames.push((frame.to_vec(), self.next_offset()));
    }

    /// Returns the index of the frame that holds this offset.
    pub(crate) fn frame_of(&self, offset: i64) -> usize {
        self.frames.iter().take_while(|(_, next)| *next <= offset).count()
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Returns the body of a data message with these frames.
    pub(crate) fn data(&self, range: Range<usize>) -> Bytes {
        let next = range.end.checked_sub(1).map_or(0, |last| self.frames[last].1);
        let frames: Vec<u8> =
            self.frames[range].iter().flat_map(|(frame, _)| frame.iter().copied()).collect();
        data(&frames, next)
    }
}

/// Encodes the body of a data message.
pub(crate) fn data(frames: &[u8], next_offset: i64) -> Bytes {
    let prefix = DataPrefix {
        next_offset: next_offset.into(),
        log_start: 0.into(),
        high_watermark: next_offset.into(),
    };
    let mut body = data_head(MessageKind::Data, 0, &prefix, frames.len())[WIRE_HEADER_BYTES..].to_vec();
    body.extend_from_slice(frames);
    body.into()
}
