//! Acknowledgements that wait until their batches are as durable as their producers require.

use std::collections::VecDeque;

use highwater_protocol::ids::{Offset, Timestamp};

use super::consensus::Consensus;
use crate::api::RequiredAcks;
use crate::mutants::{Mutant, is_planted};
use crate::reply_to::ReplyTo;

/// A pending acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    pub(crate) reply_to: ReplyTo,
    /// Offset after the batch's last record.
    pub(crate) end: Offset,
    pub(crate) base_offset: Offset,
    /// [`NO_TIMESTAMP`](highwater_protocol::batch::NO_TIMESTAMP) unless the broker stamped the batch.
    pub(crate) log_append_time: Timestamp,
}

/// The pending acknowledgements of a partition, in the order of its log.
#[derive(Default, Debug)]
pub(super) struct PendingAcks {
    until_acknowledged: VecDeque<Ack>,
    until_durable: VecDeque<Ack>,
}

impl PendingAcks {
    /// Queues an acknowledgement until `acks` is satisfied. Returns true if it is already, as for a batch that was sent again.
    pub(super) fn wait(&mut self, consensus: &Consensus, acks: RequiredAcks, ack: Ack) -> bool {
        let (reached, queue) = match acks {
            RequiredAcks::All => (consensus.acknowledged(), &mut self.until_acknowledged),
            RequiredAcks::Leader | RequiredAcks::None => (consensus.durable_end(), &mut self.until_durable),
        };
        if ack.end <= reached || is_planted(Mutant::AckBeforeDurable) {
            return true;
        }
        queue.push_back(ack);
        false
    }

    /// Takes an acknowledgement that can be sent.
    pub(super) fn pop(&mut self, consensus: &Consensus) -> Option<Ack> {
        let (durable, acknowledged) = (consensus.durable_end(), consensus.acknowledged());
        self.until_durable
            .pop_front_if(|ack| ack.end <= durable)
            .or_else(|| self.until_acknowledged.pop_front_if(|ack| ack.end <= acknowledged))
    }

    /// Takes an acknowledgement that waits for more copies than a majority, of a batch that is committed.
    pub(super) fn pop_committed(&mut self, committed: Offset) -> Option<Ack> {
        self.until_acknowledged.pop_front_if(|ack| ack.end <= committed)
    }

    /// Takes all of them.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Ack> {
        self.until_durable.drain(..).chain(self.until_acknowledged.drain(..))
    }
}
