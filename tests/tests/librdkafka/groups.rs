//! Members of a group come, leave and die, and its partitions have one owner each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};

use highwater_engine::TestBroker;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::member::{Event, Member, Process};
use crate::support::{LOOK, PATIENCE, Placed, Row, Sender, client, wait_for};

const PARTITIONS: i32 = 6;

/// What all members have in common. The shortest session that is allowed: how long a death goes unnoticed.
const MEMBER: [(&str, &str); 5] = [
    ("group.id", "team"),
    ("auto.offset.reset", "earliest"),
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "200"),
    ("fetch.wait.max.ms", "50"),
];

/// A group as its members tell of it.
struct Team {
    /// Declared before the broker: they end in order only while it is there.
    members: BTreeMap<usize, Member>,
    broker: TestBroker,
    settings: Vec<(&'static str, &'static str)>,
    sender: Sender,
    sent: BTreeSet<Placed>,
    owned: BTreeMap<usize, BTreeSet<i32>>,
    /// How often each was given or lost partitions.
    changes: BTreeMap<usize, usize>,
    read: BTreeSet<Placed>,
    events: Receiver<(usize, Event)>,
    tell: std::sync::mpsc::Sender<(usize, Event)>,
}

impl Team {
    fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let broker = TestBroker::start_with(|config| config.default_partitions = PARTITIONS as u32);
        let (tell, events) = channel();
        let mut team = Self {
            sender: Sender::new(&broker, &[("linger.ms", "0")]),
            broker,
            settings: settings.to_vec(),
            sent: BTreeSet::new(),
            members: BTreeMap::new(),
            owned: BTreeMap::new(),
            changes: BTreeMap::new(),
            read: BTreeSet::new(),
            events,
            tell,
        };
        team.send();
        team
    }

    fn join(&mut self, member: usize, more: &[(&str, &str)]) {
        let settings = [&self.settings[..], more].concat();
        let started = Member::start(&self.broker, "t", &settings, member, self.tell.clone());
        self.members.insert(member, started);
    }

    fn leave(&mut self, member: usize) {
        drop(self.members.remove(&member));
        // All that it had to tell is there; what it owned is free.
        self.listen();
        self.owned.remove(&member);
    }

    /// Takes in what has been told so far.
    fn listen(&mut self) {
        while let Ok((member, event)) = self.events.try_recv() {
            self.note(member, event);
        }
    }

    fn note(&mut self, member: usize, event: Event) {
        let owned = self.owned.entry(member).or_default();
        match event {
            Event::Assigned(partitions) => owned.extend(partitions),
            Event::Revoked(partitions) => owned.retain(|partition| !partitions.contains(partition)),
            Event::Read(placed) => {
                self.read.insert(placed);
                return;
            }
        }
        *self.changes.entry(member).or_default() += 1;
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let told = self.events.recv_timeout(PATIENCE);
            let (member, event) = told.unwrap_or_else(|e| panic!("{what}: {e}; owned: {:?}", self.owned));
            self.note(member, event);
        }
    }

    /// How many partitions each has, if none has two owners.
    fn shares(&self) -> Vec<usize> {
        let all: Vec<i32> = self.owned.values().flatten().copied().collect();
        let distinct: BTreeSet<i32> = all.iter().copied().collect();
        if all.len() == distinct.len() {
            self.owned.values().map(BTreeSet::len).collect()
        } else {
            Vec::new()
        }
    }

    fn until_shared(&mut self, shares: &[usize]) {
        self.until(&format!("shares of {shares:?}"), |team| team.shares() == shares);
    }

    /// Some more records for each partition.
    fn send(&mut self) {
        let before = self.sent.len();
        let mut rows = Vec::new();
        for number in before..before + 60 {
            let partition = number as i32 % PARTITIONS;
            let row = Row::keyed("k", number);
            self.sender.send("t", Some(partition), &row);
            rows.push((partition, row));
        }
        for (result, (partition, row)) in self.sender.finish().into_iter().zip(rows) {
            let (_, offset) = result.expect("acknowledged");
            self.sent.insert(Placed { partition, offset, row });
        }
    }

    /// What is sent now is read by whoever owns its partition.
    fn carries_on(&mut self) {
        self.send();
        self.until("all records", |team| team.read.len() >= team.sent.len());
        assert!(self.read == self.sent, "what was read is what was sent");
    }
}

/// Three come, one leaves, another comes and leaves too.
fn members_come_and_leave(settings: &[(&'static str, &'static str)]) -> Team {
    let mut team = Team::new(settings);
    team.join(0, &[]);
    team.until_shared(&[6]);
    team.carries_on();
    team.join(1, &[]);
    team.join(2, &[]);
    team.until_shared(&[2, 2, 2]);
    team.carries_on();
    team.leave(2);
    team.until_shared(&[3, 3]);
    team.carries_on();
    team
}

fn members_come_leave_and_die(assignor: &'static str) {
    let settings = [&MEMBER[..], &[("partition.assignment.strategy", assignor)]].concat();
    let mut team = members_come_and_leave(&settings);
    // What the one that dies has read it never commits, so that others read it again.
    let process =
        Process::start(&team.broker, "t", &[&settings[..], &[("enable.auto.commit", "false")]].concat());
    team.until_shared(&[2, 2]);
    team.send();
    drop(process);
    // Only when its session has ended do the others know.
    team.until_shared(&[3, 3]);
    team.carries_on();
}

#[test]
fn members_of_an_eager_group_come_leave_and_die() {
    members_come_leave_and_die("range");
}

#[test]
fn members_of_a_cooperative_group_come_leave_and_die() {
    members_come_leave_and_die("cooperative-sticky");
}

#[test]
fn members_of_a_group_of_the_consumer_protocol_come_and_leave() {
    // Sessions and heartbeats of such groups are the broker's business.
    let settings = [("group.protocol", "consumer"), MEMBER[0], MEMBER[1], MEMBER[4]];
    members_come_and_leave(&settings);
}

#[test]
fn a_static_member_that_comes_back_in_time_has_its_partitions_and_nobody_else_notices() {
    for protocol in ["classic", "consumer"] {
        let settings: &[_] = match protocol {
            "classic" => &[MEMBER[0], MEMBER[1], ("session.timeout.ms", "60000"), MEMBER[3], MEMBER[4]],
            _ => &[("group.protocol", "consumer"), MEMBER[0], MEMBER[1], MEMBER[4]],
        };
        let mut team = Team::new(settings);
        team.join(0, &[("group.instance.id", "zero")]);
        team.join(1, &[("group.instance.id", "one")]);
        team.until_shared(&[3, 3]);
        team.carries_on();
        let (before, changes) = (team.owned.clone(), team.changes[&0]);
        for _ in 0..2 {
            team.leave(1);
            team.send();
            team.join(1, &[("group.instance.id", "one")]);
            team.until_shared(&[3, 3]);
            team.carries_on();
            assert_eq!(team.owned, before, "{protocol}");
        }
        assert_eq!(team.changes[&0], changes, "{protocol}: the other was not disturbed");
    }
}

#[test]
fn a_static_member_whose_place_is_taken_is_told_so() {
    let broker = TestBroker::start();
    let settings = [&MEMBER[..], &[("group.instance.id", "one")]].concat();
    let start = || {
        let consumer: BaseConsumer = client(&broker, &settings);
        consumer.subscribe(&["t"]).expect("subscribed");
        consumer
    };
    Sender::new(&broker, &[]).deliver("t", &[Row::keyed("k", 0)]);
    let first = start();
    wait_for("a record", || first.poll(LOOK).transpose().expect("readable").map(|_| ()));
    let second = start();
    let error = wait_for("the news", || {
        let _ = second.poll(std::time::Duration::ZERO);
        first.poll(LOOK).and_then(Result::err)
    });
    assert_eq!(error, KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId));
}
