//! Applies the journal at a start, before anything else reads the extents.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::Incarnation;
use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::fs::{FileId, FileRead, FileWrite, OpenMode, is_out_of_space};
use highwater_runtime::plane::Disk;

use super::super::journal::journal_bytes;
use super::{Slabs, io_error};
use crate::api::{OpenError, RecoveryReport};
use crate::config::StoreConfig;
use crate::journal::JOURNAL_NAME;
use crate::journal::entry::{Entry, EntryFault, EntryOwner};
use crate::journal::replay::{
    Lives, PageAt, PageBytes, Pages, RingBytes, Scanned, SlabPages, lives_of, read_ring, ring_bytes, scan,
};
use crate::layout::{EXTENT_HEADER_BYTES, ExtentId, PAGE_BYTES, SlabId, slab_name};
use crate::limits::JOURNAL_BYTES_MIN;
use crate::mac::MacKey;
use crate::map::StoreMap;

/// Pieces whose pages are read together.
const PIECES_READ_TOGETHER: usize = 1024;

/// Bytes of one read of the journal. All of it is read together.
const RING_READ_BYTES: usize = 512 << 10;

/// Bytes of neighbouring pages that are read at once.
const RUN_BYTES_MAX: usize = 64 << 10;

/// Pages kept in memory before they are written. Twice as much while they are.
const PAGES_BYTES_MAX: usize = 32 << 20;

/// What the journal contained.
#[derive(Debug, Default)]
pub(super) struct OpenedJournal {
    /// The file with its size, if it can be reused.
    pub(super) file: Option<(FileId, u64)>,
    /// The latest era found.
    pub(super) era: Option<Incarnation>,
    /// The era that the map names or that was found, if it may have more than could be applied because slabs or a part of the journal are missing. It
    /// is kept unchanged, so that the next start finds the same, or the files after they were put back.
    pub(super) held: Option<Incarnation>,
    pub(super) faults: JournalFaults,
}

/// What the journal contained and has lost.
#[derive(Debug, Default)]
pub(super) struct JournalFaults {
    /// Unknown records are lost: those of any partition with an open end may be missing.
    pub(super) lost: Option<String>,
    /// Extents that may lack a piece that could not be applied, by incarnation, with the largest end of such a piece. A log that ends before it has
    /// lost records.
    pub(super) missing: BTreeMap<u64, u32>,
    /// Whether the disk has no space to apply pieces, because it copies what it writes.
    pub(super) no_space: bool,
    /// Extents with pieces that had no space, by incarnation: how far entries have these that are known to be durable.
    kept: BTreeMap<u64, u32>,
}

impl JournalFaults {
    /// Returns up to where the journal keeps the frames of an extent for the next start, because there was no space to apply them.
    pub(super) fn kept_to(&self, extent: Incarnation) -> u32 {
        self.kept.get(&extent.0).copied().unwrap_or(0)
    }
}

/// The slabs, read by pages.
struct SlabFiles<'a> {
    disk: &'a mut dyn Disk,
    slabs: &'a Slabs,
}

impl SlabPages for SlabFiles<'_> {
    fn read(&mut self, slab: SlabId, at: u64, page: &mut [u8; PAGE_BYTES]) -> io::Result<()> {
        let file = self.slabs.get(&slab).ok_or(io::ErrorKind::NotFound)?.file;
        let read = self.disk.read_at(file, at, page)?;
        page[read..].fill(0);
        Ok(())
    }

    fn read_many(&mut self, pages: &BTreeSet<PageAt>) -> Vec<(PageAt, PageBytes)> {
        let mut runs: Vec<(PageAt, FileRead)> = Vec::new();
        for (slab, at) in pages {
            let Some(file) = self.slabs.get(slab).map(|slab| slab.file) else { continue };
            match runs.last_mut() {
                Some(((of, from), run))
                    if of == slab && *from + run.buf.len() as u64 == *at && run.buf.len() < RUN_BYTES_MAX =>
                {
                    run.buf.grow(run.buf.len() + PAGE_BYTES);
                }
                _ => runs.push(((*slab, *at), FileRead::new(file, *at, PAGE_BYTES))),
            }
        }
        let (places, mut reads): (Vec<PageAt>, Vec<FileRead>) = runs.into_iter().unzip();
        self.disk.read_many(&mut reads);
        let mut read = Vec::new();
        for ((slab, from), run) in places.into_iter().zip(reads) {
            // What cannot be read is read again, page by page.
            let Some(bytes) = run.whole() else { continue };
            let (run, _) = bytes.as_chunks::<PAGE_BYTES>();
            let places = (from..).step_by(PAGE_BYTES).map(|at| (slab, at));
            read.extend(places.zip(run.iter().map(|page| Box::new(*page))));
        }
        read
    }

    fn bytes(&self, slab: SlabId) -> u64 {
        self.slabs.get(&slab).map_or(0, |slab| slab.bytes)
    }
}

/// Opens the journal and writes to the extents what they lack. `map`: `None` if it is lost.
pub(super) fn open(
    config: &StoreConfig,
    disk: &mut dyn Disk,
    slabs: &Slabs,
    map: Option<&StoreMap>,
    report: &mut RecoveryReport,
) -> Result<OpenedJournal, OpenError> {
    tracing::debug!(store = config.store.0, is_there = map.is_some(), "map read");
    let path = config.dir.join(JOURNAL_NAME);
    let mut opened = OpenedJournal::default();
    let expected = map.and_then(|map| map.journal);
    let file = match disk.open(&path, OpenMode::ReadWrite) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            opened.faults.lost = expected.map(|_| lost(&path, "the journal is missing"));
            opened.held = expected;
            report.warnings.extend(opened.faults.lost.clone());
            return Ok(opened);
        }
        other => other.map_err(io_error(&path))?,
    };
    let bytes = ring_bytes(disk.file_bytes(file).map_err(io_error(&path))?);
    let wanted = journal_bytes(config, disk).unwrap_or(config.limits.journal_bytes);
    if (wanted..=config.limits.journal_bytes).contains(&bytes) && bytes >= JOURNAL_BYTES_MIN {
        opened.file = Some((file, bytes));
    }
    let key = match map {
        // The extents have everything.
        Some(map) if !map.may_need_journal() => None,
        Some(map) => map.macs.map(|macs| macs.key),
        None => key_in_slabs(disk, slabs),
    };
    // Without a key no extent was ever begun, or none can be found: a piece could belong to nothing.
    if let Some(key) = key {
        // Bytes that are only in the page cache since a crash of the process must not count as durable. Without space for that, only entries that a
        // later one says to be durable do.
        match disk.sync_file(file) {
            Err(e) if !is_out_of_space(&e) => return Err(io_error(&path)(e)),
            Err(_) | Ok(()) => {}
        }
        let mut ring = RingBytes::new(bytes as usize);
        if let Err(e) = read_journal(disk, file, ring.bytes_mut()) {
            report.warnings.push(format!("{}: part of it cannot be read: {e}", path.display()));
        }
        report.bytes_scanned += bytes;
        let owner = EntryOwner { cluster: config.cluster, store: config.store, key };
        match scan(ring.bytes(), &owner) {
            // The map names an era before the first piece of it is written, and no era once the extents have everything. Entries of an earlier one
            // may be half overwritten then, which is no damage.
            Ok(scanned) if map.is_some() && expected.is_none() => opened.era = scanned.era,
            Ok(scanned) => opened.apply(config, disk, slabs, (map, &scanned), report)?,
            Err(EntryFault::Foreign(..) | EntryFault::None) if expected.is_none() => {
                // Nothing in it is needed. It is not overwritten.
                opened.file = None;
                super::quarantine(config, disk, JOURNAL_NAME, report)?;
            }
            Err(fault) => {
                disk.close_file(file);
                return Err(refusal(config, path, fault));
            }
        }
    }
    if opened.file.is_none() {
        disk.close_file(file);
    }
    Ok(opened)
}

/// Fills `ring` with as much of the journal as can be read. What cannot be is zero; the error is the first one.
fn read_journal(disk: &mut dyn Disk, file: FileId, ring: &mut [u8]) -> io::Result<()> {
    let parts = (0..ring.len()).step_by(RING_READ_BYTES);
    let read_of = |at: usize| FileRead::new(file, at as u64, RING_READ_BYTES.min(ring.len() - at));
    let mut reads: Vec<FileRead> = parts.map(read_of).collect();
    disk.read_many(&mut reads);
    for (part, read) in ring.chunks_mut(RING_READ_BYTES).zip(reads) {
        match read.whole() {
            Some(bytes) => part.copy_from_slice(&bytes),
            // Page by page, as far as that goes.
            None => return read_ring(ring, &mut |at, buf| disk.read_at(file, at, buf)),
        }
    }
    Ok(())
}

/// Returns the warning about a journal that has lost data.
fn lost(path: &Path, what: &str) -> String {
    format!("{}: {what}; records that were acknowledged last may be lost", path.display())
}

/// Returns why a journal cannot be used.
fn refusal(config: &StoreConfig, path: PathBuf, fault: EntryFault) -> OpenError {
    let of = match fault {
        EntryFault::Newer(version) => {
            return OpenError::Newer { path, what: format!("an entry of the journal has version {version}") };
        }
        EntryFault::Foreign(cluster, store) => format!("store {store} of cluster {cluster}"),
        EntryFault::None => "another store".to_owned(),
    };
    let what = format!(
        "the journal belongs to {of}, this is store {} of cluster {}; put the file back where it came from",
        config.store, config.cluster
    );
    OpenError::Foreign { path, what }
}

impl OpenedJournal {
    /// Applies the entries that were found.
    fn apply(
        &mut self,
        config: &StoreConfig,
        disk: &mut dyn Disk,
        slabs: &Slabs,
        (map, scanned): (Option<&StoreMap>, &Scanned<'_>),
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        let path = config.dir.join(JOURNAL_NAME);
        let expected = map.and_then(|map| map.journal);
        self.era = scanned.era;
        self.faults.lost = scanned.loss(expected).map(|what| lost(&path, &what));
        report.warnings.extend(self.faults.lost.clone());
        let mut pages = Pages::default();
        match write_entries(disk, slabs, (map, scanned), &mut pages) {
            Ok(()) => {}
            Err((_, e)) if is_out_of_space(&e) => {
                self.faults.no_space = true;
                report.journal_without_space = true;
                report.warnings.push(format!(
                    "{}: no space on the disk to write what the journal has for it; partitions that lack records are out of service until a start finds space",
                    config.dir.display()
                ));
                self.faults.kept = kept_ends(scanned);
                // Some pages may have been written, and a part of one.
                for (extent, end) in scanned.entries.iter().flat_map(Entry::ends) {
                    pages.note_missing(extent, end);
                }
            }
            Err((slab, e)) => return Err(io_error(&config.dir.join(slab_name(slab)))(e)),
        }
        report.journal_pieces = pages.pieces;
        let is_incomplete = pages.has_homeless || self.faults.lost.is_some() || !pages.missing.is_empty();
        self.held = expected.max(scanned.era).filter(|_| is_incomplete);
        self.faults.missing = pages.missing.iter().map(|(incarnation, end)| (incarnation.0, *end)).collect();
        Ok(())
    }
}

/// Returns how far the journal has extents in entries that are known to be durable. A later entry says that: like frames, the last ones may only be
/// visible, without space on the disk. Returns nothing if a part is damaged.
fn kept_ends(scanned: &Scanned<'_>) -> BTreeMap<u64, u32> {
    let durable = scanned.entries.iter().map(|entry| entry.numbers.durable).max().unwrap_or(0);
    let known = || scanned.entries.iter().filter(|entry| entry.numbers.sequence < durable);
    let mut ends = BTreeMap::new();
    if scanned.lost.is_empty() && known().all(Entry::is_whole) {
        for (incarnation, end) in known().flat_map(Entry::ends) {
            let largest: &mut u32 = ends.entry(incarnation.0).or_default();
            *largest = end.max(*largest);
        }
    }
    ends
}

/// Writes the pieces of the entries to the extents, durably.
fn write_entries(
    disk: &mut dyn Disk,
    slabs: &Slabs,
    (map, scanned): (Option<&StoreMap>, &Scanned<'_>),
    pages: &mut Pages,
) -> Result<(), (SlabId, io::Error)> {
    let mut lives = map.map_or_else(|| Lives::Headers(BTreeMap::new()), lives_of);
    let mut written = BTreeSet::new();
    let mut rest = &scanned.entries[..];
    while !rest.is_empty() {
        let mut pieces = 0;
        let together = rest.iter().take_while(|entry| {
            let fits = pieces < PIECES_READ_TOGETHER;
            pieces += entry.pieces().count();
            fits
        });
        let (entries, later) = rest.split_at(together.count());
        rest = later;
        pages.prefetch(entries, &mut SlabFiles { disk, slabs });
        for entry in entries {
            pages.apply(entry, &mut lives, &mut SlabFiles { disk, slabs });
        }
        if pages.memory_bytes() > PAGES_BYTES_MAX {
            write_pages(disk, slabs, pages, &mut written)?;
        }
    }
    write_pages(disk, slabs, pages, &mut written)?;
    let (of, files): (Vec<SlabId>, Vec<FileId>) =
        written.iter().map(|slab| (*slab, slabs[slab].file)).unzip();
    disk.sync_many(&files).map_err(|(n, e)| (of[n], e))
}

fn write_pages(
    disk: &mut dyn Disk,
    slabs: &Slabs,
    pages: &mut Pages,
    written: &mut BTreeSet<SlabId>,
) -> Result<(), (SlabId, io::Error)> {
    let mut runs = Vec::new();
    let mut gather = |slab: SlabId, at: u64, bytes: &[u8]| {
        let mut data = AlignedBuf::new(bytes.len());
        data.copy_from_slice(bytes);
        written.insert(slab);
        runs.push((slab, FileWrite { file: slabs[&slab].file, at, data, outcome: None }));
    };
    pages.drain(&mut gather);
    let (of, mut writes): (Vec<SlabId>, Vec<FileWrite>) = runs.into_iter().unzip();
    disk.write_many(&mut writes);
    let failed = of.into_iter().zip(writes).find_map(|(slab, write)| Some((slab, write.outcome?.err()?)));
    failed.map_or(Ok(()), Err)
}

/// Returns the key of the store from the header at the start of a slab: no record can be there.
fn key_in_slabs(disk: &mut dyn Disk, slabs: &Slabs) -> Option<MacKey> {
    slabs.values().find_map(|slab| {
        let mut block = [0; EXTENT_HEADER_BYTES];
        let read = disk.read_at(slab.file, 0, &mut block).ok()?;
        let id = ExtentId::from_block(&block).ok().filter(|_| read == EXTENT_HEADER_BYTES)?;
        Some(id.macs?.key)
    })
}
