//! Members of the classic protocol, and how their leaders assign partitions.

use std::collections::{BTreeMap, BTreeSet};

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse,
    SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse,
};
use rand::RngExt;

use super::member::{Member, MemberKind, Phase};
use super::{RETRIED, Round, TOPIC};
use crate::kafka_wire::Answer;
use crate::node::SESSION_MS;

/// Longer than a member needs to notice a rebalance from a heartbeat.
const REBALANCE_TIMEOUT_MS: i32 = 60;

const PROTOCOL: &str = "test";

/// The subscription to the topic, followed by the partitions that the member has, one byte each.
fn metadata<'a>(owned: impl IntoIterator<Item = &'a i32>) -> Vec<u8> {
    let mut bytes = b"\x00\x01\x00\x00\x00\x01\x00\x06".to_vec();
    bytes.extend_from_slice(TOPIC.as_bytes());
    bytes.extend(owned.into_iter().map(|partition| *partition as u8));
    bytes
}

impl Member {
    pub(super) fn act_classic(&mut self, round: &mut Round<'_>) {
        let (id, instance) = (self.id.clone(), self.instance.clone());
        // A leader joins again when there are partitions that it has not assigned.
        if self.phase == Phase::In && !(self.leads && self.assigned_count != round.ledger.partitions) {
            let request = HeartbeatRequest {
                group_id: self.group(),
                generation_id: self.generation,
                member_id: &id,
                group_instance_id: instance.as_deref(),
            };
            let version = self.rng.random_range(3..=4);
            return self.send_heartbeat(ApiKey::Heartbeat, version, &request);
        }
        if self.kind == MemberKind::Eager {
            self.owned.clear();
        }
        self.phase = Phase::Joining;
        let kept = if self.kind == MemberKind::Cooperative { metadata(&self.owned) } else { metadata([]) };
        let request = JoinGroupRequest {
            group_id: self.group(),
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: &id,
            group_instance_id: instance.as_deref(),
            protocol_type: "consumer",
            protocols: vec![JoinGroupProtocol { name: PROTOCOL, metadata: &kept }],
            reason: None,
        };
        // Before version 4 no response requires a member id first. Before version 9 a leader that rejoins under its instance id is not notified
        // that it leads (KAFKA-13435), so nobody would assign new partitions.
        let version_min = if instance.is_some() { 9 } else { 2 };
        let version = self.rng.random_range(version_min..=9);
        self.send_join(version, &request);
    }

    pub(super) fn on_joined(&mut self, answer: &Answer, round: &mut Round<'_>) {
        let response: JoinGroupResponse<'_> = answer.body();
        self.phase = Phase::Out;
        match response.error_code {
            KafkaError::NONE => {}
            KafkaError::MEMBER_ID_REQUIRED => {
                self.id = response.member_id.into_owned();
                self.next_at = round.tick;
                return;
            }
            KafkaError::FENCED_INSTANCE_ID => {
                self.is_over = true;
                return;
            }
            KafkaError::UNKNOWN_MEMBER_ID => return self.forget(),
            error => {
                let is_expected = RETRIED.contains(&error) || error == KafkaError::REBALANCE_IN_PROGRESS;
                assert!(is_expected, "{}: {error:?}", self.describe());
                return;
            }
        }
        self.id = response.member_id.to_string();
        self.generation = response.generation_id;
        self.leads = response.leader == self.id;
        let plan = if self.leads && !response.skip_assignment {
            self.assigned_count = round.ledger.partitions;
            assign(&response, round.ledger.partitions)
        } else {
            BTreeMap::new()
        };
        let assignments = plan
            .iter()
            .map(|(member, partitions)| SyncGroupAssignment { member_id: member, assignment: partitions });
        self.phase = Phase::Syncing;
        let (id, instance) = (self.id.clone(), self.instance.clone());
        let request = SyncGroupRequest {
            group_id: self.group(),
            generation_id: self.generation,
            member_id: &id,
            group_instance_id: instance.as_deref(),
            protocol_type: Some("consumer"),
            protocol_name: Some(PROTOCOL),
            assignments: assignments.collect(),
        };
        let version = self.rng.random_range(3..=5);
        self.send_sync(version, &request);
    }

    pub(super) fn on_synced(&mut self, answer: &Answer, round: &mut Round<'_>) {
        let response: SyncGroupResponse<'_> = answer.body();
        self.phase = Phase::Out;
        match response.error_code {
            KafkaError::NONE => {
                let owned: BTreeSet<i32> = response.assignment.iter().map(|p| i32::from(*p)).collect();
                for partition in &owned {
                    round.ledger.assign(self.group(), self.generation, *partition, &self.name());
                }
                let gives_up = !self.owned.is_subset(&owned);
                self.owned = owned;
                // Partitions that a cooperative member revokes are assigned to others in the next generation.
                let joins_again = gives_up && self.kind == MemberKind::Cooperative;
                self.phase = if joins_again { Phase::Out } else { Phase::In };
            }
            KafkaError::FENCED_INSTANCE_ID => self.is_over = true,
            KafkaError::UNKNOWN_MEMBER_ID => self.forget(),
            error => self.rejoin_after(error),
        }
    }

    pub(super) fn on_heartbeat(&mut self, answer: &Answer) {
        let response: HeartbeatResponse = answer.body();
        match response.error_code {
            KafkaError::NONE => {}
            KafkaError::FENCED_INSTANCE_ID => self.is_over = true,
            KafkaError::UNKNOWN_MEMBER_ID => self.forget(),
            error if RETRIED.contains(&error) => {}
            error => self.rejoin_after(error),
        }
    }

    /// Joins again, with the same member id.
    fn rejoin_after(&mut self, error: KafkaError) {
        let is_expected = RETRIED.contains(&error)
            || [KafkaError::REBALANCE_IN_PROGRESS, KafkaError::ILLEGAL_GENERATION].contains(&error);
        assert!(is_expected, "{}: {error:?}", self.describe());
        self.phase = Phase::Out;
    }

    /// Starts over because the broker no longer knows the member.
    fn forget(&mut self) {
        self.id.clear();
        self.owned.clear();
        self.phase = Phase::Out;
    }
}

/// Assigns partitions to members. Members keep partitions up to their share; the excess is assigned to others after it was revoked.
fn assign(joined: &JoinGroupResponse<'_>, partitions: i32) -> BTreeMap<String, Vec<u8>> {
    let share = (partitions as usize).div_ceil(joined.members.len());
    let prefix = metadata([]).len();
    let mut plan: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut kept, mut held) = (BTreeSet::new(), BTreeSet::new());
    for member in &joined.members {
        let keeps = plan.entry(member.member_id.to_string()).or_default();
        for partition in &member.metadata[prefix..] {
            held.insert(*partition);
            if keeps.len() < share && kept.insert(*partition) {
                keeps.push(*partition);
            }
        }
    }
    for partition in (0..partitions as u8).filter(|partition| !held.contains(partition)) {
        let least = plan.values_mut().min_by_key(|partitions| partitions.len()).expect("there are members");
        least.push(partition);
    }
    plan
}
