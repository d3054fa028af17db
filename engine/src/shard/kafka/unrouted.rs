//! Batches that never reached the owner of their partition: the shard of the connection does not know the topic or the partition yet, or
//! the owner does not know it any more.
//!
//! Kafka's clients send such a batch again, because the topic may be new. Meanwhile they may have sent the next batch of the same
//! idempotent producer, and the topic may appear between the two: it is created, gets more partitions, or is created again after its
//! deletion. The owner has never seen the first batch, and a log accepts any first sequence of a producer that it does not know (Kafka's
//! `ProducerAppendInfo` does, too), so it would append the second batch, and reject the first one for ever as out of order. Therefore the
//! second batch is rejected as out of order until the first one has come again; clients send it again after that.
//!
//! The same goes for batches that are with the owner when their topic is deleted: another topic may have the name before the outcome is known
//! here. They are noted when the topic is deleted here, and settled by their outcomes.
//!
//! The place of the memory is the connection's shard, and it lasts as long as the connection: batches of a producer are in flight on one
//! connection at a time, and a client that connects again sends the first one first. So no client can get in the way of another's batches
//! with a sequence that it makes up. Partitions go by the names in the requests: there is no topic with an id.
//!
//! Two cases need nothing. Producers that are not idempotent have no sequences, and Kafka promises them no order with several requests
//! in flight. Clients of the native protocol name topics by id and do not retry an unknown one: the batch fails, and those after it are
//! sent under a new producer id.

use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::ProducerId;
use highwater_protocol::topic::validate_topic_name;
use highwater_runtime::plane::ConnId;

use crate::partition::{ProducerKey, RejectedBatches, SequenceStamp};

/// The first batch of each producer that was not routed and will be sent again. [`REJECTED_PRODUCERS_MAX`](crate::limits::REJECTED_PRODUCERS_MAX)
/// bounds the producers of a shard.
#[derive(Default)]
pub(super) struct UnroutedBatches(RejectedBatches<NamedPartition>);

/// A partition as the requests of a connection name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct NamedPartition {
    conn: ConnId,
    topic: String,
    index: i32,
}

impl UnroutedBatches {
    /// Notes that a batch was rejected because its partition is unknown. A topic that cannot exist will not appear.
    pub(super) fn note_rejected(&mut self, conn: ConnId, topic: &str, index: i32, producer: BatchProducer) {
        if validate_topic_name(topic).is_ok() {
            self.0.note_rejected(stamp(conn, topic, index, producer));
        }
    }

    /// Lets a batch pass whose partition is known. The error is the sequence of the batch that has to come before it.
    pub(super) fn pass(
        &mut self,
        conn: ConnId,
        topic: &str,
        index: i32,
        producer: Option<BatchProducer>,
    ) -> Result<(), i32> {
        // Nearly always.
        if self.0.is_empty() {
            return Ok(());
        }
        let Some(producer) = producer else { return Ok(()) };
        let stamp = stamp(conn, topic, index, producer);
        if let Some(sequence) = self.0.before(&stamp) {
            return Err(sequence);
        }
        self.0.note_accepted(&stamp);
        Ok(())
    }

    /// A batch was appended, or will not be sent again. Returns whether it was noted.
    pub(super) fn settle(&mut self, conn: ConnId, topic: &str, index: i32, producer: BatchProducer) -> bool {
        // Nearly always.
        if self.0.is_empty() {
            return false;
        }
        self.0.note_accepted(&stamp(conn, topic, index, producer))
    }

    /// Forgets what a connection has sent that is gone.
    pub(super) fn forget_connection(&mut self, conn: ConnId) {
        let partition = NamedPartition { conn, topic: String::new(), index: i32::MIN };
        let first = ProducerKey { partition, producer: ProducerId(i64::MIN), epoch: i16::MIN };
        self.0.forget(&first, |partition| partition.conn == conn);
    }
}

fn stamp(conn: ConnId, topic: &str, index: i32, producer: BatchProducer) -> SequenceStamp<NamedPartition> {
    SequenceStamp::new(NamedPartition { conn, topic: topic.to_owned(), index }, producer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId(5);

    fn producer(sequence: i32) -> BatchProducer {
        BatchProducer { id: ProducerId(7), epoch: 0, sequence }
    }

    #[test]
    fn a_batch_passes_when_the_one_before_it_has_come_again() {
        let mut unrouted = UnroutedBatches::default();
        unrouted.note_rejected(CONN, "t", 0, producer(3));
        unrouted.note_rejected(CONN, "t", 0, producer(5));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Err(3));
        assert_eq!(unrouted.pass(CONN, "t", 1, Some(producer(5))), Ok(()), "another partition");
        assert_eq!(unrouted.pass(CONN, "u", 0, Some(producer(5))), Ok(()), "another topic");
        assert_eq!(unrouted.pass(ConnId(6), "t", 0, Some(producer(5))), Ok(()), "another connection");
        assert_eq!(unrouted.pass(CONN, "t", 0, None), Ok(()), "it has no order");
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(3))), Ok(()));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Ok(()));
        assert!(unrouted.0.is_empty());
    }

    #[test]
    fn a_batch_that_is_settled_lets_the_next_one_pass() {
        let mut unrouted = UnroutedBatches::default();
        assert!(!unrouted.settle(CONN, "t", 0, producer(3)));
        unrouted.note_rejected(CONN, "t", 0, producer(3));
        assert!(!unrouted.settle(CONN, "t", 0, producer(5)));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Err(3));
        assert!(unrouted.settle(CONN, "t", 0, producer(3)));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Ok(()));
    }

    #[test]
    fn what_a_connection_has_sent_is_forgotten_with_it_and_a_topic_that_cannot_exist_is_not_remembered() {
        let mut unrouted = UnroutedBatches::default();
        unrouted.note_rejected(CONN, "t", -1, producer(3));
        unrouted.note_rejected(CONN, "u", 0, producer(3));
        unrouted.note_rejected(ConnId(6), "t", 0, producer(3));
        unrouted.forget_connection(CONN);
        assert_eq!(unrouted.pass(CONN, "u", 0, Some(producer(5))), Ok(()));
        assert_eq!(unrouted.pass(ConnId(6), "t", 0, Some(producer(5))), Err(3));
        unrouted.forget_connection(ConnId(6));
        unrouted.note_rejected(CONN, "", 0, producer(3));
        unrouted.note_rejected(CONN, &"t".repeat(30_000), 0, producer(3));
        assert!(unrouted.0.is_empty());
    }
}
