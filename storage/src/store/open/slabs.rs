//! Checks whether the slabs are the files that this store left there.
//!
//! The map says where the extents are. A slab that is missing or cut short takes the partitions of its lost extents out of service. A slab that was
//! replaced by an older copy or by another store's file is noticed by one extent in it: the last one begun of those known to hold durable frames.
//! Either its header or its first frame has to be there. If neither is, every extent of that slab is checked.
//!
//! Only sound slabs provide space. Intact extents in the others are served, and written to in place.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::frame::FrameHeader;
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::Disk;

use super::super::space::{SlabFile, Space};
use super::Slabs;
use crate::api::RecoveryReport;
use crate::config::StoreConfig;
use crate::layout::{EXTENT_HEADER_BYTES, ExtentHeaderError, ExtentId, PAGE_BYTES, SlabId, slab_name};
use crate::map::{ExtentEntry, StoreMap};

/// The faults of the slabs.
#[derive(Default, Debug)]
pub(super) struct SlabFaults {
    /// Slabs that provide no space.
    unsound: BTreeSet<SlabId>,
    /// Why extents cannot be used, by their incarnations.
    unusable: BTreeMap<u64, String>,
}

impl SlabFaults {
    pub(super) fn is_sound(&self, slab: SlabId) -> bool {
        !self.unsound.contains(&slab)
    }

    /// Returns why this extent cannot be used, if it cannot.
    pub(super) fn of(&self, extent: &ExtentEntry) -> Option<&String> {
        self.unusable.get(&extent.incarnation)
    }
}

/// An extent of the map.
#[derive(Clone, Copy)]
struct Known<'a> {
    tp: TopicPartition,
    extent: &'a ExtentEntry,
    /// Whether it is known to hold durable frames.
    has_frames: bool,
}

/// The content of the block where an extent should begin.
enum Rests {
    /// The extent, or something damaged that may be it.
    Itself,
    /// Something else: the file is not the one that was here.
    Else(String),
}

/// Checks every slab that exists or that the map knows.
pub(super) fn examine(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    map: &StoreMap,
    report: &mut RecoveryReport,
) -> SlabFaults {
    let mut by_slab: BTreeMap<SlabId, Vec<Known<'_>>> = slabs.keys().map(|id| (*id, Vec::new())).collect();
    for partition in map.partitions.values() {
        let checkpoint = partition.checkpoint.as_ref();
        for extent in &partition.extents {
            let sealed = extent.sealed.is_some_and(|seal| seal.index > extent.base_index);
            let checked = checkpoint
                .is_some_and(|c| c.incarnation == extent.incarnation && c.index > extent.base_index);
            let known = Known { tp: partition.key.into(), extent, has_frames: sealed || checked };
            by_slab.entry(SlabId(extent.slab)).or_default().push(known);
        }
    }
    let mut faults = SlabFaults::default();
    for (slab, known) in by_slab {
        let Some(file) = slabs.get(&slab) else {
            let why = format!("{} is missing", slab_name(slab));
            faults.fail_extents(config, slab, &known, &why, report);
            continue;
        };
        let (inside, outside): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|known| known.extent.end_at() <= file.bytes);
        if !outside.is_empty() {
            let why = format!("{} was cut to {} bytes", slab_name(slab), file.bytes);
            faults.fail_extents(config, slab, &outside, &why, report);
        }
        faults.examine_inside(config, disk, slab, *file, &inside, report);
        let min = config.limits.extent_bytes_min;
        let too_small = inside.iter().any(|known| 1 << known.extent.log2_bytes < min);
        if !file.bytes.is_power_of_two() || file.bytes < min || too_small {
            if faults.is_sound(slab) {
                let path = config.dir.join(slab_name(slab));
                report.warnings.push(format!(
                    "{}: {} bytes is no size that a slab is made with; what it holds is served, and nothing new is put into it",
                    path.display(),
                    file.bytes
                ));
            }
            faults.unsound.insert(slab);
        }
    }
    faults
}

impl SlabFaults {
    /// Takes these extents out of service.
    fn fail_extents(
        &mut self,
        config: &StoreConfig,
        slab: SlabId,
        extents: &[Known<'_>],
        why: &str,
        report: &mut RecoveryReport,
    ) {
        self.unsound.insert(slab);
        let partitions: BTreeSet<TopicPartition> = extents.iter().map(|known| known.tp).collect();
        report.warnings.push(format!(
            "{}: {why}: {} extents of {} partitions cannot be used; put the file back, or delete their topics",
            config.dir.join(slab_name(slab)).display(),
            extents.len(),
            partitions.len()
        ));
        self.unusable.extend(extents.iter().map(|known| (known.extent.incarnation, why.to_owned())));
    }

    fn examine_inside(
        &mut self,
        config: &StoreConfig,
        disk: &mut dyn Disk,
        slab: SlabId,
        file: SlabFile,
        inside: &[Known<'_>],
        report: &mut RecoveryReport,
    ) {
        let newest = inside.iter().filter(|known| known.has_frames).max_by_key(|k| k.extent.incarnation);
        let Some(newest) = newest else { return };
        let Rests::Else(what) = look(config, disk, file, newest) else { return };
        let gone: Vec<Known<'_>> = inside
            .iter()
            // If an extent is not known to hold frames, nobody can tell whether there were any.
            .filter(|known| !known.has_frames || matches!(look(config, disk, file, known), Rests::Else(_)))
            .copied()
            .collect();
        let why = format!("{} is not the file that this store left there ({what})", slab_name(slab));
        self.fail_extents(config, slab, &gone, &why, report);
    }
}

/// Returns whether an extent was begun that the map, left by an orderly stop, does not know: then the map is an old copy. Space is handed out in
/// order, so the first unknown extent begins where the next one would.
pub(super) fn holds_later_life(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    space: &Space,
    next_incarnation: u64,
) -> bool {
    space.alloc.next_blocks().any(|place| {
        let mut block = [0; EXTENT_HEADER_BYTES];
        let Some(slab) = space.slabs.get(&place.slab) else { return false };
        let read = disk.read_at(slab.file, place.at, &mut block);
        let header = ExtentId::from_block(&block).ok().filter(|_| matches!(read, Ok(EXTENT_HEADER_BYTES)));
        header.is_some_and(|id| {
            (id.cluster, id.store, id.place) == (config.cluster, config.store, place)
                && id.incarnation.0 >= next_incarnation
        })
    })
}

/// Reads the header of an extent and its first frame.
fn look(config: &StoreConfig, disk: &mut dyn Disk, file: SlabFile, known: &Known<'_>) -> Rests {
    let extent = known.extent;
    let mut pages = vec![0; EXTENT_HEADER_BYTES + PAGE_BYTES];
    let Ok(read) = disk.read_at(file.file, extent.at, &mut pages) else { return Rests::Itself };
    pages[read..].fill(0);
    let Some((block, first)) = pages.split_first_chunk::<EXTENT_HEADER_BYTES>() else { return Rests::Itself };
    let header = ExtentId::from_block(block);
    let frame = FrameHeader::parse(first).ok().map(|(frame, _)| frame);
    let place = crate::layout::Place { slab: SlabId(extent.slab), at: extent.at };
    let is_itself = header.is_ok_and(|id| {
        (id.cluster, id.store, id.place) == (config.cluster, config.store, place)
            && (id.tp, id.incarnation.0) == (known.tp, extent.incarnation)
    });
    let begins_it = frame.is_some_and(|frame| {
        frame.incarnation.get() == extent.incarnation && frame.partition_tag.get() == known.tp.tag()
    });
    if is_itself || begins_it {
        return Rests::Itself;
    }
    match header {
        Ok(id) if (id.cluster, id.store) != (config.cluster, config.store) => Rests::Else(format!(
            "at {} it holds data of store {} of cluster {}",
            extent.at, id.store, id.cluster
        )),
        Ok(id) if id.place == place => Rests::Else(format!("at {} it holds an earlier state", extent.at)),
        Err(ExtentHeaderError::Zero) if frame.is_none() && first.iter().all(|b| *b == 0) => {
            Rests::Else(format!("at {} it holds nothing", extent.at))
        }
        _ => Rests::Itself,
    }
}
