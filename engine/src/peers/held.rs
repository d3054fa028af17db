//! Received frames that are in memory until they are durable, with the channels that have to get their credit back.
//!
//! The frames of a store become durable about in the order in which they came, so only the first ones of each store are looked at.

use std::collections::VecDeque;

use highwater_protocol::ids::LogIndex;
use highwater_replication::peer::PeerShard;

use super::{Peers, SessionNumber};
use crate::mutants::{Mutant, is_planted};
use crate::partition::{PartitionId, Partitions};

/// Frames of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) peer: PeerShard,
    pub(super) session: SessionNumber,
    pub(super) id: PartitionId,
    /// Index after the last of them.
    pub(super) end: LogIndex,
    pub(super) bytes: usize,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct HeldFrames {
    by_store: Vec<VecDeque<Held>>,
}

impl HeldFrames {
    pub(super) fn add(&mut self, store: usize, held: Held) {
        if self.by_store.len() <= store {
            self.by_store.resize_with(store + 1, VecDeque::new);
        }
        self.by_store[store].push_back(held);
    }

    /// Gives the credit back for frames that are durable, or were dropped.
    pub(super) fn release(&mut self, peers: &mut Peers, partitions: &Partitions) {
        let is_stored = |held: &mut Held| partitions.has_stored(held.id, held.end);
        for frames in &mut self.by_store {
            while let Some(held) = frames.pop_front_if(is_stored) {
                if !is_planted(Mutant::CreditNeverReleased) {
                    peers.release(held.peer, held.session, held.bytes);
                }
            }
        }
    }

    /// Returns the number of messages whose frames are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_store.iter().map(VecDeque::len).sum()
    }
}
