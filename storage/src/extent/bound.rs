//! Write bounds: how far into an extent frames may have been written.
//!
//! After a crash, recovery finds the end of a log and then has to search what follows for frames that were in flight. The *write bound* of an
//! extent limits that search: no frame of this use of the extent was ever written at or after it. The map has it by incarnation, so a bound
//! never applies to another use of the space.
//!
//! Rule: no frame is handed to the disk, in place or in an entry of the journal, before a bound at or after its end is durable in the map. The
//! first bound is recorded before the allocation of the extent, in the same log, so an extent that the map knows has its bound too. Later ones
//! are recorded when frames are appended, far enough ahead that writes do not wait for them; those that are not urgent wait for another record of
//! the map, since each write to the map takes a block or more.
//!
//! An extent without a bound in the map may have been written up to its end: the bound is there already, an older version began the extent, or
//! the map was rebuilt from headers.

use crate::limits::StoreLimits;
use crate::mutants::{Mutant, is_planted};
use crate::state_log::Seq;

/// An extent is divided into so many parts: the bound is one part ahead of the appended frames.
const PARTS_PER_EXTENT: u32 = 4;

/// The bound is so many frames of the size of the last one ahead.
const FRAMES_AHEAD: u64 = 4;

/// Another one is due when this part of the way to the last one is left: it is recorded with the next record of the map.
const PART_LEFT_DUE: u32 = 2;

/// Another one is recorded at once when this part of the way is left.
const PART_LEFT_URGENT: u32 = 4;

/// Whether a bound is far enough ahead of the appended frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BoundNeed {
    /// It is.
    None,
    /// Another one is due.
    Due,
    /// Another one has to be recorded now.
    Urgent,
}

/// The write bound of an extent that is appended to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteBound {
    /// Durable in the map.
    durable: u32,
    /// The last one recorded. Durable once this record of the map is.
    recorded: u32,
    seq: Seq,
}

impl WriteBound {
    /// Creates a bound that the map has, or has together with the extent.
    pub(crate) fn known(position: u32) -> Self {
        Self { durable: position, recorded: position, seq: Seq(0) }
    }

    /// The last bound recorded.
    pub(crate) fn recorded(&self) -> u32 {
        self.recorded
    }

    /// Returns how far frames may be written if the map is durable up to a record.
    pub(crate) fn writable_to(&self, map_durable: Seq) -> u32 {
        if self.seq <= map_durable { self.recorded } else { self.durable }
    }

    /// Returns whether frames that end here may be handed to the disk.
    pub(crate) fn allows(&self, end: u32, map_durable: Seq) -> bool {
        end <= self.writable_to(map_durable)
            || is_planted(Mutant::WriteBeforeBound)
            || is_planted(Mutant::BoundAfterWrite)
    }

    /// Notes that a higher bound was recorded.
    pub(crate) fn raise(&mut self, position: u32, seq: Seq, map_durable: Seq) {
        assert!(position > self.recorded, "a bound never falls");
        *self = Self { durable: self.writable_to(map_durable), recorded: position, seq };
    }

    /// Notes that nothing recorded about it is certain before this record.
    pub(crate) fn doubt_until(&mut self, seq: Seq) {
        *self = Self { durable: 0, recorded: self.recorded, seq };
    }

    /// Returns whether another bound is needed after a frame was appended that ends here.
    pub(crate) fn need(
        &self,
        limits: &StoreLimits,
        extent_bytes: u32,
        end: u32,
        frame_bytes: u64,
    ) -> BoundNeed {
        let ahead = bytes_ahead(limits, extent_bytes, frame_bytes);
        let reaches = |part| self.recorded >= extent_bytes.min(end.saturating_add(ahead / part));
        if reaches(PART_LEFT_DUE) {
            BoundNeed::None
        } else if reaches(PART_LEFT_URGENT) {
            BoundNeed::Due
        } else {
            BoundNeed::Urgent
        }
    }
}

/// Returns the bound of an extent whose last frame has this size and ends here.
pub(crate) fn bound_after(limits: &StoreLimits, extent_bytes: u32, end: u32, frame_bytes: u64) -> u32 {
    let ahead = bytes_ahead(limits, extent_bytes, frame_bytes);
    let bound = end.saturating_add(ahead);
    // What is left would soon need another one.
    if bound.saturating_add(ahead / 2) >= extent_bytes { extent_bytes } else { bound }
}

fn bytes_ahead(limits: &StoreLimits, extent_bytes: u32, frame_bytes: u64) -> u32 {
    let ahead = u64::from(extent_bytes / PARTS_PER_EXTENT).max(FRAMES_AHEAD.saturating_mul(frame_bytes));
    ahead.min(u64::from(limits.bound_ahead_bytes_max)).max(u64::from(limits.bound_ahead_bytes_min)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn limits() -> StoreLimits {
        let (bound_ahead_bytes_min, bound_ahead_bytes_max) = (32 << 10, 16 << 20);
        StoreLimits { bound_ahead_bytes_min, bound_ahead_bytes_max, ..StoreLimits::tiny() }
    }

    #[test]
    fn a_small_extent_is_bounded_by_its_end_and_a_large_one_by_a_quarter_of_it() {
        let bound = |bytes, end, frame| bound_after(&limits(), bytes, end, frame);
        assert_eq!(bound(16 << 10, 4096, 100), 16 << 10);
        assert_eq!(bound(256 << 10, 4096, 100), (4 + 64) << 10);
        assert_eq!(bound(64 * MIB, 4096, 100), 4096 + 16 * MIB);
        assert_eq!(bound(4 * MIB, MIB, 256 << 10), 2 * MIB, "four more frames of this size fit below it");
        assert_eq!(bound(64 * MIB, 20 * MIB, 16 << 20), 36 * MIB);
        assert_eq!(bound(64 * MIB, 52 * MIB, 100), 64 * MIB);
        assert_eq!(bound(64 * MIB, 64 * MIB, 100), 64 * MIB);
    }

    #[test]
    fn another_bound_is_due_when_half_of_the_way_to_it_is_left_and_urgent_at_a_quarter() {
        let need = |bound, end| WriteBound::known(bound).need(&limits(), 64 * MIB, end, 100);
        assert_eq!(need(20 * MIB, 12 * MIB), BoundNeed::None);
        assert_eq!(need(20 * MIB, 12 * MIB + 8), BoundNeed::Due);
        assert_eq!(need(20 * MIB, 16 * MIB), BoundNeed::Due);
        assert_eq!(need(20 * MIB, 16 * MIB + 8), BoundNeed::Urgent);
        assert_eq!(need(20 * MIB, 30 * MIB), BoundNeed::Urgent);
        assert_eq!(need(64 * MIB, 63 * MIB), BoundNeed::None);
        assert_eq!(need(63 * MIB, 62 * MIB), BoundNeed::Urgent);
    }

    #[test]
    fn a_raised_bound_holds_once_its_record_is_durable() {
        let mut bound = WriteBound::known(100);
        bound.raise(200, Seq(5), Seq(4));
        assert_eq!((bound.writable_to(Seq(4)), bound.writable_to(Seq(5))), (100, 200));
        bound.raise(300, Seq(8), Seq(4));
        assert_eq!((bound.writable_to(Seq(5)), bound.writable_to(Seq(8))), (100, 300));
        bound.raise(400, Seq(9), Seq(8));
        assert_eq!((bound.writable_to(Seq(8)), bound.recorded()), (300, 400));
        bound.doubt_until(Seq(12));
        assert_eq!((bound.writable_to(Seq(11)), bound.writable_to(Seq(12))), (0, 400));
    }
}
