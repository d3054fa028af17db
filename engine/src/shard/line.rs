//! The line of those who wait for memory: see [`crate::read`].

use highwater_runtime::plane::{Instant, Plane};

use super::Shard;
use super::timers::Timer;
use crate::limits::{LINE_INTERVAL, LINE_TRIES_PER_TURN_MAX, READ_BYTES_COUNTED_MIN, SHORTAGE_INTERVAL};
use crate::message::Message;
use crate::read::InLine;

/// When the line is looked at, and when other shards were told of it.
#[derive(Default, Debug)]
pub(super) struct Line {
    has_timer: bool,
    /// Its time has come.
    is_due: bool,
    told_at: Option<Instant>,
}

impl Shard {
    /// Serves those in line for whom there is memory, up to about so many bytes. True if there is more to do.
    pub(super) fn run_line(&mut self, plane: &mut dyn Plane<Message>, mut bytes_max: usize) -> bool {
        let mut tries = LINE_TRIES_PER_TURN_MAX;
        let mut is_stuck = false;
        while tries > 0
            && bytes_max > 0
            && !is_stuck
            && let Some((number, first)) = self.send_budget.serve_first()
        {
            tries -= 1;
            let bytes = self.try_from_line(plane, first);
            bytes_max = bytes_max.saturating_sub(bytes.max(READ_BYTES_COUNTED_MIN));
            is_stuck = !self.send_budget.served(number);
        }
        // Most of these get nothing, so they are not tried in every turn.
        let holding = if std::mem::take(&mut self.line.is_due) { self.send_budget.holding() } else { 0 };
        for _ in 0..tries.min(holding) {
            let Some(next) = self.send_budget.next_holding() else { break };
            self.try_from_line(plane, next);
        }
        (tries == 0 || bytes_max == 0 || self.is_fetch_turn_over()) && self.send_budget.may_serve()
    }

    fn try_from_line(&mut self, plane: &mut dyn Plane<Message>, who: InLine) -> usize {
        match who {
            InLine::Readers(conn) => {
                let Some(connection) = self.connections.get_mut(&conn) else { return 0 };
                connection.account.is_tried();
                self.run_connection(plane, conn)
            }
            InLine::KafkaFetch(fetch) => self.try_kafka_fetch(plane, fetch),
            InLine::Searches => {
                self.try_search(plane);
                0
            }
            InLine::KafkaConnection(conn) => {
                let Some(connection) = self.connections.get_mut(&conn) else { return 0 };
                connection.account.is_tried();
                self.begin_next_fetch(plane, conn);
                self.resume(plane, conn);
                0
            }
        }
    }

    /// At the end of a turn: if somebody waits, there is another one soon. Nothing may happen here when memory comes back on other shards.
    pub(super) fn plan_line(&mut self, plane: &mut dyn Plane<Message>) {
        let waits = self.send_budget.has_line() || self.send_budget.is_overdrawn();
        if waits && !std::mem::replace(&mut self.line.has_timer, true) {
            self.timers.set_after(plane, LINE_INTERVAL, Timer::Line);
        }
    }

    /// Somebody has waited for a while. If it goes on, clients that take nothing are cut off, also those of other shards.
    pub(super) fn look_at_line(&mut self, plane: &mut dyn Plane<Message>) {
        self.line.has_timer = false;
        self.line.is_due = true;
        let now = plane.now();
        let is_told = self.line.told_at.is_some_and(|at| now.since(at) < SHORTAGE_INTERVAL);
        if self.send_budget.is_short() && !is_told {
            self.line.told_at = Some(now);
            for shard in 0..plane.shards() {
                plane.post(shard, Message::MemoryShort);
            }
        }
    }
}
