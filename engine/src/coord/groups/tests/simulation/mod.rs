//! Random members, random time, crashes: what must hold whatever happens.
//!
//! Members of all kinds join, read, commit, stall, die and come back, while the coordinator loses at random moments all that its log
//! does not hold, and its log finds no space for a while. Throughout: a partition has one owner per generation, and one at a time in the consumer protocol; an offset that
//! was acknowledged or read never goes back; a token is answered once; nobody waits while the log has no space. When the trouble is over, every group becomes stable, all
//! partitions are read, and no request is left without an answer.

mod actor;
mod classic;
mod modern;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use actor::{Actor, Manner};

const GROUPS: [&str; 4] = ["eager", "cooperative", "fixed", "modern"];
const PARTITIONS: u32 = 4;

struct World {
    seed: u64,
    rng: StdRng,
    coordinator: GroupCoordinator,
    ms: u64,
    partitions: u32,
    /// What a crash leaves.
    log: Vec<Vec<u8>>,
    unwritten: Vec<(u64, Vec<u8>)>,
    /// A snapshot that is being written.
    snapshot: Option<Snapshot>,
    tokens: u64,
    /// Requests without an answer, and who waits.
    open: BTreeMap<Token, Who>,
    actors: Vec<Option<Actor>>,
    births: u64,
    /// By group and generation: who has which partition.
    owners: BTreeMap<(String, i32), BTreeMap<u32, String>>,
    offsets: BTreeMap<(String, u32), Offsets>,
    commits: i64,
    /// The log has no space until then.
    stalled_until: Option<u64>,
    quiet: bool,
}

struct Snapshot {
    cursor: SnapshotCursor,
    pieces: Vec<Vec<u8>>,
    /// Records of the log that it stands for.
    covers: usize,
}

/// Who waits for an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    Actor(usize),
    /// A reader of a group's offsets.
    Reader(&'static str),
    Nobody,
}

/// Of a partition in a group.
#[derive(Default)]
struct Offsets {
    sent: i64,
    /// Acknowledged, or read.
    known: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            coordinator: GroupCoordinator::new(GroupConfig::default(), Now { ms: 0, wall_ms: 1_000_000 }),
            ms: 0,
            partitions: PARTITIONS,
            log: Vec::new(),
            unwritten: Vec::new(),
            snapshot: None,
            tokens: 0,
            open: BTreeMap::new(),
            actors: (0..12).map(|_| None).collect(),
            births: 0,
            owners: BTreeMap::new(),
            offsets: BTreeMap::new(),
            commits: 0,
            stalled_until: None,
            quiet: false,
        };
        world.coordinator.handle_topic(topic(1), "one", world.partitions);
        world
    }

    fn now(&self) -> Now {
        Now { ms: self.ms, wall_ms: 1_000_000 + self.ms as i64 }
    }

    fn odds(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    /// Sends a request; its answer goes to the actor, if it is still waiting then.
    fn ask(&mut self, who: Who, request: GroupRequest) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.open.insert(token, who);
        let random = self.rng.random();
        self.coordinator.handle(self.now(), token, request, random);
        while self.coordinator.run(self.now()) {}
        self.continue_snapshot();
        token
    }

    /// Some or all records become durable, and answers arrive.
    fn settle(&mut self) {
        loop {
            while let Some(record) = self.coordinator.poll_record() {
                self.unwritten.push(record);
            }
            let count = if self.stalled_until.is_some() {
                0
            } else if self.quiet {
                self.unwritten.len()
            } else {
                self.rng.random_range(0..=self.unwritten.len())
            };
            for (seq, payload) in self.unwritten.drain(..count) {
                self.log.push(payload);
                self.coordinator.handle_durable(seq);
            }
            let mut answered = false;
            while let Some((token, reply)) = self.coordinator.poll_reply() {
                answered = true;
                let Some(who) = self.open.remove(&token) else {
                    panic!("seed {}: {token:?} is answered twice or was never asked", self.seed);
                };
                match who {
                    Who::Actor(n) => self.deliver(n, token, reply),
                    Who::Reader(group) => self.check_read(group, &reply),
                    Who::Nobody => {}
                }
            }
            let writes_all = self.quiet && self.stalled_until.is_none();
            if !answered && (!writes_all || self.unwritten.is_empty()) {
                return;
            }
        }
    }

    fn deliver(&mut self, n: usize, token: Token, reply: GroupReply) {
        let Some(mut actor) = self.actors[n].take() else { return };
        if actor.waits_for == Some(token) {
            actor.waits_for = None;
            actor.on_reply(self, n, reply);
        } else if let GroupReply::Commit(outcomes) = reply {
            actor.on_committed(self, token, &outcomes);
        }
        // It may have ended meanwhile.
        if !actor.is_over {
            self.actors[n] = Some(actor);
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.coordinator.next_deadline() <= end {
            self.ms = self.ms.max(self.coordinator.next_deadline());
            self.coordinator.handle_time(self.now());
            self.settle();
        }
        self.ms = end;
    }

    /// The log finds no space for a while, or has some again.
    fn stall(&mut self, until: Option<u64>) {
        self.stalled_until = until;
        self.coordinator.handle_stalled(self.now(), until.is_some());
        self.settle();
        if until.is_some() {
            assert!(self.open.is_empty(), "seed {}: {:?} wait for space", self.seed, self.open);
        }
    }

    fn crash(&mut self) {
        self.stalled_until = None;
        self.snapshot = None;
        self.unwritten.clear();
        self.open.clear();
        let log = self.log.iter().map(Vec::as_slice);
        self.coordinator =
            GroupCoordinator::recover(GroupConfig::default(), self.now(), None, log).expect("readable");
        self.coordinator.resume(self.now());
        self.coordinator.handle_topic(topic(1), "one", self.partitions);
        for actor in self.actors.iter_mut().flatten() {
            actor.on_disconnected();
        }
    }

    /// A snapshot is begun. It gets a piece with every request from now on.
    fn rotate(&mut self) {
        let covers = self.log.len();
        self.snapshot = Some(Snapshot { cursor: SnapshotCursor::default(), pieces: Vec::new(), covers });
    }

    fn continue_snapshot(&mut self) {
        if self.stalled_until.is_some() {
            return;
        }
        let Some(Snapshot { cursor, pieces, covers }) = &mut self.snapshot else { return };
        if let Some(piece) = self.coordinator.snapshot_piece(cursor, 150) {
            return pieces.push(piece);
        }
        // All is durable, and the log begins anew with the snapshot; numbers of records go on.
        while let Some(record) = self.coordinator.poll_record() {
            self.unwritten.push(record);
        }
        for (seq, payload) in self.unwritten.drain(..) {
            self.log.push(payload);
            self.coordinator.handle_durable(seq);
        }
        self.log.splice(..*covers, pieces.drain(..));
        self.snapshot = None;
    }

    fn check_read(&mut self, group: &str, reply: &GroupReply) {
        let GroupReply::Fetch(reply) = reply else { panic!("{reply:?}") };
        if self.is_rejected(reply.error) {
            return;
        }
        for partition in 0..self.partitions {
            let read = reply.offsets.iter().find(|o| o.partition == partition).map_or(0, |o| o.offset);
            let of = self.offsets.entry((group.to_owned(), partition)).or_default();
            assert!(
                (of.known..=of.sent).contains(&read),
                "seed {}: {group}/{partition} is at {read}, {} was acknowledged or read, {} sent",
                self.seed,
                of.known,
                of.sent
            );
            of.known = read;
        }
    }

    /// Whether this is an error because the log has no space.
    fn is_rejected(&self, error: Option<GroupError>) -> bool {
        let is_rejected = error == Some(GroupError::CoordinatorNotAvailable);
        assert!(!is_rejected || self.stalled_until.is_some(), "seed {}: there is space", self.seed);
        is_rejected
    }

    fn check_owner(&mut self, group: &str, generation: i32, partition: u32, owner: &str) {
        let owners = self.owners.entry((group.to_owned(), generation)).or_default();
        let before = owners.insert(partition, owner.to_owned());
        assert!(
            before.as_ref().is_none_or(|before| before == owner),
            "seed {}: {group} generation {generation}: partition {partition} is {before:?}'s and {owner}'s",
            self.seed
        );
    }

    /// One random thing.
    fn step(&mut self) {
        let n = self.rng.random_range(0..self.actors.len());
        if self.stalled_until.is_some_and(|until| self.quiet || until <= self.ms) {
            self.stall(None);
        }
        match self.rng.random_range(0..100) {
            0 if !self.quiet => self.crash(),
            1 if self.stalled_until.is_none() => self.rotate(),
            2 if !self.quiet && self.stalled_until.is_none() && self.odds(3) => {
                let until = self.ms + self.rng.random_range(0..30_000);
                self.stall(Some(until));
            }
            2 if !self.quiet && self.partitions < 9 && self.odds(3) => {
                self.partitions += 1;
                self.coordinator.handle_topic(topic(1), "one", self.partitions);
            }
            3..=5 if !self.quiet => {
                // Somebody is gone without a word, or says goodbye.
                if let Some(actor) = self.actors[n].take()
                    && self.odds(2)
                {
                    actor.say_goodbye(self);
                }
            }
            6..=12 if !self.quiet && self.actors[n].is_none() => {
                self.births += 1;
                let manner = [Manner::Eager, Manner::Cooperative, Manner::Fixed, Manner::Modern][n % 4];
                self.actors[n] = Some(Actor::new(self, n, manner));
            }
            13..=14 if !self.quiet => {
                let stall = self.rng.random_range(0..60_000);
                let until = self.ms + stall;
                if let Some(actor) = &mut self.actors[n] {
                    actor.next_at = until;
                }
            }
            15..=18 => {
                let group = GROUPS[self.rng.random_range(0..GROUPS.len())];
                let request = FetchRequest {
                    group: group.into(),
                    member: None,
                    partitions: None,
                    require_stable: true,
                };
                self.ask(Who::Reader(group), GroupRequest::Fetch(request));
            }
            _ => {
                let ms = self.rng.random_range(0..400);
                self.pass(ms);
            }
        }
        for n in 0..self.actors.len() {
            if let Some(mut actor) = self.actors[n].take() {
                actor.act(self, n);
                if !actor.is_over {
                    self.actors[n] = Some(actor);
                }
            }
        }
        self.settle();
        if self.stalled_until.is_some() {
            assert!(self.open.is_empty(), "seed {}: {:?} wait for space", self.seed, self.open);
        }
    }

    fn states(&mut self) -> BTreeMap<String, &'static str> {
        let token = self.ask(Who::Nobody, GroupRequest::List(ListRequest::default()));
        let (answered, reply) = self.coordinator.poll_reply().expect("at once");
        assert_eq!(answered, token);
        self.open.remove(&token);
        match reply {
            GroupReply::List(listed) => listed.into_iter().map(|g| (g.group, g.state)).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn check_end(&mut self) {
        let seed = self.seed;
        let states = self.states();
        let groups: BTreeSet<&str> = self.actors.iter().flatten().map(Actor::group).collect();
        for group in groups {
            assert_eq!(states.get(group), Some(&"Stable"), "seed {seed}: {group} of {states:?}");
            let mut read: Vec<u32> = self
                .actors
                .iter()
                .flatten()
                .filter(|a| a.group() == group)
                .flat_map(|a| a.owned.clone())
                .collect();
            read.sort_unstable();
            assert_eq!(read, (0..self.partitions).collect::<Vec<_>>(), "seed {seed}: {group}");
        }
        assert!(self.open.is_empty(), "seed {seed}: no answer to {:?}", self.open);
    }
}

#[test]
fn whatever_members_and_crashes_do_partitions_have_one_owner_and_offsets_stay() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for _ in 0..1_500 {
            world.step();
        }
        world.quiet = true;
        for _ in 0..6_000 {
            world.step();
        }
        world.check_end();
    }
}
