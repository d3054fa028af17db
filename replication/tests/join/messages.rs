//! The bytes of the messages.

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    ADDRESS_BYTES_MAX, DiskId, JoinReply, JoinRequest, Membership, NotNow, REASON_BYTES_MAX, SeedList,
};
use highwater_replication::peer::PeerError;
use highwater_replication::peer::limits::HELLO_BODY_BYTES_MAX;

fn request() -> JoinRequest {
    JoinRequest {
        disk: DiskId([7; 16]),
        seeds: SeedList::of(["a:9193", "b:9193"]),
        node: Some(NodeId(3)),
        address: "a:9193".into(),
    }
}

fn replies() -> Vec<JoinReply> {
    let cluster = ClusterId([9; 16]);
    vec![
        JoinReply::Welcome(Membership { cluster, node: NodeId(2), incarnation: 1, founder: NodeId(4) }),
        JoinReply::WithoutCluster { disk: DiskId([1; 16]), seeds: SeedList(5) },
        JoinReply::Ask("b:9193".into()),
        JoinReply::NotNow(NotNow::NoLeader),
        JoinReply::NotNow(NotNow::Starting),
        JoinReply::NotNow(NotNow::StillRunning),
        JoinReply::NotNow(NotNow::Other(200)),
        JoinReply::Refused("because".into()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn messages_are_decoded_as_they_were_encoded() {
    let wanted = [request(), JoinRequest { node: None, ..request() }];
    for request in wanted {
        assert_eq!(JoinRequest::take(&request.encode()), Ok(Some(request)));
    }
    for reply in replies() {
        assert_eq!(JoinReply::take(&reply.encode()), Ok(Some(reply)));
    }
}

#[test]
fn a_request_has_the_documented_bytes() {
    let golden = "2d 00 00 00 CRC 00 00 00 00 0c 00 00 00 48 57 50 45 45 52 0d 0a 01 00 \
                  07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 SEEDS 01 03 00 00 00 06 00 00 00 61 3a 39 31 39 33";
    let encoded = request().encode();
    let golden =
        golden.replace("CRC", &hex(&encoded[4..8])).replace("SEEDS", &hex(&request().seeds.0.to_le_bytes()));
    assert_eq!(hex(&encoded), golden.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(request().seeds, SeedList(crc32c::crc32c(b"a:9193\nb:9193\n")));
}

#[test]
fn a_message_that_is_not_complete_waits_for_more_and_a_changed_one_is_refused() {
    let bytes = request().encode();
    for end in 0..bytes.len() {
        assert_eq!(JoinRequest::take(&bytes[..end]), Ok(None), "{end} bytes");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let outcome = JoinRequest::take(&changed);
        assert!(matches!(outcome, Err(_) | Ok(None)), "byte {at}: {outcome:?}");
    }
    assert_eq!(JoinReply::take(&bytes), Err(PeerError::NotAPeer), "a request is no reply");
}

#[test]
fn the_longest_messages_fit_into_the_first_receives_of_a_connection() {
    let address = "a".repeat(ADDRESS_BYTES_MAX);
    let longest = JoinRequest { address: address.clone(), ..request() };
    assert_eq!(JoinRequest::take(&longest.encode()), Ok(Some(longest.clone())));
    assert!(longest.encode().len() < HELLO_BODY_BYTES_MAX);
    let ask = JoinReply::Ask(address);
    assert_eq!(JoinReply::take(&ask.encode()), Ok(Some(ask)));
}

#[test]
fn a_reason_that_is_too_long_is_cut_off_between_characters() {
    let reply = JoinReply::Refused("ä".repeat(REASON_BYTES_MAX));
    let Ok(Some(JoinReply::Refused(reason))) = JoinReply::take(&reply.encode()) else { panic!("decoded") };
    assert_eq!(reason, "ä".repeat(REASON_BYTES_MAX / 2));
}

#[test]
fn lists_of_seeds_differ_by_names_and_order() {
    let list = SeedList::of(["a:1", "b:1"]);
    assert_eq!(list, SeedList::of(["a:1", "b:1"]));
    for other in [SeedList::of(["b:1", "a:1"]), SeedList::of(["a:1"]), SeedList::of(["a:1b", ":1"])] {
        assert_ne!(list, other);
    }
}
