//! Requests about very many groups and offsets, which are handled in slices.

use super::*;
use crate::coord::groups::limits::{LONG_ITEMS_PER_SLICE_MAX, LONG_ITEMS_PER_TURN_MAX};

const PARTITIONS: u32 = 3 * LONG_ITEMS_PER_TURN_MAX as u32;

impl Harness {
    /// Sends a request without running a turn.
    pub(super) fn submit(&mut self, request: GroupRequest) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.coordinator.handle(self.now(), token, request, [0; 16]);
        token
    }

    /// Sends this many joins of a group, which wait for each other.
    fn join_many(&mut self, group: &str, count: usize) {
        for n in 0..count as u128 {
            self.tokens += 1;
            let request = GroupRequest::Join(join(group, ""));
            self.coordinator.handle(self.now(), Token(self.tokens), request, n.to_le_bytes());
        }
    }

    /// Runs turns until there is a reply. Returns their number, and the reply.
    fn turns_until_reply(&mut self, token: Token) -> (usize, GroupReply) {
        for turns in 0..1000 {
            self.drain();
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
    GroupRequest::Fetch(vec![request])
}

fn fetched(reply: GroupReply) -> Vec<(u32, i64)> {
    match reply {
        GroupReply::Fetch(mut replies) => {
            let offsets = replies.pop().expect("a reply for the group").offsets;
            offsets.into_iter().map(|of| (of.partition.0, of.offset.0)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_offsets_are_committed_and_fetched_in_slices_and_other_requests_are_served_meanwhile() {
    let mut harness = Harness::new();
    harness.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    let long = harness.submit(GroupRequest::Commit(commit_all("g", 5)));
    let other = harness.submit(GroupRequest::Commit(commit("other", "", -1, 3)));
    let (turns, _) = harness.turns_until_reply(other);
    assert!(turns <= 1, "{turns} turns for another group's commit");
    let (turns, reply) = harness.turns_until_reply(long);
    assert!(turns >= 2, "{turns} turns for {PARTITIONS} offsets");
    let GroupReply::Commit(outcomes) = reply else { panic!("{reply:?}") };
    assert!(
        outcomes
            .iter()
            .map(|(_, partition, error)| (partition.0, *error))
            .eq((0..PARTITIONS).map(|n| (n, None)))
    );
    let long = harness.submit(fetch_all("g"));
    let other = harness.submit(fetch_all("other"));
    let (turns, reply) = harness.turns_until_reply(other);
    assert!(turns <= 1 && fetched(reply) == [(0, 3)], "{turns} turns");
    let (turns, reply) = harness.turns_until_reply(long);
    assert!(turns >= 2, "{turns} turns for {PARTITIONS} offsets");
    assert!(fetched(reply).into_iter().eq((0..PARTITIONS).map(|n| (n, 5))));
}

#[test]
fn commits_to_a_group_are_applied_in_order() {
    let mut harness = Harness::new();
    harness.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    let first = harness.submit(GroupRequest::Commit(commit_all("g", 5)));
    let mut newer = commit_all("g", 6);
    newer.offsets.drain(..PARTITIONS as usize - 1);
    let second = harness.submit(GroupRequest::Commit(newer));
    harness.turns_until_reply(second);
    harness.turns_until_reply(first);
    let all = harness.submit(fetch_all("g"));
    let (_, reply) = harness.turns_until_reply(all);
    assert_eq!(fetched(reply).last(), Some(&(PARTITIONS - 1, 6)));
}

#[test]
fn a_long_commit_is_acknowledged_once_all_of_it_is_durable() {
    let mut harness = Harness::new();
    harness.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    harness.persists_at_once = false;
    let token = harness.submit(GroupRequest::Commit(commit_all("g", 5)));
    for _ in 0..100 {
        harness.coordinator.run(harness.now());
        harness.drain();
    }
    assert_eq!(harness.reply(token), None);
    harness.persists_at_once = true;
    harness.drain();
    assert!(harness.reply(token).is_some());
}

#[test]
fn many_groups_are_listed_in_slices_and_each_once() {
    let mut harness = Harness::new();
    let count = 2 * LONG_ITEMS_PER_TURN_MAX + LONG_ITEMS_PER_SLICE_MAX + 1;
    let names: Vec<String> = (0..count).map(|n| format!("group-{n:05}")).collect();
    for name in &names {
        harness.call(GroupRequest::Commit(commit(name, "", -1, 3)));
    }
    let list = |after: &str, cut_at_bytes| {
        GroupRequest::List(ListRequest { after: after.into(), cut_at_bytes, ..Default::default() })
    };
    let token = harness.submit(list("", None));
    let (turns, reply) = harness.turns_until_reply(token);
    let GroupReply::List { groups: listed, .. } = reply else { panic!("{reply:?}") };
    assert!(turns >= 2, "{turns} turns for {count} groups");
    assert!(listed.iter().map(|group| &group.group).eq(&names));
    // A list is cut at the requested size.
    let bytes = listed[0].memory_bytes();
    let token = harness.submit(list("group-00009", Some(10 * bytes - 1)));
    let (turns, reply) = harness.turns_until_reply(token);
    let GroupReply::List { groups: listed, .. } = reply else { panic!("{reply:?}") };
    assert!(turns <= 1, "{turns} turns for ten groups");
    assert!(listed.iter().map(|group| &group.group).eq(&names[10..20]));
}

/// Sends a request whose reply may have this many bytes. Returns the reply, or the bytes that it needs.
fn request_within(
    harness: &mut Harness,
    request: &GroupRequest,
    bytes_max: usize,
) -> Result<GroupReply, usize> {
    let limited = GroupRequest::Within { request: Box::new(request.clone()), bytes_max };
    let token = harness.submit(limited);
    match harness.turns_until_reply(token).1 {
        GroupReply::NeedsMemory { bytes, request: returned } => {
            assert_eq!(*returned, *request, "the request is returned for a retry");
            Err(bytes)
        }
        reply => Ok(reply),
    }
}

#[test]
fn a_reply_beyond_its_memory_limit_is_replaced_by_the_size_it_needs() {
    let mut harness = Harness::new();
    harness.coordinator.handle_topic(topic(7), "wide", PARTITIONS);
    let token = harness.submit(GroupRequest::Commit(commit_all("g", 5)));
    harness.turns_until_reply(token);
    harness.join_many("classic", 2 * LONG_ITEMS_PER_SLICE_MAX);
    for member in 0..2 * LONG_ITEMS_PER_SLICE_MAX {
        let mut member = super::consumer::test_member("consumer", &format!("member-{member:05}"), &["one"]);
        member.full_heartbeat(&mut harness);
    }
    for n in 0..2 * LONG_ITEMS_PER_SLICE_MAX {
        harness.call(GroupRequest::Commit(commit(&format!("other-{n}"), "", -1, 3)));
    }
    let none = "none".to_owned();
    for request in [
        GroupRequest::List(ListRequest::default()),
        fetch_all("g"),
        GroupRequest::Describe(vec!["classic".into(), none.clone()]),
        GroupRequest::ConsumerDescribe(vec![none, "consumer".into()]),
    ] {
        let token = harness.submit(request.clone());
        let whole = harness.turns_until_reply(token).1;
        for bytes_max in [0, 1000] {
            let needs =
                request_within(&mut harness, &request, bytes_max).expect_err("the reply does not fit");
            assert!(needs > 100 * 2 * LONG_ITEMS_PER_SLICE_MAX, "{needs} bytes for {request:?}");
            assert!(request_within(&mut harness, &request, needs - 1) == Err(needs), "one byte is missing");
            assert!(request_within(&mut harness, &request, needs) == Ok(whole.clone()), "it fits");
        }
    }
}

#[test]
fn a_group_with_many_members_is_described_in_slices_and_other_requests_are_served_meanwhile() {
    let mut harness = Harness::new();
    let count = 3 * LONG_ITEMS_PER_TURN_MAX + 1;
    harness.join_many("g", count);
    let long = harness.submit(GroupRequest::Describe(vec!["g".into()]));
    let other = harness.submit(GroupRequest::Describe(vec!["none".into()]));
    let (turns, _) = harness.turns_until_reply(other);
    assert!(turns <= 1, "{turns} turns for another group");
    let (turns, reply) = harness.turns_until_reply(long);
    assert!(turns >= 2, "{turns} turns for {count} members");
    let GroupReply::Describe(mut described) = reply else { panic!("{reply:?}") };
    let members = described.remove(0).1.expect("the group exists").members;
    assert!(members.len() == count && members.is_sorted_by(|a, b| a.member < b.member));
}
