//! Who takes part in a partition, and what a majority of them is.
//!
//! A change of the voters goes through a *joint* configuration (Raft paper, section 6; thesis, 4.3): while it is in the log, each
//! decision needs a majority of the old voters and one of the new voters.

use highwater_protocol::ids::LogIndex;
use highwater_protocol::limits::REPLICAS_PER_PARTITION_MAX;

use super::types::ReplicaId;
use crate::mutants::{Mutant, is_planted};

/// Maximum number of replicas of a partition. A joint configuration has up to twice as many.
pub const REPLICAS_MAX: usize = REPLICAS_PER_PARTITION_MAX;

/// The part that a replica has. The numbers are its codes in logs and messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Gets entries, and counts for nothing.
    Learner = 0,
    /// Votes, and counts towards the majority.
    Voter = 1,
    /// In a joint configuration: a new voter.
    Incoming = 2,
    /// In a joint configuration: an old voter that leaves.
    Outgoing = 3,
    /// In a joint configuration: an old voter that becomes a learner.
    Demoted = 4,
}

impl Part {
    /// All parts, each at its code.
    const ALL: [Self; 5] = [Self::Learner, Self::Voter, Self::Incoming, Self::Outgoing, Self::Demoted];

    /// Returns the part with a code.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    const fn is_old_voter(self) -> bool {
        matches!(self, Self::Voter | Self::Outgoing | Self::Demoted)
    }

    const fn is_new_voter(self) -> bool {
        matches!(self, Self::Voter | Self::Incoming)
    }
}

/// A replica and its part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// The replica.
    pub id: ReplicaId,
    /// Its part.
    pub part: Part,
}

/// The replicas of a partition, ordered by id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    members: Box<[Member]>,
}

impl Config {
    /// Creates a configuration that is not joint. Returns `None` without a voter, with more than [`REPLICAS_MAX`] replicas, or if
    /// one is named twice.
    pub fn new(
        voters: impl IntoIterator<Item = ReplicaId>,
        learners: impl IntoIterator<Item = ReplicaId>,
    ) -> Option<Self> {
        let member = |part| move |id| Member { id, part };
        let mut members: Vec<Member> = voters.into_iter().map(member(Part::Voter)).collect();
        if members.is_empty() {
            return None;
        }
        members.extend(learners.into_iter().map(member(Part::Learner)));
        members.sort_by_key(|m| m.id);
        let twice = members.windows(2).any(|pair| matches!(pair, [a, b] if a.id == b.id));
        (!twice && members.len() <= REPLICAS_MAX).then(|| Self { members: members.into() })
    }

    /// Creates a configuration from all of its members, joint or not. Returns `None` if one side has no voter or more than
    /// [`REPLICAS_MAX`] replicas, or if a replica is named twice.
    pub fn from_members(mut members: Vec<Member>) -> Option<Self> {
        members.sort_by_key(|m| m.id);
        let twice = members.windows(2).any(|pair| matches!(pair, [a, b] if a.id == b.id));
        let count = |belongs: fn(Part) -> bool| members.iter().filter(|m| belongs(m.part)).count();
        let old = count(|part| !matches!(part, Part::Incoming));
        let new = count(|part| !matches!(part, Part::Outgoing));
        let has_voters = count(Part::is_old_voter) > 0 && count(Part::is_new_voter) > 0;
        let valid = has_voters && !twice && old.max(new) <= REPLICAS_MAX;
        valid.then(|| Self { members: members.into() })
    }

    /// Returns the members, ordered by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the part of a replica. `None`: it is not a member.
    pub fn part(&self, id: ReplicaId) -> Option<Part> {
        self.members.iter().find(|m| m.id == id).map(|m| m.part)
    }

    /// Returns whether a replica votes, on either side of a joint configuration.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.part(id).is_some_and(|part| part != Part::Learner)
    }

    /// Returns whether a replica is the only member.
    pub fn is_only(&self, id: ReplicaId) -> bool {
        *self.members == [Member { id, part: Part::Voter }]
    }

    /// Returns the replicas that vote.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.iter().filter(|m| m.part != Part::Learner).map(|m| m.id)
    }

    /// Returns whether the configuration is joint.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|m| !matches!(m.part, Part::Voter | Part::Learner))
    }

    /// Returns the configuration that leads to `target`: the joint one, if the voters differ, or else the target itself.
    pub(crate) fn towards(&self, target: &Self) -> Self {
        assert!(!self.is_joint() && !target.is_joint(), "one change at a time");
        if self.voters().eq(target.voters()) {
            return target.clone();
        }
        let mut members: Vec<Member> = Vec::with_capacity(self.members.len() + target.members.len());
        members.extend(target.members.iter().map(|m| {
            let part = match (m.part, self.is_voter(m.id)) {
                (Part::Learner, true) => Part::Demoted,
                (Part::Learner, false) => Part::Learner,
                (_, true) => Part::Voter,
                (_, false) => Part::Incoming,
            };
            Member { id: m.id, part }
        }));
        let leaving = self.voters().filter(|id| target.part(*id).is_none());
        members.extend(leaving.map(|id| Member { id, part: Part::Outgoing }));
        members.sort_by_key(|m| m.id);
        Self { members: members.into() }
    }

    /// Returns the configuration that a joint one leads to.
    pub(crate) fn after_joint(&self) -> Self {
        let stays = self.members.iter().filter(|m| m.part != Part::Outgoing);
        let members = stays.map(|m| {
            let part = if m.part.is_new_voter() { Part::Voter } else { Part::Learner };
            Member { id: m.id, part }
        });
        Self { members: members.collect() }
    }

    /// Returns whether the replicas for which `has` is true are a majority of each side.
    pub(crate) fn is_quorum(&self, mut has: impl FnMut(ReplicaId) -> bool) -> bool {
        let mut majority = |votes: fn(Part) -> bool| {
            let side = self.members.iter().filter(|m| votes(m.part));
            let (all, with) = side.fold((0, 0), |(all, with), m| (all + 1, with + usize::from(has(m.id))));
            with > all / 2
        };
        majority(sides::new) && (is_planted(Mutant::JointOneSide) || majority(sides::old))
    }

    /// Returns the largest end that a majority of each side has reached.
    pub(crate) fn quorum_end(&self, mut reached: impl FnMut(ReplicaId) -> LogIndex) -> LogIndex {
        let new = self.kth_end(sides::new, None, &mut reached);
        if is_planted(Mutant::JointOneSide) {
            return new;
        }
        new.min(self.kth_end(sides::old, None, &mut reached))
    }

    /// Returns the largest end that this many of the new voters have reached.
    pub(crate) fn copies_end(
        &self,
        copies: usize,
        mut reached: impl FnMut(ReplicaId) -> LogIndex,
    ) -> LogIndex {
        self.kth_end(sides::new, Some(copies), &mut reached)
    }

    /// Returns the largest end that `copies` replicas of a side have reached, or a majority of them.
    fn kth_end(
        &self,
        votes: fn(Part) -> bool,
        copies: Option<usize>,
        reached: &mut impl FnMut(ReplicaId) -> LogIndex,
    ) -> LogIndex {
        let mut ends = [LogIndex(0); 2 * REPLICAS_MAX];
        let mut count = 0;
        for member in self.members.iter().filter(|m| votes(m.part)) {
            ends[count] = reached(member.id);
            count += 1;
        }
        let short = usize::from(is_planted(Mutant::CommitBeforeMajority));
        let copies = copies.unwrap_or((count / 2 + 1 - short).max(1));
        let ends = &mut ends[..count];
        ends.sort_unstable_by(|a, b| b.cmp(a));
        copies.checked_sub(1).and_then(|at| ends.get(at)).copied().unwrap_or(LogIndex(0))
    }
}

mod sides {
    use super::{Mutant, Part, is_planted};

    pub(super) fn old(part: Part) -> bool {
        part.is_old_voter() || counts_anyway(part)
    }

    pub(super) fn new(part: Part) -> bool {
        part.is_new_voter() || counts_anyway(part)
    }

    fn counts_anyway(part: Part) -> bool {
        part == Part::Learner && is_planted(Mutant::LearnerCounted)
    }
}
