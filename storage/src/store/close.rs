//! Ending in order: everything durable, then a snapshot of the map that says so. The next start has nothing to search for.

use bytes::Bytes;
use highwater_runtime::plane::Disk;

use super::{Phase, Store};
use crate::api::StoreEvent;

impl Store {
    /// A last round and a snapshot of the map; [`StoreEvent::Closed`] tells when they are durable. Appends are refused from here on.
    pub fn shutdown(&mut self, disk: &mut dyn Disk) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.flush(disk);
        }
    }

    /// Takes the next step to the end, if it is due.
    pub(super) fn close_if_drained(&mut self, disk: &mut dyn Disk) {
        if self.phase == Phase::Draining && self.is_drained() {
            self.phase = Phase::Closing;
            // Where nothing happened, the map is as the last shutdown left it.
            if self.untouched != Some(self.state.appended()) {
                let map = self.map(true).encode();
                self.state.snapshot(disk, Bytes::from(map));
            }
        }
        if self.phase == Phase::Closing && self.state.is_idle() {
            self.phase = Phase::Closed;
            for slab in self.space.slabs.values() {
                disk.close_file(slab.file);
            }
            self.push_event(StoreEvent::Closed);
        }
    }

    /// Whether everything appended is durable.
    fn is_drained(&self) -> bool {
        self.dirty.is_empty()
            && self.rounds.is_empty()
            && self.waiting_for_map.is_empty()
            && self.space.is_quiet()
            && self.cuts.is_empty()
    }
}
