//! Credit, windows and turns: a slow or lagging partition holds up no other one.

use std::collections::BTreeMap;

use bytes::Bytes;
use highwater_replication::peer::limits::{
    READ_BYTES_MAX, READS_MAX, SEND_QUEUE_BYTES_MAX, WINDOW_BYTES_MAX,
};
use highwater_replication::peer::{Event, Incoming, Offer, Route, Settings, Source};
use highwater_replication::raft::{Envelope, Message};
use highwater_runtime::sim::stream;
use rand::RngExt as _;

use crate::pipe::{Pipe, START};
use crate::samples::{append, appended, frame, partition, replica};

const CREDIT: usize = 4 << 20;

fn route(number: u32) -> Route {
    Route { partition: partition(number), from: 0, to: 0 }
}

/// Partitions of node 1 that send to node 2.
struct Sender {
    pipe: Pipe,
    /// The next index of each partition.
    next: BTreeMap<u32, u64>,
    /// Bytes that arrived and were not released, by partition.
    unreleased: Vec<(u32, usize)>,
    /// Bytes that arrived, by partition.
    arrived: BTreeMap<u32, usize>,
}

impl Sender {
    fn new(credit: usize) -> Self {
        let settings = Settings { credit_bytes: credit as u64, ..Settings::default() };
        let pipe = Pipe::new(settings, 1, START);
        Self { pipe, next: BTreeMap::new(), unreleased: Vec::new(), arrived: BTreeMap::new() }
    }

    fn offer(&mut self, number: u32, source: Source) -> Offer {
        self.pipe.ends[0].channel.offer(route(number), source)
    }

    /// Sends one frame of this size.
    fn send(&mut self, number: u32, bytes: usize) {
        let next = self.next.entry(number).or_default();
        let message = append(1, *next, *next + 1);
        let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message };
        let frames: Vec<Bytes> = vec![frame(*next, 1, &vec![0; bytes])];
        *next += 1;
        assert!(self.pipe.ends[0].channel.send(partition(number), envelope, frames));
    }

    /// Gives every lagging partition its turns; each sends a frame of its size, and goes on.
    fn turns(&mut self, sizes: &BTreeMap<u32, usize>) -> usize {
        let mut turns = 0;
        while let Some((route, bytes)) = self.pipe.ends[0].channel.poll_turn(0) {
            assert!(bytes > 0);
            let number = route.partition.partition.0;
            self.send(number, sizes[&number]);
            assert_eq!(self.offer(number, Source::Disk), Offer::Later);
            turns += 1;
        }
        turns
    }

    /// Everything arrives. Returns the partitions and log ends that did.
    fn arrive(&mut self) -> Vec<(u32, u64)> {
        self.pipe.settle();
        let mut ends = Vec::new();
        for event in self.pipe.ends[1].events() {
            let Event::Message(Incoming { partition, envelope, frames_bytes, .. }) = event else { panic!() };
            let Message::Append(append) = envelope.message else { panic!() };
            let number = partition.partition.0;
            self.unreleased.push((number, frames_bytes));
            *self.arrived.entry(number).or_default() += frames_bytes;
            ends.push((number, append.end.0));
        }
        ends
    }

    fn release_all(&mut self) {
        for (_, bytes) in std::mem::take(&mut self.unreleased) {
            self.pipe.ends[1].channel.release(bytes);
        }
        self.pipe.settle();
    }

    fn acknowledge(&mut self, number: u32, end: u64) {
        let envelope = Envelope { from: replica(2, 0), to: replica(1, 0), message: appended(1, end) };
        self.pipe.ends[1].channel.send(partition(number), envelope, Vec::new());
        self.pipe.settle();
        self.pipe.ends[0].events();
    }
}

/// How many rounds a partition at the tail had to wait, of 200, beside partitions that lag by any amount.
pub(crate) fn rounds_without_credit_at_the_tail() -> usize {
    let mut sender = Sender::new(CREDIT);
    let sizes: BTreeMap<u32, usize> = (1..=8).map(|number| (number, 100_000)).collect();
    for number in sizes.keys() {
        sender.offer(*number, Source::Disk);
    }
    let mut waited = 0;
    for _ in 0..200 {
        sender.turns(&sizes);
        match sender.offer(0, Source::Memory) {
            Offer::Now(bytes) if bytes >= 1000 => sender.send(0, 1000),
            _ => waited += 1,
        }
        let ends = sender.arrive();
        for (number, end) in ends {
            sender.acknowledge(number, end);
        }
        // The follower's disk takes what is at the tail, and little of the rest.
        let mut lagging = 0;
        let unreleased = std::mem::take(&mut sender.unreleased);
        for (number, bytes) in unreleased {
            lagging += usize::from(number > 0);
            if number == 0 || lagging <= 2 {
                sender.pipe.ends[1].channel.release(bytes);
            } else {
                sender.unreleased.push((number, bytes));
            }
        }
        sender.pipe.settle();
    }
    waited
}

#[test]
fn lagging_partitions_never_take_the_credit_of_those_at_the_tail() {
    assert_eq!(rounds_without_credit_at_the_tail(), 0);
}

#[test]
fn lagging_partitions_share_by_bytes_whatever_the_size_of_their_frames() {
    let mut sender = Sender::new(64 << 20);
    let sizes = BTreeMap::from([(1, 4_000), (2, 400_000), (3, 3_000_000)]);
    for number in sizes.keys() {
        sender.offer(*number, Source::Disk);
    }
    // Each sends as many frames in a turn as it may.
    for _ in 0..3000 {
        let Some((route, bytes)) = sender.pipe.ends[0].channel.poll_turn(0) else { panic!("nobody waits") };
        let number = route.partition.partition.0;
        let size = sizes[&number];
        let next = sender.next.entry(number).or_default();
        let count = (bytes / size).max(1) as u64;
        let message = append(1, *next, *next + count);
        let frames = (0..count).map(|n| frame(*next + n, 1, &vec![0; size])).collect();
        *next += count;
        let envelope = Envelope { from: replica(1, 0), to: replica(2, 0), message };
        sender.pipe.ends[0].channel.send(partition(number), envelope, frames);
        for (number, end) in sender.arrive() {
            sender.acknowledge(number, end);
        }
        sender.release_all();
        sender.offer(number, Source::Disk);
    }
    let (least, most) = (sender.arrived.values().min(), sender.arrived.values().max());
    let (least, most) = (*least.expect("three"), *most.expect("three"));
    assert_eq!(sender.arrived.len(), 3);
    assert!(most - least <= 8 << 20 && least > 100 << 20, "{:?}", sender.arrived);
}

#[test]
fn a_partition_with_a_full_window_leaves_the_group_until_it_is_acknowledged() {
    let mut sender = Sender::new(64 << 20);
    let mut sent = 0;
    while let Offer::Now(bytes) = sender.offer(0, Source::Memory) {
        sender.send(0, bytes.min(300_000));
        sent += 300_000;
        sender.arrive();
        sender.release_all();
        assert!(sent < 2 * WINDOW_BYTES_MAX, "no limit");
    }
    assert!(sender.pipe.ends[0].channel.in_flight(&route(0)) >= WINDOW_BYTES_MAX);
    assert_eq!(sender.pipe.ends[0].channel.poll_turn(0), None, "its window is full");
    assert!(matches!(sender.offer(1, Source::Memory), Offer::Now(_)), "others go on");
    let half = sender.next[&0] / 2;
    sender.acknowledge(0, half);
    let (turn, bytes) = sender.pipe.ends[0].channel.poll_turn(0).expect("the window has room");
    assert_eq!((turn, bytes), (route(0), READ_BYTES_MAX));
    sender.send(0, bytes);
    assert!(matches!(sender.offer(0, Source::Memory), Offer::Now(_)), "it is in the group again");
}

#[test]
fn entries_that_are_rejected_or_of_an_earlier_term_do_not_fill_the_window() {
    let mut sender = Sender::new(64 << 20);
    sender.send(0, 3_000_000);
    sender.arrive();
    let hint = highwater_replication::raft::LogEnd::EMPTY;
    let message = Message::Rejected { term: highwater_protocol::ids::LeaderEpoch(1), hint };
    let envelope = Envelope { from: replica(2, 0), to: replica(1, 0), message };
    sender.pipe.ends[1].channel.send(partition(0), envelope, Vec::new());
    sender.pipe.settle();
    assert_eq!(sender.pipe.ends[0].channel.in_flight(&route(0)), 0);
}

#[test]
fn few_partitions_read_at_a_time_and_none_while_the_socket_is_full() {
    let mut sender = Sender::new(64 << 20);
    for number in 0..20 {
        sender.offer(number, Source::Disk);
    }
    let channel = &mut sender.pipe.ends[0].channel;
    assert_eq!(channel.poll_turn(SEND_QUEUE_BYTES_MAX), None);
    let turns: Vec<_> = std::iter::from_fn(|| channel.poll_turn(0)).collect();
    assert_eq!(turns.len(), READS_MAX);
    channel.cancel(&turns[0].0);
    let (next, _) = channel.poll_turn(0).expect("another one's turn");
    assert_eq!(next, route(READS_MAX as u32));
    // Whoever has a turn does not get another one before it is over.
    assert_eq!(channel.offer(next, Source::Memory), Offer::Later);
    channel.cancel(&next);
    assert!(matches!(channel.offer(next, Source::Memory), Offer::Now(_)));
}

#[test]
fn without_credit_nothing_is_queued_but_that_partitions_wait() {
    let mut sender = Sender::new(100_000);
    sender.send(0, 100_000);
    for number in 1..=1000 {
        assert_eq!(sender.offer(number, Source::Memory), Offer::Later);
    }
    assert_eq!(sender.pipe.ends[0].channel.poll_turn(0), None);
    sender.arrive();
    sender.release_all();
    let mut waited = 0;
    while let Some((route, _)) = sender.pipe.ends[0].channel.poll_turn(0) {
        waited += 1;
        assert_eq!(route, self::route(waited), "in the order in which they came");
        sender.send(waited, 5_000);
        sender.arrive();
        sender.release_all();
    }
    assert_eq!(waited, 1000);
}

/// Sends many times the credit. Returns how much of it arrived.
pub(crate) fn transfer(seed: u64) -> (usize, usize) {
    let mut rng = stream(seed, "transfer", 0);
    let mut sender = Sender::new(200_000);
    let mut sent = 0;
    for _ in 0..400 {
        for number in 0..3 {
            if let Offer::Now(bytes) = sender.offer(number, Source::Memory) {
                let bytes = rng.random_range(1..=bytes.min(60_000));
                sender.send(number, bytes);
                sent += bytes;
            }
            while let Some((route, _)) = sender.pipe.ends[0].channel.poll_turn(0) {
                let bytes = rng.random_range(1..60_000);
                sender.send(route.partition.partition.0, bytes);
                sent += bytes;
            }
        }
        for (number, end) in sender.arrive() {
            sender.acknowledge(number, end);
        }
        // Frames are released one by one, and in another order.
        while !sender.unreleased.is_empty() && rng.random_bool(0.9) {
            let at = rng.random_range(0..sender.unreleased.len());
            let (_, bytes) = sender.unreleased.swap_remove(at);
            sender.pipe.ends[1].channel.release(bytes);
        }
        sender.pipe.settle();
    }
    sender.release_all();
    (sent, sender.pipe.ends[0].channel.credit())
}

#[test]
fn credit_comes_back_whatever_the_order_in_which_frames_are_released() {
    for seed in 0..20 {
        let (sent, credit) = transfer(seed);
        assert!(sent > 10 * 200_000, "seed {seed}: {sent} bytes were sent");
        assert!(credit >= 150_000, "seed {seed}: {credit} bytes of credit are left");
    }
}
