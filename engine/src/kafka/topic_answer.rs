//! Responses that are lists of topics with their partitions, encoded in pieces.

use bytes::BytesMut;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::topic_lists::ListedTopic;
use highwater_net::{Entries, Pieces};

use super::Call;
use crate::context::{AnswerTo, Context};
use crate::limits::PARTITIONS_PER_PART;

/// A response, and the request that it answers.
pub(super) struct TopicsAnswer<T> {
    pub(super) call: Call,
    pub(super) topics: Vec<T>,
}

impl<T: ListedTopic + 'static> TopicsAnswer<T> {
    /// Sends the response.
    pub(super) fn send(self, context: &mut Context<'_>) {
        let Self { call, topics } = self;
        let version = call.version();
        let Frame { front, back } = T::frame(version, topics.len());
        context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, Topics { version, topics }, back));
    }
}

/// Writes part `part` of a topic. Returns whether it has more.
pub(super) fn put_topic<T: ListedTopic>(topic: &T, version: i16, part: usize, out: &mut BytesMut) -> bool {
    if part == 0 {
        topic.put_front(version, out);
    }
    let from = part * PARTITIONS_PER_PART;
    let until = from + PARTITIONS_PER_PART;
    topic.put_partitions(version, from, until, out);
    let more = topic.partitions() > until;
    if !more {
        T::put_back(version, out);
    }
    more
}

/// The topics of a response.
#[derive(Debug)]
struct Topics<T> {
    version: i16,
    topics: Vec<T>,
}

impl<T: ListedTopic> Entries for Topics<T> {
    fn count(&self) -> usize {
        self.topics.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        put_topic(&self.topics[entry], self.version, part, out)
    }

    fn memory_bytes(&self) -> usize {
        self.topics.iter().map(T::memory_bytes).sum()
    }
}
