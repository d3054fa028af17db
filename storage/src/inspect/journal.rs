//! What the journal of a store has for its extents. A start after a crash would write it there; here it is only laid over what is read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use highwater_protocol::ids::{ClusterId, StoreId};
use highwater_runtime::fs::FileId;

use super::files::Files;
use crate::journal::JOURNAL_NAME;
use crate::journal::entry::EntryOwner;
use crate::journal::replay::{Pages, SlabPages, lives_of, read_ring, ring_bytes, scan};
use crate::layout::{PAGE_BYTES, SlabId};
use crate::map::StoreMap;

struct SlabFiles<'f, 'a> {
    files: &'f mut Files<'a>,
    slabs: &'f BTreeMap<SlabId, (FileId, u64)>,
}

impl SlabPages for SlabFiles<'_, '_> {
    fn read(&mut self, slab: SlabId, at: u64, page: &mut [u8; PAGE_BYTES]) -> io::Result<()> {
        let (file, _) = *self.slabs.get(&slab).ok_or(io::ErrorKind::NotFound)?;
        let read = self.files.read_at(file, at, page)?;
        page[read..].fill(0);
        Ok(())
    }

    fn bytes(&self, slab: SlabId) -> u64 {
        self.slabs.get(&slab).map_or(0, |(_, bytes)| *bytes)
    }
}

/// The journal as a start would apply it.
pub(super) struct JournalView {
    pub(super) pages: Pages,
    /// Entries that had been durable and are damaged or missing.
    pub(super) lost: Option<String>,
}

/// Reads the journal of a store that was not stopped in order. `None`: there is none, or nothing in it is needed.
pub(super) fn read(
    files: &mut Files<'_>,
    dir: &Path,
    (cluster, store): (ClusterId, StoreId),
    map: &StoreMap,
    slabs: &BTreeMap<SlabId, (FileId, u64)>,
) -> Option<JournalView> {
    let owner = EntryOwner { cluster, store, key: map.macs?.key };
    if !map.may_need_journal() {
        return None;
    }
    let mut ring = Vec::new();
    if let Ok(file) = files.open(&dir.join(JOURNAL_NAME)) {
        ring = vec![0; ring_bytes(files.file_bytes(file).unwrap_or(0)) as usize];
        // What cannot be read shows as entries that are missing.
        let _ = read_ring(&mut ring, &mut |at, buf| files.read_at(file, at, buf));
    }
    let scanned = scan(&ring, &owner).unwrap_or_default();
    let mut pages = Pages::default();
    let mut lives = lives_of(map);
    for entry in &scanned.entries {
        pages.apply(entry, &mut lives, &mut SlabFiles { files, slabs });
    }
    Some(JournalView { pages, lost: scanned.loss(map.journal) })
}
