//! A peer channel: whatever the pieces in which bytes arrive, the same events or the same refusal.
#![no_main]

use highwater_protocol::ids::{ClusterId, NodeId, ShardId};
use highwater_replication::join::{JoinReply, JoinRequest};
use highwater_replication::peer::{
    Channel, Event, Frames, Hello, Kind, Local, PEER_HEADER_BYTES, PeerHeader, PeerShard, Settings,
};
use highwater_runtime::plane::Instant;
use libfuzzer_sys::fuzz_target;
use zerocopy::IntoBytes as _;

const NOW: Instant = Instant(1);

fn local(node: u32) -> Local {
    let me = PeerShard { node: NodeId(node), shard: ShardId(0) };
    Local { cluster: ClusterId([1; 16]), me, incarnation: 0, shards: 1, process: 1 }
}

/// The input as messages: the kind and the length of each, and its body. Otherwise hardly any would have a checksum.
fn messages(mut input: &[u8], session: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut sequence = 1;
    while let [kind, len, large, rest @ ..] = input {
        let len = (usize::from(*len) | usize::from(*large & 3) << 8).min(rest.len());
        let (body, rest) = rest.split_at(len);
        input = rest;
        if kind & 0x80 != 0 {
            // Frames, or what a peer takes for a header.
            stream.extend(body);
            continue;
        }
        let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
        let header = PeerHeader::new(kind, session, sequence, body);
        stream.extend(header.as_bytes());
        stream.extend(body);
        sequence += 1;
    }
    stream
}

/// A channel that has accepted a hello, and the tag of its session.
fn accepted() -> (Channel, u32) {
    let hello = Hello::new(&local(1), local(2).me, 1, 5);
    let mut channel = Channel::accept(local(2), Settings::default(), &hello, 1, 6, NOW);
    let reply: Vec<u8> = std::iter::from_fn(|| channel.poll_output(NOW)).flatten().collect();
    // The answer to the hello has no tag, and the credit after it has.
    let body = PeerHeader::parse(&reply).expect("a reply").body_bytes.get() as usize;
    let credit = PeerHeader::parse(&reply[PEER_HEADER_BYTES + body..]).expect("credit");
    (channel, credit.session.get())
}

fn shown(event: &Event) -> String {
    let sums = |frames: &[Frames]| {
        let bytes: Vec<u8> = frames.iter().flat_map(|frames| frames.bytes().to_vec()).collect();
        let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        format!("{} bytes {sum}", bytes.len())
    };
    match event {
        Event::Message(m) => {
            format!("{:?} {:?} {} {}", m.envelope, m.start_offset, m.partition, sums(&m.frames))
        }
        Event::Repair(r) => format!("{}..{} {} {}", r.first, r.until, r.partition, sums(&r.frames)),
        event => format!("{event:?}"),
    }
}

/// What comes out of `bytes` in pieces of `piece`; if `lends`, large frames go straight into their pages.
fn receive(bytes: &[u8], piece: usize, lends: bool) -> Vec<String> {
    let (mut channel, _) = accepted();
    let mut told = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let lent = if lends { channel.lend_pages() } else { None };
        if let Some(mut lent) = lent {
            let Some((now, left)) = rest.split_at_checked(lent.end - lent.filled) else { return told };
            lent.pages[lent.filled..lent.end].copy_from_slice(now);
            rest = left;
            channel.return_pages(NOW, lent.pages);
        } else {
            let (now, left) = rest.split_at(piece.min(rest.len()));
            rest = left;
            channel.handle_bytes(NOW, now);
        }
        told.extend(std::iter::from_fn(|| channel.poll_event()).map(|event| shown(&event)));
    }
    told
}

fuzz_target!(|input: &[u8]| {
    let _ = (Hello::take(input), JoinRequest::take(input), JoinReply::take(input));
    let [piece, input @ ..] = input else { return };
    let stream = messages(input, accepted().1);
    let whole = receive(&stream, usize::MAX, false);
    let piece = usize::from(*piece) + 1;
    assert_eq!(receive(&stream, piece, false), whole);
    let lent = receive(&stream, piece, true);
    // Pages that were lent and did not become full end it early.
    assert_eq!(lent, whole[..lent.len()]);
});
