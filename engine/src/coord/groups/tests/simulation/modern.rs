//! Members of the consumer protocol.

use super::actor::Phase;
use super::*;

const SESSION_MS: u64 = 45_000;

impl Actor {
    pub(super) fn heartbeat(&self) -> ConsumerHeartbeatRequest {
        ConsumerHeartbeatRequest {
            group: self.group().into(),
            member: self.member.clone(),
            epoch: self.generation,
            instance: self.instance.clone(),
            rebalance_timeout_ms: 60_000,
            topic_regex: Some("on.".into()),
            topic_names: Some(vec![]),
            owned: Some(
                vec![(topic(1), self.owned.clone())].into_iter().filter(|(_, p)| !p.is_empty()).collect(),
            ),
            ..ConsumerHeartbeatRequest::default()
        }
    }

    pub(super) fn beat(&mut self, world: &mut World, n: usize) {
        if world.ms >= self.good_at + SESSION_MS {
            // It has to take itself for dead.
            self.leave_behind();
        }
        // What it shall not have any more is given up, perhaps only after a while.
        if world.quiet || !world.odds(3) {
            let told = self.told.clone();
            self.owned.retain(|p| told.contains(p));
        }
        let mut request = self.heartbeat();
        if self.generation > 0 && world.odds(2) {
            request.topic_regex = None;
            request.topic_names = None;
        }
        self.request(world, n, GroupRequest::ConsumerHeartbeat(request));
    }

    pub(super) fn on_beat(&mut self, world: &mut World, reply: ConsumerHeartbeatReply) {
        match reply.error {
            None => {
                self.phase = Phase::In;
                self.good_at = self.sent_at;
                self.generation = reply.epoch;
                let Some(assignment) = reply.assignment else { return };
                self.told = assignment.into_iter().flat_map(|(_, p)| p).collect();
                for partition in self.told.clone() {
                    if !self.owned.contains(&partition) {
                        self.check_alone(world, partition);
                        self.owned.push(partition);
                    }
                }
                self.owned.sort_unstable();
            }
            Some(GroupError::UnreleasedInstanceId | GroupError::CoordinatorNotAvailable) => {}
            Some(GroupError::FencedInstanceId) => self.is_over = true,
            Some(_) => self.leave_behind(),
        }
    }

    /// Nobody else who may still believe in it has this partition.
    fn check_alone(&self, world: &World, partition: u32) {
        for other in world.actors.iter().flatten().filter(|a| a.group() == self.group()) {
            assert!(
                !other.owned.contains(&partition) || world.ms >= other.good_at + SESSION_MS,
                "seed {}: partition {partition} is {}'s and {}'s",
                world.seed,
                self.member,
                other.member
            );
        }
    }

    /// It begins again with nothing.
    fn leave_behind(&mut self) {
        self.generation = 0;
        self.owned.clear();
        self.told.clear();
        self.phase = Phase::Out;
    }
}
