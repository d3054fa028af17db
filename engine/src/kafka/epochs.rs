//! OffsetForLeaderEpoch: the ends of leader epochs, from the owners of the partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    EpochPartition, EpochPartitionResponse, EpochTopicResponse, OffsetForLeaderEpochRequest,
};
use highwater_protocol::ids::LeaderEpoch;

use super::Call;
use super::names::{Named, known_epoch, target};
use super::resolve::{NamedTopic, Resolve, resolve};
use super::topic_answer::TopicsAnswer;
use crate::api::{EpochEnds, InEpoch, PartitionCall};
use crate::calls::FanOut;
use crate::context::Context;

/// A request whose partitions are being looked up.
struct EpochLookup {
    topics: Vec<EpochTopicResponse<'static>>,
    items: FanOut<(InEpoch, LeaderEpoch)>,
    /// The position of each item in the response.
    places: Vec<(usize, usize)>,
}

impl Resolve for EpochLookup {
    type Partition = EpochPartition;

    fn index_to_compare(_: &EpochPartition) -> Option<i32> {
        None
    }

    fn topic(&mut self, named: &Named, partitions: usize) {
        let topic = named.name().to_owned().into();
        self.topics.push(EpochTopicResponse { topic, partitions: Vec::with_capacity(partitions) });
    }

    fn partition(&mut self, context: &Context<'_>, named: &Named, partition: EpochPartition, _: bool) {
        let Some(topic) = self.topics.len().checked_sub(1) else { return };
        let partitions = &mut self.topics[topic].partitions;
        let mut entry = EpochPartitionResponse { partition: partition.partition, ..Default::default() };
        match target(context, named, partition.partition) {
            Err(error) => entry.error_code = error,
            Ok((tp, owner)) => {
                let of = InEpoch { tp, known: known_epoch(partition.current_leader_epoch) };
                self.items.push(owner, (of, LeaderEpoch(partition.leader_epoch)));
                self.places.push((topic, partitions.len()));
            }
        }
        partitions.push(entry);
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topics, items, places } = self;
        context.query::<EpochEnds>(call.conn, items, move |context, found| {
            let answer = TopicsAnswer { call, topics };
            context.fill(call.conn, answer, (places, found), fill_in, |context, answer| answer.send(context));
        });
    }
}

/// Sets the result of a partition.
fn fill_in(
    answer: &mut TopicsAnswer<EpochTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    found: Option<<EpochEnds as PartitionCall>::Answer>,
) {
    let entry = &mut answer.topics[topic].partitions[partition];
    match found {
        Some(Ok(Some(found))) => {
            (entry.leader_epoch, entry.end_offset) = (found.epoch.0, found.end.0);
        }
        Some(Ok(None)) => {}
        Some(Err(error)) => entry.error_code = error.into(),
        None => entry.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
    }
}

pub(super) fn epoch_ends(context: &mut Context<'_>, call: Call, request: &OffsetForLeaderEpochRequest<'_>) {
    let topics = request.topics.iter();
    let topics =
        topics.map(|topic| NamedTopic::new(topic.topic, [0; 16], topic.partitions.clone())).collect();
    let (items, places) = (FanOut::new(), Vec::new());
    resolve(context, call, topics, EpochLookup { topics: Vec::new(), items, places });
}
