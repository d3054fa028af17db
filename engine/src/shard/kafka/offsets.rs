//! ListOffsets: asked of the owners of the partitions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use highwater_protocol::ids::{Timestamp, TopicPartition};
use highwater_protocol::native::StartAt;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::{Call, Part, Pending};
use crate::message::{Message, Query, QueryAnswer, RequestId};
use crate::shard::Shard;

/// A request whose partitions are being looked into.
pub(in crate::shard) struct OffsetsPending {
    call: Call,
    /// Topics, each with how many of `partitions` are of it.
    topics: Vec<(String, usize)>,
    partitions: Vec<ListOffsetsPartitionResponse>,
    /// What the leader's epoch is, where something is found.
    epochs: Vec<i32>,
    missing: usize,
}

/// What to look for.
enum Find {
    Start(StartAt),
    LastTime,
    /// What does not exist here.
    Nothing,
}

impl Shard {
    pub(super) fn kafka_list_offsets(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &ListOffsetsRequest<'_>,
    ) {
        let topics = request.topics.iter().map(|topic| (topic.name.to_owned(), topic.partitions.len()));
        let mut pending = OffsetsPending {
            call,
            topics: topics.collect(),
            partitions: Vec::new(),
            epochs: Vec::new(),
            missing: 0,
        };
        let mut starts: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, StartAt)>> = BTreeMap::new();
        let mut last_times: BTreeMap<ShardIndex, Vec<(u32, TopicPartition)>> = BTreeMap::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.name, [0; 16]);
            for wanted in &topic.partitions {
                let number = pending.partitions.len() as u32;
                let mut entry = ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    ..Default::default()
                };
                let tp = named.partition(wanted.partition_index);
                match tp.and_then(|tp| Some((tp, self.owner_of(tp)?))) {
                    None => entry.error_code = named.missing(),
                    Some((tp, owner)) => {
                        let find = to_find(wanted.timestamp, call.version());
                        match (self.check_leader_epoch(tp, wanted.current_leader_epoch), find) {
                            (Err(error), _) | (_, Err(error)) => entry.error_code = error,
                            (_, Ok(Find::Nothing)) => {}
                            (_, Ok(Find::Start(start))) => {
                                starts.entry(owner).or_default().push((number, tp, start));
                            }
                            (_, Ok(Find::LastTime)) => {
                                last_times.entry(owner).or_default().push((number, tp));
                            }
                        }
                    }
                }
                pending.epochs.push(tp.map_or(-1, |tp| self.kafka_leader_epoch(tp)));
                pending.partitions.push(entry);
            }
        }
        pending.missing = starts.len() + last_times.len();
        if pending.missing == 0 {
            return self.tell_offsets(pending);
        }
        let id = self.kafka_wait(Pending::Offsets(pending));
        for (owner, list) in starts {
            self.kafka_query(plane, id, 0, owner, Query::Offsets(list));
        }
        for (owner, list) in last_times {
            self.kafka_query(plane, id, 0, owner, Query::LastTimes(list));
        }
    }

    pub(super) fn kafka_offsets_part(&mut self, request: RequestId, mut pending: OffsetsPending, came: Part) {
        if let Part::Owner(QueryAnswer::Offsets(found)) = came {
            for (number, found) in found {
                let number = number as usize;
                let (Some(entry), Some(epoch)) =
                    (pending.partitions.get_mut(number), pending.epochs.get(number))
                else {
                    continue;
                };
                match found {
                    Ok(Some((offset, timestamp))) => {
                        entry.offset = offset.0;
                        entry.timestamp = timestamp.map_or(-1, |at| at.0);
                        entry.leader_epoch = *epoch;
                    }
                    Ok(None) => {}
                    Err(code) => entry.error_code = code.into(),
                }
            }
        }
        pending.missing -= 1;
        if pending.missing > 0 {
            return self.kafka_wait_on(request, Pending::Offsets(pending));
        }
        self.tell_offsets(pending);
    }

    fn tell_offsets(&mut self, pending: OffsetsPending) {
        let mut partitions = pending.partitions.into_iter();
        let topics = pending.topics.iter().map(|(name, count)| ListOffsetsTopicResponse {
            name: Cow::Borrowed(name),
            partitions: partitions.by_ref().take(*count).collect(),
        });
        let response = ListOffsetsResponse { topics: topics.collect(), ..Default::default() };
        self.kafka_answer(pending.call, &response);
    }
}

/// What a request's timestamp means. Nothing is tiered here, so all of a log is local.
fn to_find(timestamp: i64, version: i16) -> Result<Find, KafkaError> {
    let since = |first: i16, find: Find| {
        if version >= first { Ok(find) } else { Err(KafkaError::UNSUPPORTED_VERSION) }
    };
    match timestamp {
        0.. => Ok(Find::Start(StartAt::Timestamp(Timestamp(timestamp)))),
        ListOffsetsPartition::LATEST => Ok(Find::Start(StartAt::Latest)),
        ListOffsetsPartition::EARLIEST => Ok(Find::Start(StartAt::Earliest)),
        ListOffsetsPartition::MAX_TIMESTAMP => since(7, Find::LastTime),
        ListOffsetsPartition::EARLIEST_LOCAL => since(8, Find::Start(StartAt::Earliest)),
        ListOffsetsPartition::LATEST_TIERED => since(9, Find::Nothing),
        ListOffsetsPartition::EARLIEST_PENDING_UPLOAD => since(11, Find::Nothing),
        _ => Err(KafkaError::INVALID_REQUEST),
    }
}
