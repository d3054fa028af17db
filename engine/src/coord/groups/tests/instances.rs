//! Static members of the classic protocol (KIP-345).

use super::*;

fn fixed(instance: &str, member: &str) -> JoinRequest {
    JoinRequest {
        instance: Some(instance.into()),
        requires_member_id: true,
        can_skip_assignment: true,
        ..join("g", member)
    }
}

/// Makes a stable group of static members "a" (the leader) and "b".
fn two(desk: &mut Desk) -> [JoinReply; 2] {
    let tokens = ["a", "b"].map(|i| desk.ask(GroupRequest::Join(fixed(i, ""))));
    desk.pass(6_000);
    let joined = tokens.map(|t| desk.joined(t));
    assert_eq!(joined[0].leader, joined[0].member);
    desk.sync_all("g", &joined);
    joined
}

#[test]
fn a_restarted_static_member_keeps_its_assignment_without_a_rebalance() {
    let mut desk = Desk::new();
    let before = two(&mut desk);
    let token = desk.ask(GroupRequest::Join(fixed("b", "")));
    let after = desk.joined(token);
    assert_eq!((after.error, after.generation, after.skip_assignment), (None, 1, false));
    assert_ne!(after.member, before[1].member);
    assert_eq!(desk.state("g"), "Stable");
    let token = desk.sync(&after, "g", &[]);
    assert_eq!(&desk.synced(token).assignment[..], [1]);
}

#[test]
fn a_replaced_static_member_is_fenced() {
    let mut desk = Desk::new();
    let before = two(&mut desk);
    desk.ask(GroupRequest::Join(fixed("b", "")));
    let request = HeartbeatRequest {
        group: "g".into(),
        member: before[1].member.clone(),
        instance: Some("b".into()),
        generation: 1,
    };
    assert_eq!(
        desk.call(GroupRequest::Heartbeat(request)),
        GroupReply::Heartbeat(Some(GroupError::FencedInstanceId))
    );
    let token = desk.ask(GroupRequest::Join(fixed("b", &before[1].member)));
    assert_eq!(desk.joined(token).error, Some(GroupError::FencedInstanceId));
    let fenced = CommitRequest { instance: Some("b".into()), ..commit("g", &before[1].member, 1, 1) };
    assert_eq!(desk.commit(fenced), Some(GroupError::FencedInstanceId));
}

#[test]
fn a_restarted_static_leader_skips_the_assignment() {
    let mut desk = Desk::new();
    two(&mut desk);
    let token = desk.ask(GroupRequest::Join(fixed("a", "")));
    let after = desk.joined(token);
    assert!(after.skip_assignment && after.leader == after.member && after.members.len() == 2);
}

#[test]
fn a_restarted_static_leader_with_an_old_client_acts_as_a_follower() {
    let mut desk = Desk::new();
    let before = two(&mut desk);
    let old = JoinRequest { can_skip_assignment: false, ..fixed("a", "") };
    let token = desk.ask(GroupRequest::Join(old));
    let after = desk.joined(token);
    assert_eq!((after.leader, after.members.len()), (before[0].member.clone(), 0));
}

#[test]
fn a_restarted_static_member_with_another_protocol_starts_a_new_generation() {
    let mut desk = Desk::new();
    let request = |protocols: &[&'static str]| JoinRequest {
        protocols: protocols.iter().map(|p| ((*p).to_owned(), Bytes::new())).collect(),
        ..fixed("a", "")
    };
    let token = desk.ask(GroupRequest::Join(request(&["x", "y"])));
    desk.pass(6_000);
    let joined = [desk.joined(token)];
    desk.sync_all("g", &joined);
    let token = desk.ask(GroupRequest::Join(request(&["y", "x"])));
    let after = desk.joined(token);
    assert_eq!((after.generation, after.protocol.as_deref()), (2, Some("y")));
}

#[test]
fn a_static_member_that_replaces_a_waiting_one_fences_it() {
    let mut desk = Desk::new();
    let early = desk.ask(GroupRequest::Join(fixed("a", "")));
    let late = desk.ask(GroupRequest::Join(fixed("a", "")));
    assert_eq!(desk.joined(early).error, Some(GroupError::FencedInstanceId));
    desk.pass(6_000);
    assert_eq!(desk.joined(late).error, None);
}

#[test]
fn a_static_member_stays_in_the_group_until_its_session_expires() {
    let mut desk = Desk::new();
    let before = two(&mut desk);
    // Only "a" sends heartbeats.
    desk.pass(SESSION_MS as u64 - 1);
    let request = HeartbeatRequest {
        group: "g".into(),
        member: before[0].member.clone(),
        instance: Some("a".into()),
        generation: 1,
    };
    assert_eq!(desk.call(GroupRequest::Heartbeat(request.clone())), GroupReply::Heartbeat(None));
    desk.pass(1);
    let reply = desk.call(GroupRequest::Heartbeat(request));
    assert_eq!(reply, GroupReply::Heartbeat(Some(GroupError::RebalanceInProgress)));
}

#[test]
fn an_administrator_can_remove_static_members_by_instance_id() {
    let mut desk = Desk::new();
    let before = two(&mut desk);
    let outcomes = desk.leave("g", &[("", Some("b")), ("", Some("nobody")), (&before[1].member, Some("a"))]);
    assert_eq!(outcomes, [None, Some(GroupError::UnknownMemberId), Some(GroupError::FencedInstanceId)]);
    assert_eq!(desk.state("g"), "PreparingRebalance");
    assert_eq!(desk.leave("none", &[("x", None)]), [Some(GroupError::UnknownMemberId)]);
}

#[test]
fn a_static_member_without_a_rebalance_timeout_uses_its_session_timeout() {
    for timeout in [0, -1] {
        let mut desk = Desk::new();
        let request = JoinRequest { rebalance_timeout_ms: timeout, ..fixed("a", "") };
        let tokens = [request, fixed("b", "")].map(|request| desk.ask(GroupRequest::Join(request)));
        desk.pass(6_000);
        let joined = tokens.map(|t| desk.joined(t));
        desk.sync_all("g", &joined);
        assert_eq!(desk.leave("g", &[("", Some("b"))]), [None]);
        // The group waits for the remaining member, which does not rejoin.
        desk.pass(SESSION_MS as u64 - 1);
        assert_eq!(desk.state("g"), "PreparingRebalance");
        desk.pass(1);
        assert_eq!(desk.state("g"), "Empty");
    }
}

#[test]
fn a_static_member_that_replaces_a_new_one_does_not_expire_while_it_waits() {
    let mut desk = Desk::new();
    two(&mut desk);
    let early = desk.ask(GroupRequest::Join(fixed("c", "")));
    let late = desk.ask(GroupRequest::Join(fixed("c", "")));
    assert_eq!(desk.joined(early).error, Some(GroupError::FencedInstanceId));
    // The other two send heartbeats, but join late.
    let joins = desk.ms + 4 * SESSION_MS as u64;
    while desk.ms < joins {
        for instance in ["a", "b"] {
            let member = desk.member_of("g", instance);
            assert_eq!(desk.heartbeat("g", &member, 1), Some(GroupError::RebalanceInProgress));
        }
        desk.pass(SESSION_MS as u64 / 2);
        assert!(desk.reply(late).is_none());
    }
    for instance in ["a", "b"] {
        let member = desk.member_of("g", instance);
        desk.ask(GroupRequest::Join(fixed(instance, &member)));
    }
    let joined = desk.joined(late);
    assert_eq!((joined.error, joined.generation), (None, 2));
}
