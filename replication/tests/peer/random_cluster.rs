//! Random events in a cluster of three nodes with three partitions. One seed determines everything.
//!
//! First connections break and bytes arrive late, processes crash, leaders change. Then all of it ends, and every partition must have a leader and the
//! same entries everywhere.

use std::time::Duration;

use highwater_protocol::ids::LogIndex;
use highwater_replication::raft::{Config, Part, ReplicaId};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use crate::cluster::Cluster;
use crate::pipe::seeds;
use crate::world::{Event, World};

const SEEDS: u64 = 60;
const STEPS: usize = 800;
const NODES: usize = 3;
const PARTITIONS: usize = 3;
const HEAL_ROUNDS_MAX: usize = 600;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) committed: usize,
    pub(crate) sessions: usize,
    pub(crate) holes: usize,
    pub(crate) crashes: usize,
}

struct Run {
    cluster: Cluster,
    rng: SimRng,
    totals: Totals,
    /// Configurations change, or disks lose entries. Not both: the other replicas have to make up for the loss.
    changes: bool,
}

/// Runs a seed. The error says what was violated.
pub(crate) fn run(seed: u64) -> Result<Totals, String> {
    let mut rng = stream(seed, "cluster", 0);
    let changes = rng.random();
    let cluster = Cluster::new(NODES, PARTITIONS, stream(seed, "links", 0));
    let mut run = Run { cluster, rng, totals: Totals::default(), changes };
    let result = (0..STEPS).try_for_each(|_| run.step()).and_then(|()| run.heal());
    result.map_err(|why| format!("seed {seed}: {why}"))?;
    run.totals.committed = run.cluster.worlds.iter().map(|world| world.ghost.committed.len()).sum();
    run.totals.sessions = run.cluster.sessions;
    Ok(run.totals)
}

impl Run {
    fn step(&mut self) -> Result<(), String> {
        let at = self.rng.random_range(0..NODES);
        let world = self.rng.random_range(0..PARTITIONS);
        let pairs = self.cluster.pairs();
        let pair = pairs[self.rng.random_range(0..pairs.len())];
        match self.rng.random_range(0..1000) {
            0..450 => {
                let max = if self.rng.random_bool(0.3) { 30 } else { 3000 };
                let max = self.rng.random_range(1..=max);
                self.cluster.exchange(pair, max)
            }
            450..600 => {
                let ms = self.rng.random_range(0..40);
                self.cluster.pass(Duration::from_millis(ms))
            }
            600..690 => self.cluster.apply(world, &Event::Persisted(at)),
            690..780 => self.flush(world, at),
            780..800 => self.timeout(world, at),
            800..950 => {
                let leader = self.cluster.worlds[world].leader();
                leader.map_or(Ok(()), |leader| self.cluster.apply(world, &Event::Propose(leader)))
            }
            950..965 => {
                let both = self.rng.random();
                self.cluster.cut(pair, both)
            }
            965..972 => {
                self.totals.crashes += 1;
                let both = self.rng.random();
                self.cluster.crash(at, both)
            }
            972..980 if self.changes => self.change(world),
            972..980 => self.hole(world, at),
            980..985 => {
                let Some(leader) = self.cluster.worlds[world].leader() else { return Ok(()) };
                self.cluster.apply(world, &Event::Transfer(leader, at))
            }
            _ => self.log_start(world, at),
        }
    }

    fn flush(&mut self, world: usize, at: usize) -> Result<(), String> {
        let node = &self.cluster.worlds[world].nodes[at];
        let (flushed, end) = (node.flushed.0, node.log.end().0);
        if flushed >= end {
            return Ok(());
        }
        let to = LogIndex(self.rng.random_range(flushed + 1..=end));
        self.cluster.apply(world, &Event::Flushed(at, to))
    }

    /// A node has had no leader for an election timeout. While the channel to its leader is established, the lease lasts.
    fn timeout(&mut self, world: usize, at: usize) -> Result<(), String> {
        let leader =
            self.cluster.worlds[world].nodes[at].replica.leader().map(|leader| leader.node.0 as usize);
        if leader.is_some_and(|leader| leader != at && self.cluster.reaches(at, leader)) {
            return Ok(());
        }
        self.cluster.apply(world, &Event::Timeout(at))
    }

    fn log_start(&mut self, world: usize, at: usize) -> Result<(), String> {
        let node = &self.cluster.worlds[world].nodes[at];
        let (start, commit) = (node.log.start.end.0, node.replica.commit_end().min(node.disk.commit_hint).0);
        let start = LogIndex(self.rng.random_range(start..=commit.max(start)));
        self.cluster.apply(world, &Event::LogStart(at, start))
    }

    fn change(&mut self, world: usize) -> Result<(), String> {
        let Some(leader) = self.cluster.worlds[world].leader() else { return Ok(()) };
        let config = self.cluster.worlds[world].nodes[leader].replica.config().clone();
        let ids = config.members().iter().map(|member| member.id);
        let (voters, learners): (Vec<ReplicaId>, Vec<ReplicaId>) = ids.partition(|id| {
            config.part(*id) == Some(Part::Voter) && self.rng.random_bool(0.8) || self.rng.random_bool(0.4)
        });
        let Some(target) = Config::new(voters, learners) else { return Ok(()) };
        self.cluster.apply(world, &Event::ProposeConfig(leader, target))
    }

    /// One node cannot read a part of its log, while the others can.
    fn hole(&mut self, world: usize, at: usize) -> Result<(), String> {
        let nodes = &self.cluster.worlds[world].nodes;
        let sound =
            nodes.iter().all(|node| !node.replica.is_damaged() && node.disk.log.unreadable().is_none());
        let (start, end) = (nodes[at].log.start.end.0, nodes[at].flushed.0);
        if !sound || start >= end {
            return Ok(());
        }
        self.totals.holes += 1;
        let from = self.rng.random_range(start..end);
        let until = self.rng.random_range(from + 1..=end);
        self.cluster.apply(world, &Event::Hole(at, LogIndex(from), LogIndex(until)))
    }

    fn heal(&mut self) -> Result<(), String> {
        for round in 0..HEAL_ROUNDS_MAX {
            self.cluster.pass(Duration::from_millis(30))?;
            for pair in self.cluster.pairs() {
                self.cluster.exchange(pair, usize::MAX)?;
                self.cluster.exchange(pair, usize::MAX)?;
            }
            for world in 0..PARTITIONS {
                for at in 0..NODES {
                    let node = &mut self.cluster.worlds[world].nodes[at];
                    node.replica.abort_transfer();
                    node.replica.fetch_hole();
                    let (flushed, end) = (node.flushed, node.log.end());
                    self.cluster.apply(world, &Event::Persisted(at))?;
                    if end > flushed {
                        let end = self.cluster.worlds[world].nodes[at].log.end().min(end);
                        self.cluster.apply(world, &Event::Flushed(at, end))?;
                    }
                }
                let leads = (0..NODES).any(|at| self.cluster.worlds[world].nodes[at].is_leader());
                if !leads && round % 20 == 19 {
                    for node in &mut self.cluster.worlds[world].nodes {
                        // Nobody leads, so nobody's lease lasts.
                        if let Some(leader) = node.replica.leader() {
                            node.replica.handle_peer_lost(leader);
                        }
                    }
                    self.cluster.apply(world, &Event::Timeout(round / 20 % NODES))?;
                }
            }
            if self.cluster.worlds.iter().all(has_converged) {
                return Ok(());
            }
        }
        let links = self.cluster.describe();
        let stuck = self.cluster.worlds.iter().filter(|world| !has_converged(world));
        let states = stuck.flat_map(|world| &world.nodes).map(|node| format!("{:?}", node.replica));
        Err(format!("stuck: {links}{}", states.collect::<Vec<_>>().join("\n")))
    }
}

fn has_converged(world: &World) -> bool {
    let Some(leader) = world.leader().map(|at| &world.nodes[at].replica) else { return false };
    let settled = leader.is_serving() && leader.is_config_committed() && !leader.config().is_joint();
    settled
        && world.nodes.iter().map(|node| &node.replica).all(|replica| {
            leader.config().part(replica.id()).is_none()
                || (replica.commit_end() == leader.log_end().end && !replica.is_damaged())
        })
}

#[test]
fn replicas_that_talk_over_channels_agree_and_converge() {
    let mut total = Totals::default();
    for seed in seeds(SEEDS) {
        println!("seed {seed}: HIGHWATER_PEER_SEEDS={seed}..{}", seed + 1);
        let one = run(seed).unwrap_or_else(|why| panic!("{why}"));
        total.committed += one.committed;
        total.sessions += one.sessions;
        total.holes += one.holes;
        total.crashes += one.crashes;
    }
    println!("{total:?}");
    let Totals { committed, sessions, holes, crashes } = total;
    assert!(committed > 0 && sessions > 0, "{total:?}");
    assert!(seeds(SEEDS).count() < 20 || (holes > 0 && crashes > 0), "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run_of_the_cluster() {
    assert_eq!(run(5), run(5));
}
