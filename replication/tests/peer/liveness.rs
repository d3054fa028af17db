//! Heartbeats, silence, and what an earlier session cannot do.

use std::time::Duration;

use highwater_protocol::ids::ShardId;
use highwater_replication::peer::limits::{HEARTBEAT_INTERVAL, SILENCE_DEFAULT};
use highwater_replication::peer::{
    CloseReason, Event, Goodbye, Incoming, PEER_HEADER_BYTES, PeerError, Route, Settings,
};
use highwater_replication::raft::Envelope;
use highwater_runtime::plane::Instant;

use crate::pipe::{Pipe, START, output};
use crate::samples::{append, appended, frame, partition, replica};

fn pipe() -> Pipe {
    Pipe::new(Settings::default(), 1, START)
}

fn ack(number: u32, end: u64) -> Envelope {
    Envelope { from: replica(1, 0), to: replica(2, number), message: appended(3, end) }
}

#[test]
fn a_silent_side_sends_a_heartbeat_ten_times_a_second_and_nothing_else() {
    let mut pipe = pipe();
    let mut beats = 0;
    for ms in 1..=1000 {
        pipe.now = START.after(Duration::from_millis(ms));
        for end in 0..2 {
            if pipe.ends[end].channel.next_deadline().expect("open") <= pipe.now {
                pipe.ends[end].channel.handle_deadline(pipe.now);
            }
            pipe.flush(end);
        }
        let bytes = pipe.ends[1].inbox.len();
        assert!(bytes == 0 || bytes == PEER_HEADER_BYTES, "{bytes} bytes");
        beats += usize::from(bytes > 0);
        pipe.settle();
    }
    assert_eq!(beats, 10);
    assert!(pipe.ends.iter_mut().all(|end| end.events().is_empty() && end.channel.is_open()));
}

#[test]
fn a_side_that_says_something_sends_no_heartbeat() {
    let mut pipe = pipe();
    let channel = &mut pipe.ends[0].channel;
    for step in 1..20_u64 {
        let now = START
            .after(HEARTBEAT_INTERVAL / 2 * step as u32)
            .min(START.after(SILENCE_DEFAULT.saturating_sub(HEARTBEAT_INTERVAL)));
        channel.send(partition(0), ack(0, step), Vec::new());
        assert!(output(channel, now).len() > PEER_HEADER_BYTES);
        channel.handle_deadline(now);
        assert!(output(channel, now).is_empty());
    }
}

#[test]
fn a_silent_peer_is_lost_once() {
    let mut pipe = pipe();
    let channel = &mut pipe.ends[1].channel;
    let just_before = Instant(START.after(SILENCE_DEFAULT).0 - 1);
    channel.handle_deadline(just_before);
    assert!(channel.is_open());
    let due = channel.next_deadline().expect("open");
    assert_eq!(due, START.after(SILENCE_DEFAULT));
    for _ in 0..3 {
        channel.handle_deadline(due);
    }
    assert!(matches!(channel.poll_event(), Some(Event::PeerLost)));
    assert!(matches!(channel.poll_event(), Some(Event::Closed(CloseReason::Silent(_)))));
    assert!(channel.poll_event().is_none());
    let late = Envelope { from: replica(2, 0), to: replica(1, 0), message: appended(3, 1) };
    assert!(!channel.send(partition(0), late, Vec::new()), "it is dropped");
    // The peer learns of it, if it lives.
    let bytes = output(channel, due);
    pipe.ends[0].channel.handle_bytes(due, &bytes);
    let events = pipe.ends[0].events();
    let said =
        |event: &Event| matches!(event, Event::Closed(CloseReason::Goodbye { why: Goodbye::Lost, .. }));
    assert!(matches!(events[0], Event::PeerLost) && said(&events[1]) && events.len() == 2, "{events:?}");
}

#[test]
fn a_closed_channel_hears_nothing_any_more() {
    let mut pipe = pipe();
    pipe.ends[0].channel.send(partition(0), ack(0, 1), Vec::new());
    pipe.flush(0);
    pipe.ends[1].channel.close(Goodbye::Replaced, "");
    let now = pipe.now;
    pipe.ends[1].receive(now, usize::MAX, false);
    let events = pipe.ends[1].events();
    assert!(
        matches!(events[..], [Event::PeerLost, Event::Closed(CloseReason::Local(Goodbye::Replaced))]),
        "{events:?}"
    );
}

/// What side 0 sends in its first round of a session.
fn first_round(pipe: &mut Pipe, heartbeat: bool) -> (Vec<u8>, Instant) {
    let now = START.after(HEARTBEAT_INTERVAL);
    let channel = &mut pipe.ends[0].channel;
    if heartbeat {
        channel.handle_deadline(now);
    } else {
        channel.send(partition(0), ack(0, 1), Vec::new());
    }
    (output(channel, now), now)
}

/// A heartbeat, or an acknowledgement, of the first session reaches the second one: it must not count.
pub(crate) fn an_old_session_counts(heartbeat: bool) -> bool {
    let (old, now) = first_round(&mut pipe(), heartbeat);
    let mut pipe = Pipe::new(Settings::default(), 2, START);
    let deadline = pipe.ends[1].channel.next_deadline();
    pipe.ends[1].channel.handle_bytes(now, &old);
    let renewed = pipe.ends[1].channel.is_open() && pipe.ends[1].channel.next_deadline() >= deadline;
    let heard = pipe.ends[1].events().iter().any(|event| matches!(event, Event::Message(_)));
    renewed || heard
}

#[test]
fn a_heartbeat_of_an_earlier_session_renews_no_lease_and_its_acknowledgements_do_not_count() {
    assert!(!an_old_session_counts(true) && !an_old_session_counts(false));
    let (old, now) = first_round(&mut pipe(), true);
    let mut pipe = Pipe::new(Settings::default(), 2, START);
    pipe.ends[1].channel.handle_bytes(now, &old);
    let events = pipe.ends[1].events();
    let why = |event: &Event| {
        matches!(event, Event::Closed(CloseReason::Violation(PeerError::OtherSession { .. })))
    };
    assert!(matches!(events[0], Event::PeerLost) && why(&events[1]), "{events:?}");
}

#[test]
fn the_peer_is_told_which_message_violated_the_protocol() {
    let mut pipe = pipe();
    let (mut bytes, now) = first_round(&mut pipe, false);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    pipe.ends[1].channel.handle_bytes(now, &bytes);
    let answer = output(&mut pipe.ends[1].channel, now);
    pipe.ends[0].channel.handle_bytes(now, &answer);
    let events = pipe.ends[0].events();
    let Some(Event::Closed(reason)) = events.last() else { panic!("{events:?}") };
    assert_eq!(reason.to_string(), "the peer said goodbye (Violation): Acks: checksum mismatch");
}

#[test]
fn a_released_partition_gets_another_handle_and_its_acknowledgements_stay_its_own() {
    assert!(!an_acknowledgement_reaches_another_partition());
}

/// A partition acknowledges, and is released in the same turn, in which another one begins.
pub(crate) fn an_acknowledgement_reaches_another_partition() -> bool {
    let mut pipe = pipe();
    let channel = &mut pipe.ends[0].channel;
    channel.send(partition(0), ack(0, 5), Vec::new());
    channel.forget(&Route { partition: partition(0), from: 0, to: 0 });
    channel.send(partition(1), ack(0, 7), Vec::new());
    pipe.settle();
    let mut ends = Vec::new();
    for event in pipe.ends[1].events() {
        let Event::Message(Incoming { partition, envelope, .. }) = event else { return true };
        ends.push((partition.partition.0, envelope.message));
    }
    ends != [(0, appended(3, 5)), (1, appended(3, 7))]
}

#[test]
fn a_shard_answers_that_another_one_has_the_partition() {
    let mut pipe = pipe();
    pipe.ends[0].channel.send(partition(4), ack(9, 1), Vec::new());
    pipe.settle();
    let events = pipe.ends[1].events();
    let [Event::Message(Incoming { handle, .. })] = events[..] else { panic!("{events:?}") };
    pipe.ends[1].channel.refuse(handle, Some(ShardId(1)));
    pipe.settle();
    let events = pipe.ends[0].events();
    let [Event::Elsewhere { route, shard: Some(ShardId(1)) }] = events[..] else { panic!("{events:?}") };
    assert_eq!(route, Route { partition: partition(4), from: 0, to: 9 });
    pipe.ends[0].channel.forget(&route);
    pipe.settle();
    assert!(pipe.ends[0].channel.is_open() && pipe.ends[1].channel.is_open());
}

#[test]
fn pages_that_fill_up_keep_a_slow_peer_alive() {
    let mut pipe = pipe();
    let large = frame(0, 1, &vec![5; 9 << 20]);
    let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message: append(1, 0, 1) };
    pipe.ends[0].channel.send(partition(0), envelope.clone(), vec![large.clone()]);
    pipe.flush(0);
    let mut now = START;
    let mut lent = 0;
    while !pipe.ends[1].inbox.is_empty() {
        now = now.after(SILENCE_DEFAULT.saturating_sub(Duration::from_millis(1)));
        pipe.ends[1].channel.handle_deadline(now);
        pipe.ends[1].receive(now, 4096, true);
        lent += 1;
    }
    assert!((3..8).contains(&lent), "{lent} receives");
    assert_eq!(pipe.ends[1].messages(), [(envelope, large.to_vec())]);
}
