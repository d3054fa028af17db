//! The bytes of every message, as `docs/wire-format.md` describes them.

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset, ShardId};
use highwater_replication::peer::limits::{
    BODY_BYTES_MAX, ENTRY_FRAMES_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, HANDLES_MAX, HEARTBEAT_INTERVAL,
    HELLO_BODY_BYTES_MAX, LEADERS_PER_MESSAGE_MAX, RUNS_PER_APPEND_MAX, SILENCE_DEFAULT,
};
use highwater_replication::peer::{
    Channel, Event, Goodbye, Kind, LeaderNews, LeaderStatement, PEER_HEADER_BYTES, PeerHeader, RemoteHandle,
    Route, Settings,
};
use highwater_replication::raft::{Config, ConfigEntry, Envelope, LogEnd, Message};

use crate::pipe::{Pipe, START, accept, output};
use crate::samples::{append, appended, frame, local, partition, replica, shard};

fn doc() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md");
    let text = std::fs::read_to_string(path).expect("docs/wire-format.md exists");
    let (_, section) = text.split_once("## Between nodes").expect("the section about peers");
    section.to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn send(channel: &mut Channel, number: u32, message: Message, frames: Vec<bytes::Bytes>) {
    let envelope = Envelope { from: replica(1, 5), to: replica(2, 6), message };
    assert!(channel.send(partition(number), envelope, frames));
}

/// Splits the bytes of a turn into messages.
fn messages(bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(header) = PeerHeader::parse(rest) {
        let kind = Kind::from_u16(header.kind.get()).expect("known");
        let end = PEER_HEADER_BYTES + header.body_bytes.get() as usize;
        found.push((kind, rest[..end].to_vec()));
        rest = &rest[end..];
        if kind == Kind::Group {
            // Frames follow.
            break;
        }
    }
    found
}

/// Everything that a node leads: one partition, and that it has ceased to lead another one.
fn leader_news() -> LeaderNews {
    let statement = |number, leads, in_sync: &[u32]| LeaderStatement {
        partition: partition(number),
        epoch: LeaderEpoch(7),
        leads,
        shard: ShardId(1),
        in_sync: in_sync.iter().copied().map(NodeId).collect(),
    };
    let statements = vec![statement(4, true, &[1, 2]), statement(5, false, &[])];
    LeaderNews { is_complete: true, statements }
}

/// One message of each kind, by what produces it.
fn one_of_each() -> Vec<(Kind, Vec<u8>)> {
    let mut opener = Channel::open(local(1, 11), Settings::default(), shard(2, 0), 5, 99, START);
    let hello = output(&mut opener, START);
    let accepted = accept(2, &hello, None, Settings::default(), 7, START).expect("complete");
    let (mut acceptor, ..) = accepted.expect("accepted");
    let reply = output(&mut acceptor, START);
    let mut all = [messages(&hello), messages(&reply)].concat();
    opener.handle_bytes(START, &reply);
    acceptor.handle_bytes(START, &output(&mut opener, START));
    let mut turn = |opener: &mut Channel| {
        let bytes = output(opener, START);
        acceptor.handle_bytes(START, &bytes);
        messages(&bytes)
    };

    send(&mut opener, 4, appended(2, 300), Vec::new());
    all.extend(turn(&mut opener));
    send(&mut opener, 4, append(2, 300, 302), vec![frame(300, 2, b"abc"), frame(301, 2, b"")]);
    all.extend(turn(&mut opener));
    let last = LogEnd { end: LogIndex(300), epoch: LeaderEpoch(2) };
    send(&mut opener, 4, Message::Vote { term: LeaderEpoch(3), last, transfer: true }, Vec::new());
    all.extend(turn(&mut opener));
    let config = Config::new([replica(1, 5)], [replica(2, 6)]).expect("valid");
    let config = ConfigEntry { index: LogIndex(7), config };
    let message = Message::StartAt { term: LeaderEpoch(3), start: last, config };
    let envelope = Envelope { from: replica(1, 5), to: replica(2, 6), message };
    assert!(opener.send_start(partition(4), &envelope, Offset(900)));
    opener.forget(&Route { partition: partition(4), from: 5, to: 6 });
    all.extend(turn(&mut opener));
    opener.handle_deadline(START.after(HEARTBEAT_INTERVAL));
    all.extend(turn(&mut opener));
    assert!(opener.send_controller(Kind::ControllerRequest, Bytes::from_static(b"ask")));
    assert!(opener.send_controller(Kind::ControllerReply, Bytes::from_static(b"reply")));
    assert!(opener.send_leaders(&leader_news()));
    all.extend(turn(&mut opener));
    send(&mut opener, 9, appended(1, 1), Vec::new());
    turn(&mut opener);

    let events: Vec<Event> = std::iter::from_fn(|| acceptor.poll_event()).collect();
    let mut handles = events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message.handle),
        _ => None,
    });
    let handle: RemoteHandle = handles.next_back().expect("a message");
    acceptor.refuse(handle, Some(ShardId(1)));
    all.extend(messages(&output(&mut acceptor, START)));
    acceptor.close(Goodbye::Stopping, "bye");
    all.extend(messages(&output(&mut acceptor, START)));
    all
}

const GOLDEN: &[(Kind, &str)] = &[
    (
        Kind::Hello,
        "40 00 00 00 c0 46 45 fa 00 00 00 00 01 00 00 00 48 57 50 45 45 52 0d 0a 01 00 01 00 00 00 00 00
         07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 01 00 00 00 02 00 00 00 65 00 00 00 05 00 00 00
         0b 00 00 00 00 00 00 00 63 00 00 00 00 00 00 00",
    ),
    (
        Kind::HelloReply,
        "28 00 00 00 a7 65 23 d3 00 00 00 00 02 00 00 00 48 57 50 45 45 52 0d 0a 00 00 01 00 01 00 01 00
         02 00 00 00 66 00 00 00 00 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00",
    ),
    (Kind::Credit, "08 00 00 00 e3 1d be 1a 9f 0c 05 df 09 00 01 00 00 00 00 01 00 00 00 00"),
    (
        Kind::Bind,
        "20 00 00 00 cd cd b1 b4 9f 0c 05 df 03 00 02 00 00 00 00 00 04 00 00 00
         03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 05 00 00 00 06 00 00 00",
    ),
    (Kind::Acks, "04 00 00 00 48 ec 28 12 9f 0c 05 df 07 00 03 00 00 04 d8 04"),
    (
        Kind::Group,
        "3c 00 00 00 d0 b0 1f 16 9f 0c 05 df 06 00 04 00 00 00 00 00 00 01 01 00 02 00 00 00 02 00 00 00
         2c 01 00 00 00 00 00 00 2e 01 00 00 00 00 00 00 2c 01 00 00 00 00 00 00 88 00 00 00 00 00 00 00
         2c 01 00 00 00 00 00 00 02 00 00 00",
    ),
    (
        Kind::Control,
        "16 00 00 00 fa e4 8d e5 9f 0c 05 df 08 00 05 00 00 00 00 00 03 03 00 00 00
         2c 01 00 00 00 00 00 00 02 00 00 00 01",
    ),
    (
        Kind::Control,
        "3b 00 00 00 a2 bc 8a 81 9f 0c 05 df 08 00 06 00 00 00 00 00 06 03 00 00 00
         2c 01 00 00 00 00 00 00 02 00 00 00 84 03 00 00 00 00 00 00 07 00 00 00 00 00 00 00
         02 00 00 00 01 00 00 00 05 00 00 00 01 02 00 00 00 06 00 00 00 00",
    ),
    (Kind::Unbind, "04 00 00 00 97 61 d8 84 9f 0c 05 df 04 00 07 00 00 00 00 00"),
    (Kind::Heartbeat, "00 00 00 00 94 17 8a fa 9f 0c 05 df 0a 00 08 00"),
    (Kind::ControllerRequest, "03 00 00 00 5d 26 70 6c 9f 0c 05 df 0e 00 09 00 61 73 6b"),
    (Kind::ControllerReply, "05 00 00 00 d6 9a db 6c 9f 0c 05 df 0f 00 0a 00 72 65 70 6c 79"),
    (
        Kind::Leaders,
        "41 00 00 00 58 c5 a1 b3 9f 0c 05 df 10 00 0b 00 01 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03
         03 04 00 00 00 07 00 00 00 01 01 00 02 01 00 00 00 02 00 00 00 03 03 03 03 03 03 03 03 03 03 03
         03 03 03 03 03 05 00 00 00 07 00 00 00 00 01 00 00",
    ),
    (Kind::Elsewhere, "08 00 00 00 08 40 c7 b6 9f 0c 05 df 05 00 02 00 01 00 00 00 01 00 01 00"),
    (Kind::Goodbye, "08 00 00 00 1d 72 a3 2e 9f 0c 05 df 0b 00 03 00 01 03 00 00 00 62 79 65"),
];

#[test]
fn every_message_has_the_documented_bytes() {
    let all = one_of_each();
    for (kind, bytes) in &all {
        println!("    (Kind::{kind:?}, \"{}\"),", hex(bytes));
    }
    for ((kind, bytes), (golden_kind, golden)) in all.iter().zip(GOLDEN) {
        let golden = golden.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((kind, hex(bytes)), (golden_kind, golden));
    }
    assert_eq!(all.len(), GOLDEN.len());
    // The tests of `join` have the other two.
    for kind in Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Join | Kind::JoinReply)) {
        assert!(all.iter().any(|(found, _)| *found == kind), "no {kind:?}");
    }
}

#[test]
fn every_message_has_a_row_in_the_documentation() {
    let doc = doc();
    for kind in Kind::ALL {
        let row = format!("| {} | `{kind:?}` |", kind as u16);
        assert!(doc.lines().any(|line| line.starts_with(&row)), "no row begins with {row}");
    }
}

#[test]
fn the_example_of_the_documentation_is_what_a_channel_sends() {
    let doc = doc();
    let example = doc.split("```").nth(1).expect("an example");
    let bytes: Vec<&str> = example
        .lines()
        .flat_map(|line| line.split("    ").next().unwrap_or_default().split_whitespace())
        .collect();
    let all = one_of_each();
    let of =
        |kind: Kind| all.iter().find(|(found, _)| *found == kind).map(|(_, bytes)| hex(bytes)).expect("one");
    assert_eq!(bytes.join(" "), format!("{} {}", of(Kind::Bind), of(Kind::Acks)));
}

#[test]
fn the_documented_limits_of_channels_are_those_of_the_code() {
    let doc = doc();
    let thousands = |n: usize| {
        let digits = n.to_string();
        let first = (digits.len() + 2) % 3 + 1;
        let rest =
            digits.as_bytes()[first..].chunks(3).map(|three| String::from_utf8_lossy(three).into_owned());
        std::iter::once(digits[..first].to_owned()).chain(rest).collect::<Vec<_>>().join(",")
    };
    for said in [
        format!("its limit ({} MiB)", BODY_BYTES_MAX >> 20),
        format!("at most {} KiB", HELLO_BODY_BYTES_MAX >> 10),
        format!("at most {GOODBYE_TEXT_BYTES_MAX} bytes"),
        format!("at most {} in a session", thousands(HANDLES_MAX)),
        format!("at most {} |", thousands(RUNS_PER_APPEND_MAX)),
        format!("the largest frame, {}", thousands(ENTRY_FRAMES_BYTES_MAX)),
        format!("nothing for {} ms", HEARTBEAT_INTERVAL.as_millis()),
        format!("({} ms by default)", SILENCE_DEFAULT.as_millis()),
    ] {
        assert!(doc.contains(&said), "not in the documentation: {said}");
    }
}

#[test]
fn what_a_node_says_about_leaders_arrives_as_it_was_said_with_as_many_statements_as_a_message_may_have() {
    let mut pipe = Pipe::new(Settings::default(), 1, START);
    let mut largest = leader_news();
    largest.statements = vec![largest.statements[0].clone(); LEADERS_PER_MESSAGE_MAX];
    let sent = [leader_news(), LeaderNews::default(), largest];
    for news in &sent {
        assert!(pipe.ends[0].channel.send_leaders(news));
    }
    pipe.settle();
    let events = pipe.ends[1].events().into_iter();
    let arrived: Vec<_> =
        events.filter_map(|event| if let Event::Leaders(news) = event { Some(news) } else { None }).collect();
    assert_eq!(arrived, sent);
}

#[test]
fn a_pipe_carries_what_the_documentation_shows() {
    let mut pipe = Pipe::new(Settings::default(), 1, START);
    send(&mut pipe.ends[0].channel, 4, appended(2, 300), Vec::new());
    pipe.settle();
    let messages = pipe.ends[1].messages();
    assert_eq!(messages[0].0.message, appended(2, 300));
}
