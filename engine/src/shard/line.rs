//! The queue of readers that wait for memory: see [`crate::read`].

use highwater_runtime::plane::{Instant, Plane};

use super::Shard;
use super::timers::Timer;
use crate::limits::{LINE_INTERVAL, LINE_TRIES_PER_TURN_MAX, READ_BYTES_COUNTED_MIN, SHORTAGE_INTERVAL};
use crate::message::Message;
use crate::read::InLine;

/// When the queue is checked, and when other shards were last notified of a shortage.
#[derive(Default, Debug)]
pub(super) struct Line {
    has_timer: bool,
    /// Whether the timer has fired.
    is_due: bool,
    notified_at: Option<Instant>,
}

impl Shard {
    /// Runs queued readers while there is memory, up to about `bytes_max` bytes. Returns whether there is more to do.
    pub(super) fn run_line(&mut self, plane: &mut dyn Plane<Message>, mut bytes_max: usize) -> bool {
        if self.send_budget.has_line() {
            self.reads.drop_ahead();
        }
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
        // Most of these fail, so they are not tried in every turn.
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
                if self.begin_large_reply(plane, conn) { self.run_connection(plane, conn) } else { 0 }
            }
            InLine::KafkaFetch(fetch) => self.try_kafka_fetch(plane, fetch),
            InLine::Searches => {
                self.retry_search(plane);
                0
            }
            InLine::KafkaConnection(conn) => {
                let Some(connection) = self.connections.get_mut(&conn) else { return 0 };
                connection.account.is_tried();
                self.begin_large_reply(plane, conn);
                self.begin_next_fetch(plane, conn);
                self.resume(plane, conn);
                0
            }
        }
    }

    /// Sets a timer at the end of a turn if a reader waits: memory that is freed on other shards causes no event on this one.
    pub(super) fn plan_line(&mut self, plane: &mut dyn Plane<Message>) {
        let waits = self.send_budget.has_line() || self.send_budget.is_overdrawn();
        if waits && !std::mem::replace(&mut self.line.has_timer, true) {
            self.timers.set_after(plane, LINE_INTERVAL, Timer::Line);
        }
    }

    /// Handles the timer. During a shortage, notifies all shards, which disconnect clients that receive nothing.
    pub(super) fn check_line(&mut self, plane: &mut dyn Plane<Message>) {
        self.line.has_timer = false;
        self.line.is_due = true;
        let now = plane.now();
        let is_notified = self.line.notified_at.is_some_and(|at| now.since(at) < SHORTAGE_INTERVAL);
        if self.send_budget.is_short() && !is_notified {
            self.line.notified_at = Some(now);
            for shard in 0..plane.shards() {
                plane.post(shard, Message::MemoryShort);
            }
        }
    }
}
