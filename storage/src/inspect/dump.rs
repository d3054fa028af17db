//! The frames of a partition, one after the other.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use highwater_protocol::frame::Frame;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_runtime::fs::Fs;

use super::files::Files;
use super::view::{StoreView, expectation};
use super::{InspectError, store_dirs};
use crate::layout::{Place, SlabId};
use crate::map::{PartitionEntry, PartitionKey};
use crate::recovery::{Decision, FrameCondition, Gap};

/// An item of a dump.
pub enum Dumped<'a> {
    /// An extent begins.
    Extent {
        /// Its slab's file.
        path: PathBuf,
        /// Where it is.
        place: Place,
        /// Its size.
        bytes: u64,
    },
    /// A whole valid frame; padding, too.
    Frame {
        /// Where in the slab's file.
        at: u64,
        /// The frame.
        frame: &'a Frame<'a>,
    },
    /// Frames are missing here that had been durable. Told after the frames of its extent.
    Gap {
        /// Where in the slab's file.
        at: u64,
        /// The first index and offset that are missing.
        gap: Gap,
    },
}

/// Calls `visit` with every frame of a partition's extents, from the extent that holds `from` on, until it breaks.
pub fn dump(
    fs: &mut dyn Fs,
    data_dir: &Path,
    tp: TopicPartition,
    from: Offset,
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), InspectError> {
    let mut files = Files::new(fs);
    let (stores, _) = store_dirs(&mut files, data_dir)?;
    for (store, dir) in stores {
        let view = StoreView::open(&mut files, store, dir)?;
        if let Some(partition) = view.map.partitions.get(&PartitionKey::from(tp)) {
            let _ = dump_partition(&mut files, &view, partition, from, visit);
            return Ok(());
        }
    }
    Err(InspectError::NoPartition { dir: data_dir.to_path_buf(), tp })
}

fn dump_partition(
    files: &mut Files<'_>,
    view: &StoreView,
    partition: &PartitionEntry,
    from: Offset,
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let behind = partition.extents.partition_point(|extent| extent.base_offset <= from.0);
    for (n, extent) in partition.extents.iter().enumerate().skip(behind.saturating_sub(1)) {
        let place = Place { slab: SlabId(extent.slab), at: extent.at };
        visit(Dumped::Extent { path: view.slab_path(extent.slab), place, bytes: 1 << extent.log2_bytes })?;
        let mut flow = ControlFlow::Continue(());
        let scanned = view.scan(files, partition, n, &mut |position, frame| {
            if flow.is_continue() && frame.header().next_offset() >= from.0 {
                flow = visit(Dumped::Frame { at: extent.at + u64::from(position), frame });
            }
        });
        flow?;
        if scanned.is_none() {
            // Its file is missing or cut short.
            let from = expectation(&view.map, partition, n).start;
            let gap = Gap { from, to: None, found: FrameCondition::Unreadable, decision: Decision::Rot };
            visit(Dumped::Gap { at: extent.at + u64::from(from.position), gap })?;
        }
        for gap in scanned.into_iter().flat_map(|scanned| scanned.gaps) {
            visit(Dumped::Gap { at: extent.at + u64::from(gap.from.position), gap })?;
        }
    }
    ControlFlow::Continue(())
}
