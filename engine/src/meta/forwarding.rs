//! Requests to the controller on another node: shard 0 sends those of its own node to the node that leads the metadata, which answers.
//!
//! ```text
//!   shard --> shard 0 --Request(number)--> shard 0 of the leader --> Proposer
//!     ^          |                                                     |
//!     +----------+<------------Reply(number)---------------------------+
//! ```
//!
//! So clients and the node itself may ask any node. A node passes a reply on when it has applied what the leader had: a topic that a client has created exists on
//! the node that the client has asked. What has become of a request is unknown if the way to the leader is lost before the reply: the requester gets
//! [`ApiError::NotController`], as it does when the leader is deposed. A request is never sent twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_protocol::ids::{NodeId, Offset};

use super::controller::Outcome;
use super::message::{ReplyMessage, RequestMessage};
use super::record::DecodeRecordError;
use crate::api::{ApiError, ControllerRequest, Requester, Service};
use crate::limits::{CONTROLLER_BYTES_MAX, FORWARDED_REQUESTS_MAX};

/// The requests of this node that are with the leader. See the [module](self).
#[derive(Default, Debug)]
pub(crate) struct Forwarding {
    pending: BTreeMap<u64, Pending>,
    /// The number of the last request.
    number: u64,
}

#[derive(Debug)]
struct Pending {
    to: Requester,
    leader: NodeId,
    service: Service,
}

/// A message that cannot be from a node that follows the protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidMessage {
    #[error("it is too short")]
    TooShort,
    #[error(transparent)]
    Content(#[from] DecodeRecordError),
}

/// Bytes of the number in front of a request or a reply.
const NUMBER_BYTES: usize = size_of::<u64>();

/// A reply that has come back.
#[derive(Debug)]
pub(crate) struct ForwardedReply {
    /// Who gets it.
    pub(crate) to: Requester,
    pub(crate) outcome: Outcome,
    /// The end of what the leader had applied. Who gets the reply expects this node to have it too.
    pub(crate) end: Offset,
}

impl Forwarding {
    /// Returns the message that brings a request to the leader, and the number of the request.
    pub(crate) fn begin(
        &mut self,
        to: Requester,
        leader: NodeId,
        service: Service,
        request: &ControllerRequest,
    ) -> Result<(u64, Bytes), ApiError> {
        if self.pending.len() >= FORWARDED_REQUESTS_MAX {
            return Err(ApiError::NotController);
        }
        let message = RequestMessage::of(request).ok_or(ApiError::NotController)?;
        let message = numbered(self.number + 1, &message.encode());
        if message.len() > CONTROLLER_BYTES_MAX {
            return Err(ApiError::InvalidPartitionCount(format!(
                "the request is too large to be forwarded to node {leader}, which leads the cluster's metadata: change less at once, or send it there"
            )));
        }
        self.number += 1;
        self.pending.insert(self.number, Pending { to, leader, service });
        Ok((self.number, message))
    }

    /// Forgets a request that could not be sent.
    pub(crate) fn abandon(&mut self, number: u64) {
        self.pending.remove(&number);
    }

    /// Handles a reply. `None`: nobody waits for it any more.
    pub(crate) fn handle_reply(
        &mut self,
        from: NodeId,
        body: &[u8],
    ) -> Result<Option<ForwardedReply>, InvalidMessage> {
        let (number, content) = number_of(body)?;
        let (end, content) = content.split_first_chunk().ok_or(InvalidMessage::TooShort)?;
        let reply = ReplyMessage::decode(content)?;
        if self.pending.get(&number).is_none_or(|pending| pending.leader != from) {
            return Ok(None);
        }
        let Some(Pending { to, service, .. }) = self.pending.remove(&number) else { return Ok(None) };
        let outcome = reply.into_outcome(service);
        Ok(Some(ForwardedReply { to, outcome, end: Offset(i64::from_le_bytes(*end)) }))
    }

    /// Handles that the way to a node is lost: returns those whose requests are with it. They get [`ApiError::NotController`].
    pub(crate) fn handle_lost(&mut self, node: NodeId) -> Vec<Requester> {
        let lost = self.pending.extract_if(.., |_, pending| pending.leader == node);
        lost.map(|(_, pending)| pending.to).collect()
    }
}

/// Returns the request in a message, and its number.
pub(crate) fn read_request(body: &[u8]) -> Result<(u64, ControllerRequest), InvalidMessage> {
    let (number, content) = number_of(body)?;
    Ok((number, RequestMessage::decode(content)?.into()))
}

/// Returns the message with the reply to the request with this number, from a leader that has applied the records before `end`.
pub(crate) fn write_reply(number: u64, end: Offset, outcome: &Outcome) -> Bytes {
    let content = [&end.0.to_le_bytes()[..], &ReplyMessage::of(outcome).encode()].concat();
    numbered(number, &content)
}

fn numbered(number: u64, content: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(NUMBER_BYTES + content.len());
    message.extend_from_slice(&number.to_le_bytes());
    message.extend_from_slice(content);
    message.into()
}

fn number_of(body: &[u8]) -> Result<(u64, &[u8]), InvalidMessage> {
    let (number, content) = body.split_first_chunk::<NUMBER_BYTES>().ok_or(InvalidMessage::TooShort)?;
    Ok((u64::from_le_bytes(*number), content))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use highwater_protocol::ids::{ProducerId, TopicId};
    use highwater_replication::join::DiskId;

    use super::*;
    use crate::api::{
        AlterTopic, ConfigChange, ConfigChanges, ConfigureTopic, ControllerReply, CreateGroupsTopic,
        CreateTopic, CreatedTopic, DeleteTopic, DeleteTopicById, Node, RegisterNode, Replication, Ticket,
    };

    const LEADER: NodeId = NodeId(2);

    fn to(number: u64) -> Requester {
        Requester::Shard(1, Ticket { call: 7, number: number as u32 })
    }

    fn requests() -> Vec<ControllerRequest> {
        let (rack, clients, peer) = (Some("a".to_owned()), vec![], None);
        let node =
            Node { id: NodeId(3), incarnation: 1, disk: DiskId([4; 16]), rack, clients, peer, shards: 2 };
        let named = [
            ("a", ConfigChange::Set("1".into())),
            ("b", ConfigChange::Reset),
            ("c", ConfigChange::Append("x".into())),
            ("d", ConfigChange::Subtract("y".into())),
        ];
        let named: BTreeMap<_, _> = named.map(|(name, change)| (name.to_owned(), change)).into();
        vec![
            ControllerRequest::CreateTopic(CreateTopic {
                name: "t".into(),
                partitions: 3,
                replication: Replication::Assigned(vec![vec![NodeId(1), NodeId(2)]]),
                configs: vec![("a".into(), "b".into())],
                validate_only: true,
            }),
            ControllerRequest::DeleteTopic(DeleteTopic("t".into())),
            ControllerRequest::DeleteTopicById(DeleteTopicById(TopicId([5; 16]))),
            ControllerRequest::AlterTopic(AlterTopic {
                name: "t".into(),
                configs: vec![("a".into(), None)],
                partitions: Some(9),
                replication: Replication::Factor(2),
                validate_only: false,
            }),
            ControllerRequest::ConfigureTopic(ConfigureTopic {
                name: "t".into(),
                changes: ConfigChanges { named, resets_others: true },
                validate_only: false,
            }),
            ControllerRequest::ReserveProducerIds,
            ControllerRequest::CreateGroupsTopic(CreateGroupsTopic { for_old_groups: false }),
            ControllerRequest::RegisterNode(RegisterNode(node)),
        ]
    }

    #[test]
    fn a_request_arrives_as_it_was_sent_and_its_reply_at_who_has_sent_it() {
        let mut forwarding = Forwarding::default();
        for (at, request) in (0..).zip(requests()) {
            let (_, message) =
                forwarding.begin(to(at), LEADER, Service::Controller, &request).expect("it fits");
            let (number, received) = read_request(&message).expect("it was encoded");
            assert_eq!(format!("{received:?}"), format!("{request:?}"));
            let reply = write_reply(number, Offset(40), &Ok(ControllerReply::Done));
            let other = forwarding.handle_reply(NodeId(9), &reply).expect("it can be read");
            assert!(other.is_none(), "the request is not with that node");
            let replied = forwarding.handle_reply(LEADER, &reply).expect("it can be read").expect("it waits");
            assert_eq!((replied.to, replied.end), (to(at), Offset(40)));
            assert!(matches!(replied.outcome, Ok(ControllerReply::Done)));
            assert!(forwarding.handle_reply(LEADER, &reply).expect("it can be read").is_none(), "twice");
        }
        assert!(forwarding.pending.is_empty());
    }

    #[test]
    fn replies_arrive_as_they_were_sent() {
        let created = CreatedTopic { id: TopicId([7; 16]), replicas: 3 };
        let outcomes = [
            Ok(ControllerReply::Done),
            Ok(ControllerReply::Created(created)),
            Ok(ControllerReply::ProducerIds(ProducerId(1000)..ProducerId(2000))),
            Err(ApiError::TopicExists("t".into())),
            Err(ApiError::UnknownTopic("t".into())),
            Err(ApiError::UnknownTopicId(TopicId([1; 16]))),
            Err(ApiError::InvalidTopicName("a".into())),
            Err(ApiError::InvalidPartitionCount("b".into())),
            Err(ApiError::InvalidReplicationFactor("c".into())),
            Err(ApiError::InvalidAssignment("d".into())),
            Err(ApiError::InvalidConfig("e".into())),
            Err(ApiError::InvalidNode("f".into())),
            Err(ApiError::InternalTopic),
            Err(ApiError::MetadataLogFull),
            Err(ApiError::ProducerIdsExhausted),
            Err(ApiError::NotController),
            Err(ApiError::Starting(Service::ProducerIds)),
            Err(ApiError::Stopping(Service::ProducerIds)),
        ];
        for outcome in outcomes {
            let mut forwarding = Forwarding::default();
            let request = ControllerRequest::ReserveProducerIds;
            let (_, message) =
                forwarding.begin(to(1), LEADER, Service::ProducerIds, &request).expect("it fits");
            let (number, _) = read_request(&message).expect("it was encoded");
            let reply = write_reply(number, Offset(0), &outcome);
            let replied = forwarding.handle_reply(LEADER, &reply).expect("it can be read").expect("it waits");
            assert_eq!(format!("{:?}", replied.outcome), format!("{outcome:?}"));
        }
    }

    #[test]
    fn requests_that_are_with_a_lost_node_fail_and_no_others() {
        let mut forwarding = Forwarding::default();
        let request = ControllerRequest::ReserveProducerIds;
        for (at, leader) in [(1, 2), (2, 3), (3, 2)] {
            forwarding.begin(to(at), NodeId(leader), Service::ProducerIds, &request).expect("it fits");
        }
        assert_eq!(forwarding.handle_lost(NodeId(2)), [to(1), to(3)]);
        assert_eq!(forwarding.handle_lost(NodeId(2)), []);
        assert_eq!(forwarding.handle_lost(NodeId(3)), [to(2)]);
    }

    #[test]
    fn what_is_not_a_request_or_a_reply_is_refused() {
        let mut forwarding = Forwarding::default();
        for bad in [&[][..], &[1; 7], &[1; 8], &[0; 40], &[2; 40]] {
            assert!(read_request(bad).is_err(), "{bad:?}");
            assert!(forwarding.handle_reply(LEADER, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_that_is_too_large_is_refused_with_the_reason() {
        let request = ControllerRequest::CreateTopic(CreateTopic {
            name: "t".into(),
            partitions: 100_000,
            replication: Replication::Assigned(vec![vec![NodeId(1), NodeId(2), NodeId(3)]; 100_000]),
            configs: vec![],
            validate_only: false,
        });
        let refused = Forwarding::default().begin(to(1), LEADER, Service::Controller, &request);
        assert!(matches!(&refused, Err(ApiError::InvalidPartitionCount(why)) if why.contains("node 2")));
    }
}
