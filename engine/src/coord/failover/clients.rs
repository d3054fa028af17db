//! Members of groups that commit offsets, and a random run of them.

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use super::cluster::{Call, Cluster, TOPIC};
use crate::api::ApiError;
use crate::coord::groups::{
    Client as ClientName, CommitRequest, CommittedPartition, FetchRequest, GroupReply, GroupRequest,
    HeartbeatRequest, JoinRequest, SyncRequest,
};
use crate::partition::tests::node::Node;
use crate::partition::tests::world::NODES;

/// Groups of a random run, with one member each.
const GROUPS: usize = 4;
/// Steps of a run before everything works again.
const STEPS: usize = 4_000;
/// Maximum number of steps until all is well after that.
const HEALING_STEPS_MAX: usize = 40_000;

/// The only member of a group.
#[derive(Debug)]
pub(super) struct Client {
    group: String,
    member: String,
    generation: i32,
    /// The last offset that was sent, and the last one that was acknowledged.
    sent: i64,
    acknowledged: i64,
    asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    call: Call,
    node: usize,
    /// Which process of the node it is.
    start: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Heartbeat,
    Commit(i64),
    /// With the offset that had been acknowledged before.
    Fetch(i64),
}

impl Client {
    pub(super) fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            member: String::new(),
            generation: -1,
            sent: -1,
            acknowledged: -1,
            asked: None,
        }
    }

    // Requests.

    pub(super) fn join_request(&self) -> GroupRequest {
        GroupRequest::Join(JoinRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            instance: None,
            client: ClientName { id: "client".into(), host: "/127.0.0.1".into() },
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x01t"))],
            session_timeout_ms: 1_800_000,
            rebalance_timeout_ms: 60_000,
            requires_member_id: false,
            can_skip_assignment: false,
        })
    }

    fn sync_request(&self) -> GroupRequest {
        GroupRequest::Sync(SyncRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            instance: None,
            generation: self.generation,
            protocol_type: None,
            protocol: None,
            assignments: vec![(self.member.clone(), Bytes::from_static(b"all"))],
        })
    }

    fn heartbeat_request(&self) -> GroupRequest {
        GroupRequest::Heartbeat(HeartbeatRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            instance: None,
            generation: self.generation,
        })
    }

    pub(super) fn commit_request(&self, partition: u32, offset: i64) -> GroupRequest {
        GroupRequest::Commit(CommitRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            instance: None,
            generation: self.generation,
            knows_epochs: true,
            forever: false,
            offsets: vec![CommittedPartition {
                topic: TOPIC,
                partition: PartitionIndex(partition),
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(-1),
                metadata: String::new(),
            }],
        })
    }

    pub(super) fn fetch_request(&self) -> GroupRequest {
        let group = self.group.clone();
        GroupRequest::Fetch(vec![FetchRequest {
            group,
            member: None,
            partitions: None,
            require_stable: true,
        }])
    }

    // Requests whose replies come before anything else happens to the nodes.

    /// Joins the group, whose only member it is.
    pub(super) fn join(&mut self, cluster: &mut Cluster, node: usize) {
        let call = cluster.send(node, self.join_request());
        // The group does not wait for more members.
        cluster.tick();
        cluster.run_until_quiet();
        let reply = cluster.reply(call);
        let Some(Ok(GroupReply::Join(joined))) = reply else { panic!("{reply:?}") };
        assert_eq!(joined.error, None);
        (self.member, self.generation) = (joined.member, joined.generation);
        let reply = cluster.call(node, self.sync_request());
        assert!(matches!(&reply, Some(Ok(GroupReply::Sync(sync))) if sync.error.is_none()), "{reply:?}");
    }

    pub(super) fn heartbeat(&self, cluster: &mut Cluster, node: usize) -> Result<(), ApiError> {
        let call = cluster.send(node, self.heartbeat_request());
        let reply = cluster.reply(call).expect("a heartbeat is answered at once")?;
        assert_eq!(reply, GroupReply::Heartbeat(None));
        Ok(())
    }

    pub(super) fn commit(&self, cluster: &mut Cluster, node: usize, offset: i64) -> Result<(), ApiError> {
        let reply = cluster.call(node, self.commit_request(0, offset)).expect("a reply")?;
        assert_eq!(reply, GroupReply::Commit(vec![(TOPIC, PartitionIndex(0), None)]));
        Ok(())
    }

    /// Returns the committed offset.
    pub(super) fn fetch(&self, cluster: &mut Cluster, node: usize) -> Result<Option<i64>, ApiError> {
        let reply = cluster.call(node, self.fetch_request()).expect("a reply")?;
        Ok(fetched(reply))
    }

    // A random run.

    fn ask(&mut self, cluster: &mut Cluster, rng: &mut SimRng) {
        let leader = (0..NODES).find(|node| cluster.world.nodes[*node].serves());
        let node = leader.filter(|_| rng.random_bool(0.8)).unwrap_or_else(|| rng.random_range(0..NODES));
        if self.asked.is_some() || !cluster.world.nodes[node].runs() {
            return;
        }
        let (what, request) = match rng.random_range(0..4) {
            0 => (What::Heartbeat, self.heartbeat_request()),
            1 => (What::Fetch(self.acknowledged), self.fetch_request()),
            _ => {
                self.sent += 1;
                (What::Commit(self.sent), self.commit_request(0, self.sent))
            }
        };
        let start = cluster.starts[node];
        self.asked = Some(Asked { call: cluster.send(node, request), node, start, what });
    }

    /// Looks at the reply, if there is one. Returns whether a commit was acknowledged.
    fn look(&mut self, cluster: &mut Cluster) -> bool {
        let Some(Asked { call, node, start, what }) = self.asked else { return false };
        let Some(reply) = cluster.reply(call) else {
            // With the process, the reply is gone.
            let is_there = cluster.world.nodes[node].runs() && cluster.starts[node] == start;
            self.asked = self.asked.filter(|_| is_there);
            return false;
        };
        self.asked = None;
        let Ok(reply) = reply else { return false };
        match (what, reply) {
            (What::Heartbeat, GroupReply::Heartbeat(error)) => {
                assert_eq!(error, None, "the member goes on, on node {node}: {self:?}");
            }
            (What::Commit(offset), GroupReply::Commit(outcomes)) => {
                let [(.., error)] = outcomes[..] else { panic!("one offset was committed: {outcomes:?}") };
                assert_eq!(error, None, "the member may commit, on node {node}: {self:?}");
                self.acknowledged = self.acknowledged.max(offset);
                return true;
            }
            (What::Fetch(before), reply @ GroupReply::Fetch(_)) => {
                let offset = fetched(reply).unwrap_or(-1);
                let all = before..=self.sent;
                assert!(all.contains(&offset), "node {node} has offset {offset} of {all:?}: {self:?}");
            }
            (what, reply) => panic!("{what:?} was answered with {reply:?}"),
        }
        false
    }
}

/// Returns the offset in partition 0.
fn fetched(reply: GroupReply) -> Option<i64> {
    let GroupReply::Fetch(replies) = reply else { panic!("{reply:?}") };
    assert_eq!((replies.len(), replies[0].error), (1, None));
    let of = replies[0].offsets.iter().find(|of| of.partition == PartitionIndex(0));
    of.map(|of| of.offset.0)
}

/// What a run has done.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Totals {
    pub(super) moves: u64,
    pub(super) commits: u64,
}

struct Run {
    cluster: Cluster,
    clients: Vec<Client>,
    rng: SimRng,
    totals: Totals,
}

/// Runs until all is well after random events.
pub(super) fn run(seed: u64) -> Totals {
    let mut cluster = Cluster::new(seed);
    cluster.elect(0);
    let mut clients: Vec<Client> = (0..GROUPS).map(|number| Client::new(&format!("g{number}"))).collect();
    for client in &mut clients {
        client.join(&mut cluster, 0);
    }
    let mut run = Run { cluster, clients, rng: stream(seed, "groups", 0), totals: Totals::default() };
    for _ in 0..STEPS {
        run.step();
        run.look();
    }
    run.heal();
    run.totals.moves = run.cluster.moves;
    run.totals
}

impl Run {
    fn step(&mut self) {
        let world = &mut self.cluster.world;
        match self.rng.random_range(0..1000) {
            0..200 => world.step_a_disk(),
            200..300 => {
                let at = self.rng.random_range(0..self.clients.len());
                self.clients[at].ask(&mut self.cluster, &mut self.rng);
            }
            300..330 => world.time_out(),
            330..333 => world.crash(),
            333..350 => world.restart_one(),
            350..354 => world.cut_a_link(),
            354..370 => world.restore_a_link(),
            370..374 => {
                let node = world.any_node();
                world.nodes[node].is_slow = !world.nodes[node].is_slow;
            }
            374..380 => {
                // A client waits no longer.
                let at = self.rng.random_range(0..self.clients.len());
                self.clients[at].asked = None;
            }
            380..400 => self.cluster.tick(),
            _ => world.deliver(),
        }
        self.cluster.settle();
    }

    fn look(&mut self) {
        for client in &mut self.clients {
            self.totals.commits += u64::from(client.look(&mut self.cluster));
        }
    }

    /// Lets everything work again, until each client has committed one more offset and read it.
    fn heal(&mut self) {
        while !self.cluster.world.cut.is_empty() {
            self.cluster.world.restore_a_link();
        }
        for node in 0..NODES {
            self.cluster.world.nodes[node].is_slow = false;
            self.cluster.world.start(node);
        }
        let goals: Vec<i64> = self.clients.iter().map(|client| client.sent + 1).collect();
        for step in 0..HEALING_STEPS_MAX {
            if step % 100 == 0 && !self.cluster.world.nodes.iter().any(Node::serves) {
                self.cluster.world.time_out();
            }
            self.cluster.world.deliver();
            self.cluster.world.step_a_disk();
            self.cluster.settle();
            let at = step % self.clients.len();
            self.clients[at].ask(&mut self.cluster, &mut self.rng);
            self.look();
            if self.clients.iter().zip(&goals).all(|(client, goal)| client.acknowledged >= *goal) {
                return;
            }
        }
        panic!("requests are not answered: {:?}", self.clients);
    }
}
