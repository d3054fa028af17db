//! Batches of a producer stay in order even if one of them is refused.
//!
//! A log accepts any first sequence number of a producer that it does not know: it may have forgotten it. So when the first of
//! several batches on their way is refused for a reason that passes, the second must not be taken just because the reason
//! has passed meanwhile. Each connection remembers what was refused until that is sent again.

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::ConnId;

use super::Shard;
use super::connection::ProducerOf;
use super::partition::Refusal;
use crate::limits::REFUSED_PRODUCERS_MAX;
use crate::mutants::{Mutant, is_planted};

/// A batch of an idempotent producer: whose, and its first sequence number.
pub(super) type Stamp = (ProducerOf, i32);

impl Shard {
    /// Whose batch it is; none without an idempotent producer.
    pub(super) fn stamp_of(to: TopicPartition, batch: &[u8]) -> Option<Stamp> {
        let producer = BatchHeader::parse(batch).ok()?.producer()?;
        let of = ProducerOf { tp: to, producer: producer.id, epoch: producer.epoch };
        Some((of, producer.sequence))
    }

    /// Why a batch has to wait for another one that was refused, if it has.
    pub(super) fn overtakes(&self, conn: ConnId, stamp: Option<Stamp>) -> Option<Refusal> {
        let (of, sequence) = stamp?;
        let refused = *self.connections.get(&conn)?.refused.get(&of)?;
        (sequence.wrapping_sub(refused) > 0 && !is_planted(Mutant::RejectedBatchOvertaken)).then(|| {
            let text =
                format!("the batch with sequence {refused} in front of it was refused; send that one first");
            (ErrorCode::OutOfOrderSequence, text)
        })
    }

    pub(super) fn note_appended(&mut self, conn: ConnId, stamp: Option<Stamp>) {
        if let (Some((of, sequence)), Some(connection)) = (stamp, self.connections.get_mut(&conn))
            && connection.refused.get(&of) == Some(&sequence)
        {
            connection.refused.remove(&of);
        }
    }

    /// A batch was refused and may be sent again. False if too many were on this connection: it has to end.
    pub(super) fn note_refused(&mut self, conn: ConnId, stamp: Option<Stamp>) -> bool {
        let (Some((of, sequence)), Some(connection)) = (stamp, self.connections.get_mut(&conn)) else {
            return true;
        };
        connection.refused.entry(of).or_insert(sequence);
        connection.refused.len() <= REFUSED_PRODUCERS_MAX
    }
}
