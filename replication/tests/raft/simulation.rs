//! Random events in worlds of three to five nodes. One seed determines everything.
//!
//! First everything goes wrong that may: messages are lost, doubled and reordered, processes crash, disks lose entries or are wiped, channels
//! break, replicas are added and removed. Faults of disks stay within what a majority survives. Then everything heals, and a leader must
//! be elected and all replicas must have all of the log.

use std::ops::Range;

use highwater_protocol::ids::LogIndex;
use highwater_replication::raft::{Config, Part, ReplicaId};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use crate::world::{Event, World};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 400;
const STEPS: usize = 600;
const PACKETS_MAX: usize = 60;
const HEAL_ROUNDS_MAX: usize = 400;

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) committed: usize,
    pub(crate) elections: usize,
    pub(crate) changes: usize,
    pub(crate) crashes: usize,
    pub(crate) damages: usize,
    pub(crate) wipes: usize,
}

struct Run {
    world: World,
    rng: SimRng,
    totals: Totals,
    trace: Vec<Event>,
    /// Disks lose entries and are wiped. Then there are always three voters, of which one may be concerned.
    damages: bool,
    /// There are many elections, and few messages arrive.
    is_hasty: bool,
}

/// Runs a seed. The error says what was violated, and how it came to that.
pub(crate) fn run(seed: u64) -> Result<Totals, String> {
    let mut rng = stream(seed, "raft", 0);
    let nodes = rng.random_range(3..=5);
    let voters = rng.random_range(3..=nodes);
    let min_insync = rng.random_range(1..=3);
    let mut world = World::new(nodes, voters, min_insync);
    world.entries_max = rng.random_range(1..=3);
    let damages = rng.random_bool(0.5);
    let is_hasty = rng.random_bool(0.25);
    let mut run = Run { world, rng, damages, is_hasty, totals: Totals::default(), trace: Vec::new() };
    let result = run.misfortune().and_then(|()| run.heal());
    let last = run.trace.len().saturating_sub(12);
    result.map_err(|why| format!("seed {seed}: {why}; after {:?}", &run.trace[last..]))?;
    run.totals.committed = run.world.ghost.committed.len();
    Ok(run.totals)
}

impl Run {
    fn apply(&mut self, event: Event) -> Result<(), String> {
        let leader = self.world.leader().map(|at| self.world.nodes[at].replica.term());
        let result = self.world.apply(&event);
        self.trace.push(event);
        if self.world.leader().map(|at| self.world.nodes[at].replica.term()) > leader {
            self.totals.elections += 1;
        }
        result
    }

    fn misfortune(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            if self.world.network.len() > PACKETS_MAX {
                self.apply(Event::Lose { packet: 0 })?;
            }
            let event = if self.is_hasty { self.hasty_event() } else { self.event() };
            if let Some(event) = event {
                self.apply(event)?;
            }
        }
        Ok(())
    }

    /// What may happen next, if anything.
    fn event(&mut self) -> Option<Event> {
        match self.rng.random_range(0..1000) {
            0..60 => self.any_packet().map(|packet| Event::Deliver { packet, doubled: true }),
            60..90 => self.any_packet().map(|packet| Event::Lose { packet }),
            90..550 => self.any_packet().map(|packet| Event::Deliver { packet, doubled: false }),
            550..560 => {
                let takes = self.rng.random_range(0..2);
                self.any_packet().map(|packet| Event::Refuse { packet, takes })
            }
            560..660 => self.persisted(),
            660..760 => self.flushed(),
            760..785 => Some(Event::Timeout(self.any_node())),
            785..790 => Some(Event::Campaign(self.any_node())),
            790..820 => Some(Event::Cut(self.any_node(), self.any_node())),
            820..850 => Some(Event::Connect(self.any_node(), self.any_node())),
            850..865 => Some(self.crash()),
            865..950 => self.world.leader().map(Event::Propose),
            950..970 => self.change(),
            970..980 => self.world.leader().map(|at| Event::Transfer(at, self.any_node())),
            980..990 => self.damage(),
            _ => Some(self.log_start()),
        }
    }

    /// The same where leaders follow each other before much of what they append gets around (paper, figure 8).
    fn hasty_event(&mut self) -> Option<Event> {
        match self.rng.random_range(0..1000) {
            0..60 => Some(Event::Campaign(self.any_node())),
            60..160 => self.any_packet().map(|packet| Event::Lose { packet }),
            160..560 => self.any_packet().map(|packet| Event::Deliver { packet, doubled: false }),
            560..760 => self.persisted(),
            760..940 => self.flushed(),
            940..980 => self.world.leader().map(Event::Propose),
            980..990 => Some(self.crash()),
            _ => Some(Event::Connect(self.any_node(), self.any_node())),
        }
    }

    fn any_node(&mut self) -> usize {
        self.rng.random_range(0..self.world.nodes.len())
    }

    fn any_packet(&mut self) -> Option<usize> {
        let packets = self.world.network.len();
        (packets > 0).then(|| self.rng.random_range(0..packets))
    }

    fn persisted(&mut self) -> Option<Event> {
        let at = self.any_node();
        self.world.nodes[at].persisting.map(|_| Event::Persisted(at))
    }

    fn flushed(&mut self) -> Option<Event> {
        let at = self.any_node();
        let node = &self.world.nodes[at];
        let (flushed, end) = (node.flushed.0, node.log.end().0);
        (flushed < end).then(|| Event::Flushed(at, LogIndex(self.rng.random_range(flushed + 1..=end))))
    }

    fn crash(&mut self) -> Event {
        self.totals.crashes += 1;
        Event::Crash(self.any_node())
    }

    fn log_start(&mut self) -> Event {
        let at = self.any_node();
        let node = &self.world.nodes[at];
        let (start, commit) = (node.log.start.end.0, node.replica.commit_end().min(node.disk.commit_hint).0);
        Event::LogStart(at, LogIndex(self.rng.random_range(start..=commit.max(start))))
    }

    /// Some other replicas, of those that exist.
    fn change(&mut self) -> Option<Event> {
        let leader = self.world.leader()?;
        let mut voters: Vec<ReplicaId> = Vec::new();
        let mut learners = Vec::new();
        let config = self.world.nodes[leader].replica.config().clone();
        for node in &self.world.nodes {
            let id = node.replica.id();
            let stays = config.part(id) == Some(Part::Voter);
            match self.rng.random_range(0..10) {
                0..7 if stays => voters.push(id),
                0..4 if config.part(id).is_some() => voters.push(id),
                9 => {}
                _ => learners.push(id),
            }
        }
        if self.damages && voters.len() < 3 {
            return None;
        }
        self.totals.changes += 1;
        Some(Event::ProposeConfig(leader, Config::new(voters, learners)?))
    }

    /// A fault of a disk, if the other replicas make up for it.
    fn damage(&mut self) -> Option<Event> {
        let exists = |id: ReplicaId| self.world.nodes.iter().any(|node| node.replica.id() == id);
        let sound = self.world.nodes.iter().all(|node| {
            let members = node.replica.config().members();
            let side = |votes: fn(Part) -> bool| members.iter().filter(|m| votes(m.part)).count();
            !node.replica.is_damaged()
                && !node.disk.end_lost
                // A hole that was cut off in memory only comes back with the next start.
                && node.disk.log.unreadable().is_none()
                && members.iter().all(|m| m.part == Part::Learner || exists(m.id))
                && side(|part| matches!(part, Part::Voter | Part::Incoming)) >= 3
                && side(|part| matches!(part, Part::Voter | Part::Outgoing | Part::Demoted)) >= 3
        });
        if !sound || !self.damages {
            return None;
        }
        let at = self.any_node();
        let node = &self.world.nodes[at];
        let (start, end) = (node.log.start.end.0, node.flushed.0);
        match self.rng.random_range(0..3) {
            0 => {
                self.totals.wipes += 1;
                Some(Event::Wipe(at))
            }
            1 => {
                self.totals.damages += 1;
                Some(Event::CrashLosingEnd(at, self.rng.random_range(1..4)))
            }
            _ if start < end => {
                self.totals.damages += 1;
                let from = self.rng.random_range(start..end);
                let until = self.rng.random_range(from + 1..=end);
                Some(Event::Hole(at, LogIndex(from), LogIndex(until)))
            }
            _ => None,
        }
    }

    /// Everything works again. A leader must be elected, and everybody must get everything.
    fn heal(&mut self) -> Result<(), String> {
        let nodes = self.world.nodes.len();
        for round in 0..HEAL_ROUNDS_MAX {
            for a in 0..nodes {
                self.world.nodes[a].replica.abort_transfer();
                self.world.nodes[a].replica.fetch_hole();
                self.apply(Event::Persisted(a))?;
                let end = self.world.nodes[a].log.end();
                if end > self.world.nodes[a].flushed {
                    self.apply(Event::Flushed(a, end))?;
                }
                for b in a + 1..nodes {
                    // Messages were lost, which happens to channels only when they are.
                    if round == 0 {
                        self.apply(Event::Cut(a, b))?;
                    }
                    self.apply(Event::Connect(a, b))?;
                }
            }
            for _ in 0..self.world.network.len() {
                self.apply(Event::Deliver { packet: 0, doubled: false })?;
            }
            if self.has_converged() {
                return Ok(());
            }
            let leads = |at: usize| self.world.nodes[at].is_leader();
            if !(0..nodes).any(leads) && round % 8 == 7 {
                for at in 0..nodes {
                    // Nobody leads, so nobody's lease lasts.
                    if let Some(leader) = self.world.nodes[at].replica.leader() {
                        self.world.nodes[at].replica.handle_peer_lost(leader);
                    }
                }
                self.apply(Event::Timeout(round / 8 % nodes))?;
            }
        }
        let describe = |node: &crate::world::Node| {
            let r = &node.replica;
            let (id, role, hard, hole, config) = (r.id(), r.role(), r.hard_state(), r.hole(), r.config());
            let (commit, end) = (r.commit_end(), r.log_end());
            format!("{id} {role:?} {hard:?} committed {commit} of {end:?} without {hole:?} in {config:?}")
        };
        Err(format!("stuck: {:?}", self.world.nodes.iter().map(describe).collect::<Vec<_>>()))
    }

    fn has_converged(&self) -> bool {
        let Some(leader) = self.world.leader().map(|at| &self.world.nodes[at].replica) else { return false };
        let settled = leader.is_serving() && leader.is_config_committed() && !leader.config().is_joint();
        settled
            && self.world.nodes.iter().map(|node| &node.replica).all(|replica| {
                leader.config().part(replica.id()).is_none()
                    || (replica.commit_end() == leader.log_end().end && !replica.is_damaged())
            })
    }
}

fn seeds() -> Range<u64> {
    highwater_runtime::sim::seeds("HIGHWATER_RAFT_SEEDS", SEEDS)
}

#[test]
fn replicas_agree_whatever_happens_and_converge_when_it_ends() {
    let mut total = Totals::default();
    for seed in seeds() {
        // Printed by the test harness only when the run fails.
        println!("seed {seed}: HIGHWATER_RAFT_SEEDS={seed}..{}", seed + 1);
        let one = run(seed).unwrap_or_else(|why| panic!("{why}"));
        total.committed += one.committed;
        total.elections += one.elections;
        total.changes += one.changes;
        total.crashes += one.crashes;
        total.damages += one.damages;
        total.wipes += one.wipes;
    }
    println!("{total:?}");
    let Totals { committed, elections, changes, crashes, damages, wipes } = total;
    assert!(committed > 0 && elections > 0 && changes > 0 && crashes > 0, "{total:?}");
    assert!(seeds().count() < 100 || (damages > 0 && wipes > 0), "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 41] {
        assert_eq!(run(seed), run(seed));
    }
}
