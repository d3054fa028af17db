//! Frames of a log that was compacted, with what is missing before them.

use highwater_protocol::batch::{Compression, stamp};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_storage::{LogPoint, ReplicateError};

use super::{Frame, PRODUCER, World};
use crate::support::{batch_of, producer};

impl World {
    pub(super) fn append_after_gap(&mut self, frames: u64, offsets: i64, bytes: usize) {
        if self.cutting.is_some() {
            return;
        }
        self.fill = self.fill.wrapping_add(1);
        let (epoch, sequence) = self.producer;
        let value = vec![self.fill; bytes];
        let mut batch =
            batch_of(Compression::None, producer(PRODUCER, epoch, sequence), 5, &[&value]).to_vec();
        let end = self.log.end();
        let (index, offset) = (end.index.0 + frames, end.offset.0 + offsets);
        stamp(&mut batch, Offset(offset), LeaderEpoch(self.epoch));
        let frame = Frame { index, epoch: self.epoch, offset, batch: Some(batch), configuration: None };
        if (frames, offsets) != (0, 0) {
            // Without a word about the gap it is refused.
            let itself = LogPoint { index: LogIndex(index), offset: Offset(offset) };
            let sent = self.send(&frame, itself);
            let refused =
                [ReplicateError::Ahead { end: end.index }, ReplicateError::Mismatch { what: "offset" }];
            assert!(sent.is_err_and(|error| refused.contains(&error)), "{sent:?}");
        }
        self.replicate(frame);
    }
}
