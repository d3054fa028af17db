//! The side that joins.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_runtime::plane::Instant;

use super::messages::{Contact, DiskId, JoinReply, JoinRequest, Membership, Registration, SeedList};
use crate::mutants::{Mutant, is_planted};
use crate::peer::Dialer;

/// Time for one request: until the reply has come.
pub(super) const REPLY_TIME: Duration = Duration::from_secs(10);

/// How a node was started that has no cluster, or is to be registered anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinerConfig {
    /// Its disk.
    pub disk: DiskId,
    /// The id that it wants, if not just any.
    pub node: Option<NodeId>,
    /// The cluster that it is a member of, if it is.
    pub member_of: Option<ClusterId>,
    /// What it tells the cluster about itself.
    pub registration: Registration,
    /// The seeds, this node among them or not.
    pub seeds: Vec<String>,
}

/// What a node has become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// It founds a cluster. The caller makes the cluster's id.
    Founder,
    /// It is a member of one, with these other members.
    Member(Membership, Vec<Contact>),
}

/// How it ends.
pub type Outcome = Result<Joined, String>;

/// What a seed has answered last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SeedState {
    /// Nothing yet.
    Unasked,
    /// It cannot be reached, for this reason.
    Unreachable(String),
    /// It has no cluster.
    WithoutCluster(DiskId),
    /// It has no cluster, and was given other seeds.
    OtherSeeds,
    /// It is a member of a cluster, and names another node that decides, or asks for patience.
    Member(String),
}

#[derive(Clone, Debug)]
struct Target {
    address: String,
    dialer: Dialer,
    /// When the request under way is given up.
    deadline: Option<Instant>,
    state: SeedState,
}

impl Target {
    fn new(address: String, now: Instant) -> Self {
        Self { address, dialer: Dialer::new(now), deadline: None, state: SeedState::Unasked }
    }
}

/// Asks seeds to be a member of their cluster, or finds that this node has to found one. See the [module](super).
///
/// The caller opens a connection for each [attempt](Self::poll_attempt), sends the [request](Self::request), and reports the
/// [reply](Self::handle_reply) or the [failure](Self::handle_failed). It [answers](Self::answer) the requests of others. Times never decrease.
#[derive(Clone, Debug)]
pub struct Joiner {
    config: JoinerConfig,
    list: SeedList,
    /// The seeds, in their order; after them, the node that decides.
    targets: Vec<Target>,
    outcome: Option<Outcome>,
}

impl Joiner {
    /// Creates the joiner of a node with at least one seed.
    pub fn new(config: JoinerConfig, now: Instant) -> Self {
        assert!(!config.seeds.is_empty(), "a node without seeds is a cluster of one");
        let list = SeedList::of(config.seeds.iter().map(String::as_str));
        let targets = config.seeds.iter().map(|seed| Target::new(seed.clone(), now)).collect();
        Self { config, list, targets, outcome: None }
    }

    // Getters.

    /// Returns the bytes to send over each connection.
    pub fn request(&self) -> Bytes {
        let JoinerConfig { disk, node, member_of, registration, .. } = self.config.clone();
        JoinRequest { disk, seeds: self.list, node, member_of, registration }.encode()
    }

    /// Returns the reply to the request of another node.
    pub fn answer(&self) -> JoinReply {
        assert!(self.config.member_of.is_none(), "a member never says that it has no cluster");
        JoinReply::WithoutCluster { disk: self.config.disk, seeds: self.list }
    }

    /// Returns when [`handle_deadline`](Self::handle_deadline) or [`poll_attempt`](Self::poll_attempt) is to be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        self.targets
            .iter()
            .filter_map(|target| target.deadline.or_else(|| target.dialer.next_deadline()))
            .min()
    }

    /// Returns the outcome, once there is one.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Returns the seeds and what each has answered last.
    pub fn seeds(&self) -> impl Iterator<Item = (&str, &SeedState)> {
        self.targets[..self.config.seeds.len()].iter().map(|target| (&*target.address, &target.state))
    }

    /// Returns everyone who is asked and what each has answered last: the seeds, and after them the node that decides.
    pub fn asked(&self) -> impl Iterator<Item = (&str, &SeedState)> {
        self.targets.iter().map(|target| (&*target.address, &target.state))
    }

    // Events.

    /// Takes the next attempt that is due: its number for the reply, and the address to connect to.
    pub fn poll_attempt(&mut self, now: Instant) -> Option<(usize, &str)> {
        if self.outcome.is_some() {
            return None;
        }
        let (number, target) = self
            .targets
            .iter_mut()
            .enumerate()
            .find_map(|(number, target)| target.dialer.poll_attempt(now).map(|_| (number, target)))?;
        target.deadline = Some(now.after(REPLY_TIME));
        Some((number, &target.address))
    }

    /// Handles that time has passed. Returns the attempts that have taken too long; the caller closes their connections.
    pub fn handle_deadline(&mut self, now: Instant, mut random: impl FnMut() -> u64) -> Vec<usize> {
        let is_late = |target: &Target| target.deadline.is_some_and(|deadline| deadline <= now);
        let late = self.targets.iter().enumerate().filter(|(_, target)| is_late(target));
        let late: Vec<usize> = late.map(|(number, _)| number).collect();
        for number in &late {
            self.handle_failed(now, *number, format!("no answer within {REPLY_TIME:?}"), random());
        }
        late
    }

    /// Handles that an attempt has failed. `random`: a new random number.
    pub fn handle_failed(&mut self, now: Instant, attempt: usize, reason: String, random: u64) {
        self.end_attempt(now, attempt, SeedState::Unreachable(reason), random);
    }

    /// Handles the reply to a request. `random`: a new random number.
    pub fn handle_reply(&mut self, now: Instant, attempt: usize, reply: JoinReply, random: u64) {
        if self.outcome.is_some() {
            return;
        }
        let state = match reply {
            JoinReply::Welcome(membership, contacts) => {
                self.outcome = Some(Ok(Joined::Member(membership, contacts)));
                SeedState::Member("it is a member".to_owned())
            }
            JoinReply::Refused(reason) => {
                self.outcome = Some(Err(reason.clone()));
                SeedState::Member(reason)
            }
            JoinReply::WithoutCluster { seeds, .. } if seeds != self.list => SeedState::OtherSeeds,
            JoinReply::WithoutCluster { disk, .. } => SeedState::WithoutCluster(disk),
            JoinReply::Ask(address) => {
                let state = SeedState::Member(format!("{address} decides"));
                self.ask(now, address);
                state
            }
            JoinReply::NotNow(why) => SeedState::Member(why.to_string()),
        };
        self.end_attempt(now, attempt, state, random);
        self.found_if_first();
    }

    /// Asks the node that decides, in place of the one that did before.
    fn ask(&mut self, now: Instant, address: String) {
        if self.targets.iter().all(|target| target.address != address) {
            // The attempt under way, if there is one, is that of another address: its reply is as good.
            self.targets.truncate(self.config.seeds.len());
            self.targets.push(Target::new(address, now));
        }
    }

    fn end_attempt(&mut self, now: Instant, attempt: usize, state: SeedState, random: u64) {
        // The node that decides may have been replaced since.
        if let Some(target) = self.targets.get_mut(attempt) {
            target.state = state;
            target.deadline = None;
            target.dialer.handle_closed(now, random);
        }
    }

    /// Founds a cluster if no seed has one and this node is the first of them.
    fn found_if_first(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let me = self.config.disk;
        let seeds = &self.targets[..self.config.seeds.len()];
        let disk_of = |target: &Target| match target.state {
            SeedState::WithoutCluster(disk) => Some(disk),
            _ => None,
        };
        let mine: Vec<&str> = seeds.iter().filter(|t| disk_of(t) == Some(me)).map(|t| &*t.address).collect();
        if let [first, second, ..] = mine[..] {
            self.outcome =
                Some(Err(format!("the seeds {first} and {second} are both this node: name each node once")));
            return;
        }
        if self.config.member_of.is_some() {
            return;
        }
        let answered = seeds.iter().filter(|target| disk_of(target).is_some()).count();
        let needed = if is_planted(Mutant::FoundedByMajority) { seeds.len() / 2 + 1 } else { seeds.len() };
        if answered >= needed && seeds.first().and_then(disk_of) == Some(me) {
            self.outcome = Some(Ok(Joined::Founder));
        }
    }
}

impl fmt::Display for SeedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("not asked yet"),
            Self::Unreachable(reason) | Self::Member(reason) => f.write_str(reason),
            Self::WithoutCluster(_) => f.write_str("ready"),
            Self::OtherSeeds => f.write_str(
                "it was started with other seeds; give all nodes the same list, in the same order",
            ),
        }
    }
}
