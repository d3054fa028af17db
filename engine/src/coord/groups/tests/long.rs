//! Requests about very many groups and offsets, slice by slice.

use super::*;
use crate::coord::groups::limits::{LONG_ITEMS_PER_SLICE_MAX, LONG_ITEMS_PER_TURN_MAX};

const PARTITIONS: u32 = 3 * LONG_ITEMS_PER_TURN_MAX as u32;

impl Desk {
    /// Asks, and lets no turn pass.
    pub(super) fn begin(&mut self, request: GroupRequest) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.coordinator.handle(self.now(), token, request, [0; 16]);
        token
    }

    /// Turns until there is a reply.
    fn turns_to(&mut self, token: Token) -> (usize, GroupReply) {
        for turns in 0..1000 {
            self.settle();
            if let Some(reply) = self.reply(token) {
                return (turns, reply);
            }
            self.coordinator.run(self.now());
        }
        panic!("no reply");
    }
}

fn commit_all(group: &str, offset: i64) -> CommitRequest {
    let of = |partition| CommittedPartition {
        topic: topic(7),
        partition: PartitionIndex(partition),
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: String::new(),
    };
    CommitRequest { offsets: (0..PARTITIONS).map(of).collect(), ..commit(group, "", -1, 0) }
}

fn fetch_all(group: &str) -> GroupRequest {
    let request = FetchRequest { group: group.into(), member: None, partitions: None, require_stable: false };
    GroupRequest::FetchEach(vec![request])
}

fn fetched(reply: GroupReply) -> Vec<(u32, i64)> {
    match reply {
        GroupReply::FetchEach(mut replies) => {
            let offsets = replies.pop().expect("one was asked for").offsets;
            offsets.into_iter().map(|of| (of.partition.0, of.offset.0)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn very_many_offsets_of_a_group_are_kept_and_given_in_slices_and_others_are_answered_meanwhile() {
    let mut desk = Desk::new();
    desk.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    let long = desk.begin(GroupRequest::Commit(commit_all("g", 5)));
    let other = desk.begin(GroupRequest::Commit(commit("other", "", -1, 3)));
    let (turns, _) = desk.turns_to(other);
    assert!(turns <= 1, "{turns} turns for another group's commit");
    let (turns, reply) = desk.turns_to(long);
    assert!(turns >= 2, "{turns} turns for {PARTITIONS} offsets");
    let GroupReply::Commit(outcomes) = reply else { panic!("{reply:?}") };
    assert!(
        outcomes
            .iter()
            .map(|(_, partition, error)| (partition.0, *error))
            .eq((0..PARTITIONS).map(|n| (n, None)))
    );
    let long = desk.begin(fetch_all("g"));
    let other = desk.begin(fetch_all("other"));
    let (turns, reply) = desk.turns_to(other);
    assert!(turns <= 1 && fetched(reply) == [(0, 3)], "{turns} turns");
    let (turns, reply) = desk.turns_to(long);
    assert!(turns >= 2, "{turns} turns for {PARTITIONS} offsets");
    assert!(fetched(reply).into_iter().eq((0..PARTITIONS).map(|n| (n, 5))));
}

#[test]
fn a_commit_does_not_overtake_the_rest_of_one_to_the_same_group() {
    let mut desk = Desk::new();
    desk.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    let first = desk.begin(GroupRequest::Commit(commit_all("g", 5)));
    let mut newer = commit_all("g", 6);
    newer.offsets.drain(..PARTITIONS as usize - 1);
    let second = desk.begin(GroupRequest::Commit(newer));
    desk.turns_to(second);
    desk.turns_to(first);
    let all = desk.begin(fetch_all("g"));
    let (_, reply) = desk.turns_to(all);
    assert_eq!(fetched(reply).last(), Some(&(PARTITIONS - 1, 6)));
}

#[test]
fn what_a_long_commit_did_is_told_when_all_of_it_is_durable() {
    let mut desk = Desk::new();
    desk.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    desk.writes = false;
    let token = desk.begin(GroupRequest::Commit(commit_all("g", 5)));
    for _ in 0..100 {
        desk.coordinator.run(desk.now());
        desk.settle();
    }
    assert_eq!(desk.reply(token), None);
    desk.writes = true;
    desk.settle();
    assert!(desk.reply(token).is_some());
}

#[test]
fn very_many_groups_are_listed_in_slices_and_each_once() {
    let mut desk = Desk::new();
    let count = 2 * LONG_ITEMS_PER_TURN_MAX + LONG_ITEMS_PER_SLICE_MAX + 1;
    let names: Vec<String> = (0..count).map(|n| format!("group-{n:05}")).collect();
    for name in &names {
        desk.call(GroupRequest::Commit(commit(name, "", -1, 3)));
    }
    let list = |after: &str, bytes_max| {
        GroupRequest::List(ListRequest { after: after.into(), bytes_max, ..Default::default() })
    };
    let token = desk.begin(list("", None));
    let (turns, reply) = desk.turns_to(token);
    let GroupReply::List(listed) = reply else { panic!("{reply:?}") };
    assert!(turns >= 2, "{turns} turns for {count} groups");
    assert!(listed.iter().map(|group| &group.group).eq(&names));
    // No more than was asked for.
    let token = desk.begin(list("group-00009", Some(100)));
    let (turns, reply) = desk.turns_to(token);
    let GroupReply::List(listed) = reply else { panic!("{reply:?}") };
    assert!(turns <= 1, "{turns} turns for ten groups");
    assert!(listed.iter().map(|group| &group.group).eq(&names[10..20]));
}
