//! Writes frames again that may be visible without being durable.
//!
//! When the disk has no space for a write, a part of it may stay in the page cache, where reads see it until the power fails. No sync makes it
//! durable: the kernel has dropped it. If the process ends then, the next start finds these frames like any others. It may not append after them or
//! acknowledge them before they are durable, so it writes them again.
//!
//! A frame needs that unless a later one, or the map, proves that it had been durable. So these frames are the last ones of a log.
//!
//! If there is still no space, the partition is as it was before the process ended: its durable end is before these frames, which are kept in memory
//! and queued to be written again, and it stalls ([`stall`](crate::store::stall)). So readers do not see them, no checkpoint and no seal in the map
//! counts them, no frame follows them, and they become durable as soon as there is space.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use bytes::Bytes;
use highwater_protocol::ids::{LogIndex, Offset, TopicPartition};
use highwater_protocol::text::counted;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, FileWrite, is_out_of_space};
use highwater_runtime::plane::Disk;

use super::recover::Recovery;
use super::{Slabs, io_error};
use crate::api::{OpenError, PartitionFinding, PartitionSlot, RecoveryReport};
use crate::config::StoreConfig;
use crate::extent::{Extent, FIRST_POSITION};
use crate::layout::{PAGE_BYTES, SlabId, slab_name};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{Partition, Piece};
use crate::position::Mark;
use crate::store::Store;

/// Bytes in memory before they are written.
const BYTES_WRITTEN_TOGETHER: usize = 16 << 20;

/// The frames at the end of a log that nothing proves to have been durable.
#[derive(Debug)]
pub(super) struct UnprovenFrames {
    /// Where each of them begins.
    starts: VecDeque<Mark>,
    /// Frames with lower indexes are proven.
    proven: LogIndex,
    log_start: Offset,
}

impl Default for UnprovenFrames {
    fn default() -> Self {
        Self { starts: VecDeque::new(), proven: LogIndex(0), log_start: Offset(0) }
    }
}

impl UnprovenFrames {
    /// Begins with a log of whose frames those up to `proven` had been durable. A log never starts after its durable end.
    pub(super) fn new(proven: LogIndex, log_start: Offset) -> Self {
        Self { proven, log_start, ..Self::default() }
    }

    /// Notes the next frame, which says that those up to `durable` had been durable. `in_journal`: the journal has it, and is kept for the next start.
    pub(super) fn note(&mut self, at: Mark, durable: LogIndex, in_journal: bool) {
        self.prove(durable);
        if in_journal || at.offset < self.log_start {
            self.starts.clear();
        } else if at.index >= self.proven {
            self.starts.push_back(at);
        }
    }

    /// Notes that all frames up to this index had been durable.
    pub(super) fn prove(&mut self, durable: LogIndex) {
        self.proven = self.proven.max(durable);
        while self.starts.pop_front_if(|start| start.index < self.proven).is_some() {}
    }
}

/// Pages of an extent that are written again.
#[derive(Debug)]
struct Pages {
    /// Where the frames in them begin.
    start: Mark,
    slab: SlabId,
    /// Position of the first page in the extent.
    from: u32,
    /// The same in the slab.
    at: u64,
    bytes: usize,
}

/// The pages of a partition that are written again.
#[derive(Debug)]
struct Rewrite {
    slot: PartitionSlot,
    tp: TopicPartition,
    /// Where its frames begin.
    start: Mark,
    pages: Vec<Pages>,
    /// The number of its writes: one for each of `pages`, unless a page cannot be read.
    writes: usize,
    is_whole: bool,
}

/// Frames that had no space.
#[derive(Debug)]
struct Unwritten {
    slot: PartitionSlot,
    tp: TopicPartition,
    start: Mark,
    /// The frames of each extent, with their pages. `None`: they are not in memory.
    parts: Option<Vec<(Mark, u32, Bytes)>>,
}

/// The frames of all partitions of a store that are written again.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    /// The frames of the partition that is being read.
    pub(super) unproven: UnprovenFrames,
    /// Partitions of which nothing was written yet.
    batch: Vec<Rewrite>,
    /// Their writes.
    writes: Vec<(SlabId, FileWrite)>,
    bytes: usize,
    unwritten: Vec<Unwritten>,
    unwritten_bytes: u64,
    /// The first slab to which a part could not be written, with the reason.
    failed: Option<(SlabId, io::Error)>,
}

impl Rewrites {
    /// Adds a partition with its pages, as they can be read.
    fn add(
        &mut self,
        (config, disk): (&StoreConfig, &mut dyn Disk),
        slabs: &Slabs,
        (slot, tp): (PartitionSlot, TopicPartition),
        pages: Vec<Pages>,
    ) -> Result<(), OpenError> {
        let Some(first) = pages.first() else { return Ok(()) };
        let (start, before) = (first.start, self.writes.len());
        let mut is_whole = true;
        for part in &pages {
            is_whole &= self.read(disk, slabs[&part.slab].file, part);
        }
        let writes = self.writes.len() - before;
        self.batch.push(Rewrite { slot, tp, start, pages, writes, is_whole });
        if self.bytes >= BYTES_WRITTEN_TOGETHER { self.write(config, disk) } else { Ok(()) }
    }

    /// Reads pages to be written again. Returns `false` if some cannot be read: damaged padding between the frames, which is left as it is.
    fn read(&mut self, disk: &mut dyn Disk, file: FileId, part: &Pages) -> bool {
        let mut read = |at: u64, bytes: usize| {
            let mut data = AlignedBuf::new(bytes);
            let is_read = disk.read_at(file, at, &mut data).is_ok_and(|read| read == bytes);
            if is_read {
                self.bytes += bytes;
                self.writes.push((part.slab, FileWrite { file, at, data, outcome: None }));
            }
            is_read
        };
        if read(part.at, part.bytes) {
            return true;
        }
        for from in (0..part.bytes).step_by(PAGE_BYTES) {
            read(part.at + from as u64, PAGE_BYTES);
        }
        false
    }

    /// Writes what was added, durably. Keeps what has no space.
    fn write(&mut self, config: &StoreConfig, disk: &mut dyn Disk) -> Result<(), OpenError> {
        self.bytes = 0;
        let error_of = |slab: SlabId, e: io::Error| Err(io_error(&config.dir.join(slab_name(slab)))(e));
        let (slabs, mut writes): (Vec<SlabId>, Vec<FileWrite>) = self.writes.drain(..).unzip();
        disk.write_many(&mut writes);
        let mut files = BTreeMap::new();
        for (slab, write) in slabs.iter().zip(&mut writes) {
            match write.outcome.take() {
                Some(Err(e)) if is_out_of_space(&e) => {
                    self.failed.get_or_insert((*slab, e));
                }
                Some(Err(e)) => return error_of(*slab, e),
                // After an error the others need not be tried.
                None => {}
                Some(Ok(())) => {
                    write.outcome = Some(Ok(()));
                    files.insert(*slab, write.file);
                }
            }
        }
        let mut unsynced = BTreeSet::new();
        // One by one: an error of a file is reported once, and the others have to be known too.
        for (slab, file) in files {
            match disk.sync_file(file) {
                Ok(()) => {}
                Err(e) if is_out_of_space(&e) => {
                    unsynced.insert(slab);
                    self.failed.get_or_insert((slab, e));
                }
                Err(e) => return error_of(slab, e),
            }
        }
        let mut written = slabs.into_iter().zip(writes);
        for rewrite in std::mem::take(&mut self.batch) {
            let of_it: Vec<(SlabId, FileWrite)> = written.by_ref().take(rewrite.writes).collect();
            let is_durable =
                |(slab, write): &(SlabId, FileWrite)| write.outcome.is_some() && !unsynced.contains(slab);
            if !of_it.iter().all(is_durable) {
                self.keep(rewrite, of_it, config.limits.store_unacked_bytes_max);
            }
        }
        Ok(())
    }

    /// Keeps frames that had no space, in `bytes_max` bytes of memory for all partitions.
    fn keep(&mut self, rewrite: Rewrite, writes: Vec<(SlabId, FileWrite)>, bytes_max: u64) {
        let Rewrite { slot, tp, start, pages, is_whole, .. } = rewrite;
        let bytes: u64 = pages.iter().map(|part| part.bytes as u64).sum();
        let fits = is_whole && self.unwritten_bytes + bytes <= bytes_max;
        let parts = fits.then(|| {
            self.unwritten_bytes += bytes;
            let parts = pages.into_iter().zip(writes);
            parts.map(|(part, (_, write))| (part.start, part.from, write.data.freeze())).collect()
        });
        self.unwritten.push(Unwritten { slot, tp, start, parts });
    }

    /// Writes the rest.
    pub(super) fn finish(
        mut self,
        config: &StoreConfig,
        disk: &mut dyn Disk,
    ) -> Result<UnwrittenFrames, OpenError> {
        self.write(config, disk)?;
        Ok(UnwrittenFrames { partitions: self.unwritten, failed: self.failed })
    }
}

impl Recovery<'_> {
    /// Has the last frames of a partition written again that may not be durable.
    pub(super) fn write_again(
        &mut self,
        slot: PartitionSlot,
        partition: &Partition,
    ) -> Result<(), OpenError> {
        // Extents that retention had freed are gone.
        let starts = std::mem::take(&mut self.rewrites.unproven.starts);
        let first = starts.into_iter().find(|start| partition.extent(start.extent()).is_some());
        let Some(first) = first.filter(|_| !is_planted(Mutant::TrustUnprovenFrames)) else { return Ok(()) };
        let report = &self.report;
        let extents = partition.extents.iter().filter(|extent| {
            extent.sequence >= first.sequence
                && extent.has_frames()
                && !report.unusable.contains(&extent.incarnation)
        });
        let pages = extents.map(|extent| Pages::from(extent, first));
        let pages = pages.filter(|pages| self.slabs.contains_key(&pages.slab)).collect();
        self.rewrites.add((self.config, &mut *self.disk), self.slabs, (slot, self.tp), pages)
    }
}

impl Pages {
    /// The pages of an extent, from these frames on if they are in it.
    fn from(extent: &Extent, first: Mark) -> Self {
        let start = if extent.sequence == first.sequence { first } else { extent.start_mark() };
        // The header is written before the first frame.
        let from = if start.position == FIRST_POSITION {
            0
        } else {
            start.position - start.position % PAGE_BYTES as u32
        };
        let to = extent.end.next_multiple_of(PAGE_BYTES as u32);
        let place = extent.place.expect("a recovered extent has a place");
        Self { start, slab: place.slab, from, at: place.at + u64::from(from), bytes: (to - from) as usize }
    }
}

/// What a start has found no space for.
#[derive(Debug)]
pub(super) struct UnwrittenFrames {
    partitions: Vec<Unwritten>,
    failed: Option<(SlabId, io::Error)>,
}

impl Store {
    /// Queues the frames that a start had no space for. Their partitions stall.
    pub(super) fn hold_back(&mut self, frames: UnwrittenFrames, report: &mut RecoveryReport) {
        let UnwrittenFrames { partitions, failed } = frames;
        let Some((slab, e)) = failed.filter(|_| !partitions.is_empty()) else { return };
        let why = format!(
            "{}: the last records of {} could not be written again: {e}; they cannot be read, and no others are accepted, before there is \
             space",
            self.slab_path(slab),
            counted(partitions.len(), "partition")
        );
        for Unwritten { slot, tp, start, parts } in partitions {
            report.without_space.insert(tp);
            let partition = self.partitions.get_mut(slot.0).expect("it was just made");
            (partition.durable, partition.extent_end) = (start, start);
            let Some(parts) = parts else {
                if !std::mem::replace(&mut partition.faulty, true) {
                    let why = "there is neither space to write its last records again nor memory to keep them; \
                               the next start tries again";
                    let finding = PartitionFinding::Faulty { at: start.offset, why: why.to_owned() };
                    report.findings.push((tp, finding));
                }
                continue;
            };
            let bytes = partition.queue_again(parts);
            self.unacked_bytes += bytes;
            partition.flags.dirty = true;
            self.dirty.push_back(slot);
            self.stall(slot);
        }
        report.warnings.push(why.clone());
        self.tell_full(why);
    }
}

impl Partition {
    /// Queues frames that are in the log to be written again, in place: the cache does not have them. Returns their bytes.
    fn queue_again(&mut self, parts: Vec<(Mark, u32, Bytes)>) -> u64 {
        self.flags.written_again = true;
        for (start, from, data) in parts {
            let extent = self.extent_mut(start.extent()).expect("the frames are in it");
            let (end, from) = (extent.end_mark(), from.max(FIRST_POSITION));
            let mut data = data;
            if start.position == FIRST_POSITION {
                extent.header_written = false;
                data = data.slice(FIRST_POSITION as usize..);
            }
            let frame_bytes = u64::from(end.position - start.position);
            self.unacked_bytes += frame_bytes;
            self.queue.push_back(Piece { extent: start.extent(), from, data, end, frame_bytes });
        }
        self.unacked_bytes
    }
}
