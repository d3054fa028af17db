//! Jobs: work that is split over turns.
//!
//! A request may concern a hundred thousand partitions. The work for them is done in slices, a limited number of units per turn, and other
//! requests are served in between, so a turn takes about the same time, whatever was requested. Work is counted in units and not by the clock,
//! so that simulations are deterministic. A unit takes about half a microsecond, enough to create, delete or look up a partition, or to resolve
//! a name.

use std::collections::VecDeque;

use highwater_runtime::plane::{ConnId, Plane};

use super::Shard;
use super::context::Context;
use super::drain::Drain;
use super::publish::Publishing;
use crate::counters::PerTurn;
pub(crate) use crate::counters::Work;
use crate::limits::{
    JOBS_WORK_PER_TURN_MIN, PUBLISH_WORK_PER_TURN_MIN, WORK_AT_ONCE_MAX, WORK_PER_STEP_MAX, WORK_PER_TURN_MAX,
};
use crate::message::Message;

/// Work that may take more than one turn.
pub(super) trait Job {
    /// Continues for as many units as `work` has. Returns the job if it is not finished.
    fn step(
        self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>>;
}

/// A job on behalf of a client. It ends when the client's connection is closed.
pub(crate) trait ClientJob {
    /// Returns the client's connection.
    fn conn(&self) -> ConnId;

    /// Runs the next slice of the job, for as many units as `work` has. Returns true when the job is done.
    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool;

    /// Uses the result of the job after it is done.
    fn finish(self: Box<Self>, context: &mut Context<'_>);
}

impl<J: ClientJob + 'static> Job for J {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if !shard.connections.contains_key(&self.conn()) {
            return None;
        }
        let mut context = shard.context(plane);
        if !self.run_slice(&context, work) {
            return Some(self);
        }
        self.finish(&mut context);
        None
    }
}

/// The jobs of a shard.
#[derive(Default)]
pub(super) struct Jobs {
    /// Changes of the metadata, which are applied in order.
    publishing: VecDeque<Publishing>,
    /// All other jobs, in rotation.
    others: VecDeque<Box<dyn Job>>,
    /// Units of work.
    counted: PerTurn,
}

impl Jobs {
    pub(super) fn publish(&mut self, publishing: Publishing) {
        self.publishing.push_back(publishing);
    }

    pub(super) fn add(&mut self, job: Box<dyn Job>) {
        self.others.push_back(job);
    }

    /// Returns the units that are left of this turn.
    fn left(&self) -> usize {
        WORK_PER_TURN_MAX.saturating_sub(self.counted.this_turn())
    }

    /// Returns the units that may be done at once in this turn.
    pub(super) fn work_at_once(&self) -> Work {
        Work::new(WORK_AT_ONCE_MAX.min(self.left()))
    }

    /// Counts the units that were done.
    pub(super) fn count(&mut self, work: &Work) {
        self.counted.add(work.spent());
    }

    /// Ends a turn.
    pub(super) fn end_turn(&mut self) {
        self.counted.end_turn();
    }

    fn is_empty(&self) -> bool {
        self.publishing.is_empty() && self.others.is_empty()
    }
}

impl Shard {
    /// Returns the largest number of units done in one turn so far.
    pub fn busiest_turn_units(&self) -> usize {
        self.jobs.counted.most()
    }

    /// Returns the number of units done so far.
    pub fn work_units(&self) -> usize {
        self.jobs.counted.all()
    }

    /// Returns the most work on members of groups done in one turn so far; see `groups::limits::WORK_PER_TURN_MAX`.
    pub fn busiest_turn_group_work(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.log.busiest_turn_work())
    }

    /// Returns the largest number of list entries decoded in one turn so far.
    pub fn busiest_turn_entries(&self) -> usize {
        self.admission.most_entries()
    }

    /// Does a limited amount of work at once. The caller makes a job of the rest.
    pub(super) fn at_once<R>(&mut self, little: impl FnOnce(&mut Self, &mut Work) -> R) -> R {
        let mut work = self.jobs.work_at_once();
        let result = little(self, &mut work);
        self.jobs.count(&work);
        result
    }

    /// Starts a job: does a limited amount of its work at once and the rest in later turns.
    pub(super) fn begin_job(&mut self, plane: &mut dyn Plane<Message>, job: impl Job + 'static) {
        let unfinished = self.at_once(|shard, work| Box::new(job).step(shard, plane, work));
        self.jobs.others.extend(unfinished);
    }

    /// Continues the jobs within the limits of a turn. Returns whether some are unfinished.
    pub(super) fn run_jobs(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if matches!(self.drain, Some(Drain::Closing | Drain::Exited)) {
            // The stores take their last snapshots. Unfinished deletions continue after the next start.
            return false;
        }
        // Work that a step causes is done at once and counts against the same turn.
        let mut left = self.jobs.left().max(PUBLISH_WORK_PER_TURN_MIN);
        while left > 0
            && let Some(mut publishing) = self.jobs.publishing.pop_front()
        {
            let (is_done, spent) = self.work_off(left, |shard, work| publishing.step(shard, plane, work));
            left = left.saturating_sub(spent);
            if !is_done {
                self.jobs.publishing.push_front(publishing);
            }
        }
        // Half a turn is reserved for them, however much is published.
        left = self.jobs.left().max(JOBS_WORK_PER_TURN_MIN);
        while left > 0
            && let Some(job) = self.jobs.others.pop_front()
        {
            let (unfinished, spent) = self.work_off(left, |shard, work| job.step(shard, plane, work));
            left = left.saturating_sub(spent);
            self.jobs.others.extend(unfinished);
        }
        !self.jobs.is_empty()
    }

    /// Runs a step of at most `left` units. Returns its result, and the units of everything that it caused.
    fn work_off<R>(&mut self, left: usize, step: impl FnOnce(&mut Self, &mut Work) -> R) -> (R, usize) {
        let before = self.jobs.counted.this_turn();
        let mut slice = Work::new(WORK_PER_STEP_MAX.min(left));
        let result = step(self, &mut slice);
        self.jobs.count(&slice);
        (result, (self.jobs.counted.this_turn() - before).max(1))
    }
}
