//! A shard's timers: one timer of the plane, armed for the earliest.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_runtime::plane::{Instant, Plane, Token};

use crate::message::Message;
use crate::partition::ReaderId;
use crate::reply_to::RequestId;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// Close connections that have missed a deadline.
    Sweep,
    /// Enforce retention.
    Retention,
    /// A fetch has waited long enough.
    Fetch(ReaderId),
    /// A fetch of a Kafka client has waited long enough.
    KafkaFetch(RequestId),
    /// A step of the shutdown has timed out.
    Drain,
    /// A deadline of a group is due.
    Groups,
    /// A reader waits for memory.
    Line,
    /// Drop what was read ahead and nobody has fetched.
    ReadAhead,
    /// Look for partitions to compact.
    Compaction,
    /// A compaction pass may read the bytes of another interval.
    CompactionStep,
    /// A deadline of a channel to another node, or an election, is due.
    Peers,
    /// A node may have been out of reach for too long.
    Nodes,
    /// The next piece of free space may be returned to the file system.
    Space,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    armed: Option<Instant>,
}

impl Timers {
    pub(super) fn set(&mut self, plane: &mut dyn Plane<Message>, at: Instant, timer: Timer) {
        self.due.insert((at, timer));
        self.arm(plane);
    }

    pub(super) fn set_after(&mut self, plane: &mut dyn Plane<Message>, after: Duration, timer: Timer) {
        let at = plane.now().after(after);
        self.set(plane, at, timer);
    }

    pub(super) fn cancel(&mut self, at: Instant, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    /// A timer of the plane has fired. It may have been replaced by an earlier one.
    pub(super) fn on_timer(&mut self, now: Instant) {
        self.armed = self.armed.filter(|armed| *armed > now);
    }

    /// Returns a timer that is due. Call it until there is none.
    pub(super) fn pop(&mut self, plane: &mut dyn Plane<Message>) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > plane.now() {
            self.arm(plane);
            return None;
        }
        self.due.pop_first();
        Some(timer)
    }

    fn arm(&mut self, plane: &mut dyn Plane<Message>) {
        let Some((first, _)) = self.due.first() else { return };
        if self.armed.is_none_or(|armed| *first < armed) {
            self.armed = Some(*first);
            plane.set_timer(*first, Token(0));
        }
    }
}
