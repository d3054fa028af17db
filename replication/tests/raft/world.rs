//! A few replicas with their disks, and a network that loses, doubles, delays and reorders: what happens next is chosen by whoever drives it.
//!
//! Every event is followed by everything that the core asks for, and by the checks of [`crate::checks`].

use highwater_protocol::ids::LogIndex;
use highwater_replication::raft::{
    Action, AppendOutcome, Config, ConfigEntry, Envelope, HardState, Message, Replica, ReplicaId, RoleKind,
};

use crate::checks::Ghost;
use crate::disk::{Disk, Entry, Log, Value, replica};

/// A message with its entries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Packet {
    pub(crate) envelope: Envelope,
    pub(crate) entries: Vec<Entry>,
    /// Entries for a hole: they are in no message of the core.
    pub(crate) repair: Option<(LogIndex, LogIndex)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    /// The log in memory.
    pub(crate) log: Log,
    pub(crate) disk: Disk,
    pub(crate) persisting: Option<HardState>,
    /// The replica has been told that the log is durable up to here.
    pub(crate) flushed: LogIndex,
    pub(crate) min_insync: usize,
}

impl Node {
    pub(crate) fn new(id: ReplicaId, disk: Disk, min_insync: usize) -> Self {
        let replica = Replica::new(id, disk.restore(), min_insync);
        let flushed = disk.log.end();
        Self { replica, log: disk.log.clone(), disk, persisting: None, flushed, min_insync }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.replica.role() == RoleKind::Leader
    }
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    /// A message arrives. It stays under way if it is doubled.
    Deliver {
        packet: usize,
        doubled: bool,
    },
    /// A message arrives, and the storage takes so many of its entries.
    Refuse {
        packet: usize,
        takes: usize,
    },
    Lose {
        packet: usize,
    },
    /// (term, vote) of a node has become durable.
    Persisted(usize),
    /// The log of a node has become durable up to here.
    Flushed(usize, LogIndex),
    /// A node has had no leader for an election timeout.
    Timeout(usize),
    /// A node becomes a candidate without asking first, as if its leader had asked it to.
    Campaign(usize),
    /// The channel between two nodes is lost: neither has leases by it.
    Cut(usize, usize),
    /// The channel between two nodes is there again.
    Connect(usize, usize),
    /// The process of a node ends, and starts again with what was durable.
    Crash(usize),
    /// As `Crash`, and so many durable entries at the end of the log are lost.
    CrashLosingEnd(usize, u64),
    /// The disk of a node is wiped. It comes back as another replica.
    Wipe(usize),
    /// Entries of a node cannot be read any more.
    Hole(usize, LogIndex, LogIndex),
    Propose(usize),
    ProposeConfig(usize, Config),
    Transfer(usize, usize),
    /// The storage of a node removes entries before this index.
    LogStart(usize, LogIndex),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Vec<Packet>,
    pub(crate) ghost: Ghost,
    pub(crate) min_insync: usize,
    pub(crate) values: u32,
    /// Maximum number of entries in a message.
    pub(crate) entries_max: u64,
    first_config: Config,
}

impl World {
    /// Creates nodes of which the first `voters` are voters, and the others learners.
    pub(crate) fn new(nodes: u32, voters: u32, min_insync: usize) -> Self {
        let ids = |range: std::ops::Range<u32>| range.map(|node| replica(node, 0));
        let config = Config::new(ids(0..voters), ids(voters..nodes)).expect("valid");
        let node = |id| Node::new(id, Disk::new(&config), min_insync);
        let nodes = ids(0..nodes).map(node).collect();
        Self {
            nodes,
            network: Vec::new(),
            ghost: Ghost::default(),
            min_insync,
            values: 0,
            entries_max: u64::MAX,
            first_config: config,
        }
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].is_leader();
        (0..self.nodes.len()).filter(leads).max_by_key(|at| self.nodes[*at].replica.term())
    }

    /// Carries out an event with everything that follows from it at once, and checks the invariants.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Deliver { packet, doubled } => {
                let packet =
                    if *doubled { self.network[*packet].clone() } else { self.network.remove(*packet) };
                self.deliver(&packet, usize::MAX)?;
            }
            Event::Refuse { packet, takes } => {
                let packet = self.network.remove(*packet);
                self.deliver(&packet, *takes)?;
            }
            Event::Lose { packet } => {
                self.network.remove(*packet);
            }
            Event::Persisted(at) => self.persist(*at),
            Event::Flushed(at, end) => self.flush(*at, *end),
            Event::Timeout(at) => {
                self.nodes[*at].replica.handle_election_timeout();
            }
            Event::Campaign(at) => {
                let replica = &mut self.nodes[*at].replica;
                let message = Message::TimeoutNow { term: replica.term() };
                let from = replica.leader().unwrap_or(ReplicaId { incarnation: u32::MAX, ..replica.id() });
                replica.handle_message(&Envelope { from, to: replica.id(), message }, &[]);
            }
            Event::Cut(a, b) => self.connect(*a, *b, false),
            Event::Connect(a, b) => self.connect(*a, *b, true),
            Event::Crash(at) => self.restart(*at),
            Event::CrashLosingEnd(at, entries) => {
                let log = &mut self.nodes[*at].disk.log;
                let end = LogIndex(log.end().0.saturating_sub(*entries).max(log.start.end.0));
                log.truncate(end);
                self.nodes[*at].disk.end_lost = true;
                self.ghost.note_damage(self.nodes[*at].replica.id());
                self.restart(*at);
            }
            Event::Wipe(at) => {
                let id = self.nodes[*at].replica.id();
                self.ghost.note_damage(id);
                let id = ReplicaId { incarnation: id.incarnation + 1, ..id };
                let before = self.nodes[*at].replica.id();
                self.nodes[*at] = Node::new(id, Disk::new(&self.first_config), self.min_insync);
                self.ghost.handle_restart(&self.nodes[*at]);
                // The channels to it have ended, and others reach the new one.
                self.nodes.iter_mut().for_each(|node| node.replica.handle_peer_lost(before));
            }
            Event::Hole(at, from, until) => self.lose_entries(*at, *from, *until),
            Event::Propose(at) => self.propose(*at),
            Event::ProposeConfig(at, config) => {
                let _ = self.nodes[*at].replica.propose_config(config);
            }
            Event::Transfer(at, to) => {
                let to = self.nodes[*to].replica.id();
                let _ = self.nodes[*at].replica.transfer_leadership(to);
            }
            Event::LogStart(at, start) => {
                let node = &mut self.nodes[*at];
                node.replica.handle_log_start(*start);
                node.log.start_at(*start);
                node.disk.log.start_at(*start);
            }
        }
        self.settle()?;
        self.ghost.check(&self.nodes)
    }

    fn persist(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(hard) = node.persisting.take() {
            node.disk.hard = hard;
            // Until the replica has noted that, every start finds it.
            node.disk.end_lost &= hard.lost_in.is_none();
            node.replica.handle_persisted(hard);
        }
    }

    fn flush(&mut self, at: usize, end: LogIndex) {
        let node = &mut self.nodes[at];
        // A suffix that was cut off is gone for good now.
        node.disk.log = node.log.clone();
        node.disk.log.truncate(end);
        node.disk.commit_hint = node.disk.commit_hint.max(node.replica.commit_end().min(end));
        node.flushed = end;
        node.replica.handle_durable(end);
    }

    fn connect(&mut self, a: usize, b: usize, alive: bool) {
        for (at, peer) in [(a, b), (b, a)] {
            let peer = self.nodes[peer].replica.id();
            let replica = &mut self.nodes[at].replica;
            if alive { replica.handle_peer_alive(peer) } else { replica.handle_peer_lost(peer) }
        }
    }

    fn restart(&mut self, at: usize) {
        let Node { replica, disk, .. } = &self.nodes[at];
        let mut disk = disk.clone();
        disk.commit_hint = disk.commit_hint.min(disk.log.end());
        let unreadable = disk.log.unreadable();
        self.nodes[at] = Node::new(replica.id(), disk, self.min_insync);
        // What cannot be read is found again. That includes entries that were cut off in memory, but not on the disk.
        if let Some((from, until)) = unreadable {
            self.nodes[at].replica.handle_hole(from, until);
        }
        self.nodes[at].replica.resume();
        self.ghost.handle_restart(&self.nodes[at]);
    }

    fn lose_entries(&mut self, at: usize, from: LogIndex, until: LogIndex) {
        let node = &mut self.nodes[at];
        for index in from.0..until.0.min(node.flushed.0) {
            for log in [&mut node.log, &mut node.disk.log] {
                if let Some(entry) = log.get_mut(index) {
                    entry.value = Value::Lost;
                }
            }
        }
        self.ghost.note_damage(node.replica.id());
        node.replica.handle_hole(from, until);
    }

    fn propose(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Ok(index) = node.replica.propose(1) {
            assert_eq!(index, node.log.end(), "entries follow each other");
            node.log.entries.push(Entry { epoch: node.replica.term(), value: Value::Data(self.values) });
            self.values += 1;
        }
    }

    /// Delivers a message. The storage takes `takes` of its entries at most.
    fn deliver(&mut self, packet: &Packet, takes: usize) -> Result<(), String> {
        let to = packet.envelope.to.node.0 as usize;
        let node = &mut self.nodes[to];
        if let Some((from, until)) = packet.repair {
            if packet.envelope.to == node.replica.id() {
                repair(node, from, until, &packet.entries);
            }
            return Ok(());
        }
        let Message::Append(append) = &packet.envelope.message else {
            return match node.replica.handle_message(&packet.envelope, &[]) {
                AppendOutcome::Violation(why) => Err(format!("node {to}: {why}")),
                _ => Ok(()),
            };
        };
        let configs = (append.from.0..).zip(&packet.entries).filter_map(|(index, entry)| {
            let Value::Config(config) = &entry.value else { return None };
            Some(ConfigEntry { index: LogIndex(index), config: config.clone() })
        });
        let configs: Vec<ConfigEntry> = configs.collect();
        match node.replica.handle_message(&packet.envelope, &configs) {
            AppendOutcome::Accepted { from } if from != node.log.end() => {
                Err(format!("node {to}: entries from {from} on do not follow the log"))
            }
            AppendOutcome::Accepted { from } => {
                let skipped = (from.0 - append.from.0) as usize;
                let entries = &packet.entries[skipped..];
                node.log.entries.extend_from_slice(&entries[..entries.len().min(takes)]);
                if takes < entries.len() {
                    node.replica.handle_refused(node.log.end());
                    node.replica.handle_space();
                }
                Ok(())
            }
            AppendOutcome::Dropped => Ok(()),
            AppendOutcome::Violation(why) => Err(format!("node {to}: {why}")),
        }
    }

    /// Carries out all actions of all nodes.
    fn settle(&mut self) -> Result<(), String> {
        for at in 0..self.nodes.len() {
            while let Some(action) = self.nodes[at].replica.poll_action() {
                self.carry_out(at, action)?;
            }
            while let Some((to, from)) = self.nodes[at].replica.poll_due() {
                let end = self.nodes[at].log.end().0.min(from.0.saturating_add(self.entries_max));
                let end = LogIndex(end);
                let Some(envelope) = self.nodes[at].replica.take_append(to, end) else {
                    return Err(format!("node {at}: nothing to send from {from} on"));
                };
                let entries = match &envelope.message {
                    Message::Append(append) => self.nodes[at].log.slice(append.from, append.end),
                    _ => Vec::new(),
                };
                self.network.push(Packet { envelope, entries, repair: None });
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, at: usize, action: Action) -> Result<(), String> {
        let node = &mut self.nodes[at];
        match action {
            Action::Persist(hard) => node.persisting = Some(hard),
            Action::AppendEpochStart { index, epoch } => {
                assert_eq!(index, node.log.end(), "entries follow each other");
                node.log.entries.push(Entry { epoch, value: Value::EpochStart });
            }
            Action::AppendConfig { entry, epoch } => {
                assert_eq!(entry.index, node.log.end(), "entries follow each other");
                node.log.entries.push(Entry { epoch, value: Value::Config(entry.config) });
            }
            Action::Truncate { from } => {
                self.ghost.check_truncation(at, &self.nodes, from)?;
                let node = &mut self.nodes[at];
                node.log.truncate(from);
                node.flushed = node.flushed.min(from);
                node.replica.handle_truncated();
            }
            Action::StartAt { start, config } => {
                node.log = Log { start, config_at_start: config, entries: Vec::new() };
                node.disk.log = node.log.clone();
                node.disk.commit_hint = start.end;
                node.flushed = start.end;
                node.replica.handle_started();
            }
            Action::Send(envelope) => {
                self.ghost.note_sent(&envelope)?;
                self.network.push(Packet { envelope, entries: Vec::new(), repair: None });
            }
            Action::SendCommitted { to, from, until } => {
                // What the leader has removed meanwhile, the other one is to remove too.
                let entries = node.log.slice(from, until);
                let message = Message::TimeoutNow { term: node.replica.term() };
                let envelope = Envelope { from: node.replica.id(), to, message };
                self.network.push(Packet { envelope, entries, repair: Some((from, until)) });
            }
            Action::Committed | Action::RoleChanged => {}
        }
        self.ghost.note_progress(at, &self.nodes)
    }
}

/// Writes the entries before `until` into a hole. Those of the hole before them are not in the leader's log any more.
fn repair(node: &mut Node, from: LogIndex, until: LogIndex, entries: &[Entry]) {
    let first = LogIndex(until.0 - entries.len() as u64);
    for (index, entry) in (first.0..until.0).zip(entries) {
        for log in [&mut node.log, &mut node.disk.log] {
            // The log may have been cut off or restarted meanwhile.
            if let Some(old) = log.get_mut(index).filter(|old| old.epoch == entry.epoch) {
                *old = entry.clone();
            }
        }
    }
    if first > from && first <= node.replica.commit_end().min(node.disk.commit_hint) {
        for log in [&mut node.log, &mut node.disk.log] {
            let start = first.max(log.start.end);
            log.start_at(start);
        }
        node.replica.handle_log_start(first);
    }
    node.replica.handle_repaired(first, until);
}
