//! Groups of Kafka clients: members that join, commit, stall, crash and rejoin, against a whole broker.
//!
//! Whatever fails, a partition has one owner per generation, and one at a time in the consumer protocol, and an offset that was acknowledged or read
//! never decreases. After the last failure every group becomes stable, its members together have all partitions, and every request gets a
//! response. The members of the native protocol are in [`crate::member`].

mod classic;
mod grower;
mod ledger;
mod member;
mod modern;
mod observer;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use highwater_net::kafka::KafkaError;
use highwater_protocol::ids::TopicId;
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt;

use crate::node::World;
use grower::Grower;
use ledger::Ledger;
use member::{Member, MemberKind};
use observer::{OffsetReader, StateReader};

/// The topic that all groups read.
pub(crate) const TOPIC: &str = "shared";

/// Initial number of partitions.
pub(crate) const PARTITIONS_AT_FIRST: u32 = 4;

/// Final number of partitions.
const PARTITIONS_MAX: i32 = 9;

/// Maximum number of members; a quarter of them in each group.
const MEMBERS_MAX: usize = 12;

/// Errors after which clients send the same request again.
const RETRIED: [KafkaError; 3] = [
    KafkaError::COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError::COORDINATOR_NOT_AVAILABLE,
    KafkaError::NOT_COORDINATOR,
];

/// The context of one step of a client.
struct Round<'a> {
    world: &'a mut World,
    address: SocketAddr,
    tick: u64,
    /// Whether failures have ended.
    is_quiet: bool,
    ledger: &'a mut Ledger,
}

pub(crate) struct Groups {
    seed: u64,
    rng: SimRng,
    tick: u64,
    ledger: Ledger,
    members: Vec<Option<Member>>,
    births: u64,
    grower: Grower,
    offsets: Vec<OffsetReader>,
    states: StateReader,
}

impl Groups {
    pub(crate) fn new(seed: u64, topic: TopicId) -> Self {
        let reader = |(number, kind): (usize, &MemberKind)| {
            OffsetReader::new(kind.group(), stream(seed, "offset reader", number as u64))
        };
        Self {
            seed,
            rng: stream(seed, "groups", 0),
            tick: 0,
            ledger: Ledger::new(seed, topic, PARTITIONS_AT_FIRST as i32),
            members: (0..MEMBERS_MAX).map(|_| None).collect(),
            births: 0,
            grower: Grower::new(stream(seed, "grower", 0)),
            offsets: MemberKind::ALL.iter().enumerate().map(reader).collect(),
            states: StateReader::default(),
        }
    }

    pub(crate) fn poll(&mut self, world: &mut World, address: SocketAddr, may_fail: bool) {
        self.tick += 1;
        let is_quiet = !may_fail;
        let mut round = Round { world, address, tick: self.tick, is_quiet, ledger: &mut self.ledger };
        for (slot, place) in self.members.iter_mut().enumerate() {
            if may_fail && place.is_none() && self.rng.random_bool(0.01) {
                self.births += 1;
                let rng = stream(self.seed, "group member", self.births);
                *place = Some(Member::new(slot, self.births, round.tick, rng));
            }
            let Some(member) = place else { continue };
            if may_fail && self.rng.random_bool(0.0015) {
                // Half of them leave, the others crash.
                member.end(self.rng.random_bool(0.5), &mut round);
                *place = None;
                continue;
            }
            if may_fail && self.rng.random_bool(0.001) {
                member.stall(self.rng.random_range(0..300));
            }
            member.poll(&mut round);
            if member.is_over {
                *place = None;
            }
        }
        self.grower.poll(&mut round);
        for reader in &mut self.offsets {
            reader.poll(&mut round);
        }
        self.states.poll(&mut round);
    }

    /// Returns how often a partition was assigned to a member.
    pub(crate) fn assignments(&self) -> u64 {
        self.ledger.assignments
    }

    /// Returns whether every group with members is stable and each partition has one member.
    pub(crate) fn is_done(&self) -> bool {
        self.grower.is_idle() && self.unfinished().is_empty()
    }

    /// Describes the state of the groups, for a run that does not finish.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.unfinished()
    }

    fn unfinished(&self) -> Vec<String> {
        let all: Vec<i32> = (0..self.ledger.partitions).collect();
        let mut unfinished = Vec::new();
        let groups: BTreeSet<&str> = self.members.iter().flatten().map(Member::group).collect();
        for group in groups {
            let of_group = || self.members.iter().flatten().filter(move |member| member.group() == group);
            let mut owned: Vec<i32> = of_group().flat_map(|member| member.owned.iter().copied()).collect();
            owned.sort_unstable();
            let state = self.states.of(group);
            if state != Some("Stable") || owned != all || !of_group().all(Member::is_settled) {
                let members: Vec<String> = of_group().map(Member::describe).collect();
                unfinished
                    .push(format!("group {group} is {state:?} and has {owned:?} of {all:?}: {members:#?}"));
            }
        }
        unfinished
    }
}
