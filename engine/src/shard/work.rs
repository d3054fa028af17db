//! Jobs: work that is split over turns.
//!
//! A request may concern a hundred thousand partitions. The work for them is done in slices, a limited number of units per turn, and other
//! requests are served in between, so a turn takes about the same time, whatever was requested. Work is counted in units and not by the clock,
//! so that simulations are deterministic. A unit takes about half a microsecond, enough to create, delete or look up a partition, or to resolve
//! a name.

use std::collections::VecDeque;

use highwater_runtime::plane::Plane;

use super::Shard;
use super::drain::Drain;
use super::publish::MetadataStep;
use crate::context::{ClientJob, ClientJobs};
use crate::counters::Work;
use crate::limits::{JOBS_WORK_PER_TURN_MIN, PUBLISH_WORK_PER_TURN_MIN, WORK_PER_STEP_MAX};
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

/// A job of a client. It ends when the client's connection is closed.
struct ClientWork(Box<dyn ClientJob>);

impl Job for ClientWork {
    fn step(
        mut self: Box<Self>,
        shard: &mut Shard,
        plane: &mut dyn Plane<Message>,
        work: &mut Work,
    ) -> Option<Box<dyn Job>> {
        if !shard.connections.contains_key(&self.0.conn()) {
            return None;
        }
        let mut context = shard.context(plane);
        if !self.0.run_slice(&context, work) {
            return Some(self);
        }
        self.0.finish(&mut context);
        None
    }
}

/// The jobs of a shard.
#[derive(Default)]
pub(super) struct Jobs {
    /// Changes of the metadata, which are prepared and published in the order in which shard 0 sends them.
    metadata: VecDeque<MetadataStep>,
    /// All other jobs, in rotation.
    others: VecDeque<Box<dyn Job>>,
    /// Jobs that adapters have begun and that are not in the rotation yet, and the units of work of all.
    of_clients: ClientJobs,
}

impl Jobs {
    pub(super) fn add_metadata(&mut self, step: MetadataStep) {
        self.metadata.push_back(step);
    }

    pub(super) fn add(&mut self, job: Box<dyn Job>) {
        self.enter_begun();
        self.others.push_back(job);
    }

    /// Returns the jobs that adapters begin.
    pub(super) fn of_clients(&mut self) -> &mut ClientJobs {
        &mut self.of_clients
    }

    /// Moves the jobs that adapters have begun into the rotation.
    fn enter_begun(&mut self) {
        let begun = self.of_clients.take_begun();
        self.others.extend(begun.map(|job| Box::new(ClientWork(job)) as Box<dyn Job>));
    }

    /// Takes the next job of the rotation.
    fn pop(&mut self) -> Option<Box<dyn Job>> {
        self.enter_begun();
        self.others.pop_front()
    }

    /// Ends a turn.
    pub(super) fn end_turn(&mut self) {
        self.of_clients.end_turn();
    }

    fn is_empty(&mut self) -> bool {
        self.enter_begun();
        self.metadata.is_empty() && self.others.is_empty()
    }
}

impl Shard {
    /// Returns the largest number of units done in one turn so far.
    pub fn busiest_turn_units(&self) -> usize {
        self.jobs.of_clients.counted().most()
    }

    /// Returns the number of units done so far.
    pub fn work_units(&self) -> usize {
        self.jobs.of_clients.counted().all()
    }

    /// Returns the most work on members of groups done in one turn so far; see `groups::limits::WORK_PER_TURN_MAX`.
    pub fn busiest_turn_group_work(&self) -> usize {
        self.groups.coordinators.busiest_turn_work()
    }

    /// Returns the largest number of list entries decoded in one turn so far.
    pub fn busiest_turn_entries(&self) -> usize {
        self.admission.most_entries()
    }

    /// Does a limited amount of work at once. The caller makes a job of the rest.
    pub(super) fn at_once<R>(&mut self, little: impl FnOnce(&mut Self, &mut Work) -> R) -> R {
        let mut work = self.jobs.of_clients.work_at_once();
        let result = little(self, &mut work);
        self.jobs.of_clients.count(&work);
        result
    }

    /// Starts a job: does a limited amount of its work at once and the rest in later turns.
    pub(super) fn begin_job(&mut self, plane: &mut dyn Plane<Message>, job: impl Job + 'static) {
        let unfinished = self.at_once(|shard, work| Box::new(job).step(shard, plane, work));
        if let Some(job) = unfinished {
            self.jobs.add(job);
        }
    }

    /// Continues the jobs within the limits of a turn. Returns whether some are unfinished.
    pub(super) fn run_jobs(&mut self, plane: &mut dyn Plane<Message>) -> bool {
        if matches!(self.drain, Some(Drain::Closing | Drain::Exited)) {
            // The stores take their last snapshots. Unfinished deletions continue after the next start.
            return false;
        }
        // Work that a step causes is done at once and counts against the same turn.
        let mut left = self.jobs.of_clients.left().max(PUBLISH_WORK_PER_TURN_MIN);
        while left > 0
            && let Some(mut changes) = self.jobs.metadata.pop_front()
        {
            let (is_done, spent) = self.work_off(left, |shard, work| changes.step(shard, plane, work));
            left = left.saturating_sub(spent);
            if !is_done {
                self.jobs.metadata.push_front(changes);
            }
        }
        // Half a turn is reserved for them, however much is published.
        left = self.jobs.of_clients.left().max(JOBS_WORK_PER_TURN_MIN);
        while left > 0
            && let Some(job) = self.jobs.pop()
        {
            let (unfinished, spent) = self.work_off(left, |shard, work| job.step(shard, plane, work));
            left = left.saturating_sub(spent);
            if let Some(job) = unfinished {
                self.jobs.add(job);
            }
        }
        !self.jobs.is_empty()
    }

    /// Runs a step of at most `left` units. Returns its result, and the units of everything that it caused.
    fn work_off<R>(&mut self, left: usize, step: impl FnOnce(&mut Self, &mut Work) -> R) -> (R, usize) {
        let before = self.jobs.of_clients.counted().this_turn();
        let mut slice = Work::new(WORK_PER_STEP_MAX.min(left));
        let result = step(self, &mut slice);
        self.jobs.of_clients.count(&slice);
        (result, (self.jobs.of_clients.counted().this_turn() - before).max(1))
    }
}
