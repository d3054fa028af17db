//! Answers that are lists of topics with their partitions, written in pieces.

use bytes::BytesMut;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::topic_lists::ListedTopic;
use highwater_net::{Entries, Pieces};

use super::Call;
use crate::limits::PARTITIONS_PER_PART;
use crate::shard::{AnswerTo, Context};

/// An answer, and whose it is.
pub(super) struct TopicsAnswer<T> {
    pub(super) call: Call,
    pub(super) topics: Vec<T>,
}

impl<T: ListedTopic + 'static> TopicsAnswer<T> {
    /// Answers.
    pub(super) fn send(self, context: &mut Context<'_>) {
        let Self { call, topics } = self;
        let version = call.version();
        let Frame { front, back } = T::frame(version, topics.len());
        context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, Topics { version, topics }, back));
    }
}

/// The topics of an answer.
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
        let topic = &self.topics[entry];
        if part == 0 {
            topic.put_front(self.version, out);
        }
        let from = part * PARTITIONS_PER_PART;
        let until = from + PARTITIONS_PER_PART;
        topic.put_partitions(self.version, from, until, out);
        let more = topic.partitions() > until;
        if !more {
            T::put_back(self.version, out);
        }
        more
    }
}
