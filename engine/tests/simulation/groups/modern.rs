//! Members of the consumer protocol (KIP-848).

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, OwnedPartitions,
};
use rand::RngExt;

use super::member::{Member, Phase};
use super::{RETRIED, Round};
use crate::kafka_wire::Answer;
use crate::node::SESSION_TICKS;

/// Matches the topic's name.
const PATTERN: &str = "sha.ed";

impl Member {
    pub(super) fn act_modern(&mut self, round: &mut Round<'_>) {
        if round.tick >= self.confirmed_at + SESSION_TICKS {
            // The broker may have assigned its partitions to others.
            self.start_over(round);
        }
        // It revokes partitions that it is no longer assigned, at times with a delay.
        if round.is_quiet || self.rng.random_bool(0.7) {
            let assigned = &self.assigned;
            self.owned.retain(|partition| assigned.contains(partition));
            round.ledger.hold(&self.id, &self.owned, self.confirmed_at);
        }
        let is_full = self.generation == 0 || self.rng.random_bool(0.5);
        self.beat(self.generation, is_full, round);
    }

    pub(super) fn leave_modern(&mut self, round: &mut Round<'_>) {
        // A static member leaves for a while.
        let epoch = if self.instance.is_some() { -2 } else { -1 };
        self.beat(epoch, false, round);
    }

    fn beat(&mut self, epoch: i32, is_full: bool, round: &Round<'_>) {
        self.sent_at = round.tick;
        let (id, instance) = (self.id.clone(), self.instance.clone());
        let partitions: Vec<i32> = self.owned.iter().copied().collect();
        let owned = OwnedPartitions { topic_id: round.ledger.topic.0, partitions };
        let owned = if self.owned.is_empty() { Vec::new() } else { vec![owned] };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group(),
            member_id: &id,
            member_epoch: epoch,
            instance_id: instance.as_deref(),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: is_full.then(Vec::new),
            subscribed_topic_regex: is_full.then_some(PATTERN),
            topic_partitions: Some(owned),
            ..Default::default()
        };
        self.send_heartbeat(ApiKey::ConsumerGroupHeartbeat, 1, &request);
    }

    pub(super) fn on_modern_heartbeat(&mut self, answer: &Answer, round: &mut Round<'_>) {
        let response: ConsumerGroupHeartbeatResponse<'_> = answer.body();
        match response.error_code {
            KafkaError::NONE => {}
            KafkaError::FENCED_INSTANCE_ID => {
                self.is_over = true;
                return;
            }
            KafkaError::UNRELEASED_INSTANCE_ID => return,
            KafkaError::UNKNOWN_MEMBER_ID | KafkaError::FENCED_MEMBER_EPOCH => return self.start_over(round),
            error => {
                assert!(RETRIED.contains(&error), "{}: {error:?}", self.describe());
                return;
            }
        }
        self.phase = Phase::In;
        self.confirmed_at = self.sent_at;
        self.generation = response.member_epoch;
        if let Some(assignment) = response.assignment {
            self.assigned = assignment.topic_partitions.into_iter().flat_map(|of| of.partitions).collect();
            for partition in &self.assigned {
                if self.owned.insert(*partition) {
                    round.ledger.claim(*partition, &self.id, round.tick);
                }
            }
        }
        round.ledger.hold(&self.id, &self.owned, self.confirmed_at);
    }

    /// Joins again without partitions.
    fn start_over(&mut self, round: &mut Round<'_>) {
        self.generation = 0;
        self.owned.clear();
        self.assigned.clear();
        self.phase = Phase::Out;
        round.ledger.forget(&self.id);
    }
}
