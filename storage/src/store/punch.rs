//! Returns free space to the file system, and gets it back.
//!
//! Freed space is recycled: what was written before is faster to write than fresh space. So a store keeps some of it ready
//! ([`StoreLimits::free_bytes_kept`](crate::StoreLimits::free_bytes_kept)), and at least as much as it would otherwise make a slab for. Space
//! beyond that is returned if it was free for a whole round of retention, or at once when the owner asks for it. It becomes a hole in its slab.
//!
//! Only space that the map durably knows to be free is ready, so nothing needs what was there. Only if the map is lost and rebuilt from the
//! headers of extents, a header that is still there would bring back its extent, and a first frame its partition. Therefore these go first, durably,
//! and then the other frames; and of a free block its lowest part goes first, where the headers of larger extents were.
//!
//! A hole is allocated on the disk again before an extent gets it. So holes do not change where a full disk is noticed.
//!
//! Punching is never part of an acknowledgement, but the file system may hold up writes to the same slab meanwhile. So one piece of limited size is
//! punched at a time, while the store does nothing else with the disk; the owner limits how many it begins in a second.

use std::io;

use highwater_runtime::fs::is_out_of_space;
use highwater_runtime::plane::{Disk, FileJob};

use super::round::Op;
use super::slabs::{DISK_PART_MAX, DISK_PART_NEEDED_MAX, FREE_PART_MIN};
use super::{Phase, Store};
use crate::layout::{EXTENT_HEADER_BYTES, PAGE_BYTES, Place, slab_name};
use crate::limits::{ALLOCATE_BYTES_MAX, PUNCH_PAUSES_MAX};
use crate::mutants::{Mutant, is_planted};

/// What makes an extent that is found without a map: its header and its first frame, without which the frames after it are not looked for.
const HEAD_BYTES: u64 = (EXTENT_HEADER_BYTES + PAGE_BYTES) as u64;

/// Space that is being returned to the file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Punching {
    place: Place,
    log2: u8,
    /// Whether no header is left in it.
    is_headless: bool,
}

/// What is returned to the file system, and what was.
#[derive(Default, Debug)]
pub(super) struct Surplus {
    /// The least that was ready in this round of retention, and in the one before.
    lowest: [u64; 2],
    /// All but this much is returned now.
    asked: Option<u64>,
    /// How often the next piece was put off because the disk was busy.
    pauses: u32,
    /// The file system has no holes.
    is_unsupported: bool,
}

impl Surplus {
    /// Notes how much is ready after some was taken.
    pub(super) fn note_ready(&mut self, bytes: u64) {
        self.lowest[0] = self.lowest[0].min(bytes);
    }

    /// A round of retention is over.
    fn end_round(&mut self, ready: u64) {
        self.lowest = [ready, self.lowest[0]];
    }

    fn note_returned(&mut self, bytes: u64) {
        self.lowest = self.lowest.map(|lowest| lowest.saturating_sub(bytes));
    }
}

impl Store {
    /// Begins to return free space to the file system, all but this many bytes and what the store needs to have ready. Returns how many bytes
    /// that are. They are returned by [`return_space`](Self::return_space).
    pub fn release_space(&mut self, kept_bytes: u64) -> u64 {
        if self.space.surplus.is_unsupported {
            return 0;
        }
        self.space.surplus.asked = Some(kept_bytes);
        let bytes = self.surplus_bytes();
        if bytes < self.config.limits.punch_bytes_min { 0 } else { bytes }
    }

    /// Returns the next piece of free space to the file system, if there is more than the store keeps and the disk is not busy. Returns whether
    /// there may be more: then call it again, but not at once. The pieces have [`punch_bytes_max`](crate::StoreLimits::punch_bytes_max) bytes at
    /// most.
    pub fn return_space(&mut self, disk: &mut dyn Disk) -> bool {
        if self.phase != Phase::Open || self.space.surplus.is_unsupported {
            return false;
        }
        if !self.space.is_quiet() {
            return true;
        }
        if is_planted(Mutant::PunchBeforeFreed)
            && let Some((place, log2)) = self.space.take_pending()
        {
            self.punch_headers(disk, place, log2);
            return true;
        }
        let limits = &self.config.limits;
        let surplus = self.surplus_bytes();
        if surplus < limits.punch_bytes_min {
            self.space.surplus.asked = None;
            return false;
        }
        let is_busy = !self.rounds.is_empty() || !self.reads.is_empty() || self.journal.is_working();
        if is_busy && self.space.surplus.pauses < PUNCH_PAUSES_MAX {
            self.space.surplus.pauses += 1;
            return true;
        }
        self.space.surplus.pauses = 0;
        let log2_max = surplus.min(limits.punch_bytes_max).ilog2() as u8;
        let log2_min = limits.punch_bytes_min.ilog2() as u8;
        let Some((place, log2)) = self.space.alloc.take_surplus(log2_min, log2_max) else {
            self.space.surplus.asked = None;
            return false;
        };
        self.punch_headers(disk, place, log2);
        true
    }

    fn punch_headers(&mut self, disk: &mut dyn Disk, place: Place, log2: u8) {
        self.space.surplus.note_returned(1 << log2);
        self.space.punching = Some(Punching { place, log2, is_headless: false });
        if is_planted(Mutant::PunchFramesFirst) {
            return self.on_punched(disk, Ok(()));
        }
        let every = self.config.limits.extent_bytes_min;
        let token = self.token(Op::Punch);
        let path = self.config.dir.join(slab_name(place.slab));
        disk.file_job(
            FileJob::PunchHeads { path, at: place.at, bytes: 1 << log2, every, head_bytes: HEAD_BYTES },
            token,
        );
    }

    /// How much more is ready than the store keeps.
    fn surplus_bytes(&self) -> u64 {
        let ready = self.space.alloc.ready_bytes();
        // A slab is made when less is ready.
        let needed = self.space.alloc.newest_slab_bytes().unwrap_or(0) / FREE_PART_MIN;
        let unused = self.space.surplus.lowest.iter().fold(ready, |least, lowest| least.min(*lowest));
        let kept = self.config.limits.free_bytes_kept.max(2 * needed);
        let asked = self.space.surplus.asked.map_or(0, |asked| ready.saturating_sub(asked.max(needed)));
        unused.saturating_sub(kept).max(asked)
    }

    /// Notes that a round of retention is over: what was free all the time is not needed.
    pub(super) fn note_unused_space(&mut self) {
        self.space.surplus.end_round(self.space.alloc.ready_bytes());
    }

    /// Handles that the headers of a piece are gone, or all of it.
    pub(super) fn on_punched(&mut self, disk: &mut dyn Disk, result: io::Result<()>) {
        let punching = self.space.punching.take().expect("one piece is punched at a time");
        let Punching { place, log2, is_headless } = punching;
        let path = self.config.dir.join(slab_name(place.slab));
        match result {
            Ok(()) if !is_headless => {
                self.space.punching = Some(Punching { is_headless: true, ..punching });
                let token = self.token(Op::Punch);
                disk.file_job(FileJob::Punch { path, at: place.at, bytes: 1 << log2 }, token);
                return;
            }
            Ok(()) => self.stats.punched_bytes += 1 << log2,
            Err(e) => {
                // What of it is a hole is not known, but nothing needs it: the store goes on without returning space.
                tracing::warn!("{}: free space is not returned to the file system: {e}", path.display());
                self.space.surplus.is_unsupported = true;
            }
        }
        self.space.alloc.add_hole(place, log2);
        self.space.trim_due = true;
    }

    /// Allocates a hole on the disk, for an extent of this size or to have space ready. Returns false if there is no hole that fits the need
    /// and the disk.
    pub(super) fn allocate_hole(&mut self, disk: &mut dyn Disk, free: u64, needed: Option<u8>) -> bool {
        let Some(hole) = self.space.alloc.hole_log2(needed.unwrap_or(u8::MAX)) else { return false };
        let least = needed.unwrap_or(self.config.limits.extent_bytes_min.ilog2() as u8);
        let possible = self.space.too_large.map_or(u64::MAX, |bytes| bytes / 2);
        let usual = (free / DISK_PART_MAX).min(possible).min(ALLOCATE_BYTES_MAX);
        let log2 = match usual.checked_ilog2() {
            Some(log2) if log2 >= u32::from(least) => hole.min(log2 as u8),
            _ => least,
        };
        let bytes = 1 << log2;
        let fits =
            bytes <= usual || needed.is_some() && bytes <= free / DISK_PART_NEEDED_MAX && bytes <= possible;
        if hole < least || !fits {
            return false;
        }
        let place = self.space.alloc.take_hole(log2).expect("a hole is as large");
        self.space.allocating = Some((place, log2));
        let token = self.token(Op::Allocate);
        let path = self.config.dir.join(slab_name(place.slab));
        disk.file_job(FileJob::Allocate { path, at: place.at, bytes }, token);
        true
    }

    /// Handles that a hole was allocated, or that there is no space for it.
    pub(super) fn on_allocated(&mut self, disk: &mut dyn Disk, result: io::Result<()>) {
        let (place, log2) = self.space.allocating.take().expect("one hole is allocated at a time");
        match result {
            Ok(()) => {
                self.space.alloc.release(place, log2);
                self.space.too_large = None;
                self.on_space_gained();
            }
            Err(e) if is_out_of_space(&e) => {
                self.space.alloc.add_hole(place, log2);
                self.space.too_large = Some(1 << log2);
                self.add_slab_if_short(disk);
            }
            Err(e) => {
                let path = self.slab_path(place.slab);
                self.fail(format!("could not allocate space in {path}: {e}"));
            }
        }
    }
}
