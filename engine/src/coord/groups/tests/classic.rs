//! The classic protocol with dynamic members.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::worker;
use super::*;

#[test]
fn a_member_without_an_id_is_told_to_come_again_with_one() {
    let mut desk = Desk::new();
    let request = JoinRequest { requires_member_id: true, ..join("g", "") };
    let token = desk.ask(GroupRequest::Join(request.clone()));
    let reply = desk.joined(token);
    assert_eq!(reply.error, Some(GroupError::MemberIdRequired));
    assert!(reply.member.starts_with("client-"), "{}", reply.member);
    let token = desk.ask(GroupRequest::Join(JoinRequest { member: reply.member.clone(), ..request }));
    desk.pass(3_000);
    let joined = desk.joined(token);
    assert_eq!((joined.error, joined.member, joined.generation), (None, reply.member, 1));
}

#[test]
fn an_id_that_nobody_came_back_with_is_forgotten() {
    let mut desk = Desk::new();
    let request = JoinRequest { requires_member_id: true, ..join("g", "") };
    let token = desk.ask(GroupRequest::Join(request.clone()));
    let id = desk.joined(token).member;
    desk.pass(SESSION_MS as u64);
    assert_eq!(desk.state("g"), "Dead", "nothing is known of it that anybody could miss");
    let token = desk.ask(GroupRequest::Join(JoinRequest { member: id, ..request }));
    assert_eq!(desk.joined(token).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn an_empty_group_waits_for_more_members_and_then_longer_if_some_came() {
    let mut desk = Desk::new();
    let first = desk.join("g", "");
    desk.pass(2_999);
    assert!(desk.reply(first).is_none());
    let second = desk.join("g", "");
    desk.pass(1);
    assert!(desk.reply(first).is_none(), "somebody came, so that others may");
    desk.pass(3_000);
    let (first, second) = (desk.joined(first), desk.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, second.leader);
    assert_eq!(first.members.len() + second.members.len(), 2, "the leader gets all metadata, others none");
    assert_eq!(first.leader, first.member, "the first one leads");
    assert_eq!(first.members.iter().filter(|m| m.metadata.is_empty()).count(), 0);
    assert_eq!(desk.state("g"), "CompletingRebalance");
}

#[test]
fn assignments_come_from_the_leader_whoever_asks_first() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 3);
    assert_eq!(desk.state("g"), "Stable");
    let again = desk.sync(&joined[2], "g", &[]);
    assert_eq!(&desk.synced(again).assignment[..], [2]);
    assert_eq!(desk.heartbeat("g", &joined[1].member, 1), None);
}

#[test]
fn a_follower_that_says_nothing_new_gets_the_current_generation() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let token = desk.join("g", &joined[1].member);
    let reply = desk.joined(token);
    assert_eq!((reply.error, reply.generation, reply.members.len()), (None, 1, 0));
    assert_eq!(desk.state("g"), "Stable");
}

#[test]
fn a_leader_that_joins_again_begins_a_generation() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let leader = desk.join("g", &joined[0].member);
    assert!(desk.reply(leader).is_none());
    assert_eq!(desk.heartbeat("g", &joined[1].member, 1), Some(GroupError::RebalanceInProgress));
    let follower = desk.join("g", &joined[1].member);
    assert_eq!(desk.joined(leader).generation, 2);
    assert_eq!(desk.joined(follower).generation, 2);
}

#[test]
fn a_follower_that_says_something_new_begins_a_generation() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let mut request = join("g", &joined[1].member);
    request.protocols[0].1 = Bytes::from_static(b"else");
    let follower = desk.ask(GroupRequest::Join(request));
    let leader = desk.join("g", &joined[0].member);
    assert_eq!(desk.joined(follower).generation, 2);
    let told = desk.joined(leader).members;
    assert!(told.iter().any(|m| &m.metadata[..] == b"else"));
}

#[test]
fn whoever_does_not_join_in_time_is_out() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let leader = desk.join("g", &joined[0].member);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(desk.heartbeat("g", &joined[1].member, 1), Some(GroupError::RebalanceInProgress));
        assert!(desk.reply(leader).is_none());
        desk.pass(5_000);
    }
    assert_eq!(desk.joined(leader).generation, 2);
    assert_eq!(desk.heartbeat("g", &joined[1].member, 1), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_is_silent_for_its_session_is_out_and_the_others_rebalance() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    desk.pass(SESSION_MS as u64 - 1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
    desk.pass(1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
    let alone = desk.join("g", &joined[0].member);
    assert_eq!(desk.joined(alone).generation, 2, "nobody else is to be waited for");
}

#[test]
fn a_group_whose_members_are_all_gone_is_empty_and_goes_on_counting() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    assert_eq!(desk.leave("g", &[(&joined[0].member, None)]), [None]);
    assert_eq!(desk.state("g"), "Empty");
    assert_eq!(desk.stable("g", 1)[0].generation, 3);
}

#[test]
fn members_that_wait_for_the_leader_are_sent_back_when_it_goes() {
    let mut desk = Desk::new();
    let tokens = [desk.join("g", ""), desk.join("g", "")];
    desk.pass(6_000);
    let mut joined = tokens.map(|t| desk.joined(t));
    joined.sort_by_key(|j| j.member != j.leader);
    let waits = desk.sync(&joined[1], "g", &[]);
    assert!(desk.reply(waits).is_none());
    assert_eq!(desk.leave("g", &[(&joined[0].member, None)]), [None]);
    assert_eq!(desk.synced(waits).error, Some(GroupError::RebalanceInProgress));
    let token = desk.join("g", &joined[1].member);
    let reply = desk.joined(token);
    assert_eq!((reply.generation, reply.leader), (2, joined[1].member.clone()));
}

#[test]
fn a_leader_that_never_assigns_is_out_after_the_rebalance_timeout() {
    let mut desk = Desk::new();
    let tokens = [desk.join("g", ""), desk.join("g", "")];
    desk.pass(3_000 + 3_000);
    let mut joined = tokens.map(|t| desk.joined(t));
    joined.sort_by_key(|j| j.member != j.leader);
    let waits = desk.sync(&joined[1], "g", &[]);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
        desk.pass(5_000);
    }
    assert_eq!(desk.synced(waits).error, Some(GroupError::RebalanceInProgress));
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), Some(GroupError::UnknownMemberId));
}

#[test]
fn the_protocol_is_one_that_all_have_and_most_like_best() {
    let mut desk = Desk::new();
    let likes = |names: &[&'static str]| JoinRequest {
        protocols: names.iter().map(|n| ((*n).to_owned(), Bytes::from_static(b"m"))).collect(),
        ..join("g", "")
    };
    let tokens = [["a", "b", "c"], ["b", "a", "x"], ["b", "a", "y"]]
        .map(|names| desk.ask(GroupRequest::Join(likes(&names))));
    let other = desk.ask(GroupRequest::Join(likes(&["x", "y"])));
    assert_eq!(desk.joined(other).error, Some(GroupError::InconsistentGroupProtocol));
    let connect = JoinRequest { protocol_type: "connect".into(), ..likes(&["a"]) };
    let connect = desk.ask(GroupRequest::Join(connect));
    assert_eq!(desk.joined(connect).error, Some(GroupError::InconsistentGroupProtocol));
    desk.pass(6_000);
    for token in tokens {
        assert_eq!(desk.joined(token).protocol.as_deref(), Some("b"));
    }
}

#[test]
fn who_asks_with_another_generation_or_protocol_is_refused() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    let id = joined[0].member.clone();
    assert_eq!(desk.heartbeat("g", &id, 7), Some(GroupError::IllegalGeneration));
    assert_eq!(desk.heartbeat("g", "nobody", 1), Some(GroupError::UnknownMemberId));
    assert_eq!(desk.heartbeat("none", &id, 1), Some(GroupError::UnknownMemberId));
    assert_eq!(desk.heartbeat("", &id, 1), Some(GroupError::InvalidGroupId));
    let wrong = JoinReply { generation: 2, ..joined[0].clone() };
    let token = desk.sync(&wrong, "g", &[]);
    assert_eq!(desk.synced(token).error, Some(GroupError::IllegalGeneration));
    let request = SyncRequest {
        group: "g".into(),
        member: id,
        instance: None,
        generation: 1,
        protocol_type: Some("connect".into()),
        protocol: None,
        assignments: vec![],
    };
    let token = desk.ask(GroupRequest::Sync(request));
    assert_eq!(desk.synced(token).error, Some(GroupError::InconsistentGroupProtocol));
}

#[test]
fn a_session_timeout_out_of_bounds_and_an_empty_group_name_are_refused() {
    let mut desk = Desk::new();
    for (session, error) in [
        (5_999, Some(GroupError::InvalidSessionTimeout)),
        (1_800_001, Some(GroupError::InvalidSessionTimeout)),
    ] {
        let token =
            desk.ask(GroupRequest::Join(JoinRequest { session_timeout_ms: session, ..join("g", "") }));
        assert_eq!(desk.joined(token).error, error);
    }
    let token = desk.join("", "");
    assert_eq!(desk.joined(token).error, Some(GroupError::InvalidGroupId));
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    let mut desk = Desk::new();
    let config = GroupConfig { group_members_max: 2, ..GroupConfig::default() };
    desk.coordinator = GroupCoordinator::keyed(config, desk.now());
    let joined = desk.stable("g", 2);
    let token = desk.join("g", "");
    assert_eq!(desk.joined(token).error, Some(GroupError::GroupMaxSizeReached));
    let token = desk.join("g", &joined[1].member);
    assert_eq!(desk.joined(token).error, None);
}

#[test]
fn what_members_say_is_bounded() {
    let mut desk = Desk::new();
    let big = JoinRequest {
        protocols: vec![("p".into(), Bytes::from(vec![0; limits::GROUP_BYTES_MAX / 2]))],
        ..join("g", "")
    };
    let first = desk.ask(GroupRequest::Join(big.clone()));
    let second = desk.ask(GroupRequest::Join(big));
    assert_eq!(desk.joined(second).error, Some(GroupError::GroupMaxSizeReached));
    desk.pass(6_000);
    assert_eq!(desk.joined(first).error, None);
}

#[test]
fn a_client_that_asks_again_gets_its_answer_on_the_later_request() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let early = desk.join("g", &joined[0].member);
    let late = desk.join("g", &joined[0].member);
    assert_eq!(desk.joined(early).error, Some(GroupError::RebalanceInProgress));
    let other = desk.join("g", &joined[1].member);
    assert_eq!((desk.joined(late).generation, desk.joined(other).generation), (2, 2));
}

#[test]
fn members_metadata_and_assignments_are_shown_of_a_stable_group() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let GroupReply::Describe(described) = desk.call(GroupRequest::Describe(vec!["g".into(), "none".into()]))
    else {
        panic!("another reply");
    };
    let group = described[0].1.as_ref().expect("there is one");
    assert_eq!((group.state, group.protocol.as_str(), group.members.len()), ("Stable", "range", 2));
    let leader = group.members.iter().find(|m| m.member == joined[0].member).expect("a member");
    assert_eq!((&leader.assignment[..], leader.client_host.as_str()), (&[0_u8][..], "/127.0.0.1"));
    assert_eq!(described[1].1, Err(GroupError::GroupIdNotFound));
}

#[test]
fn lists_take_states_and_types() {
    let mut desk = Desk::new();
    desk.stable("g", 1);
    desk.commit(commit("simple", "", -1, 5));
    let mut list = |states: &[&str], types: &[&str]| {
        let request = ListRequest {
            states: states.iter().map(|s| (*s).to_owned()).collect(),
            types: types.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        };
        match desk.call(GroupRequest::List(request)) {
            GroupReply::List { groups: listed, .. } => {
                listed.into_iter().map(|g| g.group).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list(&[], &[]), ["g", "simple"]);
    assert_eq!(list(&["stable"], &[]), ["g"]);
    assert_eq!(list(&["Empty"], &["Classic"]), ["simple"]);
    assert!(list(&[], &["consumer"]).is_empty());
}

#[test]
fn what_the_members_of_all_groups_say_is_bounded_by_what_the_broker_has_for_them() {
    let config = GroupConfig { members_bytes_max: 10_000, ..GroupConfig::default() };
    let mut desk = Desk::new();
    desk.coordinator = GroupCoordinator::keyed(config, desk.now());
    desk.add_topics();
    let outcomes = (0..40).map(|n| {
        let request = GroupRequest::Join(join(&format!("group-{n}"), ""));
        desk.coordinator.handle(desk.now(), Token(1_000_000 + n), request, u128::from(n).to_le_bytes());
        desk.settle();
        match desk.reply(Token(1_000_000 + n)) {
            Some(GroupReply::Join(reply)) => reply.error,
            reply => {
                assert_eq!(reply, None, "it waits for others");
                None
            }
        }
    });
    let outcomes: Vec<_> = outcomes.collect();
    let taken = outcomes.iter().take_while(|error| error.is_none()).count();
    assert!((2..40).contains(&taken), "{outcomes:?}");
    assert!(outcomes[taken..].iter().all(|error| *error == Some(GroupError::GroupMaxSizeReached)));
}

#[test]
fn members_that_are_there_go_on_when_their_group_has_reached_its_limit() {
    let mut desk = Desk::new();
    let big = |member: &str, bytes: usize| JoinRequest {
        protocols: vec![("p".into(), Bytes::from(vec![0; bytes]))],
        ..join("g", member)
    };
    let share = limits::GROUP_BYTES_MAX / 3;
    let assignment = vec![0; limits::GROUP_BYTES_MAX / 7];
    let mut ids = [String::new(), String::new()];
    for generation in 1..4 {
        let tokens = ids.each_ref().map(|id| desk.ask(GroupRequest::Join(big(id, share))));
        desk.pass(if generation == 1 { 6_000 } else { 0 });
        let mut joined = tokens.map(|token| desk.joined(token));
        assert_eq!(joined.each_ref().map(|j| (j.error, j.generation)), [(None, generation); 2]);
        joined.sort_by_key(|j| j.member != j.leader);
        ids = joined.each_ref().map(|j| j.member.clone());
        let synced = desk.sync(&joined[0], "g", &ids.each_ref().map(|id| (id.as_str(), &assignment[..])));
        assert_eq!(desk.synced(synced).error, None);
    }
    let token = desk.ask(GroupRequest::Join(big(&ids[0], share + assignment.len())));
    assert_eq!(desk.joined(token).error, Some(GroupError::GroupMaxSizeReached));
}

#[test]
fn what_a_group_is_called_is_bounded_and_counts_for_as_long_as_it_is_kept() {
    let mut desk = Desk::new();
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let too_long = [
        JoinRequest { protocol_type: long.clone(), ..join("g", "") },
        JoinRequest { protocols: vec![(long, Bytes::new())], ..join("g", "") },
    ];
    for request in too_long {
        let token = desk.ask(GroupRequest::Join(request));
        assert_eq!(desk.joined(token).error, Some(GroupError::InvalidRequest));
    }
    let name = "n".repeat(limits::NAME_BYTES_MAX);
    let kind = "t".repeat(limits::NAME_BYTES_MAX);
    let token = desk.ask(GroupRequest::Join(JoinRequest { protocol_type: kind, ..join(&name, "") }));
    desk.pass(6_000);
    let member = desk.joined(token).member;
    assert_eq!(desk.leave(&name, &[(&member, None)]), [None]);
    let mut a = worker("modern", "a", &["one"]);
    a.beat(&mut desk);
    a.request.epoch = GroupEpoch(-1);
    a.send(&mut desk);
    desk.commit(commit("offsets only", "", -1, 1));
    let bytes = desk.coordinator.members_bytes;
    assert!(bytes > 2 * limits::NAME_BYTES_MAX + "modern".len(), "{bytes}");
    desk.crash();
    assert_eq!(desk.coordinator.members_bytes, bytes);
    for group in [&name, "modern"] {
        desk.call(GroupRequest::Delete(vec![group.to_owned()]));
    }
    assert_eq!(desk.coordinator.members_bytes, 0);
}
