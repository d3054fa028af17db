//! Steps of tests in which nothing is random.

use highwater_protocol::ids::{LogIndex, NodeId, Offset};
use highwater_replication::raft::{ProposeError, ReplicaId};

use super::node::TP;
use super::world::{NODES, World, voters};
use crate::api::{ApiError, RequiredAcks};
use crate::partition::PartitionEvent;

impl World {
    /// Creates nodes of which the first has the only replica.
    pub(crate) fn alone() -> Self {
        Self::new(1, &voters(0..1), 1)
    }

    /// Creates three nodes with a replica on each.
    pub(crate) fn of_three(min_insync: usize) -> Self {
        Self::new(0, &voters(0..NODES), min_insync)
    }

    /// Lets everything happen that can: messages arrive, and disks that are not slow complete their operations.
    pub(crate) fn run_until_quiet(&mut self) {
        loop {
            let message = self.first_message();
            if let Some(pair) = message {
                self.deliver_one(pair);
            }
            // A follower whose store is busy refuses what it gets until its disk has gone on.
            let mut any = message.is_some();
            for node in 0..NODES {
                any |= !self.nodes[node].is_slow && self.step_disk_of(node);
            }
            if !any {
                return;
            }
        }
    }

    fn first_message(&self) -> Option<(usize, usize)> {
        self.network.iter().find(|(_, queue)| !queue.is_empty()).map(|(pair, _)| *pair)
    }

    /// Lets one thing happen. Returns false if nothing can.
    pub(crate) fn step_once(&mut self) -> bool {
        if (0..NODES).any(|node| !self.nodes[node].is_slow && self.step_disk_of(node)) {
            return true;
        }
        let Some(pair) = self.first_message() else { return false };
        self.deliver_one(pair);
        true
    }

    fn step_disk_of(&mut self, node: usize) -> bool {
        let Some(output) = self.nodes[node].step_disk() else { return false };
        self.take(node, output);
        true
    }

    /// A node has heard of no leader for an election timeout.
    pub(crate) fn time_out_on(&mut self, node: usize) {
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            let id = process.find(TP).expect("every node has a replica");
            process.handle_election_timeout(disk, id, wall_ms);
        });
        self.take(node, output);
    }

    /// Makes a node the leader.
    pub(crate) fn elect(&mut self, node: usize) {
        self.time_out_on(node);
        self.run_until_quiet();
        assert!(self.nodes[node].serves(), "node {node} was elected");
    }

    /// Makes a node the leader in place of another one, whose channel to it is replaced.
    pub(crate) fn elect_in_place_of(&mut self, leader: usize, node: usize) {
        self.connect(leader, node);
        self.elect(node);
    }

    /// Returns where the log ends on the disk of a leader that does not keep up.
    pub(crate) fn lagging(&mut self, node: usize) -> Option<LogIndex> {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        process.poll_lagging().map(|(_, end)| end)
    }

    /// Looks at the disk of a leader again.
    pub(crate) fn check_lag(&mut self, node: usize, seen: LogIndex) {
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            let id = process.find(TP).expect("every node has a replica");
            process.check_lag(disk, id, seen, wall_ms);
        });
        self.take(node, output);
    }

    /// Has a node know which replicas are to take part.
    pub(crate) fn set_members(&mut self, node: usize, members: &[ReplicaId]) {
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            process.set_members(disk, TP, members, wall_ms);
        });
        self.take(node, output);
    }

    /// Returns whether a leader has said that the replicas have changed.
    pub(crate) fn has_said_members_changed(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, PartitionEvent::MembersChanged(_)))
    }

    /// Has a node hand leadership over to another one.
    pub(crate) fn transfer(&mut self, from: usize, to: u32) -> Result<(), ProposeError> {
        let mut outcome = Ok(());
        let output = self.nodes[from].act(|process, disk, wall_ms| {
            outcome = process.transfer_leadership(disk, TP, NodeId(to), wall_ms);
        });
        self.take(from, output);
        outcome
    }

    /// Ends the time in which leadership could be handed over.
    pub(crate) fn end_transfer(&mut self, node: usize) {
        let output = self.nodes[node].act(|process, disk, wall_ms| {
            let id = process.poll_transfer().expect("it is being handed over");
            process.end_transfer(disk, id, wall_ms);
        });
        self.take(node, output);
    }

    /// Cuts a node off from the others, or connects it again.
    pub(crate) fn cut_off(&mut self, node: usize, is_cut: bool) {
        for other in (0..NODES).filter(|other| *other != node) {
            if is_cut { self.lose(node, other) } else { self.connect(node, other) }
        }
    }

    /// Sends the batch with a sequence of producer 9 to a node. Its outcome is in `outcomes` under the same number when it is known.
    pub(crate) fn send_batch(&mut self, node: usize, sequence: i32, acks: RequiredAcks) {
        self.outcomes.remove(&(sequence as u32));
        let output = self.nodes[node].produce(sequence as u32, 9, sequence, acks);
        self.take(node, output);
    }

    /// Returns the outcome of a batch.
    pub(crate) fn outcome(&self, sequence: i32) -> Option<&Result<Offset, ApiError>> {
        self.outcomes.get(&(sequence as u32))
    }
}
