//! Schedules compaction of this shard's partitions: in the background, with a limited share of turns and of the disk.
//!
//! A scan for partitions that are due starts at intervals, and after each pass. A pass may read a limited number of bytes per interval, however
//! idle the shard is. Its memory is charged to the send budget while it runs.

use highwater_protocol::batch::StreamLimits;
use highwater_runtime::plane::Plane;
use highwater_storage::MacKey;
use highwater_storage::compaction::PassLimits;
use highwater_storage::mac::MAC_KEY_BYTES;

use super::Shard;
use super::timers::Timer;
use crate::limits::{
    COMPACTION_BUFFERS, COMPACTION_BYTES_PER_STEP, COMPACTION_DECOMPRESSED_BYTES_MAX,
    COMPACTION_FRAME_BUFFERS, COMPACTION_STEP_INTERVAL,
};
use crate::message::Message;
use crate::partition::CompactionStep;
use crate::read::{Account, Charge, MemoryRequest};

/// The resources of compaction.
#[derive(Default, Debug)]
pub(super) struct CompactionShare {
    account: Account,
    /// The memory of the running pass.
    charge: Option<Charge>,
    /// Bytes of frames that the pass may read before the next interval.
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
    /// Starts a scan for partitions to compact.
    pub(super) fn scan_for_compaction(&mut self, plane: &mut dyn Plane<Message>) {
        self.partitions.begin_compaction();
        self.timers.set_after(plane, self.setup.limits.cleanup_interval, Timer::Compaction);
    }

    /// Handles the timer of a pass: allows the bytes of another interval.
    pub(super) fn allow_compaction(&mut self) {
        self.compaction.is_timer_set = false;
        self.compaction.bytes = COMPACTION_BYTES_PER_STEP;
    }

    /// Continues compaction at the end of a turn. Returns whether it can continue in the next turn.
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

    /// Starts the pass that the scan has found, if there is memory for it. If not, the next scan finds it again.
    fn begin_pass(&mut self, plane: &mut dyn Plane<Message>, wall_ms: i64) -> bool {
        let limits = &self.setup.limits;
        let bytes = limits.compaction_bytes_max();
        let frames = COMPACTION_FRAME_BUFFERS * limits.store.rewrite_bytes_max;
        let memory = MemoryRequest { most: bytes + frames, least: bytes + frames };
        let Some(charge) = self.send_budget.reserve(&mut self.compaction.account, 0, memory) else {
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
            batch_bytes_max: limits.store.payload_bytes_max,
            decompressed_bytes_max,
            stream: Some(StreamLimits {
                decompressed_max: highwater_protocol::limits::decompressed_bytes_max(limits.batch_bytes_max),
                memory_max: decompressed_bytes_max * (COMPACTION_BUFFERS - 1),
            }),
        };
        self.partitions.begin_pass(limits, key, wall_ms);
        self.compaction.charge = Some(charge).filter(|_| self.partitions.is_compacting());
        true
    }
}
