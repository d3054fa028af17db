//! Graceful shutdown.
//!
//! ```text
//!   every shard: accept no requests, answer those in flight, close connections --> Drained, to shard 0
//!   shard 0:     when all shards have drained -----------------------------------> Close, to every shard
//!   every shard: last commit round, checkpoint, state logs idle -----------------> exit
//! ```
//!
//! Shards answer queries until the `Close`, so that every request in flight is answered.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{MessageKind, error_message};
use highwater_runtime::plane::{Close, Plane};

use super::Shard;
use super::connection::Stage;
use super::readers::{ReaderKind, ReaderState};
use super::timers::Timer;
use crate::api::{ApiError, Service};
use crate::limits::{CLOSE_TIME, DRAIN_TIME};
use crate::message::Message;

/// The progress of a shutdown on this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drain {
    /// Requests in flight are being answered.
    Answering,
    /// All have been answered here; other shards may not have finished.
    Drained,
    /// Stores are being closed.
    Closing,
    /// The plane was asked to exit.
    Exited,
}

impl Shard {
    pub(super) fn shut_down(&mut self, plane: &mut dyn Plane<Message>) {
        if self.drain.is_some() {
            return;
        }
        tracing::info!(shard = self.me, connections = self.connections.len(), "stopping");
        self.drain = Some(Drain::Answering);
        plane.stop_accepting();
        self.timers.set_after(plane, DRAIN_TIME, Timer::Drain);
        let readers: Vec<_> = self.readers.keys().copied().collect();
        for id in readers {
            match self.readers.get(&id).map(|r| (r.kind, r.state, r.conn)) {
                // It returns the records that it has.
                Some((ReaderKind::Fetch { .. }, ..)) => self.fetch_timed_out(id),
                // Its request has no reply yet.
                Some((ReaderKind::Subscription { .. }, ReaderState::Searching(_), _)) => {
                    self.end_reader(plane, id, &ApiError::Stopping(Service::Partitions));
                }
                Some((ReaderKind::Subscription { number, .. }, _, conn)) => {
                    self.remove_reader(id);
                    let text = "the broker is stopping; subscribe again after it has restarted";
                    let message =
                        error_message(MessageKind::Data as u16, number, ErrorCode::Unavailable, text);
                    self.send(plane, conn, message);
                }
                None => {}
            }
        }
        self.end_kafka_waits(plane);
        self.end_held_group_requests(plane);
        for call in self.calls.end_waiting() {
            call.finish(&mut self.context(plane));
        }
    }

    /// Advances the shutdown at the end of a turn.
    pub(super) fn run_drain(&mut self, plane: &mut dyn Plane<Message>) {
        match self.drain {
            Some(Drain::Answering) => {
                let idle: Vec<_> = self
                    .connections
                    .iter()
                    .filter(|(_, c)| c.stage != Stage::Closing && c.is_answered())
                    .map(|(id, _)| *id)
                    .filter(|id| !self.partitions.holds(*id))
                    .collect();
                for conn in idle {
                    self.close(plane, conn, Close::AfterSends);
                }
                if self.connections.is_empty() {
                    self.drain = Some(Drain::Drained);
                    plane.post(0, Message::Drained);
                }
            }
            Some(Drain::Closing) if self.is_closed() => {
                self.drain = Some(Drain::Exited);
                if self.partitions.is_closed() {
                    tracing::info!(shard = self.me, "stopped");
                } else {
                    self.warn_of_no_checkpoint("the disk is full");
                }
                plane.exit();
            }
            _ => {}
        }
    }

    /// Handles the timeout of a step: closes connections, or exits without waiting for the rest to become durable.
    pub(super) fn drain_timed_out(&mut self, plane: &mut dyn Plane<Message>) {
        if self.drain == Some(Drain::Closing) && plane.now() >= self.close_by {
            self.drain = Some(Drain::Exited);
            let full = self.partitions.is_full();
            self.warn_of_no_checkpoint(if full { "the disk is full" } else { "the disk is too slow" });
            return plane.exit();
        }
        if self.drain != Some(Drain::Answering) {
            return;
        }
        let all: Vec<_> = self.connections.keys().copied().collect();
        tracing::warn!(
            shard = self.me,
            connections = all.len(),
            "closed connections that did not finish in time"
        );
        for conn in all {
            self.close(plane, conn, Close::Now);
            self.remove_connection(conn);
        }
    }

    fn warn_of_no_checkpoint(&self, why: &str) {
        tracing::warn!(
            shard = self.me,
            "stopped without a checkpoint, because {why}: the next start reads the ends of the logs; nothing that was acknowledged is lost"
        );
    }

    /// On shard 0: a shard has answered its clients.
    pub(super) fn on_drained(&mut self, plane: &mut dyn Plane<Message>) {
        self.drained_shards += 1;
        if self.drained_shards == self.setup.shards {
            for shard in 0..self.setup.shards {
                plane.post(shard, Message::Close);
            }
        }
    }

    pub(super) fn on_close(&mut self, plane: &mut dyn Plane<Message>) {
        // What its coordinators still have goes into the last commit round.
        self.run_groups(plane);
        self.drain = Some(Drain::Closing);
        self.close_by = plane.now().after(CLOSE_TIME);
        self.timers.set_after(plane, CLOSE_TIME, Timer::Drain);
        self.leave_peers(plane);
        self.partitions.close(plane);
    }

    /// Returns whether nothing is in flight. Ignores batches that wait for disk space: they were not acknowledged, and may wait for ever.
    fn is_closed(&self) -> bool {
        let lead_idle = self.lead.as_ref().is_none_or(|lead| lead.controller.is_idle());
        lead_idle && self.partitions.is_at_rest()
    }
}
