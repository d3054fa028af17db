//! Peers that send anything: the channel is closed with a reason, and nothing else happens.

use highwater_protocol::ids::LogIndex;
use highwater_replication::peer::limits::ENTRY_FRAMES_BYTES_MAX;
use highwater_replication::peer::{
    CloseReason, Event, Kind, PEER_HEADER_BYTES, PeerError, PeerHeader, Settings,
};
use highwater_replication::raft::Envelope;
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;
use zerocopy::IntoBytes as _;
use zerocopy::byteorder::little_endian::{U16, U32};

use crate::pipe::{Pipe, START, output};
use crate::samples::{append_with_frames, appended, leader_news, message, partition, replica, send};

const SEEDS: u64 = 3000;

/// The valid messages of a few turns, each with its header.
fn messages(rng: &mut SimRng, pipe: &mut Pipe) -> Vec<u8> {
    let channel = &mut pipe.ends[0].channel;
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        for _ in 0..rng.random_range(1..6) {
            let number = rng.random_range(0..4);
            let (message, frames) =
                if rng.random_bool(0.4) { append_with_frames(rng) } else { (message(rng), Vec::new()) };
            let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message };
            send(channel, number, envelope, frames);
        }
        if rng.random_bool(0.1) {
            channel.send_leaders(&leader_news(rng));
        }
        bytes.extend(output(channel, START));
    }
    bytes
}

/// Changes bytes of a message's body, or its kind, and gives it a valid checksum again.
fn damage(rng: &mut SimRng, bytes: &mut Vec<u8>) {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(header) = PeerHeader::parse(&bytes[at..]) {
        let end = at + PEER_HEADER_BYTES + header.body_bytes.get() as usize;
        let known = Kind::from_u16(header.kind.get()).is_some();
        if !known
            || end > bytes.len()
            || header.crc.get() != header.checksum(&bytes[at + PEER_HEADER_BYTES..end])
        {
            break;
        }
        starts.push((at, end));
        at = end;
        // The frames of a group have no header.
        if header.kind.get() == Kind::Group as u16 {
            break;
        }
    }
    let Some((at, end)) = (!starts.is_empty()).then(|| starts[rng.random_range(0..starts.len())]) else {
        return;
    };
    let mut header = PeerHeader::parse(&bytes[at..]).expect("it was there");
    let mut body = bytes[at + PEER_HEADER_BYTES..end].to_vec();
    match rng.random_range(0..10) {
        0 => header.kind = U16::new(rng.random_range(0..17)),
        1 => {
            body.truncate(rng.random_range(0..=body.len()));
        }
        2 => body.extend(std::iter::repeat_n(rng.random::<u8>(), rng.random_range(1..100))),
        _ if body.is_empty() => {}
        _ => {
            for _ in 0..rng.random_range(1..4) {
                let place = rng.random_range(0..body.len());
                body[place] = if rng.random() { rng.random() } else { 0xff };
            }
        }
    }
    header.body_bytes = U32::new(body.len() as u32);
    header.crc = U32::new(header.checksum(&body));
    let message = [header.as_bytes(), &body].concat();
    bytes.splice(at..end, message);
}

#[test]
fn a_channel_survives_whatever_a_peer_sends() {
    let mut violations = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let mut rng = stream(seed, "nonsense", 0);
        let mut pipe = Pipe::new(Settings::default(), 1, START);
        let mut bytes = messages(&mut rng, &mut pipe);
        for _ in 0..rng.random_range(1..3) {
            damage(&mut rng, &mut bytes);
        }
        let end = &mut pipe.ends[1];
        end.inbox = bytes;
        let piece = rng.random_range(1..5000);
        let lends = rng.random();
        while !end.inbox.is_empty() {
            let before = end.inbox.len();
            end.receive(START, piece, lends);
            if end.inbox.len() == before {
                break;
            }
        }
        assert!(end.channel.held_bytes() <= Settings::default().credit_bytes + ENTRY_FRAMES_BYTES_MAX as u64);
        for event in end.events() {
            if let Event::Closed(reason) = event {
                let text = reason.to_string();
                let kind = text.split([' ', ':']).take(6).collect::<Vec<_>>().join(" ");
                assert!(matches!(reason, CloseReason::Violation(_) | CloseReason::Goodbye { .. }), "{text}");
                *violations.entry(kind).or_insert(0) += 1;
            }
        }
    }
    println!("{violations:#?}");
    assert!(violations.len() > 10, "{violations:?}");
}

#[test]
fn bytes_at_random_close_the_channel() {
    for seed in 0..200 {
        let mut rng = stream(seed, "bytes", 0);
        let mut pipe = Pipe::new(Settings::default(), 1, START);
        let bytes: Vec<u8> = (0..rng.random_range(16..2000)).map(|_| rng.random()).collect();
        pipe.ends[1].channel.handle_bytes(START, &bytes);
        assert!(pipe.ends[1].channel.is_closed(), "seed {seed}");
    }
}

/// Sends one message with this kind and body to a channel with a handle 0. Returns why it was closed.
fn reason(kind: Kind, body: &[u8]) -> Option<PeerError> {
    let mut pipe = Pipe::new(Settings { credit_bytes: 100, ..Settings::default() }, 1, START);
    let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message: appended(1, 1) };
    pipe.ends[0].channel.send(partition(0), envelope, Vec::new());
    pipe.settle();
    // A heartbeat shows the header of the next message.
    pipe.ends[0]
        .channel
        .handle_deadline(START.after(highwater_replication::peer::limits::HEARTBEAT_INTERVAL));
    let next = output(&mut pipe.ends[0].channel, START);
    let mut header = PeerHeader::parse(&next).expect("a heartbeat");
    header.kind = U16::new(kind as u16);
    header.body_bytes = U32::new(body.len() as u32);
    header.crc = U32::new(header.checksum(body));
    pipe.ends[1].events();
    pipe.ends[1].channel.handle_bytes(START, &[header.as_bytes(), body].concat());
    pipe.ends[1].events().into_iter().find_map(|event| match event {
        Event::Closed(CloseReason::Violation(error)) => Some(error),
        _ => None,
    })
}

#[test]
fn each_rule_has_its_own_error() {
    assert_eq!(reason(Kind::Heartbeat, &[]), None);
    let kind = Kind::Hello;
    assert_eq!(reason(kind, &[]), Some(PeerError::Unexpected { kind, when: "after the handshake" }));
    let kind = Kind::Acks;
    assert_eq!(reason(kind, &[2, 0, 2]), Some(PeerError::UnboundHandle { kind, handle: 1 }));
    let error = reason(kind, &[0, 2, 1 << 1 | 1]);
    assert!(matches!(error, Some(PeerError::LogEnd { end, .. }) if end > LogIndex(1 << 62)), "{error:?}");
    assert_eq!(
        reason(Kind::Unbind, &[7, 0, 0, 0]),
        Some(PeerError::UnboundHandle { kind: Kind::Unbind, handle: 7 })
    );
    let mut bind = [0; 32];
    assert_eq!(reason(Kind::Bind, &bind), Some(PeerError::HandleOrder { expected: 1, found: 0 }));
    bind[0] = 1;
    assert_eq!(reason(Kind::Bind, &bind), None);
    assert!(matches!(reason(Kind::Elsewhere, &[0; 8]), Some(PeerError::UnboundHandle { .. })));
    assert!(matches!(reason(Kind::Credit, &[0xff; 8]), Some(PeerError::TooMuchCredit { .. })));
    assert!(matches!(reason(Kind::Credit, &[0; 7]), Some(PeerError::Body { .. })));
    assert!(matches!(reason(Kind::Goodbye, &[9, 0, 0, 0, 0]), Some(PeerError::Body { .. })));
    // Handle 0, the start of a log after entry 0 of epoch 0, and an offset below 0.
    let start = [&[0, 0, 0, 0, 6, 1, 0, 0, 0][..], &[0; 12], &[0xff; 8]].concat();
    let error = reason(Kind::Control, &start);
    assert!(error.as_ref().is_some_and(|error| error.to_string().contains("start offset")), "{error:?}");
    let max = 0;
    let kind = Kind::Heartbeat;
    assert_eq!(reason(kind, &[1]), Some(PeerError::BodyTooLarge { kind, bytes: 1, max }));
}

#[test]
fn frames_without_credit_close_the_channel() {
    let mut pipe = Pipe::new(Settings { credit_bytes: 100, ..Settings::default() }, 1, START);
    let mut other = Pipe::new(Settings::default(), 1, START);
    for from in 0..3 {
        let message = crate::samples::append(1, from, from + 1);
        let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message };
        // The sender of the other pipe has more credit, and the same session.
        other.ends[0].channel.send(partition(0), envelope, vec![crate::samples::frame(from, 1, &[1; 100])]);
    }
    pipe.ends[1].inbox = output(&mut other.ends[0].channel, START);
    pipe.ends[1].receive(START, usize::MAX, false);
    let events = pipe.ends[1].events();
    let Some(Event::Closed(CloseReason::Violation(error))) = events.last() else { panic!("{events:?}") };
    assert_eq!(*error, PeerError::NoCredit { bytes: 168 });
    assert_eq!(events.len(), 3, "the first entry was within the credit: {events:?}");
}
