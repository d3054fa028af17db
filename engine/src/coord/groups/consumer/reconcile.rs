//! Moves a member to its target, one heartbeat at a time.
//!
//! First the member revokes what is not in its target. Then it reaches the target's epoch and gets the partitions that no other member owns. It
//! gets the rest when the others have revoked it.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::member::{Assigned, MemberState};
use super::subscription::Subscription;
use super::{ConsumerGroup, Target};
use crate::coord::groups::effects::Context;
use crate::coord::groups::limits::RECONCILE_WORK_PER_MEMBER;

impl ConsumerGroup {
    /// Moves a member that reports `owned` one step closer to its target. Returns whether its state has changed.
    pub(super) fn reconcile(
        &mut self,
        cx: &mut Context<'_>,
        id: &str,
        subscription_changed: bool,
        subscription: &Subscription<'_>,
        owned: Option<&[(TopicId, Vec<PartitionIndex>)]>,
    ) -> bool {
        let member = &self.members[id];
        let is_revoking = member.state == MemberState::Revoking && may_own_any(owned, &member.revoking);
        let has_arrived = member.state == MemberState::Stable && member.epoch == self.target_epoch;
        if is_revoking || has_arrived {
            return subscription_changed && self.revoke_unsubscribed(id, subscription, owned);
        }
        self.advance(cx, id, subscription, owned)
    }

    /// Immediately revokes the topics that the member no longer subscribes to, whatever its target.
    fn revoke_unsubscribed(
        &mut self,
        id: &str,
        subscription: &Subscription<'_>,
        owned: Option<&[(TopicId, Vec<PartitionIndex>)]>,
    ) -> bool {
        let member = self.members.get_mut(id).expect("the caller has found the member");
        let (kept, dropped): (Assigned, Assigned) = std::mem::take(&mut member.assigned)
            .into_iter()
            .partition(|(topic, _)| subscription.contains(*topic));
        member.assigned = kept;
        if dropped.is_empty() {
            return false;
        }
        let mut revoking = member.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        let epoch = member.epoch;
        member.set_epoch(epoch);
        if may_own_any(owned, &revoking) {
            member.state = MemberState::Revoking;
            member.revoking = revoking;
        }
        true
    }

    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        id: &str,
        subscription: &Subscription<'_>,
        owned: Option<&[(TopicId, Vec<PartitionIndex>)]>,
    ) -> bool {
        let member = &self.members[id];
        let target: Target = member
            .target
            .iter()
            .filter(|(t, _)| subscription.contains(**t))
            .map(|(t, p)| (*t, p.clone()))
            .collect();
        let mut kept = Assigned::new();
        let mut revoking = Assigned::new();
        for (topic, partitions) in &member.assigned {
            let in_target = target.get(topic);
            for (partition, epoch) in partitions {
                let is_kept = in_target.is_some_and(|target| target.contains(partition));
                let into = if is_kept { &mut kept } else { &mut revoking };
                into.entry(*topic).or_default().insert(*partition, *epoch);
            }
        }
        let mut after = member.clone();
        if may_own_any(owned, &revoking) {
            let epoch = after.epoch;
            after.set_epoch(epoch);
            after.state = MemberState::Revoking;
            after.assigned = kept;
            after.revoking = revoking;
        } else {
            let missing: Vec<(TopicId, PartitionIndex)> = target
                .iter()
                .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
                .filter(|(topic, p)| kept.get(topic).is_none_or(|k| !k.contains_key(p)))
                .collect();
            if !missing.is_empty() {
                cx.spent += self.members.len() * RECONCILE_WORK_PER_MEMBER;
            }
            let held = self.held_by_others(id, &missing.iter().map(|(topic, _)| *topic).collect());
            after.state = MemberState::Stable;
            for (topic, partition) in missing {
                if held.contains(&(topic, partition)) {
                    after.state = MemberState::Waiting;
                } else {
                    kept.entry(topic).or_default().insert(partition, self.target_epoch);
                }
            }
            after.set_epoch(self.target_epoch);
            after.assigned = kept;
            after.revoking = BTreeMap::new();
        }
        let is_same = after.epoch == member.epoch
            && after.state == member.state
            && after.assigned == member.assigned
            && after.revoking == member.revoking;
        if !is_same {
            self.members.insert(id.to_owned(), after);
        }
        !is_same
    }

    /// Returns the partitions of these topics that other members own.
    fn held_by_others(&self, id: &str, topics: &BTreeSet<TopicId>) -> BTreeSet<(TopicId, PartitionIndex)> {
        let mut held = BTreeSet::new();
        if topics.is_empty() {
            return held;
        }
        for (_, other) in self.members.iter().filter(|(other, _)| *other != id) {
            for owned in [&other.assigned, &other.revoking] {
                let mut add = |topic: &TopicId, of: &BTreeMap<PartitionIndex, GroupEpoch>| {
                    held.extend(of.keys().map(|p| (*topic, *p)));
                };
                // Iterates over the smaller of the two: both are rarely large.
                if owned.len() < topics.len() {
                    owned.iter().filter(|(topic, _)| topics.contains(topic)).for_each(|(t, p)| add(t, p));
                } else {
                    topics.iter().filter_map(|t| Some((t, owned.get(t)?))).for_each(|(t, p)| add(t, p));
                }
            }
        }
        held
    }
}

/// Returns whether a member may own any of these partitions. One that does not report its partitions may own all.
fn may_own_any(owned: Option<&[(TopicId, Vec<PartitionIndex>)]>, of: &Assigned) -> bool {
    let Some(owned) = owned else { return !of.is_empty() };
    owned.iter().any(|(topic, partitions)| {
        of.get(topic).is_some_and(|of_topic| partitions.iter().any(|p| of_topic.contains_key(p)))
    })
}
