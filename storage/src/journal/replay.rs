//! Reading a journal after a crash, and applying its pieces to the extents. See the table in [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader};
use highwater_protocol::ids::Incarnation;
use highwater_runtime::plane::WRITE_BYTES_MAX;

use super::entry::{Entry, EntryFault, EntryOwner, PieceTarget};
use crate::layout::{EXTENT_HEADER_BYTES, EXTENT_HEADER_FIELD_BYTES, ExtentId, PAGE_BYTES, Place, SlabId};
use crate::limits::JOURNAL_BYTES_MAX;
use crate::map::{ExtentEntry, StoreMap};
use crate::mutants::{Mutant, is_planted};

/// The entries of a journal that have to be applied.
#[derive(Debug, Default)]
pub(crate) struct Scanned<'a> {
    /// The latest era of which there is an entry.
    pub(crate) era: Option<Incarnation>,
    /// The needed entries of that era, in order.
    pub(crate) entries: Vec<Entry<'a>>,
    /// Numbers of entries that had been durable and are not there.
    pub(crate) lost: Vec<Range<u64>>,
}

impl Scanned<'_> {
    /// What acknowledged entries the journal does not have, if the map names this era.
    pub(crate) fn loss(&self, expected: Option<Incarnation>) -> Option<String> {
        if expected > self.era {
            return Some("the journal does not have the entries that were written last".to_owned());
        }
        let (first, last) = (self.lost.first()?, self.lost.last()?);
        let (first, last) = (first.start, last.end - 1);
        Some(if first == last {
            format!("entry {first} of the journal is damaged or missing")
        } else {
            format!("entries {first} to {last} of the journal are damaged or missing")
        })
    }
}

/// Memory for the bytes of a journal, at a page boundary: the disk reads into it without a copy.
pub(crate) struct RingBytes {
    memory: Vec<u8>,
    pages: Range<usize>,
}

impl RingBytes {
    /// Allocates this many zero bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + PAGE_BYTES];
        let first = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Self { memory, pages: first..first + bytes }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.pages.clone()]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.pages.clone()]
    }
}

/// Fills `ring` with as much of the journal as can be read. What cannot be is zero; the error is the first one.
pub(crate) fn read_ring(
    ring: &mut [u8],
    read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    if ring.is_empty() {
        return Ok(());
    }
    let whole = read_at(0, ring);
    if whole.is_err() {
        for (n, page) in ring.chunks_mut(PAGE_BYTES).enumerate() {
            if read_at((n * PAGE_BYTES) as u64, page).is_err() {
                page.fill(0);
            }
        }
    }
    whole.map(|_| ())
}

/// Bytes of a journal's file in which entries can be.
pub(crate) fn ring_bytes(file_bytes: u64) -> u64 {
    let bytes = file_bytes.min(JOURNAL_BYTES_MAX);
    bytes - bytes % PAGE_BYTES as u64
}

/// Finds the entries in the bytes of a journal.
pub(crate) fn scan<'a>(ring: &'a [u8], owner: &EntryOwner) -> Result<Scanned<'a>, EntryFault> {
    let mut era = None;
    let mut foreign = None;
    let mut found: BTreeMap<u64, Entry<'a>> = BTreeMap::new();
    for at in (0..ring.len()).step_by(PAGE_BYTES) {
        let entry = match Entry::parse(&ring[at..], at as u64, owner) {
            Ok(entry) => entry,
            Err(EntryFault::None) => continue,
            Err(fault @ EntryFault::Foreign(..)) => {
                foreign = Some(fault);
                continue;
            }
            Err(fault @ EntryFault::Newer(_)) => return Err(fault),
        };
        if era < Some(entry.numbers.era) {
            era = Some(entry.numbers.era);
            if !is_planted(Mutant::ReplayEarlierEras) {
                found.clear();
            }
        }
        if era == Some(entry.numbers.era) || is_planted(Mutant::ReplayEarlierEras) {
            found.insert(entry.numbers.sequence, entry);
        }
    }
    let first = found.values().map(|entry| entry.numbers.first_needed).max();
    let durable = found.values().map(|entry| entry.numbers.durable).max();
    let (Some(first), Some(durable)) = (first, durable) else {
        // This store may have used a file that it was given with another's entries.
        return foreign.map_or(Ok(Scanned::default()), Err);
    };
    let mut scanned = Scanned { era, ..Scanned::default() };
    let mut next = first;
    for (sequence, entry) in found.range(first..) {
        if *sequence > next {
            if next >= durable {
                // Written out of order, and never acknowledged.
                break;
            }
            scanned.lost.push(next..*sequence.min(&durable));
            if *sequence >= durable {
                break;
            }
        }
        if *sequence >= durable && !entry.is_whole() {
            // Torn.
            break;
        }
        scanned.entries.push(*entry);
        next = sequence + 1;
    }
    if next < durable && scanned.lost.last().is_none_or(|lost| lost.end < durable) {
        scanned.lost.push(next..durable);
    }
    Ok(scanned)
}

/// A page of a slab, and where in the slab it is.
pub(crate) type PageAt = (SlabId, u64);

/// The content of a page.
pub(crate) type PageBytes = Box<[u8; PAGE_BYTES]>;

/// Reads and writes pages of slabs.
pub(crate) trait SlabPages {
    /// Fills `page` from this place of a slab. Bytes after the end of the file are zero.
    fn read(&mut self, slab: SlabId, at: u64, page: &mut [u8; PAGE_BYTES]) -> io::Result<()>;
    /// Reads several pages, as far as they can be read.
    fn read_many(&mut self, pages: &BTreeSet<PageAt>) -> Vec<(PageAt, PageBytes)> {
        let mut read = Vec::new();
        for (slab, at) in pages {
            let mut page = Box::new([0; PAGE_BYTES]);
            if self.read(*slab, *at, &mut page).is_ok() {
                read.push(((*slab, *at), page));
            }
        }
        read
    }
    /// The size of a slab; 0 if it is not there.
    fn bytes(&self, slab: SlabId) -> u64;
}

/// The extents to which pieces may be applied.
#[derive(Debug)]
pub(crate) enum Lives {
    /// Those of the map, by incarnation: where they lie, and their sizes.
    Map(BTreeMap<u64, (Place, u64)>),
    /// The map is lost: those whose headers are in the slabs or in the journal, by place.
    Headers(BTreeMap<Place, Option<Incarnation>>),
}

/// The extents of a map.
pub(crate) fn lives_of(map: &StoreMap) -> Lives {
    let extents = map.partitions.values().flat_map(|partition| &partition.extents);
    let of = |extent: &ExtentEntry| {
        let place = Place { slab: SlabId(extent.slab), at: extent.at };
        (extent.incarnation, (place, 1 << extent.log2_bytes))
    };
    Lives::Map(extents.map(of).collect())
}

/// Writes bytes to a place of a slab.
pub(crate) type WriteRun<'a> = dyn FnMut(SlabId, u64, &[u8]) + 'a;

/// The pages of slabs with the pieces of a journal applied.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    by_place: BTreeMap<PageAt, Page>,
    /// Pieces that were applied.
    pub(crate) pieces: u64,
    /// Some pieces belong to extents of the map that lie outside of the slabs' files.
    pub(crate) has_homeless: bool,
    /// Extents that lack a piece that the journal had for them, with the largest end of such a piece.
    pub(crate) missing: BTreeMap<Incarnation, u32>,
}

struct Page {
    bytes: PageBytes,
    /// A piece of the journal has bytes in it.
    changed: bool,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl Pages {
    /// Reads the pages that the pieces of these entries go to, together: one after another would take most of a start.
    pub(crate) fn prefetch(&mut self, entries: &[Entry<'_>], slabs: &mut dyn SlabPages) {
        let mut wanted = BTreeSet::new();
        for (target, payload) in entries.iter().flat_map(Entry::pieces) {
            let Some(payload) = payload else { continue };
            let start = target.place.at.saturating_add(u64::from(target.position));
            let end = start.saturating_add(payload.len() as u64);
            let slab_bytes = slabs.bytes(target.place.slab);
            if end <= slab_bytes {
                let first = start - start % PAGE_BYTES as u64;
                // What follows is looked at too.
                let end = end.saturating_add(FRAME_HEADER_BYTES as u64).min(slab_bytes);
                let pages = (first..end).step_by(PAGE_BYTES).map(|at| (target.place.slab, at));
                wanted.extend(pages.filter(|page| !self.by_place.contains_key(page)));
            }
        }
        for (page, bytes) in slabs.read_many(&wanted) {
            self.by_place.insert(page, Page { bytes, changed: false });
        }
    }

    /// Applies the pieces of an entry that belong to extents in use.
    pub(crate) fn apply(&mut self, entry: &Entry<'_>, lives: &mut Lives, slabs: &mut dyn SlabPages) {
        for ((target, payload), (incarnation, end)) in entry.pieces().zip(entry.ends()) {
            let Some(payload) = payload else {
                self.note_missing(incarnation, end);
                continue;
            };
            if self.is_current(&target, payload, lives, slabs) {
                // A page that cannot be read keeps the piece out. Recovery reads it again, and reports that.
                if self.apply_piece(&target, payload, slabs).is_ok() {
                    self.pieces += 1;
                }
            }
        }
    }

    /// Notes that an extent lacks a piece that ends here.
    pub(crate) fn note_missing(&mut self, extent: Incarnation, end: u32) {
        let largest = self.missing.entry(extent).or_default();
        *largest = end.max(*largest);
    }

    /// Whether the extent of a piece is in use by the incarnation that the piece is of.
    fn is_current(
        &mut self,
        target: &PieceTarget,
        payload: &[u8],
        lives: &mut Lives,
        slabs: &mut dyn SlabPages,
    ) -> bool {
        let end = u64::from(target.position) + payload.len() as u64;
        if target.place.at.saturating_add(end) > slabs.bytes(target.place.slab) {
            self.has_homeless |=
                matches!(lives, Lives::Map(extents) if extents.contains_key(&target.incarnation.0));
            return false;
        }
        match lives {
            Lives::Map(_) if is_planted(Mutant::ReplayIntoAnyLife) => true,
            Lives::Map(extents) => extents
                .get(&target.incarnation.0)
                .is_some_and(|(place, bytes)| *place == target.place && end <= *bytes),
            Lives::Headers(known) => {
                let in_slab = *known
                    .entry(target.place)
                    .or_insert_with(|| self.header_in_slab(target.place, slabs).map(|id| id.incarnation));
                if target.position == 0 && in_slab < Some(target.incarnation) {
                    known.insert(target.place, Some(target.incarnation));
                    return true;
                }
                in_slab == Some(target.incarnation)
            }
        }
    }

    fn header_in_slab(&mut self, place: Place, slabs: &mut dyn SlabPages) -> Option<ExtentId> {
        let page = self.page(place.slab, place.at, slabs).ok()?;
        ExtentId::from_block(&page.bytes).ok().filter(|id| id.place == place)
    }

    fn apply_piece(
        &mut self,
        target: &PieceTarget,
        payload: &[u8],
        slabs: &mut dyn SlabPages,
    ) -> io::Result<()> {
        if target.position == 0 {
            return self.apply_header(target, payload, slabs);
        }
        let start = target.place.at + u64::from(target.position);
        let mut rest = payload;
        let mut last_changed = false;
        while !rest.is_empty() {
            let at = start + (payload.len() - rest.len()) as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            let page = self.page(target.place.slab, at - within as u64, slabs)?;
            let here = &mut page.bytes[within..within + now.len()];
            last_changed = here != now;
            here.copy_from_slice(now);
            // What can be read need not be durable: a write-back without space may have left it.
            page.changed = true;
            rest = later;
        }
        let end = start + payload.len() as u64;
        let within = (end % PAGE_BYTES as u64) as usize;
        if last_changed && within > 0 && !self.goes_on(target, end, slabs) {
            // What follows is of an earlier use of the space.
            self.page(target.place.slab, end - within as u64, slabs)?.bytes[within..].fill(0);
        }
        Ok(())
    }

    /// Whether a frame of the same incarnation begins here: it has reached the extent in another way.
    fn goes_on(&mut self, target: &PieceTarget, at: u64, slabs: &mut dyn SlabPages) -> bool {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let (mut rest, mut at) = (&mut bytes[..], at);
        while !rest.is_empty() {
            let within = (at % PAGE_BYTES as u64) as usize;
            let Ok(page) = self.page(target.place.slab, at - within as u64, slabs) else { return false };
            let (here, later) = rest.split_at_mut(rest.len().min(PAGE_BYTES - within));
            here.copy_from_slice(&page.bytes[within..within + here.len()]);
            at += here.len() as u64;
            rest = later;
        }
        FrameHeader::parse(&bytes).is_ok_and(|(next, _)| next.incarnation.get() == target.incarnation.0)
    }

    /// Applies the header of an extent, unless the extent has one, which is written again. That can be newer: it says if the extent was given up.
    fn apply_header(
        &mut self,
        target: &PieceTarget,
        payload: &[u8],
        slabs: &mut dyn SlabPages,
    ) -> io::Result<()> {
        if payload.len() != EXTENT_HEADER_FIELD_BYTES {
            return Ok(());
        }
        let known = self.header_in_slab(target.place, slabs);
        let page = self.page(target.place.slab, target.place.at, slabs)?;
        if known.is_none_or(|id| id.incarnation != target.incarnation) {
            page.bytes[..payload.len()].copy_from_slice(payload);
            page.bytes[payload.len()..EXTENT_HEADER_BYTES].fill(0);
        }
        page.changed = true;
        Ok(())
    }

    fn page(&mut self, slab: SlabId, at: u64, slabs: &mut dyn SlabPages) -> io::Result<&mut Page> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.by_place.entry((slab, at)) {
            let mut bytes = Box::new([0; PAGE_BYTES]);
            slabs.read(slab, at, &mut bytes)?;
            vacant.insert(Page { bytes, changed: false });
        }
        Ok(self.by_place.get_mut(&(slab, at)).expect("it was just made sure of"))
    }

    /// Memory that the pages take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.by_place.len() * PAGE_BYTES
    }

    /// A page that was changed.
    pub(crate) fn changed(&self, slab: SlabId, at: u64) -> Option<&[u8; PAGE_BYTES]> {
        self.by_place.get(&(slab, at)).filter(|page| page.changed).map(|page| &*page.bytes)
    }

    /// Gives every run of changed pages to `write`, and forgets all pages.
    pub(crate) fn drain(&mut self, write: &mut WriteRun<'_>) {
        let mut run: Vec<u8> = Vec::new();
        let mut begins = (SlabId(0), 0);
        for ((slab, at), page) in std::mem::take(&mut self.by_place) {
            if !page.changed {
                continue;
            }
            let goes_on = (slab, at) == (begins.0, begins.1 + run.len() as u64);
            if !run.is_empty() && (!goes_on || run.len() >= WRITE_BYTES_MAX) {
                write(begins.0, begins.1, &run);
                run.clear();
            }
            if run.is_empty() {
                begins = (slab, at);
            }
            run.extend_from_slice(&page.bytes[..]);
        }
        if !run.is_empty() {
            write(begins.0, begins.1, &run);
        }
    }
}
