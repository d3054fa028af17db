//! The work of a turn, in pieces.
//!
//! A request may concern a hundred thousand partitions. What has to be done for each of them is done in pieces, so many units in a turn,
//! and other requests are served in between: a turn takes about as long whatever was asked for. Work is counted in units instead of
//! by the clock, so that a simulation does the same every time; a unit is about half a microsecond (a partition created, deleted or
//! looked up, a name resolved).

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

/// Something that may take more than one turn.
pub(super) trait Job {
    /// Continues for as many units as `work` has. Returns the job if it is not finished.
    fn step(
        self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>>;
}

/// A job on behalf of a client: it ends when the client's connection does.
pub(crate) trait ClientJob {
    /// The client's connection.
    fn conn(&self) -> ConnId;

    /// Continues for as many units as `work` has. Returns true when it is done.
    fn go_on(&mut self, context: &Context<'_>, work: &mut Work) -> bool;

    /// Uses the result of the job, after it is done.
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
        if !self.go_on(&context, work) {
            return Some(self);
        }
        self.finish(&mut context);
        None
    }
}

/// What a shard has to do besides answering what comes.
#[derive(Default)]
pub(super) struct Jobs {
    /// Changes of the metadata, which take effect one after the other.
    publishing: VecDeque<Publishing>,
    /// Everything else, in turns.
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

    /// What is left of this turn.
    fn left(&self) -> usize {
        WORK_PER_TURN_MAX.saturating_sub(self.counted.this_turn())
    }

    /// What may be done at once in this turn.
    pub(super) fn work_at_once(&self) -> Work {
        Work::new(WORK_AT_ONCE_MAX.min(self.left()))
    }

    /// Counts what was done.
    pub(super) fn count(&mut self, work: &Work) {
        self.counted.add(work.spent());
    }

    /// A turn is over.
    pub(super) fn end_turn(&mut self) {
        self.counted.end_turn();
    }

    fn is_empty(&self) -> bool {
        self.publishing.is_empty() && self.others.is_empty()
    }
}

impl Shard {
    /// The most units of work that were done in one turn so far.
    pub fn busiest_turn_units(&self) -> usize {
        self.jobs.counted.most()
    }

    /// The units of work that were done so far.
    pub fn work_units(&self) -> usize {
        self.jobs.counted.all()
    }

    /// The most work on members of groups that was done in one turn so far; see `groups::limits::WORK_PER_TURN_MAX`.
    pub fn busiest_turn_group_work(&self) -> usize {
        self.lead.as_ref().map_or(0, |lead| lead.groups.busiest_turn_work())
    }

    /// The most entries of requests' lists that were read in one turn so far.
    pub fn busiest_turn_entries(&self) -> usize {
        self.admission.most_entries()
    }

    /// Does a little at once: what is left over becomes a job.
    pub(super) fn at_once<R>(&mut self, little: impl FnOnce(&mut Self, &mut Work) -> R) -> R {
        let mut work = self.jobs.work_at_once();
        let result = little(self, &mut work);
        self.jobs.count(&work);
        result
    }

    /// Goes on with the jobs, as far as a turn goes. True if they are not finished.
    pub(super) fn run_jobs(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if matches!(self.drain, Some(Drain::Closing | Drain::Exited)) {
            // The stores take their last snapshots; what is to be deleted is deleted after the next start.
            return false;
        }
        // What a step leads to is done at once, out of what it has left of the turn.
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
        // Half a turn is theirs, however much is published.
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

    /// Runs a step of at most `left` units. Returns its result, and the units that it and everything that it led to took.
    fn work_off<R>(&mut self, left: usize, step: impl FnOnce(&mut Self, &mut Work) -> R) -> (R, usize) {
        let before = self.jobs.counted.this_turn();
        let mut slice = Work::new(WORK_PER_STEP_MAX.min(left));
        let result = step(self, &mut slice);
        self.jobs.count(&slice);
        (result, (self.jobs.counted.this_turn() - before).max(1))
    }
}
