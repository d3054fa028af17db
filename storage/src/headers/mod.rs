//! Searching slabs for the headers of extents, when the map of a store is lost.
//!
//! A header can be at every multiple of the smallest extent's size, and all of them have to be read: space is used again in parts, so
//! inside a large extent whose header is sound there can be a later one that took its space. Slabs are therefore read from end to end in
//! large pieces, which costs a disk as much as reading the log once, whatever the size of the extents.

mod chain;

use std::collections::BTreeMap;
use std::io;

use highwater_runtime::buf::AlignedBuf;

use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, PAGE_BYTES, Place};
use crate::mac::StoreMacs;

pub(crate) use chain::chain_of;

/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;

/// Bytes that say what is at a place: the header, and the page where its first frame begins.
const PLACE_BYTES: usize = EXTENT_HEADER_BYTES + PAGE_BYTES;

/// The beginning of an extent, if there is one.
pub(crate) struct PlaceBytes<'a> {
    /// The block of the header.
    pub(crate) header: &'a [u8; EXTENT_HEADER_BYTES],
    /// The page that follows.
    pub(crate) first: &'a [u8],
}

/// Visits every place of a slab at which an extent can begin, in order. `None`: it cannot be read. Where a whole piece cannot be read, its
/// places are read one by one. Returns the bytes read.
pub(crate) fn visit_places<E>(
    slab_bytes: u64,
    extent_bytes_min: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<usize>,
    mut visit: impl FnMut(u64, Option<PlaceBytes<'_>>) -> Result<(), E>,
) -> Result<u64, E> {
    assert!(extent_bytes_min.is_power_of_two() && extent_bytes_min >= PLACE_BYTES as u64);
    let piece_bytes = READ_BYTES.max(extent_bytes_min);
    let mut buf = AlignedBuf::new(piece_bytes as usize);
    let mut bytes_read = 0;
    for piece in (0..slab_bytes).step_by(piece_bytes as usize) {
        let piece_end = (piece + piece_bytes).min(slab_bytes);
        let len = (piece_end - piece).next_multiple_of(PAGE_BYTES as u64) as usize;
        let whole = read(piece, &mut buf[..len]).ok();
        bytes_read += whole.unwrap_or(0) as u64;
        buf[whole.unwrap_or(0)..].fill(0);
        for at in (piece..piece_end).step_by(extent_bytes_min as usize) {
            let within = (at - piece) as usize;
            let place = &mut buf[within..within + PLACE_BYTES];
            if whole.is_none() {
                let Ok(alone) = read(at, place) else {
                    visit(at, None)?;
                    continue;
                };
                bytes_read += alone as u64;
                place[alone..].fill(0);
            }
            let (header, first) = place.split_first_chunk().expect("a place is longer than a header");
            visit(at, Some(PlaceBytes { header, first }))?;
        }
    }
    Ok(bytes_read)
}

/// Of extents that overlap, the one with the latest incarnation. By place.
pub(crate) fn latest_lives(mut headers: Vec<ExtentId>) -> BTreeMap<Place, ExtentId> {
    headers.sort_by_key(|id| std::cmp::Reverse(id.incarnation));
    let mut kept: BTreeMap<Place, ExtentId> = BTreeMap::new();
    for id in headers {
        let end = Place { at: id.place.at + (1 << id.log2_bytes), ..id.place };
        let overlaps_next = kept.range(id.place..end).next().is_some();
        if !overlaps_next && !is_covered(&kept, id.place) {
            kept.insert(id.place, id);
        }
    }
    kept
}

/// Whether a place is inside one of these extents.
pub(crate) fn is_covered(kept: &BTreeMap<Place, ExtentId>, place: Place) -> bool {
    let before = kept.range(..=place).next_back();
    before.is_some_and(|(start, id)| start.slab == place.slab && start.at + (1 << id.log2_bytes) > place.at)
}

/// The codes of a store, from the headers of extents that were found in its slabs. The header at the start of a slab is preferred: no record
/// can be there.
pub(crate) fn macs_among(headers: &[ExtentId]) -> Option<StoreMacs> {
    let first = headers.iter().filter(|id| id.place.at == 0);
    first.chain(headers).find_map(|id| id.macs)
}

/// Whether the header of an extent belongs to the store with these codes. A header inside a record does not have the key.
pub(crate) fn is_of(id: &ExtentId, macs: Option<StoreMacs>) -> bool {
    match (id.macs, macs) {
        (None, Some(macs)) => id.incarnation < macs.since,
        (of, macs) => of == macs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places visited in a slab of this size, which is filled with the number of its page, and whether each could be read.
    fn places(slab_bytes: u64, step: u64, is_bad: impl Fn(u64) -> bool) -> (Vec<(u64, bool)>, u64) {
        let mut seen = Vec::new();
        let mut read = |at: u64, buf: &mut [u8]| {
            let end = slab_bytes.min(at + buf.len() as u64);
            if (at..end).step_by(PAGE_BYTES).any(&is_bad) {
                return Err(io::ErrorKind::Other.into());
            }
            let pages = buf[..(end - at) as usize].chunks_mut(PAGE_BYTES);
            pages.enumerate().for_each(|(n, page)| page.fill((at / PAGE_BYTES as u64) as u8 + n as u8));
            Ok((end - at) as usize)
        };
        let visit = |at: u64, found: Option<PlaceBytes<'_>>| {
            if let Some(found) = &found {
                let page = (at / PAGE_BYTES as u64) as u8;
                assert!(found.header.iter().all(|b| *b == page), "at {at}");
                let next = if at + PAGE_BYTES as u64 >= slab_bytes { 0 } else { page + 1 };
                assert!(found.first.iter().all(|b| *b == next), "after {at}");
            }
            seen.push((at, found.is_some()));
            Ok::<(), ()>(())
        };
        let read = visit_places(slab_bytes, step, &mut read, visit).expect("no visit fails");
        (seen, read)
    }

    #[test]
    fn every_place_is_visited_once_and_a_slab_is_read_once() {
        for (slab, step) in [(64 << 10, 16 << 10), (256 << 10, 8 << 10), (4 << 10, 8 << 10)] {
            let (seen, read) = places(slab, step, |_| false);
            assert!(seen.iter().map(|(at, _)| *at).eq((0..slab).step_by(step as usize)));
            assert!(seen.iter().all(|(_, is_read)| *is_read));
            assert_eq!(read, slab);
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_hides_only_the_place_that_it_is_part_of() {
        let (seen, _) = places(256 << 10, 16 << 10, |page| page == (32 << 10) + PAGE_BYTES as u64);
        let hidden: Vec<u64> = seen.iter().filter(|(_, is_read)| !is_read).map(|(at, _)| *at).collect();
        assert_eq!((seen.len(), hidden), (16, vec![32 << 10]));
        let (seen, _) = places(256 << 10, 16 << 10, |page| page == (32 << 10) + 3 * PAGE_BYTES as u64);
        assert!(seen.iter().all(|(_, is_read)| *is_read), "no header needs that page");
    }
}
