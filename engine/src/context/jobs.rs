//! Jobs of clients: requests whose work is split over turns.

use std::collections::VecDeque;

use highwater_runtime::plane::ConnId;

use super::Context;
use crate::counters::{PerTurn, Work};
use crate::limits::{WORK_AT_ONCE_MAX, WORK_PER_TURN_MAX};

/// A job on behalf of a client. It ends when the client's connection is closed.
pub(crate) trait ClientJob {
    /// Returns the client's connection.
    fn conn(&self) -> ConnId;

    /// Runs the next slice of the job, for as many units as `work` has. Returns true when the job is done.
    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool;

    /// Uses the result of the job after it is done.
    fn finish(self: Box<Self>, context: &mut Context<'_>);
}

/// Jobs of clients that the shard has to continue, and the units of work of all jobs of the shard.
#[derive(Default)]
pub(crate) struct ClientJobs {
    begun: VecDeque<Box<dyn ClientJob>>,
    /// Units of work.
    counted: PerTurn,
}

impl ClientJobs {
    /// Adds a job, which the shard continues in later turns.
    pub(crate) fn add(&mut self, job: Box<dyn ClientJob>) {
        self.begun.push_back(job);
    }

    /// Takes the jobs that were added since the last call, in their order.
    pub(crate) fn take_begun(&mut self) -> impl Iterator<Item = Box<dyn ClientJob>> {
        self.begun.drain(..)
    }

    /// Returns the units that are left of this turn.
    pub(crate) fn left(&self) -> usize {
        WORK_PER_TURN_MAX.saturating_sub(self.counted.this_turn())
    }

    /// Returns the units that may be done at once in this turn.
    pub(crate) fn work_at_once(&self) -> Work {
        Work::new(WORK_AT_ONCE_MAX.min(self.left()))
    }

    /// Counts the units that were done.
    pub(crate) fn count(&mut self, work: &Work) {
        self.counted.add(work.spent());
    }

    /// Returns the units of all turns.
    pub(crate) fn counted(&self) -> &PerTurn {
        &self.counted
    }

    /// Ends a turn.
    pub(crate) fn end_turn(&mut self) {
        self.counted.end_turn();
    }
}
