//! Orderly close: everything becomes durable, then a snapshot of the map that says so. The next start has nothing to search for.

use highwater_runtime::plane::Disk;

use super::{Phase, Store};
use crate::api::StoreEvent;

impl Store {
    /// Starts the last round and a snapshot of the map; [`StoreEvent::Closed`] reports when both are durable. Appends are rejected from here on.
    pub fn shutdown(&mut self, disk: &mut dyn Disk) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.flush(disk);
        }
    }

    /// Takes the next step of closing, if it is due. Returns whether a later turn has to continue.
    pub(super) fn close_if_drained(&mut self, disk: &mut dyn Disk) -> bool {
        if self.phase == Phase::Draining && self.is_drained() {
            self.phase = Phase::Closing;
            // If nothing happened, the map is as the last shutdown left it. On a full disk there is no space for another one.
            if self.untouched != Some(self.state.appended()) && !self.state.is_stalled() {
                self.begin_snapshot(true);
                return true;
            }
        }
        if self.phase == Phase::Closing && self.snapshot.is_none() && self.state.is_idle() {
            self.phase = Phase::Closed;
            for slab in self.space.slabs.values() {
                disk.close_file(slab.file);
            }
            self.journal.close(disk);
            self.push_event(StoreEvent::Closed);
        }
        false
    }

    /// Returns whether everything appended is durable and no file of the map is being written.
    fn is_drained(&self) -> bool {
        let map_is_settled = !self.state.is_rotating() || self.state.is_stalled();
        map_is_settled
            && self.dirty.is_empty()
            && self.rounds.is_empty()
            && self.waiting_for_map.is_empty()
            && self.space.is_quiet()
            && self.cuts.is_empty()
            && self.rewrite.is_none()
            && self.journal.is_idle()
    }
}
