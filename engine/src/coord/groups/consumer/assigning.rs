//! The next assignment of a group, computed in as many turns as it takes.
//!
//! ```text
//!   a change, or new topics --> resolve subscriptions --> assignment needed? --yes--> compute targets --> set members' targets
//!                                                                         \--no---> done
//! ```
//!
//! An assignment belongs to the group epoch at which it was started. Members that join, change or leave meanwhile begin further epochs. The
//! assignment is finished nevertheless, as the target of its own epoch, and the next one follows at once. So a group whose members change all the
//! time still gets assignments. Until it is finished, heartbeats are answered from the previous assignment. A target for a member that has changed
//! meanwhile does no harm: reconciliation checks what members subscribe to now and what others own.

use std::vec::IntoIter;

use highwater_protocol::ids::GroupEpoch;

use super::assign::{Plan, Subscriptions};
use super::{Assignor, ConsumerGroup, Target};
use crate::coord::groups::effects::Context;
use crate::coord::groups::limits::{ASSIGN_WORK_PER_ITEM, ASSIGN_WORK_PER_MEMBER, ASSIGN_WORK_PER_SLICE_MAX};
use crate::coord::groups::topics::Topics;
use crate::counters::Work;

/// An assignment in progress.
#[derive(Debug)]
pub(super) struct Assigning {
    /// The epoch whose target it is; the epoch of the current target while it is unknown whether a new assignment is needed.
    epoch: GroupEpoch,
    /// Whether that epoch was begun for this assignment.
    has_epoch: bool,
    subscriptions: Subscriptions,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    ResolveSubscriptions,
    Assign(Plan),
    /// Sets the targets of members, from this one on.
    SetTargets(IntoIter<Target>, usize),
    /// The target is set, or no new one is needed.
    Clear,
}

impl ConsumerGroup {
    /// Begins a new epoch if `force` or if topics have changed, and starts computing its target. Little work is finished at once.
    pub(super) fn next_epoch(&mut self, cx: &mut Context<'_>, topics: &Topics, force: bool) {
        if force {
            self.epoch = self.epoch.next();
        }
        if self.assigning.is_some() || self.epoch <= self.target_epoch && !self.has_new_topics(topics) {
            return;
        }
        self.begin_assigning(topics, force);
        let mut work = Work::new(ASSIGN_WORK_PER_SLICE_MAX);
        self.continue_assigning(topics, &mut work);
        cx.spent += work.spent();
        if let Some(assigning) = &mut self.assigning {
            cx.begins_assigning = true;
            if self.target_epoch == GroupEpoch(0) {
                // A member that has joined must have an epoch greater than 0, so the first epoch gets the empty target.
                self.target_epoch = self.epoch;
                self.epoch = self.epoch.next();
                assigning.epoch = self.epoch;
            }
        }
    }

    /// Continues an assignment that was started. Returns whether it is unfinished.
    pub(in crate::coord::groups) fn assign_some(
        &mut self,
        cx: &mut Context<'_>,
        topics: &Topics,
        units: usize,
    ) -> bool {
        let mut work = Work::new(units);
        self.continue_assigning(topics, &mut work);
        cx.spent += work.spent();
        self.persist(cx);
        self.assigning.is_some()
    }

    fn begin_assigning(&mut self, topics: &Topics, has_epoch: bool) {
        self.topics_seen = Some(self.topics_known(topics));
        let (subscriptions, stage) = (Subscriptions::new(), Stage::ResolveSubscriptions);
        self.assigning = Some(Box::new(Assigning { epoch: self.epoch, has_epoch, subscriptions, stage }));
    }

    fn continue_assigning(&mut self, topics: &Topics, work: &mut Work) {
        while let Some(mut assigning) = self.assigning.take() {
            if !self.step(&mut assigning, topics, work) {
                self.assigning = Some(assigning);
                return;
            }
            if self.epoch > self.target_epoch && !self.members.is_empty() {
                self.begin_assigning(topics, true);
            }
        }
    }

    /// Continues the assignment. Returns whether it is finished.
    fn step(&mut self, assigning: &mut Assigning, topics: &Topics, work: &mut Work) -> bool {
        loop {
            match &mut assigning.stage {
                Stage::ResolveSubscriptions => {
                    if !assigning.subscriptions.advance(&self.members, topics, work) {
                        return false;
                    }
                    assigning.stage = if self.must_assign(assigning) {
                        work.spend(self.members.len());
                        Stage::Assign(self.assignor().begin(&assigning.subscriptions))
                    } else {
                        Stage::Clear
                    };
                }
                Stage::Assign(plan) => {
                    if !plan.advance(&assigning.subscriptions, &self.members, work) {
                        return false;
                    }
                    assigning.stage = Stage::SetTargets(plan.take_targets().into_iter(), 0);
                }
                Stage::SetTargets(targets, next) => {
                    while !work.is_over()
                        && let Some(target) = targets.next()
                    {
                        let id = assigning.subscriptions.id(*next);
                        *next += 1;
                        let count: usize = target.values().map(|partitions| 1 + partitions.len()).sum();
                        work.spend(ASSIGN_WORK_PER_MEMBER + count * ASSIGN_WORK_PER_ITEM);
                        self.set_target(id, target);
                    }
                    if targets.len() > 0 {
                        return false;
                    }
                    self.target_epoch = assigning.epoch;
                    assigning.stage = Stage::Clear;
                }
                Stage::Clear => return assigning.subscriptions.clear(work),
            }
        }
    }

    /// Returns whether an assignment is needed, now that the subscriptions are resolved. Begins an epoch for it if topics have changed and none was
    /// begun.
    fn must_assign(&mut self, assigning: &mut Assigning) -> bool {
        let hash = assigning.subscriptions.hash();
        let is_new = hash != self.topics_hash;
        self.topics_hash = hash;
        if is_new && !assigning.has_epoch && self.epoch == assigning.epoch {
            self.epoch = self.epoch.next();
            assigning.epoch = self.epoch;
        }
        // If an epoch was begun meanwhile and this assignment has none, the next assignment belongs to that epoch.
        assigning.epoch > self.target_epoch
    }

    fn set_target(&mut self, id: &str, target: Target) {
        // The member may have left.
        let Some(member) = self.members.get_mut(id) else { return };
        if member.target != target {
            member.target = target;
            self.changed.insert(id.to_owned());
        }
    }

    /// Returns the assignor that more members prefer; `uniform` in a tie.
    pub(super) fn assignor(&self) -> Assignor {
        let votes = |assignor: Assignor| {
            self.members.values().filter(|m| m.assignor.as_deref() == Some(assignor.name())).count()
        };
        if votes(Assignor::Range) > votes(Assignor::Uniform) { Assignor::Range } else { Assignor::Uniform }
    }
}
