//! The coordinator of groups, on each shard that has one.

use highwater_runtime::plane::{Instant, Plane, ShardIndex};

use super::Shard;
use super::timers::Timer;
use crate::api::{ApiError, Service, Ticket};
use crate::coord::groups::{GroupRequest, Now};
use crate::coord::groups_log::GroupsLog;
use crate::data_dir::OFFSETS;
use crate::limits::ANSWERS_PER_TURN_MAX;
use crate::message::{Message, Prepare};
use crate::meta::Change;
use crate::partition::OFFSETS_SPACE;
use crate::setup::{OpenError, ShardSetup};

/// The coordinator of a shard.
pub(super) struct Groups {
    pub(super) log: GroupsLog,
    /// When the timer for groups is due.
    timer: Option<Instant>,
    /// Whether it knows the topics.
    ready: bool,
}

impl Groups {
    pub(super) fn open(
        plane: &mut dyn Plane<Message>,
        setup: &ShardSetup,
        warnings: &mut Vec<String>,
    ) -> Result<Self, OpenError> {
        let (log, recovered) = setup.open_log(plane, OFFSETS, *b"OFFS", OFFSETS_SPACE, warnings)?;
        let log = GroupsLog::new(log, &recovered, setup.groups, now(plane))?;
        warnings.extend(log.warning());
        Ok(Self { log, timer: None, ready: false })
    }
}

impl Shard {
    /// From shard 0: what is about to change in the metadata.
    pub(super) fn prepare_groups(&mut self, plane: &mut dyn Plane<Message>, prepare: &Prepare) {
        if let Some(groups) = &mut self.groups {
            for change in prepare.changes.iter() {
                match change {
                    Change::Topic(topic) => groups.log.handle_topic(topic),
                    Change::Deleted(topic) => groups.log.delete_topic(*topic),
                }
            }
            if !std::mem::replace(&mut groups.ready, true) {
                groups.log.retain_known_topics();
                // Not earlier: other shards may take longer to recover than a session timeout.
                groups.log.resume(now(plane));
            }
        }
        plane.post(0, Message::Prepared(prepare.version));
    }

    pub(super) fn handle_group_request(
        &mut self,
        plane: &mut dyn Plane<Message>,
        from: ShardIndex,
        ticket: Ticket,
        request: GroupRequest,
    ) {
        let now = now(plane);
        let error = match &mut self.groups {
            Some(groups) if groups.ready => {
                let mut random = [0; 16];
                for half in random.chunks_mut(size_of::<u64>()) {
                    half.copy_from_slice(&plane.random_u64().to_le_bytes());
                }
                return groups.log.handle(now, (from, ticket), request, random);
            }
            Some(_) => ApiError::Starting(Service::Groups),
            None => ApiError::Internal("a request about groups came to a shard without a coordinator"),
        };
        plane.post(from, Message::GroupReply(ticket, Err(error)));
    }

    /// Flushes decisions to the log, and sends replies. Returns whether there is more to do than one turn allows.
    pub(super) fn run_groups(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        let Some(groups) = &mut self.groups else { return false };
        let mut more = groups.log.run(now(plane));
        more |= groups.log.flush(plane);
        let mut left = ANSWERS_PER_TURN_MAX;
        while left > 0
            && let Some(((shard, ticket), reply)) = groups.log.poll()
        {
            left -= 1;
            plane.post(shard, Message::GroupReply(ticket, Ok(reply)));
        }
        self.plan_groups(plane);
        more || left == 0
    }

    /// Sets the timer for the next deadline of the groups.
    fn plan_groups(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(groups) = self.groups.as_mut().filter(|groups| groups.ready && self.drain.is_none()) else {
            return;
        };
        let at = Instant(groups.log.next_deadline().saturating_mul(NANOS_PER_MS));
        if groups.timer == Some(at) {
            return;
        }
        if let Some(before) = groups.timer.replace(at) {
            self.timers.cancel(before, Timer::Groups);
        }
        self.timers.set(plane, at, Timer::Groups);
    }

    /// The timer for groups is due.
    pub(super) fn groups_are_due(&mut self, plane: &mut dyn Plane<Message>) {
        let Some(groups) = &mut self.groups else { return };
        groups.timer = None;
        // Members cannot send heartbeats while the broker stops, so none is removed.
        if self.drain.is_none() {
            groups.log.handle_time(now(plane));
        }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

pub(super) fn now(plane: &mut dyn Plane<Message>) -> Now {
    Now { ms: plane.now().0 / NANOS_PER_MS, wall_ms: plane.wall_clock_ms() }
}
