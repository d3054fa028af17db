//! Reads a partition on one replica, and checks that its high watermark never falls.

use std::collections::BTreeMap;

use highwater_protocol::frame::Frame;
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::Disk;
use highwater_storage::{Cursor, ReadId, ReadLimits, ReadOutcome, ReadResult};

use crate::partition::{PartitionId, Partitions};

/// Records by offset.
pub(crate) type Records = BTreeMap<i64, Vec<u8>>;

/// What a replica has shown to readers so far.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The high watermark that this process has shown.
    pub(crate) high_watermark: Offset,
    /// Every readable record before this one has been read.
    pub(crate) read_end: Offset,
    pub(crate) reading: Option<ReadId>,
}

impl Reader {
    /// Creates a reader of a process that has shown this high watermark. It reads the log from its start.
    pub(crate) fn new(high_watermark: Offset) -> Self {
        Self { high_watermark, read_end: Offset(0), reading: None }
    }

    /// Begins to read what has become readable. Returns what needs no disk.
    pub(crate) fn read_on(
        &mut self,
        disk: &mut dyn Disk,
        partitions: &mut Partitions,
        id: PartitionId,
    ) -> Records {
        let mut records = Records::new();
        let Some(partition) = partitions.get(id) else { return records };
        let (store, slot, end) = (partition.store, partition.slot, partition.high_watermark());
        assert!(end >= self.high_watermark, "the high watermark of {} has fallen", partition.name());
        self.high_watermark = end;
        while self.reading.is_none() {
            self.read_end = self.read_end.max(partitions.store(store).bounds(slot).log_start);
            if self.read_end >= end {
                break;
            }
            let limits = ReadLimits { bytes_max: 8 << 10, memory_bytes_max: usize::MAX };
            let cursor = Cursor::at(self.read_end);
            match partitions.store_mut(store).read(disk, slot, cursor, limits, end) {
                ReadOutcome::Ready(result) => self.take(result, &mut records),
                ReadOutcome::Pending(id) => self.reading = Some(id),
            }
        }
        records
    }

    /// Takes the result of a read, if it is this reader's.
    pub(crate) fn finish(&mut self, id: ReadId, result: &mut Option<ReadResult>) -> Records {
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
            ReadResult::OutOfRange { log_start, .. } if log_start > self.read_end => return,
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
                    if (self.read_end..self.high_watermark).contains(&record.offset) {
                        records.insert(record.offset.0, record.value.unwrap_or_default().to_vec());
                    }
                }
            }
        }
        self.read_end = frames.next.offset();
    }
}
