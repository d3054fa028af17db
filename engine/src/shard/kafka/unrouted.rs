//! Batches that never reached the owner of their partition: the shard of the connection does not know the topic or partition yet, or the owner
//! no longer has it.
//!
//! Kafka's clients send such a batch again, because the topic may be new. Meanwhile they may have sent the next batch of the same idempotent
//! producer, and the topic may appear between the two: it is created, gets more partitions, or is created again after its deletion. The owner
//! has never seen the first batch, and a log accepts any first sequence of an unknown producer (as does Kafka's `ProducerAppendInfo`), so it
//! would append the second batch, and reject the first one for ever as out of order. Therefore the second batch is rejected as out of order
//! until the first one has been sent again; clients then send the second one again.
//!
//! The same is true of batches that are with the owner when their topic is deleted: another topic may have the name before their outcomes
//! arrive. They are noted when this shard applies the deletion, and settled by their outcomes.
//!
//! The notes are kept by the connection's shard for as long as the connection is open. Batches of a producer are in flight on one connection at
//! a time, and a client that reconnects sends the first one first. So no client can block another's batches with an invented sequence.
//! Partitions are identified by the names in requests, because an unknown topic has no id.
//!
//! Two kinds of producers do not need this. Producers that are not idempotent have no sequences, and Kafka guarantees them no order with several
//! requests in flight. Native clients identify topics by id and do not retry an unknown one: the batch fails, and later ones are sent under a
//! new producer id.

use highwater_protocol::batch::BatchProducer;
use highwater_protocol::ids::ProducerId;
use highwater_protocol::topic::validate_topic_name;
use highwater_runtime::plane::ConnId;

use crate::partition::{ProducerKey, RejectedBatches, SequenceStamp};

/// The first batch of each producer that was not routed and will be sent again. [`REJECTED_PRODUCERS_MAX`](crate::limits::REJECTED_PRODUCERS_MAX)
/// bounds the producers of a shard.
#[derive(Default)]
pub(super) struct UnroutedBatches(RejectedBatches<NamedPartition>);

/// A partition as named in the requests of a connection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct NamedPartition {
    conn: ConnId,
    topic: String,
    index: i32,
}

impl UnroutedBatches {
    /// Notes that a batch was rejected because its partition is unknown. Ignores invalid topic names: such a topic cannot be created.
    pub(super) fn note_rejected(&mut self, conn: ConnId, topic: &str, index: i32, producer: BatchProducer) {
        if validate_topic_name(topic).is_ok() {
            self.0.note_rejected(stamp(conn, topic, index, producer));
        }
    }

    /// Checks that a batch for a known partition may be appended. The error is the sequence of the batch that has to be appended before it.
    pub(super) fn pass(
        &mut self,
        conn: ConnId,
        topic: &str,
        index: i32,
        producer: Option<BatchProducer>,
    ) -> Result<(), i32> {
        // The common case.
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

    /// Removes the note of a batch that was appended or will not be sent again. Returns whether there was one.
    pub(super) fn settle(&mut self, conn: ConnId, topic: &str, index: i32, producer: BatchProducer) -> bool {
        // The common case.
        if self.0.is_empty() {
            return false;
        }
        self.0.note_accepted(&stamp(conn, topic, index, producer))
    }

    /// Removes the notes of a closed connection.
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
    fn a_batch_is_accepted_after_the_one_before_it_was_sent_again() {
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
    fn the_next_batch_is_accepted_after_the_one_before_it_is_settled() {
        let mut unrouted = UnroutedBatches::default();
        assert!(!unrouted.settle(CONN, "t", 0, producer(3)));
        unrouted.note_rejected(CONN, "t", 0, producer(3));
        assert!(!unrouted.settle(CONN, "t", 0, producer(5)));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Err(3));
        assert!(unrouted.settle(CONN, "t", 0, producer(3)));
        assert_eq!(unrouted.pass(CONN, "t", 0, Some(producer(5))), Ok(()));
    }

    #[test]
    fn the_notes_of_a_connection_are_removed_with_it_and_invalid_topic_names_are_not_noted() {
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
