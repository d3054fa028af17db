//! The handshake: who is accepted, and what everybody else is answered.

use bytes::Bytes;
use highwater_protocol::ids::{ClusterId, NodeId};
use highwater_replication::peer::limits::{HANDSHAKE_TIME, VERSION_MAX};
use highwater_replication::peer::{
    Attempt, Channel, CloseReason, Event, Hello, Local, PEER_HEADER_BYTES, PeerError, Refusal, Settings,
    judge,
};

use crate::pipe::{End, Pipe, START, accept, output};
use crate::samples::{local, shard};

fn hello() -> Hello {
    Hello::new(&local(1, 11), shard(2, 1), 5, 99)
}

fn judged(change: impl FnOnce(&mut Hello)) -> Result<u16, Refusal> {
    let mut hello = hello();
    change(&mut hello);
    judge(&local(2, 22), &hello, true, Some(Attempt { process: 11, number: 4 }))
}

#[test]
fn a_hello_is_accepted_or_refused_as_the_table_says() {
    assert_eq!(judged(|_| {}), Ok(VERSION_MAX));
    let versions = Refusal::Version { min: 1, max: VERSION_MAX };
    assert_eq!(
        judged(|hello| (hello.version_min, hello.version_max) = (VERSION_MAX + 1, VERSION_MAX + 3)),
        Err(versions)
    );
    assert_eq!(judged(|hello| (hello.version_min, hello.version_max) = (0, 0)), Err(versions));
    assert_eq!(judged(|hello| hello.version_max = VERSION_MAX + 7), Ok(VERSION_MAX), "the newest in common");
    assert_eq!(judged(|hello| hello.cluster = ClusterId([1; 16])), Err(Refusal::Cluster));
    assert_eq!(judged(|hello| hello.to.node = NodeId(9)), Err(Refusal::Node { node: NodeId(2) }));
    assert_eq!(judge(&local(2, 22), &hello(), false, None), Err(Refusal::UnknownNode));
    assert_eq!(judged(|hello| hello.to = shard(2, 2)), Err(Refusal::Shard { shards: 2 }));
    assert_eq!(judged(|hello| hello.from = shard(3, 0)), Err(Refusal::Opener));
    assert_eq!(judged(|hello| hello.from = shard(2, 0)), Err(Refusal::Opener), "the same node");
}

#[test]
fn a_late_hello_does_not_replace_a_later_connection_and_another_process_does() {
    for (number, outcome) in
        [(3, Err(Refusal::Superseded)), (4, Err(Refusal::Superseded)), (5, Ok(VERSION_MAX))]
    {
        assert_eq!(judged(|hello| hello.attempt.number = number), outcome, "attempt {number}");
    }
    assert_eq!(judged(|hello| hello.attempt = Attempt { process: 12, number: 1 }), Ok(VERSION_MAX));
}

#[test]
fn exactly_one_of_two_shards_opens_the_connection() {
    let shards = [shard(1, 0), shard(1, 1), shard(2, 0), shard(2, 1)];
    for a in shards {
        for b in shards {
            let openers = usize::from(a.opens_to(b)) + usize::from(b.opens_to(a));
            assert_eq!(openers, usize::from(a.node != b.node), "{a:?} and {b:?}");
        }
    }
}

/// What an opener makes of an answer.
fn opened(answer: &[u8]) -> CloseReason {
    let mut channel = Channel::open(local(1, 11), Settings::default(), shard(2, 1), 5, 99, START);
    output(&mut channel, START);
    channel.handle_bytes(START, answer);
    let Some(Event::Closed(reason)) = channel.poll_event() else { panic!("{channel:?}") };
    assert!(channel.poll_event().is_none() && channel.is_closed() && channel.next_deadline().is_none());
    reason
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let refused = |why| {
        let answer = Channel::refusal(&local(2, 22), why);
        let reason = opened(&answer);
        assert_eq!(reason, CloseReason::Refused(why));
        reason.to_string()
    };
    let text = refused(Refusal::Shard { shards: 2 });
    assert_eq!(text, "the peer refused the connection: the peer has 2 shards");
    let text = refused(Refusal::Version { min: 1, max: VERSION_MAX });
    assert!(text.contains("speaks versions 1 to 1"), "{text}");
    let text = refused(Refusal::Node { node: NodeId(2) });
    assert!(text.contains("node 2 answers at this address"), "{text}");
    for why in
        [Refusal::Cluster, Refusal::UnknownNode, Refusal::Opener, Refusal::Superseded, Refusal::Other(77)]
    {
        refused(why);
    }
}

#[test]
fn the_answer_of_another_shard_is_not_accepted() {
    let local = Local { me: shard(2, 0), ..local(2, 22) };
    let hello = Hello { to: shard(2, 0), ..hello() };
    let mut other = Channel::accept(local, Settings::default(), &hello, 1, 7, START);
    let reason = opened(&output(&mut other, START));
    assert!(matches!(reason, CloseReason::Violation(PeerError::Unexpected { .. })), "{reason}");
}

#[test]
fn what_is_no_hello_is_recognised_by_its_first_bytes() {
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n"[..], b"\0\0\0\x14\0\x12\0\x04\0\0\0\x01\0\x02xxxx", &[0xff; 16]]
    {
        assert_eq!(Hello::take(bytes), Err(PeerError::NotAPeer));
    }
    let mut opener = Channel::open(local(1, 11), Settings::default(), shard(2, 0), 5, 99, START);
    let bytes = output(&mut opener, START);
    for end in 0..bytes.len() {
        assert_eq!(Hello::take(&bytes[..end]), Ok(None), "{end} bytes");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let taken = Hello::take(&damaged);
        assert!(!matches!(taken, Ok(Some(_))), "byte {at} is damaged: {taken:?}");
    }
}

#[test]
fn a_hello_and_what_follows_it_may_arrive_in_any_pieces() {
    let mut opener = Channel::open(local(1, 11), Settings::default(), shard(2, 0), 5, 99, START);
    let hello = output(&mut opener, START);
    let accepted = accept(2, &[&hello[..], b"more"].concat(), None, Settings::default(), 7, START);
    let (acceptor, attempt, end) = accepted.expect("complete").expect("accepted");
    assert_eq!((attempt.number, end), (5, hello.len()));
    let mut acceptor = End::new(acceptor);
    let mut opener = End::new(opener);
    opener.inbox = output(&mut acceptor.channel, START);
    assert!(opener.inbox.len() > PEER_HEADER_BYTES + 40, "credit follows the answer at once");
    while !opener.inbox.is_empty() {
        opener.receive(START, 1, false);
    }
    assert!(matches!(opener.events()[..], [Event::Established(_)]));
    assert!(opener.channel.credit() > 0);
}

#[test]
fn the_session_of_the_acceptor_begins_with_the_first_message_of_the_opener() {
    let mut opener = Channel::open(local(1, 11), Settings::default(), shard(2, 0), 5, 99, START);
    let hello = output(&mut opener, START);
    let accepted = accept(2, &hello, None, Settings::default(), 7, START);
    let (mut acceptor, ..) = accepted.expect("complete").expect("accepted");
    let answer: Bytes = output(&mut acceptor, START).into();
    assert!(acceptor.poll_event().is_none() && !acceptor.is_open(), "the hello may have been late");
    opener.handle_bytes(START, &answer);
    acceptor.handle_bytes(START, &output(&mut opener, START));
    assert!(matches!(acceptor.poll_event(), Some(Event::Established(_))) && acceptor.is_open());
}

#[test]
fn a_handshake_that_is_not_completed_ends() {
    let mut opener = Channel::open(local(1, 11), Settings::default(), shard(2, 0), 5, 99, START);
    assert_eq!(opener.next_deadline(), Some(START.after(HANDSHAKE_TIME)));
    opener.handle_deadline(START.after(HANDSHAKE_TIME / 2));
    assert!(!opener.is_closed());
    opener.handle_deadline(START.after(HANDSHAKE_TIME));
    assert!(matches!(opener.poll_event(), Some(Event::Closed(CloseReason::HandshakeTimeout(_)))));
    assert!(opener.poll_event().is_none(), "nobody was lost who was not there");
}

#[test]
fn two_sessions_between_the_same_shards_differ() {
    let session = |attempt| {
        let pipe = Pipe::new(Settings::default(), attempt, START);
        let peers = [&pipe.ends[0], &pipe.ends[1]].map(|end| *end.channel.peer().expect("established"));
        assert_eq!(peers[0].session, peers[1].session);
        assert_eq!((peers[0].shard, peers[1].shard), (shard(2, 0), shard(1, 0)));
        assert_eq!((peers[0].incarnation, peers[1].incarnation), (102, 101));
        peers[0].session
    };
    assert_ne!(session(1), session(2));
}
