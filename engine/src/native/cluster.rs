//! Metadata: the node and its topics, all of them or by name.

use std::sync::Arc;
use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{PartitionIndex, ShardId, TopicId};
use highwater_protocol::native::{MetadataReply, MetadataRequest, NodeInfo, PartitionInfo, TopicInfo};
use highwater_runtime::plane::ConnId;

use super::Call;
use crate::context::{AnswerTo, ClientJob, Context, ReachableNode};
use crate::counters::Work;
use crate::leaders::Led;
use crate::limits::PARTITIONS_PER_PART;
use crate::meta::{Leadership, Listed, NodeProtocol, Topic};
use crate::names::{Distinct, Names};

/// The topics of a request; for a topic that does not exist, the index of its name.
type FoundTopics = Vec<Result<Arc<Topic>, u32>>;

/// A request whose topic names are being looked up.
struct MetadataJob {
    call: Call,
    requested: IntoIter<String>,
    /// The distinct names so far.
    names: Names,
    /// Finds repeated names. Each topic is described once: its entry is many times as long as its name.
    seen: Distinct,
    found: FoundTopics,
}

impl ClientJob for MetadataJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        let Some(metadata) = context.metadata else { return true };
        while !work.is_over()
            && let Some(name) = self.requested.next()
        {
            work.spend(2);
            let (n, names) = (self.names.len(), &self.names);
            if self.seen.is_new(n, &name, |other| names.get(other) == name) {
                self.found.push(metadata.topic(&name).cloned().ok_or(n as u32));
                self.names.push(&name);
            }
        }
        self.requested.len() == 0
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        answer(context, self.call, TopicList::Named(self.names, self.found));
    }
}

pub(super) fn describe(context: &mut Context<'_>, call: Call, request: MetadataRequest) {
    let Some(metadata) = context.metadata else { return };
    let Some(names) = request.topics else {
        return answer(context, call, TopicList::All(metadata.listed()));
    };
    let seen = Distinct::new(names.len(), || context.plane.random_u64());
    let (requested, names) = (names.into_iter(), Names::default());
    context.begin_job(MetadataJob { call, requested, names, seen, found: FoundTopics::new() });
}

fn answer(context: &mut Context<'_>, call: Call, list: TopicList) {
    let Some(leadership) = context.leadership() else { return };
    let Some(nodes) = context.nodes_for(call.conn, NodeProtocol::Native) else { return };
    let setup = context.setup;
    let info = |node: ReachableNode| NodeInfo {
        node: node.id,
        address: node.address.to_string(),
        shards: node.shards,
    };
    let entries = Topics { list, leadership };
    let nodes = nodes.into_iter().map(info).collect();
    let reply = MetadataReply { cluster: setup.identity.cluster, nodes, topics: Vec::new() };
    let mut front = BytesMut::new();
    reply.put_front(entries.count(), &mut front);
    let pieces = Pieces::new(front.freeze(), entries, Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

/// The topics to describe.
#[derive(Debug)]
enum TopicList {
    All(Listed),
    Named(Names, FoundTopics),
}

impl TopicList {
    /// Returns a topic, or the name of a topic that does not exist.
    fn get(&self, entry: usize) -> Option<Result<&Topic, &str>> {
        match self {
            Self::All(topics) => topics.get(entry).map(|topic| Ok(&**topic)),
            Self::Named(names, found) => found.get(entry).map(|found| match found {
                Ok(topic) => Ok(&**topic),
                Err(name) => Err(names.get(*name as usize)),
            }),
        }
    }
}

/// Returns the location of a partition.
pub(super) fn place_of(index: PartitionIndex, led: Led<'_>) -> PartitionInfo {
    PartitionInfo {
        index,
        leader: led.leader.map(|place| place.node),
        shard: led.leader.map_or(ShardId(0), |place| place.shard),
        leader_epoch: led.epoch,
    }
}

/// The topics in a metadata reply.
#[derive(Debug)]
struct Topics {
    list: TopicList,
    leadership: Leadership,
}

impl Entries for Topics {
    fn count(&self) -> usize {
        match &self.list {
            TopicList::All(topics) => topics.len(),
            TopicList::Named(_, found) => found.len(),
        }
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let Some(found) = self.list.get(entry) else { return false };
        let topic = match found {
            Ok(topic) => topic,
            Err(name) => {
                TopicInfo::put_front(name, Some(ErrorCode::UnknownTopic), TopicId([0; 16]), 0, out);
                return false;
            }
        };
        if part == 0 {
            TopicInfo::put_front(&topic.name, None, topic.id, topic.partition_count(), out);
        }
        let from = part * PARTITIONS_PER_PART;
        for (tp, _) in topic.partitions_from(from).take(PARTITIONS_PER_PART) {
            place_of(tp.partition, self.leadership.of(topic, tp.partition)).put(out);
        }
        topic.partition_count() > from + PARTITIONS_PER_PART
    }

    fn memory_bytes(&self) -> usize {
        match &self.list {
            TopicList::All(_) => 0,
            TopicList::Named(names, found) => names.memory_bytes() + size_of_val(&found[..]),
        }
    }
}
