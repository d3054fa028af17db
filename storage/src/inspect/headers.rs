//! The map of a store from the headers of its extents, for when the state log is lost.

use std::collections::BTreeMap;
use std::convert::Infallible;

use highwater_protocol::ids::{ClusterId, StoreId};
use highwater_runtime::fs::FileId;

use super::files::Files;
use crate::headers::{PlaceBytes, chain_of, is_of, latest_lives, macs_among, visit_places};
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, PAGE_BYTES, Place, SlabId};
use crate::limits::StoreLimits;
use crate::map::{ExtentEntry, PartitionEntry, PartitionKey, StoreMap};

/// The smallest extent in a slab of this size: headers are looked for at its multiples. Slabs smaller than the first one of production
/// come from tests and simulations, with extents to match.
fn extent_bytes_min(slab_bytes: u64) -> u64 {
    let production = StoreLimits::default();
    if slab_bytes >= production.slab_bytes_first {
        production.extent_bytes_min
    } else {
        2 * PAGE_BYTES as u64
    }
}

/// The header at this place, if it is one of this store and says that it belongs there.
pub(super) fn header_at(
    files: &mut Files<'_>,
    file: FileId,
    store: StoreId,
    place: Place,
) -> Option<ExtentId> {
    let mut block = [0; EXTENT_HEADER_BYTES];
    files.read_at(file, place.at, &mut block).ok().filter(|n| *n == block.len())?;
    ExtentId::from_block(&block).ok().filter(|id| id.place == place && id.store == store)
}

/// The headers that can be those of extents in a slab.
fn headers_in(
    files: &mut Files<'_>,
    file: FileId,
    store: StoreId,
    slab: SlabId,
    bytes: u64,
) -> Vec<ExtentId> {
    let mut found = Vec::new();
    let mut read = |at: u64, buf: &mut [u8]| files.read_at(file, at, buf);
    let visit = |at: u64, here: Option<PlaceBytes<'_>>| {
        let id = here.and_then(|here| ExtentId::from_block(here.header).ok());
        found.extend(id.filter(|id| id.place == Place { slab, at } && id.store == store));
        Ok::<(), Infallible>(())
    };
    let Ok(_) = visit_places(bytes, extent_bytes_min(bytes), &mut read, visit);
    found
}

/// Reads every header of every slab. An extent that had been freed and not used again looks as if it were in use.
pub(super) fn map_from_headers(
    files: &mut Files<'_>,
    store: StoreId,
    slabs: &BTreeMap<SlabId, (FileId, u64)>,
) -> (StoreMap, Option<ClusterId>) {
    let mut map = StoreMap { next_incarnation: 1, ..StoreMap::default() };
    let mut cluster = None;
    let mut headers = Vec::new();
    for (slab, (file, bytes)) in slabs {
        headers.extend(headers_in(files, *file, store, *slab, *bytes));
    }
    map.macs = macs_among(&headers);
    headers.retain(|id| is_of(id, map.macs));
    let mut by_partition: BTreeMap<PartitionKey, Vec<ExtentId>> = BTreeMap::new();
    for id in latest_lives(headers).into_values() {
        cluster = cluster.or(Some(id.cluster));
        map.next_incarnation = map.next_incarnation.max(id.incarnation.0 + 1);
        by_partition.entry(PartitionKey::from(id.tp)).or_default().push(id);
    }
    for (key, extents) in by_partition {
        let extents: Vec<_> = chain_of(extents).iter().map(|id| ExtentEntry::of_header(id, 0)).collect();
        let log_start = extents.first().map_or(0, |extent| extent.base_offset);
        map.partitions.insert(key, PartitionEntry { log_start, extents, ..PartitionEntry::new(key) });
    }
    (map, cluster)
}
