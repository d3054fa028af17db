//! Writes frames again that may be visible without being durable.
//!
//! When the disk has no space for a write, a part of it may stay in the page cache, where reads see it until the power fails. No sync makes it
//! durable: the kernel has dropped it. If the process ends then, the next start finds these frames like any others. It may not append after them or
//! acknowledge them before they are durable, so it writes them again.
//!
//! A frame needs that unless a checkpoint or the durable index of a later frame proves that it had been durable.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use highwater_protocol::frame::FrameHeader;
use highwater_protocol::ids::LogIndex;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, FileWrite, is_out_of_space};
use highwater_runtime::plane::{Disk, WRITE_BYTES_MAX};

use super::{Slabs, io_error};
use crate::api::{OpenError, RecoveryReport};
use crate::config::StoreConfig;
use crate::layout::{SlabId, slab_name};

/// Bytes in memory before they are written.
const BYTES_WRITTEN_TOGETHER: usize = 16 << 20;

/// The frames of an extent that no frame after them proves to have been durable: their indexes and positions.
#[derive(Debug, Default)]
pub(super) struct UnprovenFrames(VecDeque<(LogIndex, u32)>);

impl UnprovenFrames {
    /// Notes the next frame.
    pub(super) fn note(&mut self, position: u32, header: &FrameHeader) {
        let durable = LogIndex(header.durable_index());
        while self.0.pop_front_if(|(index, _)| *index < durable).is_some() {}
        self.0.push_back((LogIndex(header.index.get()), position));
    }

    /// Returns the position of the first one.
    pub(super) fn first(&self) -> Option<u32> {
        self.0.front().map(|(_, position)| *position)
    }
}

/// Pages of slabs that are to be written again.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    writes: Vec<(SlabId, FileWrite)>,
    bytes: usize,
    /// Files that need a sync.
    written: BTreeMap<SlabId, FileId>,
    /// The first slab of which a part could not be written again, with the reason.
    failed: Option<(SlabId, io::Error)>,
}

impl Rewrites {
    /// Adds whole pages of a slab, as they can be read.
    pub(super) fn add(
        &mut self,
        (config, disk): (&StoreConfig, &mut dyn Disk),
        slabs: &Slabs,
        (slab, at, bytes): (SlabId, u64, usize),
    ) -> Result<(), OpenError> {
        let file = slabs[&slab].file;
        for from in (0..bytes).step_by(WRITE_BYTES_MAX) {
            let mut data = AlignedBuf::new(WRITE_BYTES_MAX.min(bytes - from));
            let at = at + from as u64;
            // Damaged padding between the frames may be unreadable.
            if let Err(e) = disk.read_at(file, at, &mut data) {
                self.fail(slab, e);
                continue;
            }
            self.bytes += data.len();
            self.writes.push((slab, FileWrite { file, at, data, outcome: None }));
        }
        if self.bytes >= BYTES_WRITTEN_TOGETHER { self.write(config, disk) } else { Ok(()) }
    }

    fn write(&mut self, config: &StoreConfig, disk: &mut dyn Disk) -> Result<(), OpenError> {
        self.bytes = 0;
        let (slabs, mut writes): (Vec<SlabId>, Vec<FileWrite>) = self.writes.drain(..).unzip();
        disk.write_many(&mut writes);
        for (slab, write) in slabs.into_iter().zip(writes) {
            match write.outcome {
                Some(Err(e)) if is_out_of_space(&e) => self.fail(slab, e),
                Some(Err(e)) => return Err(io_error(&config.dir.join(slab_name(slab)))(e)),
                // After an error the others need not be tried.
                Some(Ok(())) | None => drop(self.written.insert(slab, write.file)),
            }
        }
        Ok(())
    }

    /// Makes everything durable. Warns if a part of it could not be written.
    pub(super) fn finish(
        mut self,
        config: &StoreConfig,
        disk: &mut dyn Disk,
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        self.write(config, disk)?;
        for (slab, file) in std::mem::take(&mut self.written) {
            match disk.sync_file(file) {
                Ok(()) => {}
                Err(e) if is_out_of_space(&e) => self.fail(slab, e),
                Err(e) => return Err(io_error(&config.dir.join(slab_name(slab)))(e)),
            }
        }
        report.warnings.extend(self.failed.map(|(slab, e)| {
            format!(
                "{}: the last records of some logs could not be written again: {e}; a power cut may remove records for which there was no space \
                 before the last stop",
                config.dir.join(slab_name(slab)).display()
            )
        }));
        Ok(())
    }

    fn fail(&mut self, slab: SlabId, error: io::Error) {
        self.failed.get_or_insert((slab, error));
    }
}
