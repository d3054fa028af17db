//! Static members of the classic protocol (KIP-345).

use super::*;

fn static_join(instance: &str, member: &str) -> JoinRequest {
    JoinRequest {
        instance: Some(instance.into()),
        requires_member_id: true,
        can_skip_assignment: true,
        ..join("g", member)
    }
}

/// Makes a stable group of static members "a" (the leader) and "b".
fn two_members(harness: &mut Harness) -> [JoinReply; 2] {
    let tokens = ["a", "b"].map(|i| harness.send(GroupRequest::Join(static_join(i, ""))));
    harness.advance(6_000);
    let joined = tokens.map(|t| harness.joined(t));
    assert_eq!(joined[0].leader, joined[0].member);
    harness.sync_all("g", &joined);
    joined
}

#[test]
fn a_restarted_static_member_keeps_its_assignment_without_a_rebalance() {
    let mut harness = Harness::new();
    let before = two_members(&mut harness);
    let token = harness.send(GroupRequest::Join(static_join("b", "")));
    let after = harness.joined(token);
    assert_eq!((after.error, after.generation, after.skip_assignment), (None, 1, false));
    assert_ne!(after.member, before[1].member);
    assert_eq!(harness.state("g"), "Stable");
    let token = harness.sync(&after, "g", &[]);
    assert_eq!(&harness.synced(token).assignment[..], [1]);
}

#[test]
fn a_replaced_static_member_is_fenced() {
    let mut harness = Harness::new();
    let before = two_members(&mut harness);
    harness.send(GroupRequest::Join(static_join("b", "")));
    let request = HeartbeatRequest {
        group: "g".into(),
        member: before[1].member.clone(),
        instance: Some("b".into()),
        generation: 1,
    };
    assert_eq!(
        harness.call(GroupRequest::Heartbeat(request)),
        GroupReply::Heartbeat(Some(GroupError::FencedInstanceId))
    );
    let token = harness.send(GroupRequest::Join(static_join("b", &before[1].member)));
    assert_eq!(harness.joined(token).error, Some(GroupError::FencedInstanceId));
    let fenced = CommitRequest { instance: Some("b".into()), ..commit("g", &before[1].member, 1, 1) };
    assert_eq!(harness.commit(fenced), Some(GroupError::FencedInstanceId));
}

#[test]
fn a_restarted_static_leader_skips_the_assignment() {
    let mut harness = Harness::new();
    two_members(&mut harness);
    let token = harness.send(GroupRequest::Join(static_join("a", "")));
    let after = harness.joined(token);
    assert!(after.skip_assignment && after.leader == after.member && after.members.len() == 2);
}

#[test]
fn a_restarted_static_leader_with_an_old_client_acts_as_a_follower() {
    let mut harness = Harness::new();
    let before = two_members(&mut harness);
    let old = JoinRequest { can_skip_assignment: false, ..static_join("a", "") };
    let token = harness.send(GroupRequest::Join(old));
    let after = harness.joined(token);
    assert_eq!((after.leader, after.members.len()), (before[0].member.clone(), 0));
}

#[test]
fn a_restarted_static_member_with_another_protocol_starts_a_new_generation() {
    let mut harness = Harness::new();
    let request = |protocols: &[&'static str]| JoinRequest {
        protocols: protocols.iter().map(|p| ((*p).to_owned(), Bytes::new())).collect(),
        ..static_join("a", "")
    };
    let token = harness.send(GroupRequest::Join(request(&["x", "y"])));
    harness.advance(6_000);
    let joined = [harness.joined(token)];
    harness.sync_all("g", &joined);
    let token = harness.send(GroupRequest::Join(request(&["y", "x"])));
    let after = harness.joined(token);
    assert_eq!((after.generation, after.protocol.as_deref()), (2, Some("y")));
}

#[test]
fn a_static_member_that_replaces_a_waiting_one_fences_it() {
    let mut harness = Harness::new();
    let early = harness.send(GroupRequest::Join(static_join("a", "")));
    let late = harness.send(GroupRequest::Join(static_join("a", "")));
    assert_eq!(harness.joined(early).error, Some(GroupError::FencedInstanceId));
    harness.advance(6_000);
    assert_eq!(harness.joined(late).error, None);
}

#[test]
fn a_static_member_stays_in_the_group_until_its_session_expires() {
    let mut harness = Harness::new();
    let before = two_members(&mut harness);
    // Only "a" sends heartbeats.
    harness.advance(SESSION_MS as u64 - 1);
    let request = HeartbeatRequest {
        group: "g".into(),
        member: before[0].member.clone(),
        instance: Some("a".into()),
        generation: 1,
    };
    assert_eq!(harness.call(GroupRequest::Heartbeat(request.clone())), GroupReply::Heartbeat(None));
    harness.advance(1);
    let reply = harness.call(GroupRequest::Heartbeat(request));
    assert_eq!(reply, GroupReply::Heartbeat(Some(GroupError::RebalanceInProgress)));
}

#[test]
fn an_administrator_can_remove_static_members_by_instance_id() {
    let mut harness = Harness::new();
    let before = two_members(&mut harness);
    let outcomes =
        harness.leave("g", &[("", Some("b")), ("", Some("nobody")), (&before[1].member, Some("a"))]);
    assert_eq!(outcomes, [None, Some(GroupError::UnknownMemberId), Some(GroupError::FencedInstanceId)]);
    assert_eq!(harness.state("g"), "PreparingRebalance");
    assert_eq!(harness.leave("none", &[("x", None)]), [Some(GroupError::UnknownMemberId)]);
}

#[test]
fn a_static_member_without_a_rebalance_timeout_uses_its_session_timeout() {
    for timeout in [0, -1] {
        let mut harness = Harness::new();
        let request = JoinRequest { rebalance_timeout_ms: timeout, ..static_join("a", "") };
        let tokens = [request, static_join("b", "")].map(|request| harness.send(GroupRequest::Join(request)));
        harness.advance(6_000);
        let joined = tokens.map(|t| harness.joined(t));
        harness.sync_all("g", &joined);
        assert_eq!(harness.leave("g", &[("", Some("b"))]), [None]);
        // The group waits for the remaining member, which does not rejoin.
        harness.advance(SESSION_MS as u64 - 1);
        assert_eq!(harness.state("g"), "PreparingRebalance");
        harness.advance(1);
        assert_eq!(harness.state("g"), "Empty");
    }
}

#[test]
fn a_static_member_that_replaces_a_new_one_does_not_expire_while_it_waits() {
    let mut harness = Harness::new();
    two_members(&mut harness);
    let early = harness.send(GroupRequest::Join(static_join("c", "")));
    let late = harness.send(GroupRequest::Join(static_join("c", "")));
    assert_eq!(harness.joined(early).error, Some(GroupError::FencedInstanceId));
    // The other two send heartbeats, but join late.
    let joins = harness.ms + 4 * SESSION_MS as u64;
    while harness.ms < joins {
        for instance in ["a", "b"] {
            let member = harness.member_of("g", instance);
            assert_eq!(harness.heartbeat("g", &member, 1), Some(GroupError::RebalanceInProgress));
        }
        harness.advance(SESSION_MS as u64 / 2);
        assert!(harness.reply(late).is_none());
    }
    for instance in ["a", "b"] {
        let member = harness.member_of("g", instance);
        harness.send(GroupRequest::Join(static_join(instance, &member)));
    }
    let joined = harness.joined(late);
    assert_eq!((joined.error, joined.generation), (None, 2));
}
