//! The records that a consumer has read from a partition, from the start and without gaps.

use std::collections::BTreeMap;

use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::TopicPartition;

pub(crate) struct Seen {
    from: TopicPartition,
    next: i64,
    /// Highest high watermark seen. It must never decrease.
    high_watermark: i64,
    pub(crate) records: BTreeMap<i64, String>,
}

impl Seen {
    pub(crate) fn new(from: TopicPartition) -> Self {
        Self { from, next: 0, high_watermark: 0, records: BTreeMap::new() }
    }

    pub(crate) fn from(&self) -> TopicPartition {
        self.from
    }

    /// Returns the next offset to read.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Notes a high watermark from the broker.
    pub(crate) fn note_high_watermark(&mut self, high_watermark: i64) {
        assert!(high_watermark >= self.high_watermark, "the high watermark went back");
        self.high_watermark = high_watermark;
    }

    /// Adds a batch, which may contain records that were read before.
    pub(crate) fn take(&mut self, batch: &[u8]) {
        let view = BatchView::parse(batch).expect("a batch");
        view.check_checksum().expect("as it was sent");
        let mut scratch = Vec::new();
        for record in view.records(&mut scratch).expect("records") {
            let record = record.expect("a record");
            let (offset, value) = (record.offset.0, record.value.expect("a value"));
            assert!(offset < self.high_watermark, "only what is acknowledged is read");
            if offset < self.next {
                continue;
            }
            assert_eq!(offset, self.next, "no record is left out");
            self.next += 1;
            self.records.insert(offset, String::from_utf8_lossy(value).into_owned());
        }
    }
}
