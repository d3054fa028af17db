//! Which node the sender of a request becomes.

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    Admission, AdmissionError, DiskId, JoinRequest, MemberNode, Registration, SeedList, admit,
};

/// Members 0 (at a:1, running), 1 (at b:1, not running) and 3 (at c:1, not running).
fn members() -> [MemberNode<'static>; 3] {
    let member = |id, address, incarnation| MemberNode {
        node: NodeId(id),
        disk: disk(id as u8),
        incarnation,
        address,
    };
    [member(0, "a:1", 0), member(1, "b:1", 2), member(3, "c:1", u32::MAX - 1)]
}

fn disk(number: u8) -> DiskId {
    DiskId([number + 1; 16])
}

#[track_caller]
fn check(disk: DiskId, node: Option<u32>, address: &str, expected: Result<Admission, AdmissionError>) {
    let registration = Registration { address: address.to_owned(), ..Registration::default() };
    let request =
        JoinRequest { disk, seeds: SeedList(0), node: node.map(NodeId), member_of: None, registration };
    let outcome = admit(&members(), |node| node == NodeId(0), &request);
    match expected {
        Ok(expected) => assert_eq!(outcome, Ok(expected)),
        Err(expected) => assert_eq!(outcome, Err(expected)),
    }
}

#[test]
fn a_member_that_asks_again_is_that_member() {
    check(disk(1), None, "b:1", Ok(Admission::Member(NodeId(1), 2)));
    check(disk(1), Some(1), "elsewhere:1", Ok(Admission::Member(NodeId(1), 2)));
}

#[test]
fn a_members_disk_does_not_become_another_node() {
    let error = AdmissionError::OtherId { node: NodeId(1), wanted: NodeId(7) };
    check(disk(1), Some(7), "b:1", Err(error));
}

#[test]
fn an_id_is_not_taken_from_a_node_that_runs() {
    let error = AdmissionError::IsRunning { node: NodeId(0), address: "a:1".into() };
    check(disk(9), Some(0), "d:1", Err(error));
    check(disk(9), None, "a:1", Err(AdmissionError::StillRunning(NodeId(0))));
}

#[test]
fn a_replaced_disk_is_the_next_incarnation_of_its_node() {
    check(disk(9), Some(1), "d:1", Ok(Admission::Register(NodeId(1), 3)));
    check(disk(9), None, "b:1", Ok(Admission::Register(NodeId(1), 3)));
}

#[test]
fn a_new_node_gets_the_id_that_it_wants_or_the_smallest_free_one() {
    check(disk(9), Some(7), "d:1", Ok(Admission::Register(NodeId(7), 0)));
    check(disk(9), None, "d:1", Ok(Admission::Register(NodeId(2), 0)));
}

#[test]
fn a_member_whose_disk_was_replaced_is_not_admitted_anew() {
    let registration = Registration { address: "b:1".into(), ..Registration::default() };
    let member_of = Some(ClusterId([1; 16]));
    let request = |disk| JoinRequest {
        disk,
        seeds: SeedList(0),
        node: Some(NodeId(1)),
        member_of,
        registration: registration.clone(),
    };
    let admitted = |disk| admit(&members(), |_| false, &request(disk));
    assert_eq!(admitted(disk(9)), Err(AdmissionError::Replaced));
    assert_eq!(admitted(disk(1)), Ok(Admission::Member(NodeId(1), 2)));
}

#[test]
fn impossible_requests_are_refused() {
    check(DiskId::default(), None, "d:1", Err(AdmissionError::NoDisk));
    let id = NodeId(1 << 31);
    check(disk(9), Some(id.0), "d:1", Err(AdmissionError::InvalidId(id)));
    check(disk(9), Some(3), "d:1", Err(AdmissionError::OutOfIncarnations(NodeId(3))));
}
