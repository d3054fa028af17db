//! When the partitions of this shard are compacted: in the background, with a share of the turns and of the disk.
//!
//! A scan for what is due begins at intervals, and after each pass. A pass is allowed so many bytes in each short interval, however much else there is
//! to do. Its memory is that for data on its way to clients: it is charged to the same budget, as long as the pass runs.

use highwater_runtime::plane::Plane;
use highwater_storage::MacKey;
use highwater_storage::compaction::PassLimits;
use highwater_storage::mac::MAC_KEY_BYTES;

use super::Shard;
use super::timers::Timer;
use crate::limits::{
    COMPACTION_BUFFERS, COMPACTION_BYTES_PER_STEP, COMPACTION_DECOMPRESSED_BYTES_MAX, COMPACTION_INTERVAL,
    COMPACTION_STEP_INTERVAL,
};
use crate::message::Message;
use crate::partition::CompactionStep;
use crate::read::{Account, Charge, Wanted};

/// What compaction may use.
#[derive(Default, Debug)]
pub(super) struct CompactionShare {
    account: Account,
    /// The memory of the pass that runs.
    charge: Option<Charge>,
    /// Bytes of frames that it may look at before the next step.
    bytes: usize,
    is_timer_set: bool,
}

impl CompactionShare {
    /// Returns the bytes of memory that a pass holds.
    pub(super) fn held(&self) -> usize {
        self.account.held()
    }
}

impl Shard {
    /// Begins to look for partitions to compact.
    pub(super) fn look_for_compaction(&mut self, plane: &mut dyn Plane<Message>) {
        self.partitions.begin_compaction();
        self.timers.set_after(plane, COMPACTION_INTERVAL, Timer::Compaction);
    }

    /// A pass may take its next step.
    pub(super) fn allow_compaction(&mut self) {
        self.compaction.is_timer_set = false;
        self.compaction.bytes = COMPACTION_BYTES_PER_STEP;
    }

    /// Goes on with compaction at the end of a turn. Returns whether it can go on in the next one.
    pub(super) fn run_compaction(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if self.drain.is_some() {
            return false;
        }
        let wall_ms = plane.wall_clock_ms();
        let step = self.partitions.run_compaction(plane, &mut self.compaction.bytes, wall_ms);
        match step {
            CompactionStep::Idle => return false,
            CompactionStep::More => return true,
            CompactionStep::Found => return self.begin_pass(plane, wall_ms),
            CompactionStep::Waits => {}
            CompactionStep::Ended { in_order } => {
                self.compaction.charge = None;
                if in_order {
                    self.partitions.begin_compaction();
                }
                return in_order;
            }
        }
        if self.compaction.bytes == 0 && !std::mem::replace(&mut self.compaction.is_timer_set, true) {
            self.timers.set_after(plane, COMPACTION_STEP_INTERVAL, Timer::CompactionStep);
        }
        false
    }

    /// Begins the pass that was found, if there is memory for it. If not, the next scan finds it again.
    fn begin_pass(&mut self, plane: &mut dyn Plane<Message>, wall_ms: i64) -> bool {
        let limits = &self.setup.limits;
        let bytes = limits.compaction_bytes_max();
        let wanted = Wanted { most: bytes, least: bytes };
        let Some(charge) = self.send_budget.reserve(&mut self.compaction.account, 0, wanted) else {
            return false;
        };
        let mut key = MacKey([0; MAC_KEY_BYTES]);
        for half in key.0.chunks_mut(size_of::<u64>()) {
            half.copy_from_slice(&plane.random_u64().to_le_bytes());
        }
        let decompressed_bytes_max =
            (bytes * 2 / 3 / COMPACTION_BUFFERS).min(COMPACTION_DECOMPRESSED_BYTES_MAX);
        let limits = PassLimits {
            index_bytes_max: bytes - decompressed_bytes_max * COMPACTION_BUFFERS,
            batch_bytes_max: limits.batch_bytes_max(),
            decompressed_bytes_max,
        };
        self.partitions.begin_pass(limits, key, wall_ms);
        self.compaction.charge = Some(charge).filter(|_| self.partitions.is_compacting());
        true
    }
}
