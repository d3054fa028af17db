//! Restores from the extents, once, what earlier versions did not keep in checkpoints.

use highwater_protocol::frame::{Frame, FrameKind};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};

use super::recover::Recovery;
use super::walk::{SlabBytes, first_mark};
use crate::epochs::Epochs;
use crate::layout::SlabId;
use crate::map::{CheckpointEntry, ExtentEntry};
use crate::position::LogPoint;
use crate::recovery::scan;

impl Recovery<'_> {
    /// Finds where the epochs before a checkpoint began. The header of an extent has the epoch in which it was begun, so only extents in which
    /// another epoch began have to be read.
    pub(super) fn epochs_in_front_of(
        &mut self,
        extents: &[ExtentEntry],
        checkpoint: &CheckpointEntry,
    ) -> Epochs {
        let mut epochs = Epochs::default();
        for (at, extent) in extents.iter().enumerate() {
            let next = extents.get(at + 1).filter(|next| next.base_index < checkpoint.index);
            let end = next.map_or(checkpoint.index, |next| next.base_index);
            if extent.base_index >= end {
                continue;
            }
            let last = next.map_or(checkpoint.last_epoch, |next| Some(next.leader_epoch));
            if last == Some(extent.leader_epoch) {
                note(&mut epochs, extent.leader_epoch, first_mark(extent).point());
            } else {
                self.read_epochs(&mut epochs, extent, end);
            }
        }
        epochs
    }

    /// Reads the frames of an extent up to this index for the epochs that begin in it.
    fn read_epochs(&mut self, epochs: &mut Epochs, extent: &ExtentEntry, end: u64) {
        let expect = self.expectation(extent, first_mark(extent), epochs.last(), LogIndex(0));
        let Some(slab) = self.slabs.get(&SlabId(extent.slab)) else { return };
        let mut bytes = SlabBytes { disk: self.disk, file: slab.file, at: extent.at, read_ahead: None };
        let scanned = scan(&expect, &mut bytes, &mut |_, frame: &Frame<'_>| {
            let header = frame.header();
            let (index, offset) = (LogIndex(header.index.get()), Offset(header.base_offset.get()));
            if frame.kind() != FrameKind::Padding && index.0 < end {
                note(epochs, header.leader_epoch.get(), LogPoint { index, offset });
            }
        });
        self.report.bytes_scanned += scanned.bytes_read;
    }
}

fn note(epochs: &mut Epochs, epoch: i32, at: LogPoint) {
    if epochs.last().is_none_or(|last| last.0 < epoch) {
        epochs.note(LeaderEpoch(epoch), at);
    }
}
