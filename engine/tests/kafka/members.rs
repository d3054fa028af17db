//! Members of groups and their offsets, as helpers for tests.

use highwater_engine::groups::GroupConfig;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse,
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse, OffsetCommitTopic, OffsetFetchRequest,
    OffsetFetchResponse, OffsetFetchTopic, SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse,
};

use crate::client::Kafka;
use crate::common::simulated::{Settings, SimBroker};

const NONE: KafkaError = KafkaError::NONE;

pub(crate) fn start() -> SimBroker {
    let groups = GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() };
    SimBroker::with(Settings { groups, ..Settings::default() })
}

/// A member of a group of the classic protocol, on a connection of its own.
pub(crate) struct Member {
    pub(crate) client: Kafka,
    pub(crate) group: &'static str,
    pub(crate) id: String,
    pub(crate) generation: i32,
}

impl Member {
    pub(crate) fn new(broker: &SimBroker, group: &'static str) -> Self {
        let mut member = Self { client: broker.kafka(), group, id: String::new(), generation: -1 };
        let reply = member.client.call(ApiKey::JoinGroup, 9, &join(group, ""));
        let answer: JoinGroupResponse<'_> = reply.body();
        assert_eq!(answer.error_code, KafkaError::MEMBER_ID_REQUIRED);
        member.id = answer.member_id.into_owned();
        assert!(member.id.starts_with("engine-test-"), "{}", member.id);
        member
    }

    pub(crate) fn send_join(&mut self) {
        self.client.send(ApiKey::JoinGroup, 9, &join(self.group, &self.id));
    }

    /// Receives the response to a join. Returns whether the member leads, and the members in the response.
    pub(crate) fn joined(&mut self) -> (bool, Vec<String>) {
        let reply = self.client.read(ApiKey::JoinGroup, 9).expect("the connection stays");
        let answer: JoinGroupResponse<'_> = reply.body();
        assert_eq!(answer.error_code, NONE);
        assert_eq!(answer.protocol_name.as_deref(), Some("range"));
        assert_eq!(answer.member_id, self.id);
        self.generation = answer.generation_id;
        (answer.leader == self.id, answer.members.iter().map(|m| m.member_id.to_string()).collect())
    }

    pub(crate) fn send_sync(&mut self, assignments: &[(&str, &[u8])]) {
        let request = SyncGroupRequest {
            group_id: self.group,
            generation_id: self.generation,
            member_id: &self.id,
            protocol_type: Some("consumer"),
            protocol_name: Some("range"),
            assignments: assignments
                .iter()
                .map(|(member_id, assignment)| SyncGroupAssignment { member_id, assignment })
                .collect(),
            ..Default::default()
        };
        self.client.send(ApiKey::SyncGroup, 5, &request);
    }

    pub(crate) fn synced(&mut self) -> Vec<u8> {
        let reply = self.client.read(ApiKey::SyncGroup, 5).expect("the connection stays");
        let answer: SyncGroupResponse<'_> = reply.body();
        assert_eq!(answer.error_code, NONE);
        answer.assignment.into_owned()
    }

    pub(crate) fn heartbeat(&mut self) -> KafkaError {
        let request = HeartbeatRequest {
            group_id: self.group,
            generation_id: self.generation,
            member_id: &self.id,
            ..Default::default()
        };
        let reply = self.client.call(ApiKey::Heartbeat, 4, &request);
        reply.body::<HeartbeatResponse>().error_code
    }

    /// Joins an empty group, and assigns itself.
    pub(crate) fn join_alone(&mut self) {
        self.send_join();
        let (leads, members) = self.joined();
        assert!(leads);
        assert_eq!(members, std::slice::from_ref(&self.id));
        let id = self.id.clone();
        self.send_sync(&[(&id, b"all")]);
        assert_eq!(self.synced(), b"all");
    }
}

pub(crate) fn join<'a>(group: &'a str, member: &'a str) -> JoinGroupRequest<'a> {
    JoinGroupRequest {
        group_id: group,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        member_id: member,
        protocol_type: "consumer",
        protocols: vec![JoinGroupProtocol { name: "range", metadata: b"what it wants" }],
        ..Default::default()
    }
}

pub(crate) fn commit<'a>(group: &'a str, topics: Vec<OffsetCommitTopic<'a>>) -> OffsetCommitRequest<'a> {
    OffsetCommitRequest { group_id: group, topics, ..Default::default() }
}

pub(crate) fn to_commit(partition: i32, offset: i64) -> OffsetCommitPartition<'static> {
    OffsetCommitPartition {
        partition_index: partition,
        committed_offset: offset,
        committed_leader_epoch: 0,
        committed_metadata: Some("noted"),
    }
}

pub(crate) fn committed(
    client: &mut Kafka,
    version: i16,
    request: &OffsetCommitRequest<'_>,
) -> Vec<KafkaError> {
    let reply = client.call(ApiKey::OffsetCommit, version, request);
    let answer: OffsetCommitResponse<'_> = reply.body();
    answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect()
}

/// Returns partition, offset, metadata and error for one topic, from version 7.
pub(crate) type FetchedOffset = (i32, i64, String, KafkaError);

pub(crate) fn fetch_offsets(
    client: &mut Kafka,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Vec<FetchedOffset> {
    let request = OffsetFetchRequest {
        group_id: group,
        topics: Some(vec![OffsetFetchTopic { name: topic, partition_indexes: partitions.to_vec() }]),
        ..Default::default()
    };
    let reply = client.call(ApiKey::OffsetFetch, 7, &request);
    let answer: OffsetFetchResponse<'_> = reply.body();
    assert_eq!(answer.error_code, NONE);
    let partitions = answer.topics.iter().flat_map(|t| &t.partitions);
    partitions
        .map(|p| {
            let metadata = p.metadata.clone().unwrap_or_default().into_owned();
            (p.partition_index, p.committed_offset, metadata, p.error_code)
        })
        .collect()
}
