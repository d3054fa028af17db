//! An administrator that creates and deletes topics and commits positions, and checks the broker's promises.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body, CommitOffsetsRequest, CommittedOffset, CreateTopicReply, CreateTopicRequest, DeleteTopicRequest,
    MessageKind, MetadataReply, MetadataRequest, ReadOffsetsReply, ReadOffsetsRequest,
};
use highwater_runtime::sim::SimRng;
use rand::RngExt;

use crate::node::World;
use crate::wire::Wire;

/// The known state of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TopicState {
    Exists,
    Absent,
    /// A request about it was never answered.
    Unsure,
}

#[derive(Debug)]
enum RequestKind {
    Create(String),
    Delete(String),
    Commit(i64),
    Read,
    Metadata,
}

pub(crate) struct Admin {
    rng: SimRng,
    wire: Option<Wire>,
    request: Option<RequestKind>,
    topics: BTreeMap<String, TopicState>,
    /// The topic that is never deleted.
    main: (String, TopicId),
    committed: i64,
    attempted: i64,
    pub(crate) answers: u64,
}

impl Admin {
    pub(crate) fn new(main: (String, TopicId), rng: SimRng) -> Self {
        Self {
            rng,
            wire: None,
            request: None,
            topics: BTreeMap::new(),
            main,
            committed: 0,
            attempted: 0,
            answers: 0,
        }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr) {
        if self.wire.as_ref().is_some_and(Wire::is_over) {
            self.wire = None;
            // It may or may not have been carried out.
            if let Some(RequestKind::Create(name) | RequestKind::Delete(name)) = self.request.take() {
                self.topics.insert(name, TopicState::Unsure);
            }
        }
        if self.wire.is_none() {
            self.wire = Some(Wire::connect(world, address, None));
        }
        let Some(wire) = &mut self.wire else { return };
        wire.receive(usize::MAX);
        while let Some(answer) = wire.pop() {
            // A stopping broker rejects the connection itself, even before a request.
            let refused = answer.kind == MessageKind::Hello;
            let Some(request) = self.request.take() else {
                assert!(refused, "unexpected {answer:?}");
                continue;
            };
            self.answers += 1;
            Self::check(
                &mut self.topics,
                &mut self.committed,
                self.attempted,
                &self.main,
                request,
                answer.body,
            );
        }
        if self.request.is_none() && self.rng.random_bool(0.1) {
            self.ask();
        }
    }

    fn check(
        topics: &mut BTreeMap<String, TopicState>,
        committed: &mut i64,
        attempted: i64,
        main: &(String, TopicId),
        request: RequestKind,
        body: Result<Vec<u8>, (ErrorCode, String)>,
    ) {
        let of = |name: &str| topics.get(name).copied().unwrap_or(TopicState::Absent);
        match (request, body) {
            (_, Err((ErrorCode::Unavailable | ErrorCode::Overloaded, _)))
            | (RequestKind::Commit(_) | RequestKind::Read, Err((ErrorCode::StorageFull, _))) => {}
            // It was in flight to the log, and may take effect later.
            (RequestKind::Create(name) | RequestKind::Delete(name), Err((ErrorCode::StorageFull, _))) => {
                topics.insert(name, TopicState::Unsure);
            }
            (RequestKind::Create(name), Ok(body)) => {
                CreateTopicReply::decode(&body).expect("a reply");
                assert_ne!(of(&name), TopicState::Exists, "{name} was created twice");
                topics.insert(name, TopicState::Exists);
            }
            (RequestKind::Create(name), Err((code, text))) => {
                assert_eq!(code, ErrorCode::TopicExists, "{text}");
                assert_ne!(of(&name), TopicState::Absent, "{text}");
                topics.insert(name, TopicState::Exists);
            }
            (RequestKind::Delete(name), Ok(_)) => {
                assert_ne!(of(&name), TopicState::Absent, "{name} was deleted twice");
                topics.insert(name, TopicState::Absent);
            }
            (RequestKind::Delete(name), Err((code, text))) => {
                assert_eq!(code, ErrorCode::UnknownTopic, "{text}");
                assert_ne!(of(&name), TopicState::Exists, "{text}");
                topics.insert(name, TopicState::Absent);
            }
            (RequestKind::Commit(at), body) => {
                body.expect("the main topic exists");
                *committed = at;
            }
            (RequestKind::Read, body) => {
                let reply = ReadOffsetsReply::decode(&body.expect("the main topic exists")).expect("a reply");
                let at = reply.positions.first().map_or(0, |p| p.offset.0);
                assert!((*committed..=attempted).contains(&at), "position {at}, committed {committed}");
                *committed = at;
            }
            (RequestKind::Metadata, body) => {
                let reply = MetadataReply::decode(&body.expect("always answered")).expect("a reply");
                let there = |name: &str| reply.topics.iter().find(|t| t.name == name);
                assert_eq!(there(&main.0).map(|t| t.id), Some(main.1));
                for (name, known) in topics.iter() {
                    match known {
                        TopicState::Exists => assert!(there(name).is_some(), "{name} does not exist"),
                        TopicState::Absent => assert!(there(name).is_none(), "{name} is there"),
                        TopicState::Unsure => {}
                    }
                }
            }
        }
    }

    fn ask(&mut self) {
        let Some(wire) = &mut self.wire else { return };
        let name = format!("side-{}", self.rng.random_range(0..5));
        let request = match self.rng.random_range(0..10) {
            0..=2 => {
                wire.send(&CreateTopicRequest {
                    name: name.clone(),
                    partitions: self.rng.random_range(1..4),
                    configs: Vec::new(),
                    validate_only: false,
                    replicas: None,
                });
                RequestKind::Create(name)
            }
            3..=4 => {
                wire.send(&DeleteTopicRequest { name: name.clone() });
                RequestKind::Delete(name)
            }
            5..=6 => {
                self.attempted += 1;
                wire.send(&CommitOffsetsRequest {
                    consumer: "c".into(),
                    topic: self.main.1,
                    positions: vec![CommittedOffset {
                        partition: PartitionIndex(0),
                        offset: Offset(self.attempted),
                        leader_epoch: -1,
                        metadata: String::new(),
                    }],
                });
                RequestKind::Commit(self.attempted)
            }
            7..=8 => {
                wire.send(&ReadOffsetsRequest { consumer: "c".into(), topic: self.main.1 });
                RequestKind::Read
            }
            _ => {
                wire.send(&MetadataRequest { topics: None });
                RequestKind::Metadata
            }
        };
        self.request = Some(request);
    }
}
