//! Reads a partition on one replica, and checks that its high watermark never falls.

use std::collections::BTreeMap;

use highwater_protocol::frame::Frame;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::Disk;
use highwater_storage::{Cursor, ReadId, ReadLimits, ReadOutcome, ReadResult};

use crate::partition::{PartitionId, Partitions};

/// Records by offset.
pub(super) type Records = BTreeMap<i64, Vec<u8>>;

#[derive(Default, Debug)]
pub(super) struct Reader {
    pub(super) high_watermark: i64,
    /// Every readable record before this one has been read.
    pub(super) read_end: i64,
    pub(super) reading: Option<ReadId>,
}

impl Reader {
    /// Begins to read what has become readable. Returns what needs no disk.
    pub(super) fn read_on(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        id: PartitionId,
    ) -> Records {
        let mut records = Records::new();
        let Some(partition) = partitions.get(id) else { return records };
        let (store, slot, end) = (partition.store, partition.slot, partition.high_watermark());
        assert!(end.0 >= self.high_watermark, "the high watermark of {} has fallen", partition.name());
        self.high_watermark = end.0;
        while self.reading.is_none() {
            self.read_end = self.read_end.max(partitions.store(store).bounds(slot).log_start.0);
            if self.read_end >= end.0 {
                break;
            }
            let limits = ReadLimits { bytes_max: 8 << 10, memory_bytes_max: usize::MAX };
            let cursor = Cursor::at(Offset(self.read_end));
            match partitions.store_mut(store).read(disk, slot, cursor, limits, end) {
                ReadOutcome::Ready(result) => self.take(result, &mut records),
                ReadOutcome::Pending(id) => self.reading = Some(id),
            }
        }
        records
    }

    /// Takes the result of a read, if it is this reader's.
    pub(super) fn finish(&mut self, id: ReadId, result: &mut Option<ReadResult>) -> Records {
        let mut records = Records::new();
        if self.reading == Some(id)
            && let Some(result) = result.take()
        {
            self.reading = None;
            self.take(result, &mut records);
        }
        records
    }

    fn take(&mut self, result: ReadResult, records: &mut Records) {
        let frames = match result {
            ReadResult::Frames(frames) => frames,
            // The log start has moved meanwhile.
            ReadResult::OutOfRange { log_start, .. } if log_start.0 > self.read_end => return,
            other => panic!("reading at {}: {other:?}", self.read_end),
        };
        for bytes in &frames.bytes {
            let mut at = 0;
            while at < bytes.len() {
                let frame = Frame::checked(&bytes[at..]).expect("a good frame");
                at += frame.header().frame_bytes();
                let Some(batch) = frame.batch() else { continue };
                let mut scratch = Vec::new();
                for record in batch.records(&mut scratch).expect("records") {
                    let record = record.expect("a record");
                    if (self.read_end..self.high_watermark).contains(&record.offset.0) {
                        records.insert(record.offset.0, record.value.expect("a value").to_vec());
                    }
                }
            }
        }
        self.read_end = frames.next.offset().0;
    }
}
