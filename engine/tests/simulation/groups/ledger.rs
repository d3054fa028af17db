//! The observations of all members and readers of groups together.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::TopicId;

use crate::node::SESSION_TICKS;

/// The known bounds of the offset of one partition in one group.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct CommittedOffset {
    /// The highest offset sent in a commit.
    pub(super) sent: i64,
    /// The highest offset acknowledged or read.
    pub(super) known: i64,
}

/// Partitions of a member of the consumer protocol.
struct HeldPartitions {
    owned: BTreeSet<i32>,
    /// When the last answered heartbeat was sent.
    confirmed_at: u64,
}

pub(super) struct Ledger {
    seed: u64,
    pub(super) topic: TopicId,
    /// Number of partitions of the topic that the broker has confirmed.
    pub(super) partitions: i32,
    /// By group and generation of the classic protocol: the member that has each partition.
    owners: BTreeMap<(&'static str, i32), BTreeMap<i32, String>>,
    /// Members of the consumer protocol.
    holdings: BTreeMap<String, HeldPartitions>,
    offsets: BTreeMap<(&'static str, i32), CommittedOffset>,
    /// The last offset that any member has sent. All are different.
    last_offset: i64,
    pub(super) assignments: u64,
}

impl Ledger {
    pub(super) fn new(seed: u64, topic: TopicId, partitions: i32) -> Self {
        Self {
            seed,
            topic,
            partitions,
            owners: BTreeMap::new(),
            holdings: BTreeMap::new(),
            offsets: BTreeMap::new(),
            last_offset: 0,
            assignments: 0,
        }
    }

    /// Notes that a member of the classic protocol was assigned a partition in this generation.
    pub(super) fn assign(&mut self, group: &'static str, generation: i32, partition: i32, member: &str) {
        let owners = self.owners.entry((group, generation)).or_default();
        let before = owners.insert(partition, member.to_owned());
        assert!(
            before.as_deref().is_none_or(|before| before == member),
            "seed {}: {group}, generation {generation}: partition {partition} belongs to {before:?} and {member}",
            self.seed
        );
        self.assignments += 1;
    }

    /// Notes that a member of the consumer protocol was assigned a partition. No other member whose session is valid may have it.
    pub(super) fn claim(&mut self, partition: i32, member: &str, tick: u64) {
        for (other, holding) in self.holdings.iter().filter(|(other, _)| *other != member) {
            assert!(
                !holding.owned.contains(&partition) || tick >= holding.confirmed_at + SESSION_TICKS,
                "seed {}: partition {partition} belongs to {other} and {member}",
                self.seed
            );
        }
        self.assignments += 1;
    }

    /// Sets the partitions of a member of the consumer protocol.
    pub(super) fn hold(&mut self, member: &str, owned: &BTreeSet<i32>, confirmed_at: u64) {
        let holding = HeldPartitions { owned: owned.clone(), confirmed_at };
        self.holdings.insert(member.to_owned(), holding);
    }

    /// Removes a member that has ended.
    pub(super) fn forget(&mut self, member: &str) {
        self.holdings.remove(member);
    }

    /// Returns the next offset to commit for a partition.
    pub(super) fn next_offset(&mut self, group: &'static str, partition: i32) -> i64 {
        self.last_offset += 1;
        self.offsets.entry((group, partition)).or_default().sent = self.last_offset;
        self.last_offset
    }

    /// Notes an acknowledged commit.
    pub(super) fn committed(&mut self, group: &'static str, partition: i32, offset: i64) {
        let of = self.offsets.entry((group, partition)).or_default();
        of.known = of.known.max(offset);
    }

    pub(super) fn offset(&self, group: &'static str, partition: i32) -> CommittedOffset {
        self.offsets.get(&(group, partition)).copied().unwrap_or_default()
    }

    /// Checks an offset that was read. `known` is the lower bound when the request was sent.
    pub(super) fn read(&mut self, group: &'static str, partition: i32, known: i64, offset: i64) {
        let of = self.offsets.entry((group, partition)).or_default();
        assert!(
            (known..=of.sent).contains(&offset),
            "seed {}: {group}, partition {partition}: offset {offset} was read, {known} was acknowledged or read before, {} sent",
            self.seed,
            of.sent
        );
        of.known = of.known.max(offset);
    }
}
