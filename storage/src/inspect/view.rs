//! One store, as its map and its extents show it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use highwater_protocol::ids::{
    ClusterId, ExtentSequence, Incarnation, LogIndex, Offset, StoreId, TopicPartition,
};
use highwater_runtime::fs::{FileId, RESERVE_NAME};

use super::files::Files;
use super::headers::map_from_headers;
use super::journal::{self, JournalView};
use super::state::{self, StateLogListing};
use super::{
    ExtentHolds, ExtentListing, ExtentState, InspectError, MapSource, PartitionListing, SlabListing,
    StoreListing,
};
use crate::journal::JOURNAL_NAME;
use crate::layout::{EXTENT_HEADER_BYTES, Place, STATE_STEM, SlabId, parse_slab_name};
use crate::limits::SEARCH_BYTES_MAX;
use crate::map::{ExtentEntry, PartitionEntry, StoreMap};
use crate::position::Mark;
use crate::recovery::{Expectation, Scanned, scan};

/// A store that is looked at.
pub(super) struct StoreView {
    pub(super) store: StoreId,
    pub(super) dir: PathBuf,
    pub(super) cluster: Option<ClusterId>,
    pub(super) map: StoreMap,
    pub(super) source: MapSource,
    pub(super) state: StateLogListing,
    /// File and size.
    pub(super) slabs: BTreeMap<SlabId, (FileId, u64)>,
    /// What the journal has lost, if anything.
    pub(super) journal_lost: Option<String>,
    pub(super) strangers: Vec<PathBuf>,
}

impl StoreView {
    pub(super) fn open(files: &mut Files<'_>, store: StoreId, dir: PathBuf) -> Result<Self, InspectError> {
        let mut slabs = BTreeMap::new();
        let mut strangers = Vec::new();
        for entry in files.list(&dir)? {
            let path = dir.join(&entry.name);
            if let Some(slab) = parse_slab_name(&entry.name) {
                let file = files.open(&path).map_err(|source| InspectError::Io { path, source })?;
                slabs.insert(slab, (file, entry.bytes));
            } else if path.with_extension("") != dir.join(STATE_STEM)
                && ![RESERVE_NAME, JOURNAL_NAME].contains(&&*entry.name)
            {
                strangers.push(path);
            }
        }
        let (state, content) = state::read(files, &dir.join(STATE_STEM));
        let map = match &content {
            None => Err(state.lost.clone().unwrap_or_default()),
            Some(content) => {
                let records = content.records.iter().map(|record| &record[..]);
                StoreMap::from_recovered(content.snapshot.iter().map(|piece| &piece[..]), records)
                    .map_err(|e| e.to_string())
            }
        };
        let (map, source, cluster) = match map {
            Ok(map) => (map, MapSource::StateLog, state.cluster),
            Err(why) => {
                let (map, cluster) = map_from_headers(files, store, &slabs);
                (map, MapSource::Headers(why), state.cluster.or(cluster))
            }
        };
        let owner = cluster.map(|cluster| (cluster, store));
        let journal = owner.and_then(|owner| journal::read(files, &dir, owner, &map, &slabs));
        let mut journal_lost = None;
        if let Some(JournalView { pages, lost }) = journal {
            files.overlay(&slabs, pages);
            journal_lost = lost;
        }
        Ok(Self { store, dir, cluster, map, source, state, slabs, journal_lost, strangers })
    }

    /// The file of an extent's slab, if the extent lies within it.
    pub(super) fn file_of(&self, extent: &ExtentEntry) -> Option<FileId> {
        let (file, bytes) = self.slabs.get(&SlabId(extent.slab))?;
        (extent.at + (1 << extent.log2_bytes) <= *bytes).then_some(*file)
    }

    pub(super) fn slab_path(&self, slab: u32) -> PathBuf {
        self.dir.join(crate::layout::slab_name(SlabId(slab)))
    }

    pub(super) fn listing(self, files: &mut Files<'_>) -> StoreListing {
        let mut partitions = Vec::new();
        let mut in_use: BTreeMap<Place, ExtentListing> = BTreeMap::new();
        for partition in self.map.partitions.values() {
            partitions.push(self.partition(files, partition, &mut in_use));
        }
        let slabs = self.slabs.iter().map(|(slab, (file, bytes))| {
            let allocated_bytes = files.allocated_bytes(*file).unwrap_or(*bytes).min(*bytes);
            SlabListing { allocated_bytes, ..self.slab(*slab, *bytes, &in_use) }
        });
        let slabs = slabs.collect();
        StoreListing {
            store: self.store,
            cluster: self.cluster,
            clean: self.map.clean,
            slabs,
            partitions,
            dir: self.dir,
            map: self.source,
            state: self.state,
            strangers: self.strangers,
        }
    }

    fn partition(
        &self,
        files: &mut Files<'_>,
        partition: &PartitionEntry,
        in_use: &mut BTreeMap<Place, ExtentListing>,
    ) -> PartitionListing {
        let tp = TopicPartition::from(partition.key);
        let mut listing = PartitionListing {
            tp,
            log_start: Offset(partition.log_start),
            end: Offset(partition.log_start),
            bytes: 0,
            extents: Vec::new(),
        };
        for (n, extent) in partition.extents.iter().enumerate() {
            let place = Place { slab: SlabId(extent.slab), at: extent.at };
            let end = self.end_of(files, partition, n);
            let holds = ExtentHolds {
                tp,
                incarnation: Incarnation(extent.incarnation),
                base_index: LogIndex(extent.base_index),
                base_offset: Offset(extent.base_offset),
                end_index: end.index,
                end_offset: end.offset,
                used_bytes: u64::from(end.position),
            };
            listing.extents.push(place);
            listing.bytes += holds.used_bytes;
            listing.end = listing.end.max(end.offset);
            let last = n + 1 == partition.extents.len();
            let state = match self.file_of(extent) {
                None => ExtentState::Unknown,
                Some(_) if last && extent.sealed.is_none() => ExtentState::Active,
                Some(_) => ExtentState::Sealed,
            };
            in_use.insert(
                place,
                ExtentListing { place, bytes: 1 << extent.log2_bytes, state, holds: Some(holds) },
            );
        }
        listing
    }

    /// Where an extent ends: as the map says, or by reading on from the last checkpoint.
    fn end_of(&self, files: &mut Files<'_>, partition: &PartitionEntry, n: usize) -> Mark {
        let extent = &partition.extents[n];
        let known = known_end(partition, n);
        if let (Some(end), true) = (known, extent.sealed.is_some()) {
            return end;
        }
        let mut expect = expectation(&self.map, partition, n);
        expect.start = known.unwrap_or(expect.start);
        match self.file_of(extent) {
            Some(file) => scan(&expect, &mut files.extent(file, extent.at), &mut |_, _| {}).end,
            None => expect.start,
        }
    }

    /// Walks the frames of an extent from its first one.
    pub(super) fn scan(
        &self,
        files: &mut Files<'_>,
        partition: &PartitionEntry,
        n: usize,
        visit: &mut dyn FnMut(u32, &highwater_protocol::frame::Frame<'_>),
    ) -> Option<Scanned> {
        let extent = &partition.extents[n];
        let file = self.file_of(extent)?;
        // Everything is looked at, whatever the map says.
        let expect = Expectation { write_bound: u32::MAX, ..expectation(&self.map, partition, n) };
        Some(scan(&expect, &mut files.extent(file, extent.at), visit))
    }

    /// A slab's space in order, free space included.
    fn slab(&self, slab: SlabId, bytes: u64, in_use: &BTreeMap<Place, ExtentListing>) -> SlabListing {
        let mut extents = Vec::new();
        let mut at = 0;
        let free = |from: u64, to: u64| ExtentListing {
            place: Place { slab, at: from },
            bytes: to - from,
            state: ExtentState::Free,
            holds: None,
        };
        for (place, extent) in in_use.range(Place { slab, at: 0 }..=Place { slab, at: u64::MAX }) {
            if place.at > at {
                extents.push(free(at, place.at));
            }
            let overlaps = place.at < at;
            at = at.max(place.at + extent.bytes);
            let state = if overlaps { ExtentState::Unknown } else { extent.state };
            extents.push(ExtentListing { state, ..extent.clone() });
        }
        if at < bytes {
            extents.push(free(at, bytes));
        }
        let path = self.dir.join(crate::layout::slab_name(slab));
        SlabListing { slab, path, bytes, allocated_bytes: bytes, extents }
    }
}

/// A place in an extent before which every frame had been durable, if the map knows one: where it was sealed, or the checkpoint.
pub(super) fn known_end(partition: &PartitionEntry, n: usize) -> Option<Mark> {
    let extent = &partition.extents[n];
    let (sequence, incarnation) = (ExtentSequence(extent.sequence), Incarnation(extent.incarnation));
    let sealed = extent.sealed.as_ref().map(|seal| Mark {
        sequence,
        incarnation,
        position: seal.position,
        index: LogIndex(seal.index),
        offset: Offset(seal.offset),
    });
    let checkpoint = partition.checkpoint.as_ref().filter(|c| c.incarnation == extent.incarnation);
    sealed.or(checkpoint.map(|checkpoint| Mark {
        sequence,
        incarnation,
        position: checkpoint.position,
        index: LogIndex(checkpoint.index),
        offset: Offset(checkpoint.offset),
    }))
}

/// The facts that must hold for the frames of an extent, from the first one on.
pub(super) fn expectation(map: &StoreMap, partition: &PartitionEntry, n: usize) -> Expectation {
    let extent = &partition.extents[n];
    let checkpoint = partition.checkpoint.as_ref();
    Expectation {
        start: Mark {
            sequence: ExtentSequence(extent.sequence),
            incarnation: Incarnation(extent.incarnation),
            position: EXTENT_HEADER_BYTES as u32,
            index: LogIndex(extent.base_index),
            offset: Offset(extent.base_offset),
        },
        epoch: None,
        has_gaps: extent.has_gaps,
        tag: TopicPartition::from(partition.key).tag(),
        macs: map.macs.and_then(|macs| macs.of(Incarnation(extent.incarnation))),
        extent_bytes: 1 << extent.log2_bytes,
        sealed_at: extent.sealed.as_ref().map(|seal| seal.position),
        durable_hint: LogIndex(checkpoint.map_or(0, |checkpoint| checkpoint.index)),
        unacked_bytes_max: SEARCH_BYTES_MAX,
        write_bound: map.write_bounds.of(extent),
    }
}
