//! The classic protocol with dynamic members.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::test_member;
use super::*;

#[test]
fn a_member_without_an_id_has_to_rejoin_with_the_one_it_gets() {
    let mut harness = Harness::new();
    let request = JoinRequest { requires_member_id: true, ..join("g", "") };
    let token = harness.send(GroupRequest::Join(request.clone()));
    let reply = harness.joined(token);
    assert_eq!(reply.error, Some(GroupError::MemberIdRequired));
    assert!(reply.member.starts_with("client-"), "{}", reply.member);
    let token = harness.send(GroupRequest::Join(JoinRequest { member: reply.member.clone(), ..request }));
    harness.advance(3_000);
    let joined = harness.joined(token);
    assert_eq!((joined.error, joined.member, joined.generation), (None, reply.member, 1));
}

#[test]
fn an_unused_member_id_expires() {
    let mut harness = Harness::new();
    let request = JoinRequest { requires_member_id: true, ..join("g", "") };
    let token = harness.send(GroupRequest::Join(request.clone()));
    let id = harness.joined(token).member;
    harness.advance(SESSION_MS as u64);
    assert_eq!(harness.state("g"), "Dead", "the group has no state to keep");
    let token = harness.send(GroupRequest::Join(JoinRequest { member: id, ..request }));
    assert_eq!(harness.joined(token).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn the_initial_delay_is_extended_if_members_join_meanwhile() {
    let mut harness = Harness::new();
    let first = harness.join("g", "");
    harness.advance(2_999);
    assert!(harness.reply(first).is_none());
    let second = harness.join("g", "");
    harness.advance(1);
    assert!(harness.reply(first).is_none(), "a member has joined, so others may follow");
    harness.advance(3_000);
    let (first, second) = (harness.joined(first), harness.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, second.leader);
    assert_eq!(first.members.len() + second.members.len(), 2, "only the leader gets the members");
    assert_eq!(first.leader, first.member, "the first member is the leader");
    assert_eq!(first.members.iter().filter(|m| m.metadata.is_empty()).count(), 0);
    assert_eq!(harness.state("g"), "CompletingRebalance");
}

#[test]
fn members_get_the_leaders_assignments_in_whatever_order_they_sync() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 3);
    assert_eq!(harness.state("g"), "Stable");
    let again = harness.sync(&joined[2], "g", &[]);
    assert_eq!(&harness.synced(again).assignment[..], [2]);
    assert_eq!(harness.heartbeat("g", &joined[1].member, 1), None);
}

#[test]
fn a_follower_that_rejoins_without_changes_stays_in_the_generation() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let token = harness.join("g", &joined[1].member);
    let reply = harness.joined(token);
    assert_eq!((reply.error, reply.generation, reply.members.len()), (None, 1, 0));
    assert_eq!(harness.state("g"), "Stable");
}

#[test]
fn a_leader_that_rejoins_starts_a_new_generation() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let leader = harness.join("g", &joined[0].member);
    assert!(harness.reply(leader).is_none());
    assert_eq!(harness.heartbeat("g", &joined[1].member, 1), Some(GroupError::RebalanceInProgress));
    let follower = harness.join("g", &joined[1].member);
    assert_eq!(harness.joined(leader).generation, 2);
    assert_eq!(harness.joined(follower).generation, 2);
}

#[test]
fn a_follower_that_rejoins_with_new_metadata_starts_a_new_generation() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let mut request = join("g", &joined[1].member);
    request.protocols[0].1 = Bytes::from_static(b"else");
    let follower = harness.send(GroupRequest::Join(request));
    let leader = harness.join("g", &joined[0].member);
    assert_eq!(harness.joined(follower).generation, 2);
    let members = harness.joined(leader).members;
    assert!(members.iter().any(|m| &m.metadata[..] == b"else"));
}

#[test]
fn members_that_do_not_rejoin_in_time_are_removed() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let leader = harness.join("g", &joined[0].member);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(harness.heartbeat("g", &joined[1].member, 1), Some(GroupError::RebalanceInProgress));
        assert!(harness.reply(leader).is_none());
        harness.advance(5_000);
    }
    assert_eq!(harness.joined(leader).generation, 2);
    assert_eq!(harness.heartbeat("g", &joined[1].member, 1), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_member_whose_session_expires_is_removed_and_the_others_rebalance() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    harness.advance(SESSION_MS as u64 - 1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
    harness.advance(1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
    let alone = harness.join("g", &joined[0].member);
    assert_eq!(harness.joined(alone).generation, 2, "there are no other members to wait for");
}

#[test]
fn an_empty_group_keeps_counting_generations() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    assert_eq!(harness.leave("g", &[(&joined[0].member, None)]), [None]);
    assert_eq!(harness.state("g"), "Empty");
    assert_eq!(harness.stable_group("g", 1)[0].generation, 3);
}

#[test]
fn members_that_wait_for_the_leader_rejoin_when_it_leaves() {
    let mut harness = Harness::new();
    let tokens = [harness.join("g", ""), harness.join("g", "")];
    harness.advance(6_000);
    let mut joined = tokens.map(|t| harness.joined(t));
    joined.sort_by_key(|j| j.member != j.leader);
    let waiting = harness.sync(&joined[1], "g", &[]);
    assert!(harness.reply(waiting).is_none());
    assert_eq!(harness.leave("g", &[(&joined[0].member, None)]), [None]);
    assert_eq!(harness.synced(waiting).error, Some(GroupError::RebalanceInProgress));
    let token = harness.join("g", &joined[1].member);
    let reply = harness.joined(token);
    assert_eq!((reply.generation, reply.leader), (2, joined[1].member.clone()));
}

#[test]
fn a_leader_that_sends_no_assignments_is_removed_after_the_rebalance_timeout() {
    let mut harness = Harness::new();
    let tokens = [harness.join("g", ""), harness.join("g", "")];
    harness.advance(3_000 + 3_000);
    let mut joined = tokens.map(|t| harness.joined(t));
    joined.sort_by_key(|j| j.member != j.leader);
    let waiting = harness.sync(&joined[1], "g", &[]);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
        harness.advance(5_000);
    }
    assert_eq!(harness.synced(waiting).error, Some(GroupError::RebalanceInProgress));
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), Some(GroupError::UnknownMemberId));
}

#[test]
fn the_protocol_is_the_one_most_members_prefer_among_the_common_ones() {
    let mut harness = Harness::new();
    let request = |names: &[&'static str]| JoinRequest {
        protocols: names.iter().map(|n| ((*n).to_owned(), Bytes::from_static(b"m"))).collect(),
        ..join("g", "")
    };
    let tokens = [["a", "b", "c"], ["b", "a", "x"], ["b", "a", "y"]]
        .map(|names| harness.send(GroupRequest::Join(request(&names))));
    let other = harness.send(GroupRequest::Join(request(&["x", "y"])));
    assert_eq!(harness.joined(other).error, Some(GroupError::InconsistentGroupProtocol));
    let connect = JoinRequest { protocol_type: "connect".into(), ..request(&["a"]) };
    let connect = harness.send(GroupRequest::Join(connect));
    assert_eq!(harness.joined(connect).error, Some(GroupError::InconsistentGroupProtocol));
    harness.advance(6_000);
    for token in tokens {
        assert_eq!(harness.joined(token).protocol.as_deref(), Some("b"));
    }
}

#[test]
fn requests_with_another_generation_or_protocol_are_rejected() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    let id = joined[0].member.clone();
    assert_eq!(harness.heartbeat("g", &id, 7), Some(GroupError::IllegalGeneration));
    assert_eq!(harness.heartbeat("g", "nobody", 1), Some(GroupError::UnknownMemberId));
    assert_eq!(harness.heartbeat("none", &id, 1), Some(GroupError::UnknownMemberId));
    assert_eq!(harness.heartbeat("", &id, 1), Some(GroupError::InvalidGroupId));
    let stale = JoinReply { generation: 2, ..joined[0].clone() };
    let token = harness.sync(&stale, "g", &[]);
    assert_eq!(harness.synced(token).error, Some(GroupError::IllegalGeneration));
    let request = SyncRequest {
        group: "g".into(),
        member: id,
        instance: None,
        generation: 1,
        protocol_type: Some("connect".into()),
        protocol: None,
        assignments: vec![],
    };
    let token = harness.send(GroupRequest::Sync(request));
    assert_eq!(harness.synced(token).error, Some(GroupError::InconsistentGroupProtocol));
}

#[test]
fn a_session_timeout_out_of_bounds_and_an_empty_group_name_are_rejected() {
    let mut harness = Harness::new();
    for (session, error) in [
        (5_999, Some(GroupError::InvalidSessionTimeout)),
        (1_800_001, Some(GroupError::InvalidSessionTimeout)),
    ] {
        let token =
            harness.send(GroupRequest::Join(JoinRequest { session_timeout_ms: session, ..join("g", "") }));
        assert_eq!(harness.joined(token).error, error);
    }
    let token = harness.join("", "");
    assert_eq!(harness.joined(token).error, Some(GroupError::InvalidGroupId));
}

#[test]
fn the_number_of_members_of_a_group_is_limited() {
    let mut harness = Harness::new();
    let config = GroupConfig { group_members_max: 2, ..GroupConfig::default() };
    harness.coordinator = GroupCoordinator::keyed(config, harness.now());
    let joined = harness.stable_group("g", 2);
    let token = harness.join("g", "");
    assert_eq!(harness.joined(token).error, Some(GroupError::GroupMaxSizeReached));
    let token = harness.join("g", &joined[1].member);
    assert_eq!(harness.joined(token).error, None);
}

#[test]
fn the_metadata_of_a_group_is_limited() {
    let mut harness = Harness::new();
    let big = JoinRequest {
        protocols: vec![("p".into(), Bytes::from(vec![0; limits::GROUP_BYTES_MAX / 2]))],
        ..join("g", "")
    };
    let first = harness.send(GroupRequest::Join(big.clone()));
    let second = harness.send(GroupRequest::Join(big));
    assert_eq!(harness.joined(second).error, Some(GroupError::GroupMaxSizeReached));
    harness.advance(6_000);
    assert_eq!(harness.joined(first).error, None);
}

#[test]
fn a_client_that_resends_a_join_gets_the_reply_to_the_later_one() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let early = harness.join("g", &joined[0].member);
    let late = harness.join("g", &joined[0].member);
    assert_eq!(harness.joined(early).error, Some(GroupError::RebalanceInProgress));
    let other = harness.join("g", &joined[1].member);
    assert_eq!((harness.joined(late).generation, harness.joined(other).generation), (2, 2));
}

#[test]
fn a_stable_group_is_described_with_metadata_and_assignments() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let GroupReply::Describe(described) =
        harness.call(GroupRequest::Describe(vec!["g".into(), "none".into()]))
    else {
        panic!("another reply");
    };
    let group = described[0].1.as_ref().expect("the group exists");
    assert_eq!((group.state, group.protocol.as_str(), group.members.len()), ("Stable", "range", 2));
    let leader = group.members.iter().find(|m| m.member == joined[0].member).expect("a member");
    assert_eq!((&leader.assignment[..], leader.client_host.as_str()), (&[0_u8][..], "/127.0.0.1"));
    assert_eq!(described[1].1, Err(GroupError::GroupIdNotFound));
}

#[test]
fn lists_can_be_filtered_by_state_and_type() {
    let mut harness = Harness::new();
    harness.stable_group("g", 1);
    harness.commit(commit("simple", "", -1, 5));
    let mut list = |states: &[&str], types: &[&str]| {
        let request = ListRequest {
            states: states.iter().map(|s| (*s).to_owned()).collect(),
            types: types.iter().map(|s| (*s).to_owned()).collect(),
            ..Default::default()
        };
        match harness.call(GroupRequest::List(request)) {
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
fn the_metadata_of_all_groups_is_limited_by_the_configured_memory() {
    let config = GroupConfig { members_bytes_max: 10_000, ..GroupConfig::default() };
    let mut harness = Harness::new();
    harness.coordinator = GroupCoordinator::keyed(config, harness.now());
    harness.add_topics();
    let outcomes = (0..40).map(|n| {
        let request = GroupRequest::Join(join(&format!("group-{n}"), ""));
        harness.coordinator.handle(harness.now(), Token(1_000_000 + n), request, u128::from(n).to_le_bytes());
        harness.drain();
        match harness.reply(Token(1_000_000 + n)) {
            Some(GroupReply::Join(reply)) => reply.error,
            reply => {
                assert_eq!(reply, None, "the member waits for others");
                None
            }
        }
    });
    let outcomes: Vec<_> = outcomes.collect();
    let accepted = outcomes.iter().take_while(|error| error.is_none()).count();
    assert!((2..40).contains(&accepted), "{outcomes:?}");
    assert!(outcomes[accepted..].iter().all(|error| *error == Some(GroupError::GroupMaxSizeReached)));
}

#[test]
fn existing_members_can_rejoin_a_group_that_has_reached_its_memory_limit() {
    let mut harness = Harness::new();
    let big = |member: &str, bytes: usize| JoinRequest {
        protocols: vec![("p".into(), Bytes::from(vec![0; bytes]))],
        ..join("g", member)
    };
    let share = limits::GROUP_BYTES_MAX / 3;
    let assignment = vec![0; limits::GROUP_BYTES_MAX / 7];
    let mut ids = [String::new(), String::new()];
    for generation in 1..4 {
        let tokens = ids.each_ref().map(|id| harness.send(GroupRequest::Join(big(id, share))));
        harness.advance(if generation == 1 { 6_000 } else { 0 });
        let mut joined = tokens.map(|token| harness.joined(token));
        assert_eq!(joined.each_ref().map(|j| (j.error, j.generation)), [(None, generation); 2]);
        joined.sort_by_key(|j| j.member != j.leader);
        ids = joined.each_ref().map(|j| j.member.clone());
        let synced = harness.sync(&joined[0], "g", &ids.each_ref().map(|id| (id.as_str(), &assignment[..])));
        assert_eq!(harness.synced(synced).error, None);
    }
    let token = harness.send(GroupRequest::Join(big(&ids[0], share + assignment.len())));
    assert_eq!(harness.joined(token).error, Some(GroupError::GroupMaxSizeReached));
}

#[test]
fn names_are_limited_and_use_memory_until_the_group_is_deleted() {
    let mut harness = Harness::new();
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let too_long = [
        JoinRequest { protocol_type: long.clone(), ..join("g", "") },
        JoinRequest { protocols: vec![(long, Bytes::new())], ..join("g", "") },
    ];
    for request in too_long {
        let token = harness.send(GroupRequest::Join(request));
        assert_eq!(harness.joined(token).error, Some(GroupError::InvalidRequest));
    }
    let name = "n".repeat(limits::NAME_BYTES_MAX);
    let kind = "t".repeat(limits::NAME_BYTES_MAX);
    let token = harness.send(GroupRequest::Join(JoinRequest { protocol_type: kind, ..join(&name, "") }));
    harness.advance(6_000);
    let member = harness.joined(token).member;
    assert_eq!(harness.leave(&name, &[(&member, None)]), [None]);
    let mut a = test_member("modern", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    a.request.epoch = GroupEpoch(-1);
    a.send_heartbeat(&mut harness);
    harness.commit(commit("offsets only", "", -1, 1));
    let bytes = harness.coordinator.members_bytes;
    assert!(bytes > 2 * limits::NAME_BYTES_MAX + "modern".len(), "{bytes}");
    harness.crash();
    assert_eq!(harness.coordinator.members_bytes, bytes);
    for group in [&name, "modern"] {
        harness.call(GroupRequest::Delete(vec![group.to_owned()]));
    }
    assert_eq!(harness.coordinator.members_bytes, 0);
}
