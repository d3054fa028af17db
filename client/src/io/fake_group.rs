//! The fake broker's side of a group with one member, which is assigned its target immediately.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body, CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommittedOffset, GroupHeartbeatReply,
    GroupHeartbeatRequest, JOIN_EPOCH, MessageKind, ReadGroupOffsetsReply, ReadGroupOffsetsRequest,
    TopicPartitions, TopicPositions, message,
};

/// The broker's only topic.
pub(crate) const TOPIC: TopicId = TopicId([7; 16]);

/// See the module documentation.
#[derive(Default)]
pub(crate) struct FakeGroup {
    /// The partitions to assign to the member.
    pub(crate) target: Vec<u32>,
    /// The partitions assigned to it.
    assigned: Vec<u32>,
    pub(crate) positions: BTreeMap<u32, CommittedOffset>,
    /// Epochs and owned partitions of the heartbeats received.
    pub(crate) beats: Vec<(i32, Option<Vec<u32>>)>,
}

impl FakeGroup {
    pub(crate) fn offset(&self, partition: u32) -> Option<Offset> {
        self.positions.get(&partition).map(|position| position.offset)
    }

    pub(super) fn answer(&mut self, kind: MessageKind, id: u64, body: &Bytes) -> Bytes {
        match kind {
            MessageKind::GroupHeartbeat => {
                message(id, &self.heartbeat(GroupHeartbeatRequest::decode(body).unwrap()))
            }
            MessageKind::ReadGroupOffsets => {
                message(id, &self.read(&ReadGroupOffsetsRequest::decode(body).unwrap()))
            }
            MessageKind::CommitGroupOffsets => {
                for topic in CommitGroupOffsetsRequest::decode(body).unwrap().topics {
                    self.positions.extend(topic.positions.into_iter().map(|p| (p.partition.get(), p)));
                }
                message(id, &CommitGroupOffsetsReply { rejected: Vec::new() })
            }
            other => panic!("the fake group knows no {other:?}"),
        }
    }

    /// Like the real broker, sends the assignment only if it changes with this heartbeat or the member reports
    /// everything.
    fn heartbeat(&mut self, request: GroupHeartbeatRequest) -> GroupHeartbeatReply {
        let is_full = request.topics.is_some() && request.owned.is_some();
        let owned = request.owned.map(|topics| {
            topics.iter().flat_map(|of| of.partitions.iter().map(|p| p.get())).collect::<Vec<_>>()
        });
        self.beats.push((request.epoch, owned));
        let tells = is_full || self.assigned != self.target;
        self.assigned.clone_from(&self.target);
        let partitions = self.assigned.iter().map(|partition| PartitionIndex(*partition)).collect();
        GroupHeartbeatReply {
            member: request.member,
            epoch: if request.epoch < JOIN_EPOCH { request.epoch } else { 1 },
            heartbeat_interval_ms: 5,
            session_timeout_ms: 600_000,
            assignment: tells.then(|| vec![TopicPartitions { topic: TOPIC, partitions }]),
        }
    }

    fn read(&self, request: &ReadGroupOffsetsRequest) -> ReadGroupOffsetsReply {
        let asked = request.partitions.iter().flatten().flat_map(|of| &of.partitions);
        let positions = asked.filter_map(|partition| self.positions.get(&partition.get()).cloned()).collect();
        ReadGroupOffsetsReply { topics: vec![TopicPositions { topic: TOPIC, positions }] }
    }
}
