//! OffsetForLeaderEpoch: where the epochs of leaders end, asked of the owners of the partitions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::kafka::messages::{
    EpochPartitionResponse, EpochTopicResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::{Call, Part, Pending};
use crate::message::{Message, Query, QueryAnswer, RequestId};
use crate::shard::Shard;

/// A request whose partitions are being looked into.
pub(in crate::shard) struct EpochsPending {
    call: Call,
    /// Topics, each with how many of `partitions` are of it.
    topics: Vec<(String, usize)>,
    partitions: Vec<EpochPartitionResponse>,
    missing: usize,
}

impl Shard {
    pub(super) fn kafka_epoch_ends(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetForLeaderEpochRequest<'_>,
    ) {
        let topics = request.topics.iter().map(|topic| (topic.topic.to_owned(), topic.partitions.len()));
        let mut pending =
            EpochsPending { call, topics: topics.collect(), partitions: Vec::new(), missing: 0 };
        let mut by_owner: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, i32)>> = BTreeMap::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.topic, [0; 16]);
            for wanted in &topic.partitions {
                let number = pending.partitions.len() as u32;
                let mut entry = EpochPartitionResponse { partition: wanted.partition, ..Default::default() };
                let tp = named.partition(wanted.partition);
                match tp.and_then(|tp| Some((tp, self.owner_of(tp)?))) {
                    None => entry.error_code = named.missing(),
                    Some((tp, owner)) => match self.check_leader_epoch(tp, wanted.current_leader_epoch) {
                        Err(error) => entry.error_code = error,
                        Ok(()) => {
                            by_owner.entry(owner).or_default().push((number, tp, wanted.leader_epoch));
                        }
                    },
                }
                pending.partitions.push(entry);
            }
        }
        pending.missing = by_owner.len();
        if by_owner.is_empty() {
            return self.tell_epoch_ends(pending);
        }
        let id = self.kafka_wait(Pending::Epochs(pending));
        for (owner, list) in by_owner {
            self.kafka_query(plane, id, 0, owner, Query::EpochEnds(list));
        }
    }

    pub(super) fn kafka_epochs_part(&mut self, request: RequestId, mut pending: EpochsPending, came: Part) {
        if let Part::Owner(QueryAnswer::EpochEnds(found)) = came {
            for (number, found) in found {
                if let (Some(entry), Some((epoch, end))) =
                    (pending.partitions.get_mut(number as usize), found)
                {
                    entry.leader_epoch = epoch;
                    entry.end_offset = end;
                }
            }
        }
        pending.missing -= 1;
        if pending.missing > 0 {
            return self.kafka_wait_on(request, Pending::Epochs(pending));
        }
        self.tell_epoch_ends(pending);
    }

    fn tell_epoch_ends(&mut self, pending: EpochsPending) {
        let mut partitions = pending.partitions.into_iter();
        let topics = pending.topics.iter().map(|(name, count)| EpochTopicResponse {
            topic: Cow::Borrowed(name),
            partitions: partitions.by_ref().take(*count).collect(),
        });
        let response = OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() };
        self.kafka_answer(pending.call, &response);
    }
}
