//! Slabs: the size of the next one, and the removal of free ones.
//!
//! Each slab is twice the size of the previous one, and uses at most a [`DISK_PART_MAX`]th of the free disk space. So a small disk gets small slabs,
//! stores share it, and space remains for the state logs. Only a batch that needs a larger extent gets a larger slab.
//!
//! A slab that is entirely free is removed, unless another one would be created at once. A slab with a single extent in use stays, however much of it
//! is free: extents are never moved. New extents use its free space, and [`super::punch`] returns it to the file system.

use std::io;

use highwater_runtime::fs::{FileId, RESERVE_NAME, is_out_of_space};
use highwater_runtime::plane::{Disk, FileJob};

use super::Store;
use super::alloc::Backing;
use super::round::Op;
use super::space::SlabFile;
use crate::config::StoreConfig;
use crate::layout::{SlabId, slab_name};

/// The next slab is created when less than this part of the newest one's size is free.
pub(super) const FREE_PART_MIN: u64 = 4;

/// A slab uses at most this part of the free disk space.
pub(crate) const DISK_PART_MAX: u64 = 16;

/// A slab that a large batch needs uses at most this part.
pub(super) const DISK_PART_NEEDED_MAX: u64 = 2;

/// Returns the size of the next slab on a disk with this much free space: for an extent of `needed` bytes, or to have space ready. `None` if none
/// fits.
pub(super) fn slab_bytes(
    config: &StoreConfig,
    newest: Option<u64>,
    free: u64,
    too_large: Option<u64>,
    needed: Option<u64>,
) -> Option<u64> {
    let limits = &config.limits;
    let usual = newest.map_or(limits.slab_bytes_first, |bytes| (2 * bytes).min(limits.slab_bytes_max));
    let part = (free / DISK_PART_MAX).checked_ilog2().map_or(0, |log2| 1 << log2);
    let possible = too_large.map_or(u64::MAX, |bytes| bytes / 2);
    let bytes = usual.min(part).min(possible);
    let needed = needed.unwrap_or(0);
    if bytes >= needed.max(limits.slab_bytes_min) {
        return Some(bytes);
    }
    let fits = needed > limits.slab_bytes_min && needed <= free / DISK_PART_NEEDED_MAX && needed <= possible;
    fits.then_some(needed)
}

impl Store {
    pub(super) fn add_slab_if_short(&mut self, disk: &mut dyn Disk) {
        if self.space.creating.is_some() || self.space.allocating.is_some() {
            return;
        }
        let newest = self.space.alloc.newest_slab_bytes();
        let short = self.space.alloc.ready_bytes() < newest.unwrap_or(0) / FREE_PART_MIN;
        let wanted = self.space.wanted.filter(|log2| !self.space.alloc.has(*log2));
        let spare = self.space.spare.filter(|log2| wanted.is_none() && !self.space.alloc.has(*log2));
        if wanted.is_none() && spare.is_none() && (!short || self.space.is_tight) {
            return;
        }
        let free = disk.free_bytes(&self.config.dir).unwrap_or(u64::MAX);
        let needed = wanted.or(spare);
        if self.allocate_hole(disk, free, needed) {
            return;
        }
        let needed = needed.map(|log2| 1 << log2);
        match slab_bytes(&self.config, newest, free, self.space.too_large, needed) {
            Some(bytes) => self.create_slab(disk, bytes),
            None if spare.is_some() => self.space.spare = None,
            None => self.on_no_space(free),
        }
    }

    fn create_slab(&mut self, disk: &mut dyn Disk, bytes: u64) {
        let slab = self.space.next_slab;
        self.space.next_slab = SlabId(slab.0 + 1);
        self.space.creating = Some((slab, bytes));
        let token = self.token(Op::CreateSlab);
        disk.file_job(FileJob::Create { path: self.config.dir.join(slab_name(slab)), bytes }, token);
    }

    /// Handles a created slab, or the failure to create it.
    pub(super) fn on_slab_created(&mut self, disk: &mut dyn Disk, result: io::Result<FileId>) {
        let (slab, bytes) = self.space.creating.take().expect("one slab is made at a time");
        match result {
            Ok(file) => {
                self.space.slabs.insert(slab, SlabFile { file, bytes, backing: Backing::Whole });
                self.space.alloc.add_slab(slab, bytes, Backing::Whole);
                self.space.too_large = None;
                self.on_space_gained();
            }
            Err(e) if is_out_of_space(&e) => {
                // Another process used the space, or a quota applies.
                self.space.too_large = Some(bytes);
                self.add_slab_if_short(disk);
            }
            Err(e) => {
                let path = self.config.dir.join(slab_name(slab));
                self.fail(format!("could not make {}: {e}", path.display()));
            }
        }
    }

    /// Handles that no slab fits the disk.
    fn on_no_space(&mut self, free: u64) {
        self.space.is_tight = true;
        self.space.reserve_due = true;
        let Some(log2) = self.space.wanted.take() else { return };
        self.space.full = Some(self.space.full.map_or(log2, |full| full.min(log2)));
        let dir = self.config.dir.display();
        self.tell_full(format!(
            "{dir}: no space for another slab: {} MiB are free on the disk; records that need one are refused until space is freed",
            free >> 20
        ));
    }

    /// Removes slabs that are entirely free, except for space that would be created again at once, and except for one slab that is small compared
    /// with the disk.
    pub(super) fn trim_slabs(&mut self, disk: &mut dyn Disk) {
        if !self.space.trim_due || self.space.is_releasing() || !self.space.is_quiet() {
            return;
        }
        self.space.trim_due = false;
        loop {
            let alloc = &self.space.alloc;
            let Some((slab, bytes)) = alloc.free_slabs().next_back() else { return };
            let others = alloc.slab_bytes() - bytes;
            let is_last = others == 0;
            let left = alloc.ready_bytes() - alloc.ready_bytes_in(slab);
            let is_spare = if is_last {
                let free = disk.free_bytes(&self.config.dir).unwrap_or(u64::MAX);
                bytes > free / DISK_PART_MAX
            } else {
                left >= alloc.newest_slab_bytes().unwrap_or(0) / FREE_PART_MIN
            };
            if !is_spare {
                return;
            }
            self.space.alloc.remove_slab(slab);
            if let Some(file) = self.space.slabs.remove(&slab) {
                disk.close_file(file.file);
            }
            let token = self.token(Op::RemoveFile);
            disk.file_job(FileJob::Remove { path: self.config.dir.join(slab_name(slab)) }, token);
        }
    }

    /// Reserves space for the state log's next rewrite, so that it is possible on a full disk too.
    pub(super) fn make_reserve(&mut self, disk: &mut dyn Disk) {
        if !std::mem::take(&mut self.space.reserve_due) {
            return;
        }
        let token = self.token(Op::CreateReserve);
        let path = self.config.dir.join(RESERVE_NAME);
        disk.file_job(FileJob::Create { path, bytes: self.config.limits.state_log_bytes_used }, token);
    }

    /// Handles the created reserve, or that there is no space for it now.
    pub(super) fn on_reserve_created(&mut self, disk: &mut dyn Disk, result: io::Result<FileId>) {
        match result {
            Ok(file) => disk.close_file(file),
            Err(e) => self.space.reserve_due = e.kind() != io::ErrorKind::AlreadyExists,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use highwater_protocol::ids::{ClusterId, StoreId};

    use super::*;
    use crate::config::DurableForm;
    use crate::limits::StoreLimits;
    use crate::mac::MacKey;

    const MIB: u64 = 1 << 20;

    fn next(newest: Option<u64>, free: u64, needed: Option<u64>) -> Option<u64> {
        let config = StoreConfig {
            dir: PathBuf::new(),
            cluster: ClusterId([0; 16]),
            store: StoreId(0),
            token_space: 0,
            new_mac_key: MacKey([0; 16]),
            limits: StoreLimits::default(),
            durable_form: DurableForm::Dsync,
        };
        slab_bytes(&config, newest, free, None, needed)
    }

    #[test]
    fn slabs_grow_on_a_large_disk_and_are_small_on_a_small_one() {
        let needed = Some(MIB / 4);
        assert_eq!(next(None, 1 << 40, needed), Some(64 * MIB));
        assert_eq!(next(Some(64 * MIB), 1 << 40, None), Some(128 * MIB));
        assert_eq!(next(Some(1024 * MIB), 1 << 40, None), Some(1024 * MIB));
        assert_eq!(next(None, 45 * MIB, needed), Some(2 * MIB));
        assert_eq!(next(Some(64 * MIB), 200 * MIB, needed), Some(8 * MIB));
        assert_eq!(next(None, 4 * MIB, needed), Some(MIB / 4));
        assert_eq!(next(None, 4 * MIB - 1, needed), None, "what is left is for the state logs");
        assert_eq!(next(None, 0, None), None);
    }

    #[test]
    fn a_large_batch_gets_a_slab_of_its_size_if_half_of_the_disk_is_left() {
        assert_eq!(next(None, 45 * MIB, Some(16 * MIB)), Some(16 * MIB));
        assert_eq!(next(None, 45 * MIB, Some(32 * MIB)), None);
    }
}
