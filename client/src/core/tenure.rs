//! A consumer in a group: partitions come and go.
//!
//! A partition that goes is *leaving* first: nothing of it is delivered any more, while what was delivered is processed and committed.
//! What counts as processed is everything but the batch that the user got last, until the user asks for the next one.

use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{CommittedOffset, StartAt};

use super::subscription::{ConsumerCore, Hold, Lost, Place};

/// What has to happen before a partition can be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// The user is still at it.
    Processing,
    /// Its position is to be committed.
    Commit,
    /// Nothing.
    Nothing,
}

impl ConsumerCore {
    /// A partition is this consumer's from now on.
    pub(crate) fn assign(&mut self, partition: u32, start: StartAt) -> usize {
        let place = self.place_of(partition).unwrap_or_else(|| {
            self.places.push(Place::new(partition, start));
            self.places.len() - 1
        });
        self.seek(place, start);
        let at = &mut self.places[place];
        at.hold = Hold::Held;
        at.tenure += 1;
        at.paused = false;
        at.uncommitted_unseen = None;
        at.end = None;
        at.leader_epoch = -1;
        at.begun = at.delivered;
        at.processed = at.delivered;
        at.committed = at.delivered;
        self.share_buffer();
        place
    }

    /// Nothing of a partition is delivered any more.
    pub(crate) fn stop(&mut self, partition: u32) -> Option<usize> {
        let place = self.place_of(partition)?;
        self.let_go(place, Hold::Leaving);
        Some(place)
    }

    /// A partition is not this consumer's any more.
    pub(crate) fn free(&mut self, partition: u32) -> Option<usize> {
        let place = self.place_of(partition)?;
        let at = &self.places[place];
        self.lost.delivered |= at.is_lost(at.delivered);
        self.lost.processed |= at.is_lost(at.processed);
        self.gave_up_unseen |= at.has_unseen_failure();
        self.places[place].uncommitted_unseen = None;
        self.let_go(place, Hold::Free);
        if self.in_hand == Some(place) {
            self.in_hand = None;
        }
        Some(place)
    }

    fn let_go(&mut self, place: usize, hold: Hold) {
        self.forget_chunks(place);
        self.end_subscription(place);
        self.places[place].hold = hold;
        self.share_buffer();
        // Perhaps it was the last one that had not come to its end.
        self.wake();
    }

    /// The user has got records of this place.
    pub(crate) fn hand_out(&mut self, place: usize) {
        self.in_hand = Some(place);
    }

    /// The user asks for more: what was given is processed. Says whether that is of a partition that somebody waits for.
    pub(crate) fn note_processed(&mut self) -> bool {
        let Some(place) = self.in_hand.take() else { return false };
        let at = &mut self.places[place];
        at.processed = at.processed.max(at.delivered);
        at.hold == Hold::Leaving
    }

    /// The user will not ask again: what it has counts as not processed.
    pub(crate) fn abandon_processing(&mut self) {
        self.in_hand = None;
    }

    /// What was lost since that was last forgotten.
    pub(crate) fn lost(&self) -> Lost {
        self.lost
    }

    pub(crate) fn forget_lost(&mut self) {
        self.lost = Lost::default();
    }

    /// Whether a position of this tenure may be committed.
    pub(crate) fn may_commit(&self, partition: u32, tenure: u64) -> bool {
        let place = self.place_of(partition).map(|place| &self.places[place]);
        place.is_some_and(|at| at.tenure == tenure && at.hold != Hold::Free)
    }

    /// Whether the group is at this offset or behind it already.
    pub(crate) fn is_committed(&self, partition: u32, offset: Offset) -> bool {
        self.place_of(partition).is_some_and(|place| self.places[place].committed >= Some(offset))
    }

    /// See [`Place::tenure`].
    pub(crate) fn tenure_of(&self, partition: u32) -> Option<u64> {
        self.place_of(partition).map(|place| self.places[place].tenure)
    }

    /// See [`Need`].
    pub(crate) fn need(&self, partition: u32) -> Need {
        let Some(place) = self.place_of(partition) else { return Need::Nothing };
        match &self.places[place] {
            _ if self.in_hand == Some(place) => Need::Processing,
            at if at.is_uncommitted() => Need::Commit,
            _ => Need::Nothing,
        }
    }

    /// The positions behind what was processed, where they are not committed.
    pub(crate) fn uncommitted(&self) -> Vec<CommittedOffset> {
        self.positions(|at| at.processed.filter(|_| at.is_uncommitted()))
    }

    /// The positions behind what was delivered.
    pub(crate) fn delivered_positions(&self) -> Vec<CommittedOffset> {
        self.positions(|at| at.delivered)
    }

    fn positions(&self, position: impl Fn(&Place) -> Option<Offset>) -> Vec<CommittedOffset> {
        let held = self.places.iter().filter(|at| at.hold != Hold::Free);
        let positions = held.filter_map(|at| {
            Some(CommittedOffset {
                partition: PartitionIndex(at.partition),
                offset: position(at)?,
                leader_epoch: at.leader_epoch,
                metadata: String::new(),
            })
        });
        positions.collect()
    }

    /// A commit of this position of a tenure failed, and nobody waited for the answer.
    pub(crate) fn commit_failed_unseen(&mut self, partition: u32, tenure: Option<u64>, offset: Offset) {
        if let Some(place) = self.place_of(partition).filter(|_| self.tenure_of(partition) == tenure) {
            let at = &mut self.places[place];
            at.uncommitted_unseen = at.uncommitted_unseen.max(Some(offset));
        }
    }

    /// Whether a commit failed that nobody waited for, and no later one made up for it.
    pub(crate) fn has_unseen_failure(&self) -> bool {
        self.gave_up_unseen || self.places.iter().any(Place::has_unseen_failure)
    }

    /// This position of a tenure is committed, or never will be.
    pub(crate) fn committed(&mut self, partition: u32, tenure: Option<u64>, offset: Offset) {
        if let Some(place) = self.place_of(partition).filter(|_| self.tenure_of(partition) == tenure) {
            let at = &mut self.places[place];
            at.committed = at.committed.max(Some(offset));
            at.processed = at.processed.max(Some(offset));
        }
    }
}

impl Place {
    fn is_uncommitted(&self) -> bool {
        self.hold != Hold::Free && self.processed > self.committed
    }

    fn has_unseen_failure(&self) -> bool {
        self.uncommitted_unseen > self.committed
    }

    /// Whether there is something before this offset that the next to have the partition gets again.
    fn is_lost(&self, until: Option<Offset>) -> bool {
        self.hold != Hold::Free && until > self.committed && until > self.begun
    }
}
