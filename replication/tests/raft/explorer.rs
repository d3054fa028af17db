//! Every order of events in small worlds.
//!
//! A scope says where the world starts and how often what may happen. The explorer visits every state that can be reached, breadth first, so that
//! a violation is found with one of the shortest ways to it. Messages that are never delivered are lost: no event is needed for that.
//! States are told apart by a hash of 64 bits of everything, the checker's memory included.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use highwater_replication::raft::{Config, Message, Replica, RoleKind};

use crate::disk::replica;
use crate::world::{Event, Packet, World};

/// How often what may still happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Budget {
    /// Candidacies without asking first.
    pub(crate) campaigns: u8,
    /// Elections with a pre-vote.
    pub(crate) timeouts: u8,
    pub(crate) crashes: u8,
    pub(crate) lost_ends: u8,
    pub(crate) wipes: u8,
    pub(crate) doubled: u8,
    /// Messages whose entries the storage does not take.
    pub(crate) refused: u8,
    pub(crate) proposals: u8,
    /// Configurations that leaders propose, the last one first.
    pub(crate) configs: Vec<Config>,
    /// Nodes that may become candidates.
    pub(crate) candidates: Vec<usize>,
    /// Nodes that may crash, lose their ends or be wiped.
    pub(crate) faulty: Vec<usize>,
}

#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) start: World,
    pub(crate) budget: Budget,
}

/// What an exploration found.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    /// Why a state violates an invariant, and the events that lead there.
    pub(crate) violation: Option<(String, Vec<Event>)>,
    /// Everything within the scope was visited.
    pub(crate) complete: bool,
}

/// Visits the states of a scope, up to `states_max` of them.
pub(crate) fn explore(scope: &Scope, states_max: usize) -> Explored {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let mut seen = ahash::HashSet::with_hasher(hasher.clone());
    let mut history: Vec<(usize, Event)> = vec![(0, Event::Persisted(0))];
    let mut level = vec![(0, scope.start.clone(), scope.budget.clone())];
    seen.insert(identify(&hasher, &scope.start, &scope.budget));
    while !level.is_empty() {
        let mut next = Vec::new();
        for (at, world, budget) in level.drain(..) {
            for (event, budget) in events(&world, &budget) {
                let mut after = world.clone();
                let result = step(&mut after, &event, &hasher, &budget);
                if let Err(why) = result {
                    return Explored {
                        states: seen.len(),
                        violation: Some((why, path(&history, at, event))),
                        complete: false,
                    };
                }
                if !seen.insert(identify(&hasher, &after, &budget)) {
                    continue;
                }
                if seen.len() >= states_max {
                    return Explored { states: seen.len(), violation: None, complete: false };
                }
                history.push((at, event));
                next.push((history.len() - 1, after, budget));
            }
        }
        level = next;
    }
    Explored { states: seen.len(), violation: None, complete: true }
}

/// Applies an event. A failed assertion of the core is a violation too.
fn step(
    world: &mut World,
    event: &Event,
    hasher: &ahash::RandomState,
    budget: &Budget,
) -> Result<(), String> {
    let apply = || world.apply(event).and_then(|()| normalize(hasher, world, budget));
    let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply));
    applied.unwrap_or_else(|_| Err("an assertion failed".to_owned()))
}

fn path(history: &[(usize, Event)], mut at: usize, last: Event) -> Vec<Event> {
    let mut events = vec![last];
    while at != 0 {
        events.push(history[at].1.clone());
        at = history[at].0;
    }
    events.reverse();
    events
}

/// Brings messages into an order that does not depend on when they were sent, and leaves out what makes no difference:
///
/// - messages without effect on their receivers, now and later;
/// - disks that are slow, when nothing can crash any more: what waits for them might as well be delayed by the network. The leader's
///   own disk stays slow, because it is one vote.
fn normalize(hasher: &ahash::RandomState, world: &mut World, budget: &Budget) -> Result<(), String> {
    if budget.crashes + budget.lost_ends + budget.wipes == 0 {
        for at in 0..world.nodes.len() {
            while world.nodes[at].persisting.is_some() {
                world.apply(&Event::Persisted(at))?;
            }
            let (end, flushed) = (world.nodes[at].log.end(), world.nodes[at].flushed);
            if flushed < end && !world.nodes[at].is_leader() {
                world.apply(&Event::Flushed(at, end))?;
            }
        }
    }
    let nodes = &world.nodes;
    // Bugs may react to messages that have no effect otherwise.
    world.network.retain(|packet| {
        cfg!(feature = "mutants") || has_effect(packet, &nodes[packet.envelope.to.node.0 as usize].replica)
    });
    world.network.sort_by_key(|packet| hasher.hash_one(packet));
    world.network.dedup();
    Ok(())
}

/// Returns whether a message can have an effect on its receiver, now or later.
fn has_effect(packet: &Packet, receiver: &Replica) -> bool {
    let (term, role) = (receiver.term(), receiver.role());
    let candidate = matches!(role, RoleKind::Candidate);
    let leads = matches!(role, RoleKind::Leader) || candidate;
    let addressed = receiver.id() == packet.envelope.to;
    addressed
        && match &packet.envelope.message {
            // They are answered.
            Message::Append(_) | Message::StartAt { .. } | Message::Vote { .. } | Message::PreVote { .. } => {
                true
            }
            Message::PreVoted { term: theirs, asked, .. } => *theirs > term || asked.0 > term.0,
            Message::Voted { term: theirs, .. } => *theirs > term || (*theirs == term && candidate),
            Message::Appended { term: theirs, .. } | Message::Rejected { term: theirs, .. } => {
                *theirs > term || (*theirs == term && leads)
            }
            Message::TimeoutNow { term: theirs }
            | Message::SteppedDown { term: theirs }
            | Message::LostEnd { term: theirs }
            | Message::Fetch { term: theirs, .. } => *theirs >= term,
        }
}

fn identify(hasher: &ahash::RandomState, world: &World, budget: &Budget) -> u64 {
    let mut state = hasher.build_hasher();
    world.hash(&mut state);
    budget.hash(&mut state);
    state.finish()
}

/// Returns what may happen next, and what may happen after that.
fn events(world: &World, budget: &Budget) -> Vec<(Event, Budget)> {
    let mut all = Vec::new();
    let mut add = |event, spend: Spend<'_>| {
        let mut rest = budget.clone();
        spend(&mut rest);
        all.push((event, rest));
    };
    for packet in 0..world.network.len() {
        add(Event::Deliver { packet, doubled: false }, &|_| {});
        if budget.doubled > 0 {
            add(Event::Deliver { packet, doubled: true }, &|rest| rest.doubled -= 1);
        }
        if budget.refused > 0 && !world.network[packet].entries.is_empty() {
            add(Event::Refuse { packet, takes: 0 }, &|rest| rest.refused -= 1);
        }
    }
    for (at, node) in world.nodes.iter().enumerate() {
        if node.persisting.is_some() {
            add(Event::Persisted(at), &|_| {});
        }
        if node.flushed < node.log.end() {
            add(Event::Flushed(at, node.log.end()), &|_| {});
        }
        if node.is_leader() {
            if budget.proposals > 0 && node.replica.is_serving() {
                add(Event::Propose(at), &|rest| rest.proposals -= 1);
            }
            if let Some(config) = budget.configs.last().filter(|_| node.replica.is_serving()) {
                let propose = Event::ProposeConfig(at, config.clone());
                add(propose, &|rest| rest.configs.truncate(rest.configs.len() - 1));
            }
        }
        if budget.candidates.contains(&at) && !node.is_leader() {
            add_candidacies(at, budget, &mut add);
        }
        if budget.faulty.contains(&at) {
            add_faults(at, budget, &mut add);
        }
    }
    all
}

/// What an event takes from the budget.
type Spend<'a> = &'a dyn Fn(&mut Budget);

fn add_candidacies(at: usize, budget: &Budget, add: &mut dyn FnMut(Event, Spend<'_>)) {
    if budget.campaigns > 0 {
        add(Event::Campaign(at), &|rest| rest.campaigns -= 1);
    }
    if budget.timeouts > 0 {
        add(Event::Timeout(at), &|rest| rest.timeouts -= 1);
    }
}

fn add_faults(at: usize, budget: &Budget, add: &mut dyn FnMut(Event, Spend<'_>)) {
    if budget.crashes > 0 {
        add(Event::Crash(at), &|rest| rest.crashes -= 1);
    }
    if budget.lost_ends > 0 {
        add(Event::CrashLosingEnd(at, 1), &|rest| rest.lost_ends -= 1);
    }
    if budget.wipes > 0 {
        add(Event::Wipe(at), &|rest| rest.wipes -= 1);
    }
}

/// Three nodes, the first `voters` of them voters, of which the first leads in term 1 and everybody knows that; no message is under way.
fn led(voters: u32) -> World {
    let mut world = World::new(3, voters, 1);
    let apply = |world: &mut World, event| world.apply(&event).expect("no violation");
    apply(&mut world, Event::Campaign(0));
    for _ in 0..12 {
        for at in 0..3 {
            apply(&mut world, Event::Persisted(at));
            let end = world.nodes[at].log.end();
            apply(&mut world, Event::Flushed(at, end));
        }
        for _ in 0..world.network.len() {
            apply(&mut world, Event::Deliver { packet: 0, doubled: false });
        }
    }
    assert!(world.nodes[0].replica.is_serving() && world.network.is_empty(), "{world:?}");
    world
}

/// As `led`, and the leader has proposed an entry that nobody has yet.
fn led_with_entry(voters: u32) -> World {
    let mut world = led(voters);
    world.apply(&Event::Propose(0)).expect("no violation");
    world
}

fn scope(start: World, budget: Budget) -> Scope {
    Scope { start, budget }
}

/// Two elections, and a crash of the first node, which forgets what was not durable.
pub(crate) fn elections() -> Scope {
    let (candidates, faulty) = (vec![1, 2], vec![0]);
    scope(led(3), Budget { campaigns: 2, crashes: 1, candidates, faulty, ..Budget::default() })
}

/// An election while an entry is under way, and a crash of the candidate.
pub(crate) fn crash() -> Scope {
    let (candidates, faulty) = (vec![1], vec![1]);
    scope(led_with_entry(3), Budget { campaigns: 1, crashes: 1, candidates, faulty, ..Budget::default() })
}

/// An entry of one of two leaders. Figure 8 of the paper needs three leaders and four entries, which `simulation` has.
pub(crate) fn two_leaders() -> Scope {
    scope(led(3), Budget { campaigns: 1, proposals: 1, candidates: vec![1], ..Budget::default() })
}

/// An election while an entry is under way, and a message that arrives twice.
pub(crate) fn doubled() -> Scope {
    scope(led_with_entry(3), Budget { campaigns: 1, doubled: 1, candidates: vec![1], ..Budget::default() })
}

/// An election while two entries are under way, which a follower's storage does not take at first.
pub(crate) fn refused() -> Scope {
    let mut start = led_with_entry(3);
    start.apply(&Event::Propose(0)).expect("no violation");
    scope(start, Budget { campaigns: 1, refused: 1, candidates: vec![1], ..Budget::default() })
}

/// Elections from the beginning, with pre-votes.
pub(crate) fn pre_votes() -> Scope {
    scope(World::new(3, 3, 1), Budget { timeouts: 2, candidates: vec![0, 1], ..Budget::default() })
}

/// A learner takes the place of a voter.
fn change() -> Vec<Config> {
    vec![Config::new([replica(0, 0), replica(2, 0)], []).expect("valid")]
}

/// A change of the voters, and two elections.
pub(crate) fn membership() -> Scope {
    let candidates = vec![0, 1, 2];
    scope(led(2), Budget { campaigns: 2, candidates, configs: change(), ..Budget::default() })
}

/// A change of the voters and an election while an entry is under way.
pub(crate) fn membership_with_entry() -> Scope {
    let candidates = vec![1];
    scope(led_with_entry(2), Budget { campaigns: 1, candidates, configs: change(), ..Budget::default() })
}

/// A replica loses the end of its log, with an entry that it has acknowledged and another one lacks, which becomes a candidate.
pub(crate) fn lost_end() -> Scope {
    let mut start = led_with_entry(3);
    let third = |packet: &Packet| packet.envelope.to == replica(2, 0);
    let packet = start.network.iter().position(third).expect("the entry is under way");
    start.apply(&Event::Deliver { packet, doubled: false }).expect("no violation");
    let end = start.nodes[2].log.end();
    start.apply(&Event::Flushed(2, end)).expect("no violation");
    start.network.retain(|packet| packet.envelope.to != replica(1, 0));
    let (candidates, faulty) = (vec![1], vec![2]);
    scope(start, Budget { campaigns: 1, lost_ends: 1, candidates, faulty, ..Budget::default() })
}

/// A disk is wiped, and the node comes back as another replica.
pub(crate) fn wiped() -> Scope {
    let (candidates, faulty) = (vec![1], vec![2]);
    scope(led_with_entry(3), Budget { campaigns: 1, wipes: 1, candidates, faulty, ..Budget::default() })
}

/// More states than any scope has.
const STATES_MAX: usize = 3_000_000;
/// States of a large scope in an ordinary test run.
const STATES_SHORT: usize = 40_000;

#[track_caller]
fn holds_up_to(scope: &Scope, states_max: usize) {
    let explored = explore(scope, states_max);
    println!("{} states, complete: {}", explored.states, explored.complete);
    assert!(explored.violation.is_none(), "{explored:?}");
    assert!(explored.complete || states_max < STATES_MAX, "the scope has {STATES_MAX} states or more");
}

/// Checks all of a scope.
#[track_caller]
fn holds_in(scope: &Scope) {
    holds_up_to(scope, STATES_MAX);
}

/// Checks all of a large scope if `HIGHWATER_PROOF=long`, and otherwise the states that take the fewest events.
#[track_caller]
fn holds_in_large(scope: &Scope) {
    let long = std::env::var("HIGHWATER_PROOF").is_ok_and(|value| value == "long");
    holds_up_to(scope, if long { STATES_MAX } else { STATES_SHORT });
}

#[test]
fn every_order_of_two_elections_and_a_crash_keeps_the_invariants() {
    holds_in_large(&elections());
}

#[test]
fn every_order_of_an_entry_an_election_and_a_crash_keeps_the_invariants() {
    holds_in_large(&crash());
}

#[test]
fn every_order_of_the_entries_of_two_leaders_keeps_the_invariants() {
    holds_in(&two_leaders());
}

#[test]
fn every_order_of_an_election_and_a_doubled_message_keeps_the_invariants() {
    holds_in_large(&doubled());
}

#[test]
fn every_order_of_an_election_and_entries_that_are_refused_keeps_the_invariants() {
    holds_in_large(&refused());
}

#[test]
fn every_order_of_pre_votes_keeps_the_invariants() {
    holds_in_large(&pre_votes());
}

#[test]
fn every_order_of_a_change_of_voters_and_two_elections_keeps_the_invariants() {
    holds_in(&membership());
}

#[test]
fn every_order_of_a_change_of_voters_an_entry_and_an_election_keeps_the_invariants() {
    holds_in_large(&membership_with_entry());
}

#[test]
fn every_order_of_a_lost_end_and_an_election_keeps_the_invariants() {
    holds_in_large(&lost_end());
}

#[test]
fn every_order_of_a_wiped_disk_and_an_election_keeps_the_invariants() {
    holds_in_large(&wiped());
}
