//! Returns free space to the file system, a limited number of bytes a second.

use highwater_net::Reply;
use highwater_protocol::native::ReleaseSpaceRequest;
use highwater_runtime::plane::Plane;

use super::Shard;
use super::timers::Timer;
use crate::context::NativeCall;
use crate::message::Message;

impl Shard {
    /// Has every shard return its free space; all stores of the broker together keep this many bytes.
    pub(super) fn reply_release_space(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: NativeCall,
        request: ReleaseSpaceRequest,
    ) {
        let kept_bytes = request.kept_bytes / u64::from(self.setup.stores.max(1));
        for shard in 0..self.setup.shards {
            plane.post(shard, Message::ReleaseSpace(kept_bytes));
        }
        self.reply(call.conn, call.slot, Reply::Empty);
    }

    /// Begins to return the free space of each store, all but this many bytes.
    pub(super) fn release_space(&mut self, plane: &mut dyn Plane<Message>, kept_bytes: u64) {
        let bytes = self.partitions.release_space(kept_bytes);
        tracing::info!(shard = self.me, bytes, "free space is returned to the file system");
        self.look_for_free_space(plane);
    }

    /// Looks soon whether stores have more free space than they keep.
    pub(super) fn look_for_free_space(&mut self, plane: &mut dyn Plane<Message>) {
        if self.drain.is_none() && !std::mem::replace(&mut self.is_space_timer_set, true) {
            self.timers.set_after(plane, self.setup.limits.space_return_interval(), Timer::Space);
        }
    }

    /// Returns a piece of the free space of each store that has too much.
    pub(super) fn return_free_space(&mut self, plane: &mut dyn Plane<Message>) {
        self.is_space_timer_set = false;
        if self.partitions.return_space(plane) {
            self.look_for_free_space(plane);
        }
    }
}
