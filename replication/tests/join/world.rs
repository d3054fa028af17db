//! Nodes with disks that can be emptied, and a network that loses requests and replies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    Admission, AdmissionError, DiskId, JoinReply, JoinRequest, Joined, Joiner, JoinerConfig, MemberNode,
    Membership, NotNow, Registration, admit,
};
use highwater_runtime::plane::Instant;
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

/// Actions of a run before everything works.
const STEPS: usize = 400;
/// Maximum number of steps until all are members after that.
const HEALING_STEPS_MAX: usize = 4_000;
const STEP: Duration = Duration::from_millis(100);

/// What is on a node's disk.
#[derive(Clone, Copy, Debug)]
struct Disk {
    id: DiskId,
    membership: Option<Membership>,
}

struct Node {
    disk: Option<Disk>,
    is_up: bool,
    joiner: Option<Joiner>,
}

/// A cluster: its members and the disks with which they joined, as its metadata has them; and the disks that vote, which a node's
/// does once it runs as a member.
struct Cluster {
    founder: NodeId,
    members: BTreeMap<NodeId, (DiskId, u32, String)>,
    voters: BTreeMap<NodeId, DiskId>,
}

pub(crate) struct World {
    rng: SimRng,
    now: Instant,
    nodes: Vec<Node>,
    clusters: BTreeMap<[u8; 16], Cluster>,
    /// Every incarnation of a node, with its disk.
    incarnations: BTreeSet<(ClusterId, NodeId, u32, DiskId)>,
}

fn address(number: usize) -> String {
    format!("node-{number}:9193")
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let node = |_| Node { disk: None, is_up: false, joiner: None };
        Self {
            rng: stream(seed, "join", 0),
            now: Instant(1_000_000_000),
            nodes: (0..nodes).map(node).collect(),
            clusters: BTreeMap::new(),
            incarnations: BTreeSet::new(),
        }
    }

    /// Runs nodes that start, stop and lose their disks; then all work, and have to find each other.
    pub(crate) fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step(true)?;
        }
        for _ in 0..HEALING_STEPS_MAX {
            for node in 0..self.nodes.len() {
                self.start(node);
            }
            self.step(false)?;
            if self.clusters_on_disks().len() == 1 && self.nodes.iter().all(|node| node.joiner.is_none()) {
                return Ok(());
            }
        }
        Err(format!("not all nodes have found each other: {:?}", self.clusters_on_disks()))
    }

    fn step(&mut self, with_faults: bool) -> Result<(), String> {
        self.now = self.now.after(STEP);
        for node in 0..self.nodes.len() {
            if with_faults {
                match self.rng.random_range(0..100) {
                    0..3 => self.start(node),
                    3..5 => self.stop(node),
                    5 => self.empty(node),
                    _ => {}
                }
            }
            self.run_joiner(node, with_faults)?;
        }
        Ok(())
    }

    fn start(&mut self, number: usize) {
        let id = DiskId(self.rng.random());
        let seeds = (0..self.nodes.len()).map(address).collect();
        let node = &mut self.nodes[number];
        if node.is_up {
            return;
        }
        let disk = node.disk.get_or_insert(Disk { id, membership: None });
        node.is_up = true;
        let registration = Registration { address: address(number), ..Registration::default() };
        let config = JoinerConfig { disk: disk.id, node: None, member_of: None, registration, seeds };
        node.joiner = disk.membership.is_none().then(|| Joiner::new(config, self.now));
    }

    fn stop(&mut self, number: usize) {
        self.nodes[number].is_up = false;
        self.nodes[number].joiner = None;
    }

    /// Empties a disk, unless a cluster would be left without a majority of its voters: there would be nothing to come back to.
    fn empty(&mut self, number: usize) {
        let Some(disk) = self.nodes[number].disk else { return };
        if let Some(Membership { cluster, .. }) = disk.membership {
            let voters = &self.clusters[&cluster.0].voters;
            let left = self.voting(cluster, |node| node.disk.is_some_and(|other| other.id != disk.id));
            if 2 * left.len() <= voters.len() {
                return;
            }
        }
        self.stop(number);
        self.nodes[number].disk = None;
    }

    /// Returns the voters of a cluster whose disks are in such nodes.
    fn voting(&self, id: ClusterId, is_such: impl Fn(&Node) -> bool) -> BTreeSet<NodeId> {
        let voters = &self.clusters[&id.0].voters;
        let found = self.nodes.iter().filter(|node| is_such(node)).filter_map(|node| {
            let member = node.member_of(id)?;
            (voters.get(&member) == node.disk.as_ref().map(|disk| &disk.id)).then_some(member)
        });
        found.collect()
    }

    fn run_joiner(&mut self, number: usize, with_faults: bool) -> Result<(), String> {
        loop {
            let Some(joiner) = &mut self.nodes[number].joiner else { return Ok(()) };
            let (request, now) = (joiner.request(), self.now);
            let Some((attempt, to)) = joiner.poll_attempt(now) else { return Ok(()) };
            let to = to.to_owned();
            let request = JoinRequest::take(&request).expect("decodes").expect("is complete");
            let lost = |world: &mut Self| with_faults && world.rng.random_bool(0.2);
            let reply = if lost(self) { None } else { self.ask(&to, &request) };
            let reply = reply.filter(|_| !lost(self));
            let random = self.rng.random();
            let Some(joiner) = &mut self.nodes[number].joiner else { return Ok(()) };
            match reply {
                Some(reply) => joiner.handle_reply(now, attempt, reply, random),
                None => joiner.handle_failed(now, attempt, "connection refused".into(), random),
            }
            let outcome = joiner.outcome().cloned();
            match outcome {
                None => {}
                Some(Err(reason)) => return Err(format!("node {number} was refused: {reason}")),
                Some(Ok(Joined::Founder)) => self.found(number)?,
                Some(Ok(Joined::Member(membership, _))) => self.keep(number, membership)?,
            }
        }
    }

    fn ask(&mut self, to: &str, request: &JoinRequest) -> Option<JoinReply> {
        let number = (0..self.nodes.len()).find(|number| address(*number) == to)?;
        if !self.nodes[number].is_up {
            return None;
        }
        if let Some(joiner) = &self.nodes[number].joiner {
            return Some(joiner.answer());
        }
        let cluster = self.nodes[number].disk?.membership?.cluster;
        Some(self.decide(number, cluster, request))
    }

    /// The answer of a member.
    fn decide(&mut self, number: usize, id: ClusterId, request: &JoinRequest) -> JoinReply {
        let running: BTreeSet<NodeId> =
            self.nodes.iter().filter(|node| node.is_up).filter_map(|node| node.member_of(id)).collect();
        let voting = self.voting(id, |node| node.is_up);
        let cluster = self.clusters.get_mut(&id.0).expect("it was founded");
        if 2 * voting.len() <= cluster.voters.len() {
            return JoinReply::NotNow(NotNow::NoLeader);
        }
        let leader = voting.first().expect("a majority runs");
        if self.nodes[number].member_of(id) != Some(*leader) {
            return JoinReply::Ask(cluster.members[leader].2.clone());
        }
        let members = cluster.members.iter().map(|(node, (disk, incarnation, address))| MemberNode {
            node: *node,
            disk: *disk,
            incarnation: *incarnation,
            address,
        });
        let members: Vec<MemberNode<'_>> = members.collect();
        let (node, incarnation) = match admit(&members, |node| running.contains(&node), request) {
            Ok(Admission::Member(node, incarnation)) => (node, incarnation),
            Ok(Admission::Register(node, incarnation)) => {
                cluster
                    .members
                    .insert(node, (request.disk, incarnation, request.registration.address.clone()));
                (node, incarnation)
            }
            Err(AdmissionError::StillRunning(_)) => return JoinReply::NotNow(NotNow::StillRunning),
            Err(error) => return JoinReply::Refused(error.to_string()),
        };
        let membership = Membership { cluster: id, node, incarnation, founder: cluster.founder };
        JoinReply::Welcome(membership, Vec::new())
    }

    fn found(&mut self, number: usize) -> Result<(), String> {
        if !self.clusters_on_disks().is_empty() {
            return Err(format!("node {number} founds a second cluster"));
        }
        let cluster = ClusterId(self.rng.random());
        let disk = self.nodes[number].disk.expect("it runs").id;
        let founder = NodeId(0);
        let members = BTreeMap::from([(founder, (disk, 0, address(number)))]);
        self.clusters.insert(cluster.0, Cluster { founder, members, voters: BTreeMap::new() });
        self.keep(number, Membership { cluster, node: founder, incarnation: 0, founder })
    }

    fn keep(&mut self, number: usize, membership: Membership) -> Result<(), String> {
        let node = &mut self.nodes[number];
        let disk = node.disk.as_mut().expect("it runs");
        disk.membership = Some(membership);
        node.joiner = None;
        let Membership { cluster, node, incarnation, .. } = membership;
        let same = |entry: &&(ClusterId, NodeId, u32, DiskId)| {
            (entry.0, entry.1, entry.2) == (cluster, node, incarnation)
        };
        if self.incarnations.iter().find(same).is_some_and(|entry| entry.3 != disk.id) {
            return Err(format!("two disks are incarnation {incarnation} of node {node}"));
        }
        self.incarnations.insert((cluster, node, incarnation, disk.id));
        self.clusters.get_mut(&cluster.0).expect("it was founded").voters.insert(node, disk.id);
        Ok(())
    }

    fn clusters_on_disks(&self) -> BTreeSet<[u8; 16]> {
        let memberships = self.nodes.iter().filter_map(|node| node.disk?.membership);
        memberships.map(|membership| membership.cluster.0).collect()
    }
}

impl Node {
    /// Returns the id of the node in a cluster, unless its disk was replaced since.
    fn member_of(&self, cluster: ClusterId) -> Option<NodeId> {
        let membership = self.disk?.membership?;
        (membership.cluster == cluster).then_some(membership.node)
    }
}
