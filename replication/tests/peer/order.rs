//! Random messages over one connection after the other: each arrives once, in order, with its frames, in its own session or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::ids::{LogIndex, Offset};
use highwater_replication::peer::limits::ENTRY_FRAMES_BYTES_MAX;
use highwater_replication::peer::{CloseReason, Event, Goodbye, Route, Settings};
use highwater_replication::raft::{Envelope, Message};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt as _;

use crate::pipe::{Pipe, START, joined, seeds};
use crate::samples::{append_with_frames, message, partition, replica, send, start_offset};

const SEEDS: u64 = 300;
const STEPS: usize = 400;
const PARTITIONS: u32 = 5;
const CREDIT: u64 = 300_000;

/// A message with the offset of a start, or a repair; and the frames.
type Said = (Option<(Envelope, Option<Offset>)>, Vec<u8>);

/// What was sent and received in one direction of a session, by partition.
#[derive(Default)]
struct Direction {
    sent: BTreeMap<u32, Vec<Said>>,
    received: BTreeMap<u32, Vec<Said>>,
    /// Bytes of frames that were received and not released.
    unreleased: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) messages: usize,
    pub(crate) sessions: usize,
    pub(crate) bytes: u64,
    /// Of everything that was on the wire.
    pub(crate) checksum: u32,
}

struct Run {
    rng: SimRng,
    pipe: Pipe,
    /// What end 0 sends, and what end 1 sends.
    directions: [Direction; 2],
    totals: Totals,
    lends: bool,
    acks: u64,
}

/// Runs a seed. The error says what was violated.
pub(crate) fn run(seed: u64) -> Result<Totals, String> {
    let mut rng = stream(seed, "peer", 0);
    let lends = rng.random();
    let pipe = Pipe::new(settings(), 1, START);
    let mut run =
        Run { rng, pipe, directions: Default::default(), totals: Totals::default(), lends, acks: 0 };
    for _ in 0..STEPS {
        run.step().map_err(|why| format!("seed {seed}: {why}"))?;
    }
    run.finish().map_err(|why| format!("seed {seed}, at the end: {why}"))?;
    Ok(run.totals)
}

fn settings() -> Settings {
    Settings { credit_bytes: CREDIT, ..Settings::default() }
}

impl Run {
    fn step(&mut self) -> Result<(), String> {
        let end = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..45 => self.send(end),
            45..65 => self.flush(end),
            65..85 => {
                let max = if self.rng.random_bool(0.5) { 40 } else { 50_000 };
                let max = self.rng.random_range(1..=max);
                let Pipe { ends, now } = &mut self.pipe;
                ends[end].receive(*now, max, self.lends);
            }
            85..90 => {
                let ms = self.rng.random_range(0..60);
                self.pipe.now = self.pipe.now.after(Duration::from_millis(ms));
                for end in &mut self.pipe.ends {
                    end.channel.handle_deadline(self.pipe.now);
                }
            }
            90..94 => {
                let route =
                    Route { partition: partition(self.rng.random_range(0..PARTITIONS)), from: 0, to: 0 };
                self.pipe.ends[end].channel.forget(&route);
            }
            94..99 => self.release(end),
            _ => self.reconnect()?,
        }
        self.take_events(end)
    }

    fn send(&mut self, end: usize) {
        let number = self.rng.random_range(0..PARTITIONS);
        let (from, to) = (replica(end as u32 + 1, 0), replica(2 - end as u32, 0));
        let channel = &mut self.pipe.ends[end].channel;
        let (message, frames) = if self.rng.random_bool(0.4) {
            append_with_frames(&mut self.rng)
        } else {
            let mut message = message(&mut self.rng);
            if let Message::Appended { durable_end, .. } = &mut message {
                // No two are the same, so that it is known which of them arrived.
                self.acks += 1;
                *durable_end = LogIndex(self.acks.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2);
            }
            (message, Vec::new())
        };
        if !frames.is_empty() && channel.credit() == 0 {
            return;
        }
        let bytes = frames.concat();
        let sent = match &message {
            // Sometimes the frames are for a hole.
            Message::Append(append) if !frames.is_empty() && self.rng.random_bool(0.2) => {
                let range = (append.from, append.end);
                channel.send_repair(partition(number), (from, to), range, frames).then_some((None, bytes))
            }
            _ => {
                let envelope = Envelope { from, to, message };
                let said = (envelope.clone(), start_offset(&envelope.message));
                send(channel, number, envelope, frames).then_some((Some(said), bytes))
            }
        };
        self.directions[end].sent.entry(number).or_default().extend(sent);
    }

    fn flush(&mut self, from: usize) {
        let before = self.pipe.ends[1 - from].inbox.len();
        self.pipe.flush(from);
        let sent = &self.pipe.ends[1 - from].inbox[before..];
        self.totals.bytes += sent.len() as u64;
        self.totals.checksum = sent
            .iter()
            .fold(self.totals.checksum, |sum, byte| (sum.wrapping_mul(31) + u32::from(*byte)) & 0xff_ffff);
    }

    fn release(&mut self, end: usize) {
        let direction = &mut self.directions[1 - end];
        while let Some(bytes) = direction.unreleased.pop() {
            self.pipe.ends[end].channel.release(bytes);
            if self.rng.random_bool(0.3) {
                break;
            }
        }
    }

    fn take_events(&mut self, end: usize) -> Result<(), String> {
        let channel = &self.pipe.ends[end].channel;
        if channel.held_bytes() > CREDIT + ENTRY_FRAMES_BYTES_MAX as u64 {
            return Err(format!("{} bytes of frames are in memory", channel.held_bytes()));
        }
        for event in self.pipe.ends[end].events() {
            let (number, said, bytes) = match event {
                Event::Message(message) => {
                    let number = message.partition.partition.0;
                    let said = (message.envelope, message.start_offset);
                    (number, (Some(said), joined(&message.frames)), message.frames_bytes)
                }
                Event::Repair(repair) => {
                    (repair.partition.partition.0, (None, joined(&repair.frames)), repair.frames_bytes)
                }
                Event::PeerLost => continue,
                Event::Closed(CloseReason::Silent(_) | CloseReason::Goodbye { why: Goodbye::Lost, .. }) => {
                    return self.reconnect();
                }
                event => return Err(format!("end {end}: {event:?}")),
            };
            let direction = &mut self.directions[1 - end];
            direction.unreleased.push(bytes);
            direction.received.entry(number).or_default().push(said);
            self.totals.messages += 1;
        }
        Ok(())
    }

    /// The connection is lost with what is on its way, and another one takes its place.
    fn reconnect(&mut self) -> Result<(), String> {
        self.totals.sessions += 1;
        self.check(false)?;
        self.pipe = Pipe::new(settings(), self.totals.sessions as u32 + 1, self.pipe.now);
        self.directions = Default::default();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            for end in 0..2 {
                self.flush(end);
            }
            for end in 0..2 {
                while !self.pipe.ends[end].inbox.is_empty() {
                    let Pipe { ends, now } = &mut self.pipe;
                    let before = ends[end].inbox.len();
                    ends[end].receive(*now, usize::MAX, self.lends);
                    if ends[end].inbox.len() == before {
                        return Err("bytes are not received".to_owned());
                    }
                }
                self.take_events(end)?;
                while !self.directions[1 - end].unreleased.is_empty() {
                    self.release(end);
                }
            }
        }
        for end in &self.pipe.ends {
            let (credit, held) = (end.channel.credit() as u64, end.channel.held_bytes());
            // The rest is granted with the next frames.
            if credit < CREDIT - CREDIT / 4 || held > 0 {
                return Err(format!("{credit} of {CREDIT} bytes of credit are left, {held} are in memory"));
            }
        }
        self.check(true)
    }

    fn check(&self, complete: bool) -> Result<(), String> {
        for (end, direction) in self.directions.iter().enumerate() {
            for (number, received) in &direction.received {
                let sent = direction.sent.get(number).map_or(&[][..], Vec::as_slice);
                let matched = matched(sent, received).ok_or_else(|| {
                    format!("end {end}, partition {number}: {}", difference(sent, received))
                })?;
                if complete && matched < sent.len() {
                    let missing = difference(&sent[matched..], &[]);
                    return Err(format!("end {end}, partition {number}: {missing}"));
                }
            }
            let missing = direction
                .sent
                .iter()
                .find(|(number, sent)| !sent.is_empty() && !direction.received.contains_key(number));
            if let Some((number, _)) = missing.filter(|_| complete) {
                return Err(format!("end {end}: nothing of partition {number} arrived"));
            }
        }
        Ok(())
    }
}

/// Returns how many of the messages that were sent are accounted for by those that arrived, if these are the same in the same order. An
/// acknowledgement may have been replaced by the next one.
fn matched(sent: &[Said], received: &[Said]) -> Option<usize> {
    let acked = |said: &Said| match said.0.as_ref().map(|(envelope, _)| &envelope.message) {
        Some(Message::Appended { term, .. }) => Some(*term),
        _ => None,
    };
    let mut at = 0;
    for said in received {
        while sent.get(at)? != said {
            let replaced = acked(&sent[at]).is_some() && acked(&sent[at]) == acked(sent.get(at + 1)?);
            if !replaced {
                return None;
            }
            at += 1;
        }
        at += 1;
    }
    Some(at)
}

/// Says what differs, without the bytes of frames.
fn difference(sent: &[Said], received: &[Said]) -> String {
    let same = sent.iter().zip(received).take_while(|(sent, received)| sent == received).count();
    let shown = |said: &[Said]| {
        let rest = said.iter().skip(same).take(4);
        let message = |said: &Said| said.0.as_ref().map(|(envelope, _)| envelope.message.clone());
        rest.map(|said| format!("{:?} with {} bytes", message(said), said.1.len())).collect::<Vec<_>>()
    };
    format!("sent {:#?}, received {:#?}", shown(sent), shown(received))
}

#[test]
fn random_messages_arrive_once_and_in_order_or_the_session_ends() {
    let mut messages = 0;
    let mut sessions = 0;
    for seed in seeds(SEEDS) {
        println!("seed {seed}: HIGHWATER_PEER_SEEDS={seed}..{}", seed + 1);
        let totals = run(seed).unwrap_or_else(|why| panic!("{why}"));
        messages += totals.messages;
        sessions += totals.sessions;
    }
    println!("{messages} messages, {sessions} lost connections");
    assert!(messages > 0 && (sessions > 0 || seeds(SEEDS).count() < 100));
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    for seed in [3, 41] {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn frames_are_sent_without_a_copy() {
    let mut pipe = Pipe::new(Settings::default(), 1, START);
    let frame = crate::samples::frame(0, 1, &[9; 1000]);
    let message = crate::samples::append(1, 0, 1);
    let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message };
    assert!(pipe.ends[0].channel.send(partition(0), envelope, vec![frame.clone()]));
    let now = pipe.now;
    let pieces: Vec<Bytes> = std::iter::from_fn(|| pipe.ends[0].channel.poll_output(now)).collect();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == frame.as_ptr() && piece.len() == frame.len()));
}
