//! The bytes of the messages.

use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::join::{
    ADDRESS_BYTES_MAX, CLIENT_ADDRESSES_MAX, CONTACTS_MAX, ClientListener, Contact, DiskId, JoinReply,
    JoinRequest, Membership, NotNow, RACK_BYTES_MAX, REASON_BYTES_MAX, Registration, SeedList,
};
use highwater_replication::peer::PeerError;

fn request() -> JoinRequest {
    JoinRequest {
        disk: DiskId([7; 16]),
        seeds: SeedList::of(["a:9193", "b:9193"]),
        node: Some(NodeId(3)),
        member_of: None,
        registration: registration(),
    }
}

fn registration() -> Registration {
    Registration {
        address: "a:9193".into(),
        shards: 2,
        rack: Some("r".into()),
        clients: vec![ClientListener { protocol: 1, address: "a:9092".into() }],
    }
}

fn contact(address: &str) -> Contact {
    Contact { node: NodeId(4), incarnation: 1, shards: 3, address: address.into() }
}

fn replies() -> Vec<JoinReply> {
    let cluster = ClusterId([9; 16]);
    let membership = Membership { cluster, node: NodeId(2), incarnation: 1, founder: NodeId(4) };
    vec![
        JoinReply::Welcome(membership, Vec::new()),
        JoinReply::Welcome(membership, vec![contact("a:9193"), contact("b:9193")]),
        JoinReply::WithoutCluster { disk: DiskId([1; 16]), seeds: SeedList(5) },
        JoinReply::Ask("b:9193".into()),
        JoinReply::NotNow(NotNow::NoLeader),
        JoinReply::NotNow(NotNow::Starting),
        JoinReply::NotNow(NotNow::StillRunning),
        JoinReply::NotNow(NotNow::DiskFull),
        JoinReply::NotNow(NotNow::Other(200)),
        JoinReply::Refused("because".into()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn messages_are_decoded_as_they_were_encoded() {
    let bare = Registration { rack: None, clients: Vec::new(), ..registration() };
    let wanted = [
        request(),
        JoinRequest { node: None, ..request() },
        JoinRequest { member_of: Some(ClusterId([9; 16])), ..request() },
        JoinRequest { registration: bare, ..request() },
    ];
    for request in wanted {
        assert_eq!(JoinRequest::take(&request.encode()), Ok(Some(request)));
    }
    for reply in replies() {
        assert_eq!(JoinReply::take(&reply.encode()), Ok(Some(reply)));
    }
}

#[test]
fn a_request_has_the_documented_bytes() {
    let golden = "45 00 00 00 CRC 00 00 00 00 0c 00 00 00 48 57 50 45 45 52 0d 0a 01 00 \
                  07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 SEEDS 01 03 00 00 00 00 06 00 00 00 61 3a 39 31 39 33 \
                  02 00 01 01 00 00 00 72 01 00 00 00 01 06 00 00 00 61 3a 39 30 39 32";
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
fn the_longest_messages_are_decoded() {
    let address = "a".repeat(ADDRESS_BYTES_MAX);
    let client = ClientListener { protocol: 0, address: address.clone() };
    let rack = Some("r".repeat(RACK_BYTES_MAX));
    let clients = vec![client; CLIENT_ADDRESSES_MAX];
    let registration = Registration { address: address.clone(), shards: u16::MAX, rack, clients };
    let longest = JoinRequest { registration, ..request() };
    assert_eq!(JoinRequest::take(&longest.encode()), Ok(Some(longest.clone())));
    let JoinReply::Welcome(membership, _) = replies().swap_remove(0) else { panic!("a welcome") };
    let welcome = JoinReply::Welcome(membership, vec![contact(&address); CONTACTS_MAX]);
    assert_eq!(JoinReply::take(&welcome.encode()), Ok(Some(welcome)));
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
