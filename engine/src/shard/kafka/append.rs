//! Batches on the shard that owns their partition: appended in the order in which they came, whatever shard they came from.

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::Acks;
use highwater_runtime::plane::Plane;

use crate::message::{Append, Message, OwnedBatch, Produced, ProducedAt, ProducedFor};
use crate::shard::partition::{Ack, AckTo};
use crate::shard::produce::{AnyBatch, Outcome};
use crate::shard::{Checked, Shard};

impl From<OwnedBatch> for AnyBatch<'static> {
    fn from(batch: OwnedBatch) -> Self {
        Self::Owned(batch)
    }
}

impl Shard {
    /// Appends a batch, or lets it wait for room behind those that came before it.
    pub(super) fn kafka_append(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: ProducedFor,
        tp: TopicPartition,
        acks: Acks,
        batch: AnyBatch<'_>,
        checked: Checked,
    ) {
        let store = self.partitions.find(tp).and_then(|id| self.partitions.get(id)).map(|p| p.store);
        let batch = match store {
            Some(store) if self.stores[store].waiting.holds(tp) => batch,
            _ => match self.try_kafka_append(plane, to, tp, acks, batch, checked) {
                Some(batch) => batch,
                None => return,
            },
        };
        let store = store.expect("only a partition that is here can be busy");
        self.stores[store].waiting.push(Append { to, tp, acks, batch: batch.into_owned(), checked });
    }

    /// There may be room again.
    pub(in crate::shard) fn retry_kafka_appends(&mut self, plane: &mut dyn Plane<Message>, store: usize) {
        if self.stores[store].waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.stores[store].waiting);
        waiting.retry(|Append { to, tp, acks, batch, checked }| {
            let batch = self.try_kafka_append(plane, to, tp, acks, batch.into(), checked)?.into_owned();
            Some(Append { to, tp, acks, batch, checked })
        });
        debug_assert!(
            self.stores[store].waiting.is_empty(),
            "answers are sent later: nothing new came meanwhile"
        );
        self.stores[store].waiting = waiting;
    }

    /// Gives the batch back if there is no room for it.
    fn try_kafka_append<'a>(
        &mut self,
        plane: &mut dyn Plane<Message>,
        to: ProducedFor,
        tp: TopicPartition,
        acks: Acks,
        mut batch: AnyBatch<'a>,
        checked: Checked,
    ) -> Option<AnyBatch<'a>> {
        let stamp = Self::stamp_of(tp, batch.bytes());
        if let Some(refused) = stamp.and_then(|stamp| self.kafka.refused.in_front_of(stamp)) {
            let text =
                format!("the batch with sequence {refused} in front of it was refused; send that one first");
            self.tell_produced(to, Err((KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER, text)));
            return None;
        }
        match self.append(plane, tp, &mut batch, checked) {
            Outcome::Busy => return Some(batch),
            Outcome::Appended { partition, base_offset, end, log_append_time } => {
                if let Some(stamp) = stamp {
                    self.kafka.refused.appended(stamp);
                }
                let ack = Ack { to: AckTo::Kafka(to), end, base_offset, log_append_time };
                let partition = self.partitions.get_mut(partition)?;
                let (store, slot) = (partition.store, partition.slot);
                if acks == Acks::None || partition.wait(acks, ack) {
                    self.acknowledge(store, slot, ack);
                }
            }
            Outcome::Refused((code, text)) => {
                let error = KafkaError::from(code);
                if let Some(stamp) = stamp
                    && is_sent_again(error)
                {
                    self.kafka.refused.note(stamp);
                }
                self.tell_produced(to, Err((error, text)));
            }
        }
        None
    }

    /// What became of a batch goes to the shard of its connection.
    pub(in crate::shard) fn tell_produced(&mut self, to: ProducedFor, produced: Produced) {
        if to.shard == self.me {
            self.on_produced(to.request, to.number, produced);
        } else {
            self.kafka.produced.push((to, produced));
        }
    }
}

/// Whether clients send a batch again, as it is, that was refused with this error. They go by the error and know nothing of ours: a topic
/// that this shard has not heard of yet is unknown for good in the native protocol, and asked for again in Kafka's.
///
/// Clients send a corrupt batch again too, but whose it is stands in its header, which is not to be believed.
fn is_sent_again(error: KafkaError) -> bool {
    matches!(
        error,
        KafkaError::UNKNOWN_TOPIC_OR_PARTITION
            | KafkaError::NOT_LEADER_OR_FOLLOWER
            | KafkaError::REQUEST_TIMED_OUT
            | KafkaError::KAFKA_STORAGE_ERROR
    )
}

/// Nothing was appended.
pub(super) const NOWHERE: ProducedAt = ProducedAt { base_offset: -1, log_append_time: -1, log_start: -1 };

#[cfg(test)]
mod tests {
    use highwater_protocol::error::ErrorCode;

    use super::*;

    #[test]
    fn batches_that_may_be_taken_later_are_remembered_whichever_protocol_has_them_sent_again() {
        for code in ErrorCode::ALL.iter().filter(|code| code.is_retryable()) {
            assert!(is_sent_again((*code).into()), "{code}");
        }
        assert!(is_sent_again(ErrorCode::UnknownTopic.into()));
        assert!(is_sent_again(ErrorCode::UnknownPartition.into()));
        assert!(!is_sent_again(ErrorCode::CorruptBatch.into()), "whose it is, is not known");
        assert!(!is_sent_again(ErrorCode::OutOfOrderSequence.into()), "the one in front of it is remembered");
    }
}
