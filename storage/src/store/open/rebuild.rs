//! Rebuilding the map of a store from the headers of its extents.
//!
//! A header can be at every multiple of the smallest extent's size. Space is used again, so headers of earlier incarnations are found
//! too: where two extents overlap the later incarnation is real. Which of a partition's extents make up its log is in [`super::chains`].
//!
//! A header of another store, or of a newer version, stops the start: the file belongs elsewhere, or holds what this version cannot read. But a
//! record can look like such a header too. So one inside a slab counts for nothing if the slab has headers with this store's key, and it does not
//! have that key: see [`is_posing`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use highwater_protocol::frame::{FrameHeader, FrameKind};
use highwater_protocol::ids::{ClusterId, Incarnation, LogIndex, StoreId};
use highwater_runtime::plane::Disk;

use super::super::alloc::Allocator;
use super::Slabs;
use crate::api::{OpenError, RecoveryReport};
use crate::config::StoreConfig;
use crate::extent::{CREATED_UNKNOWN, FIRST_POSITION};
use crate::headers::{PlaceBytes, chain_of, is_covered, is_of, latest_lives, macs_among, visit_places};
use crate::layout::{ExtentHeaderError, ExtentId, Place, SlabId, key_in_block, slab_name};
use crate::limits::EXTENT_BYTES_MAX;
use crate::mac::{MacKey, StoreMacs, is_believable};
use crate::map::{ExtentEntry, OrphanEntry, PartitionEntry, PartitionKey, StoreMap};

/// How far after every incarnation seen the next one begins: extents whose headers were not found may hold frames of later incarnations.
const INCARNATION_STEP: u64 = 1 << 32;

/// Frames found where no extent is known: the header before them is damaged.
#[derive(Default, Debug)]
pub(in crate::store) struct Orphans {
    /// Each with whether its space has been taken from the allocator.
    found: Vec<(OrphanEntry, bool)>,
}

impl Orphans {
    /// Takes the space of orphans, so that nothing is written there as long as their partition is unknown.
    pub(super) fn new(found: Vec<OrphanEntry>, alloc: &mut Allocator) -> Self {
        let take = |orphan: OrphanEntry| {
            // It may be part of an extent that is known after all.
            let taken = alloc.take(place_of(&orphan), orphan.log2_bytes).is_ok();
            (orphan, taken)
        };
        Self { found: found.into_iter().map(take).collect() }
    }

    /// Their entries in the map.
    pub(in crate::store) fn entries(&self) -> impl Iterator<Item = OrphanEntry> {
        self.found.iter().map(|(orphan, _)| *orphan)
    }

    /// The first that belongs to this partition and begins at or after an index.
    pub(in crate::store) fn of(&self, tag: u32, from: LogIndex) -> Option<OrphanEntry> {
        self.entries().filter(|orphan| orphan.tag == tag && orphan.index >= from.0).min_by_key(|o| o.index)
    }

    /// Whether an orphan belongs to this partition and begins between two indexes.
    pub(super) fn explains(&self, tag: u32, from: LogIndex, to: LogIndex) -> bool {
        self.of(tag, from).is_some_and(|orphan| orphan.index < to.0)
    }

    /// Forgets those of a partition that was deleted. Returns the space that was taken for them.
    pub(in crate::store) fn forget(&mut self, tag: u32) -> Vec<(Place, u8)> {
        let forgotten = self.found.extract_if(.., |(orphan, _)| orphan.tag == tag);
        forgotten.filter(|(_, taken)| *taken).map(|(o, _)| (place_of(&o), o.log2_bytes)).collect()
    }
}

fn place_of(orphan: &OrphanEntry) -> Place {
    Place { slab: SlabId(orphan.slab), at: orphan.at }
}

/// Rebuilds the map from every block that can be a header.
pub(super) fn rebuild(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    report: &mut RecoveryReport,
) -> Result<StoreMap, OpenError> {
    let step = config.limits.extent_bytes_min;
    if let Some((slab, file)) = slabs.iter().find(|(_, s)| !s.bytes.is_power_of_two() || s.bytes < step) {
        // Extents beyond its end would be taken for extents that never existed.
        return Err(OpenError::Lost {
            path: config.dir.join(slab_name(*slab)),
            what: format!(
                "the map of the store is lost, and {} bytes is no size that a slab is made with; what was in it cannot be told",
                file.bytes
            ),
        });
    }
    let Blocks { mut headers, mut suspects, strangers } = read_headers(config, disk, slabs, report);
    let macs = macs_among(&headers);
    headers.retain(|id| is_of(id, macs));
    for stranger in strangers {
        if !is_posing(&stranger, macs, &headers) {
            return Err(stranger.refusal(config));
        }
        suspects.extend(stranger.frame);
    }
    let last = headers.iter().map(|id| id.incarnation.0).max().unwrap_or(0);
    let kept = latest_lives(headers);
    let orphans = orphans(&kept, suspects, macs, slabs, config, report);
    let mut map = StoreMap {
        next_incarnation: last + INCARNATION_STEP,
        clean: false,
        orphans,
        macs,
        ..StoreMap::default()
    };
    let mut by_partition: BTreeMap<PartitionKey, Vec<ExtentId>> = BTreeMap::new();
    for id in kept.into_values() {
        by_partition.entry(PartitionKey::from(id.tp)).or_default().push(id);
    }
    for (key, extents) in by_partition {
        let chain = chain_of(extents);
        if chain.iter().any(|id| id.configured) {
            map.configured.insert(key);
        }
        let extents: Vec<_> = chain.iter().map(|id| ExtentEntry::of_header(id, CREATED_UNKNOWN)).collect();
        let log_start = extents.first().map_or(0, |extent| extent.base_offset);
        map.partitions.insert(key, PartitionEntry { log_start, extents, ..PartitionEntry::new(key) });
    }
    map.forget_append_times(u64::MAX);
    Ok(map)
}

/// The result of reading every block that can be a header.
#[derive(Default)]
struct Blocks {
    headers: Vec<ExtentId>,
    /// Places whose header is damaged, missing or another extent's, and where a frame follows.
    suspects: Vec<(Place, FrameHeader)>,
    /// Blocks that this version of this store did not write.
    strangers: Vec<Stranger>,
}

/// A header of another store or of a newer version, or a record that looks like one.
struct Stranger {
    place: Place,
    kind: StrangerKind,
    key: MacKey,
    /// The first frame after it.
    frame: Option<(Place, FrameHeader)>,
}

enum StrangerKind {
    Foreign(ClusterId, StoreId),
    Newer(u16),
}

impl Stranger {
    /// Returns why the store cannot be opened.
    fn refusal(&self, config: &StoreConfig) -> OpenError {
        let Place { slab, at } = self.place;
        let path = config.dir.join(slab_name(slab));
        match self.kind {
            StrangerKind::Newer(version) => {
                OpenError::Newer { path, what: format!("the extent at {at} has version {version}") }
            }
            StrangerKind::Foreign(cluster, store) => {
                let what = format!(
                    "the extent at {at} belongs to store {store} of cluster {cluster}, this is store {} of cluster {}; put the file back where it came from",
                    config.store, config.cluster
                );
                OpenError::Foreign { path, what }
            }
        }
    }
}

/// Returns whether a header is a record that only looks like one. No record can be at the start of a slab, and none has the store's key.
fn is_posing(stranger: &Stranger, macs: Option<StoreMacs>, headers: &[ExtentId]) -> bool {
    let slab = stranger.place.slab;
    stranger.place.at > 0
        && macs.is_some_and(|macs| macs.key != stranger.key)
        && headers.iter().any(|id| id.place.slab == slab && id.macs == macs)
}

fn read_headers(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    report: &mut RecoveryReport,
) -> Blocks {
    let mut found = Blocks::default();
    for (slab, file) in slabs {
        let path = config.dir.join(slab_name(*slab));
        let mut read = |at: u64, buf: &mut [u8]| disk.read_at(file.file, at, buf);
        let warnings = &mut report.warnings;
        let visit = |at: u64, here: Option<PlaceBytes<'_>>| {
            let place = Place { slab: *slab, at };
            match here {
                Some(here) => found.note(config, &path, place, &here, warnings),
                None => warnings.push(format!("{} cannot be read at {at}", path.display())),
            }
            Ok::<(), Infallible>(())
        };
        let step = config.limits.extent_bytes_min;
        let Ok(bytes) = visit_places(file.bytes, step, &mut read, visit);
        report.bytes_scanned += bytes;
    }
    found
}

impl Blocks {
    /// Notes what is at a place where an extent can begin.
    fn note(
        &mut self,
        config: &StoreConfig,
        path: &Path,
        place: Place,
        here: &PlaceBytes<'_>,
        warnings: &mut Vec<String>,
    ) {
        let at = place.at;
        let frame = first_frame(here.first).map(|frame| (place, frame));
        let stranger = |kind| Stranger { place, kind, key: key_in_block(here.header), frame };
        match ExtentId::from_block(here.header) {
            Ok(id) if id.cluster != config.cluster || id.store != config.store => {
                self.strangers.push(stranger(StrangerKind::Foreign(id.cluster, id.store)));
            }
            Ok(id) if id.place != place => {
                warnings.push(format!(
                    "{} at {at}: the header of another extent, written astray",
                    path.display()
                ));
                self.suspects.extend(frame);
            }
            Ok(id) => self.headers.push(id),
            Err(ExtentHeaderError::Version(version)) => {
                self.strangers.push(stranger(StrangerKind::Newer(version)));
            }
            Err(_) => self.suspects.extend(frame),
        }
    }
}

/// The suspicious places outside all extents whose frames say whose they are.
fn orphans(
    kept: &BTreeMap<Place, ExtentId>,
    suspects: Vec<(Place, FrameHeader)>,
    macs: Option<StoreMacs>,
    slabs: &Slabs,
    config: &StoreConfig,
    report: &mut RecoveryReport,
) -> Vec<OrphanEntry> {
    // Most of them are inside an extent. Others are left over from one that was freed, and may begin with any frame of it: the first
    // frame of an extent that begins here has the code of that position.
    let is_first = |frame: &FrameHeader| {
        let codes = macs.and_then(|macs| macs.of(Incarnation(frame.incarnation.get())));
        is_believable(codes.as_ref(), frame, FIRST_POSITION)
    };
    let suspects: BTreeMap<Place, FrameHeader> =
        suspects.into_iter().filter(|(place, frame)| !is_covered(kept, *place) && is_first(frame)).collect();
    let mut orphans = Vec::new();
    for (place, frame) in &suspects {
        // A later incarnation of the same space would have written over it.
        let incarnation = Incarnation(frame.incarnation.get());
        let Place { slab: SlabId(slab), at } = *place;
        report.warnings.push(format!(
            "slab {slab} at {at}: frames of extent {incarnation} without its header; left alone"
        ));
        // Its size is not known: as large as an extent that begins here can be without reaching into another.
        let next = kept.range(place..).next().map(|(next, _)| *next);
        let other = suspects.range(place..).find(|(_, other)| other.incarnation != frame.incarnation);
        let end = Place { at: slabs.get(&place.slab).map_or(at, |slab| slab.bytes), ..*place };
        let next = [next, other.map(|(other, _)| *other)].into_iter().flatten().fold(end, Place::min);
        let room = next.at - at;
        let min = config.limits.extent_bytes_min;
        let mut bytes = EXTENT_BYTES_MAX;
        while bytes > min && (bytes > room || !at.is_multiple_of(bytes)) {
            bytes /= 2;
        }
        orphans.push(OrphanEntry {
            slab,
            at,
            log2_bytes: bytes.ilog2() as u8,
            tag: frame.partition_tag.get(),
            index: frame.index.get(),
        });
    }
    orphans
}

/// The header of the frame at the start of these bytes.
fn first_frame(bytes: &[u8]) -> Option<FrameHeader> {
    let (header, kind) = FrameHeader::parse(bytes).ok()?;
    (kind != FrameKind::Padding).then_some(*header)
}
