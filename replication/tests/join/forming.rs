//! A cluster is founded once, and all nodes find it.

use std::time::Duration;

use highwater_protocol::ids::NodeId;
use highwater_replication::join::{
    DiskId, JoinReply, Joined, Joiner, JoinerConfig, NotNow, Registration, SeedList, SeedState,
};
use highwater_runtime::plane::Instant;
use highwater_runtime::sim::seeds;

use crate::world::World;

const START: Instant = Instant(1_000_000_000);
const ME: DiskId = DiskId([1; 16]);
const OTHER: DiskId = DiskId([2; 16]);

fn joiner(seeds: &[&str]) -> Joiner {
    let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect();
    let registration = Registration { address: "a:1".into(), ..Registration::default() };
    Joiner::new(JoinerConfig { disk: ME, node: None, member_of: None, registration, seeds }, START)
}

/// Answers the attempts that are due, by address; `None`: the connection fails.
fn answer(joiner: &mut Joiner, now: Instant, replies: &[(&str, Option<JoinReply>)]) -> Vec<String> {
    let mut asked = Vec::new();
    while let Some((attempt, to)) = joiner.poll_attempt(now) {
        let to = to.to_owned();
        let reply = replies.iter().find(|(address, _)| *address == to).and_then(|(_, reply)| reply.clone());
        asked.push(to);
        match reply {
            Some(reply) => joiner.handle_reply(now, attempt, reply, 0),
            None => joiner.handle_failed(now, attempt, "connection refused".into(), 0),
        }
    }
    asked
}

fn without_cluster(seeds: &[&str], disk: DiskId) -> JoinReply {
    JoinReply::WithoutCluster { disk, seeds: SeedList::of(seeds.iter().copied()) }
}

#[test]
fn whatever_happens_a_cluster_is_founded_once_and_all_nodes_find_it() {
    for seed in seeds("HIGHWATER_JOIN_SEEDS", 300) {
        for nodes in [1, 3, 5] {
            if let Err(error) = World::new(seed, nodes).run() {
                panic!("seed {seed}, {nodes} nodes: {error}");
            }
        }
    }
}

#[test]
fn the_first_seed_founds_the_cluster_when_all_are_without_one() {
    let list = ["a:1", "b:1"];
    let mut joiner = joiner(&list);
    answer(&mut joiner, START, &[("a:1", Some(without_cluster(&list, ME))), ("b:1", None)]);
    assert_eq!(joiner.outcome(), None, "b may be a member of a cluster");
    let later = START.after(Duration::from_secs(3));
    answer(
        &mut joiner,
        later,
        &[("a:1", Some(without_cluster(&list, ME))), ("b:1", Some(without_cluster(&list, OTHER)))],
    );
    assert_eq!(joiner.outcome(), Some(&Ok(Joined::Founder)));
    assert_eq!((joiner.next_deadline(), joiner.poll_attempt(later)), (None, None));
}

#[test]
fn a_later_seed_does_not_found_a_cluster() {
    let list = ["b:1", "a:1"];
    let mut joiner = joiner(&list);
    answer(
        &mut joiner,
        START,
        &[("a:1", Some(without_cluster(&list, ME))), ("b:1", Some(without_cluster(&list, OTHER)))],
    );
    assert_eq!(joiner.outcome(), None);
}

#[test]
fn nodes_with_different_seeds_do_not_found_a_cluster_and_say_why() {
    let mut joiner = joiner(&["a:1", "b:1"]);
    let replies = [
        ("a:1", Some(without_cluster(&["a:1", "b:1"], ME))),
        ("b:1", Some(without_cluster(&["b:1"], OTHER))),
    ];
    answer(&mut joiner, START, &replies);
    assert_eq!(joiner.outcome(), None);
    let states: Vec<String> = joiner.seeds().map(|(seed, state)| format!("{seed}: {state}")).collect();
    assert_eq!(states[0], "a:1: ready");
    assert!(states[1].contains("started with other seeds"), "{}", states[1]);
}

#[test]
fn a_node_that_is_named_twice_is_an_error() {
    let list = ["a:1", "localhost:1"];
    let mut joiner = joiner(&list);
    answer(
        &mut joiner,
        START,
        &[("a:1", Some(without_cluster(&list, ME))), ("localhost:1", Some(without_cluster(&list, ME)))],
    );
    let Some(Err(error)) = joiner.outcome() else { panic!("refused") };
    assert!(error.contains("a:1") && error.contains("localhost:1"), "{error}");
}

#[test]
fn the_node_that_decides_is_asked_next_and_replaced_by_another_one() {
    let mut joiner = joiner(&["b:1"]);
    answer(&mut joiner, START, &[("b:1", Some(JoinReply::Ask("c:1".into())))]);
    let later = START.after(Duration::from_secs(3));
    let asked = answer(
        &mut joiner,
        later,
        &[("b:1", Some(JoinReply::Ask("d:1".into()))), ("c:1", Some(JoinReply::NotNow(NotNow::NoLeader)))],
    );
    assert!(asked.contains(&"d:1".to_owned()), "{asked:?}");
}

#[test]
fn a_request_without_a_reply_is_given_up_and_repeated() {
    let mut joiner = joiner(&["b:1"]);
    let (attempt, _) = joiner.poll_attempt(START).expect("due");
    let deadline = joiner.next_deadline().expect("it waits for the reply");
    assert_eq!(joiner.handle_deadline(deadline, || 0), [attempt]);
    let (_, state) = joiner.seeds().next().expect("one seed");
    assert!(matches!(state, SeedState::Unreachable(reason) if reason.contains("no answer")), "{state:?}");
    let again = joiner.next_deadline().expect("it tries again");
    assert!(joiner.poll_attempt(again).is_some());
}

#[test]
fn a_refusal_ends_the_attempt_to_join() {
    let mut joiner = joiner(&["b:1"]);
    answer(&mut joiner, START, &[("b:1", Some(JoinReply::Refused("no".into())))]);
    assert_eq!(joiner.outcome(), Some(&Err("no".to_owned())));
}

#[test]
fn any_node_id_is_what_a_member_says() {
    let membership = highwater_replication::join::Membership {
        cluster: highwater_protocol::ids::ClusterId([3; 16]),
        node: NodeId(8),
        incarnation: 2,
        founder: NodeId(0),
    };
    let mut joiner = joiner(&["b:1"]);
    answer(&mut joiner, START, &[("b:1", Some(JoinReply::Welcome(membership, Vec::new())))]);
    assert_eq!(joiner.outcome(), Some(&Ok(Joined::Member(membership, Vec::new()))));
}
