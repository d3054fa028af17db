//! Groups: members join, leave and die, and each partition has one owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};

use highwater_engine::TestBroker;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::member::{Event, Member, Process};
use crate::support::{POLL_TIMEOUT, Placed, Row, Sender, TIMEOUT, client, wait_for};

const PARTITIONS: i32 = 6;

/// Configuration of all members. The session timeout is the minimum, so that a death is noticed soon.
const MEMBER: [(&str, &str); 5] = [
    ("group.id", "team"),
    ("auto.offset.reset", "earliest"),
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "200"),
    ("fetch.wait.max.ms", "50"),
];

/// The state of a group, from the events of its members.
struct Group {
    /// Declared before the broker, as they must be dropped while the broker is running.
    members: BTreeMap<usize, Member>,
    broker: TestBroker,
    settings: Vec<(&'static str, &'static str)>,
    sender: Sender,
    sent: BTreeSet<Placed>,
    owned: BTreeMap<usize, BTreeSet<i32>>,
    /// Number of assignments and revocations of each member.
    changes: BTreeMap<usize, usize>,
    read: BTreeSet<Placed>,
    events: Receiver<(usize, Event)>,
    event_sender: std::sync::mpsc::Sender<(usize, Event)>,
}

impl Group {
    fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let broker = TestBroker::start_with(|config| config.default_partitions = PARTITIONS as u32);
        let (event_sender, events) = channel();
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
            event_sender,
        };
        team.send();
        team
    }

    fn join(&mut self, member: usize, more: &[(&str, &str)]) {
        let settings = [&self.settings[..], more].concat();
        let started = Member::start(&self.broker, "t", &settings, member, self.event_sender.clone());
        self.members.insert(member, started);
    }

    fn leave(&mut self, member: usize) {
        drop(self.members.remove(&member));
        // All its events are queued now, and its partitions are free.
        self.process_queued_events();
        self.owned.remove(&member);
    }

    /// Processes the events queued so far.
    fn process_queued_events(&mut self) {
        while let Ok((member, event)) = self.events.try_recv() {
            self.process(member, event);
        }
    }

    fn process(&mut self, member: usize, event: Event) {
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

    /// Processes events until `done`.
    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let received = self.events.recv_timeout(TIMEOUT);
            let (member, event) = received.unwrap_or_else(|e| panic!("{what}: {e}; owned: {:?}", self.owned));
            self.process(member, event);
        }
    }

    /// Returns the number of partitions of each member, or nothing if a partition has two owners.
    fn shares(&self) -> Vec<usize> {
        let all: Vec<i32> = self.owned.values().flatten().copied().collect();
        let distinct: BTreeSet<i32> = all.iter().copied().collect();
        if all.len() == distinct.len() {
            self.owned.values().map(BTreeSet::len).collect()
        } else {
            Vec::new()
        }
    }

    fn wait_for_shares(&mut self, shares: &[usize]) {
        self.wait_until(&format!("shares of {shares:?}"), |team| team.shares() == shares);
    }

    /// Sends more records to each partition.
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

    /// Sends more records, and asserts that the owners of the partitions read them.
    fn assert_records_are_read(&mut self) {
        self.send();
        self.wait_until("all records", |team| team.read.len() >= team.sent.len());
        assert!(self.read == self.sent, "exactly the records sent are read");
    }
}

/// Three members join, and one leaves.
fn join_and_leave(settings: &[(&'static str, &'static str)]) -> Group {
    let mut team = Group::new(settings);
    team.join(0, &[]);
    team.wait_for_shares(&[6]);
    team.assert_records_are_read();
    team.join(1, &[]);
    team.join(2, &[]);
    team.wait_for_shares(&[2, 2, 2]);
    team.assert_records_are_read();
    team.leave(2);
    team.wait_for_shares(&[3, 3]);
    team.assert_records_are_read();
    team
}

fn join_leave_and_die(assignor: &'static str) {
    let settings = [&MEMBER[..], &[("partition.assignment.strategy", assignor)]].concat();
    let mut team = join_and_leave(&settings);
    // The member that dies never commits, so that the others read its records again.
    let process =
        Process::start(&team.broker, "t", &[&settings[..], &[("enable.auto.commit", "false")]].concat());
    team.wait_for_shares(&[2, 2]);
    team.send();
    drop(process);
    // The others get its partitions after its session timeout.
    team.wait_for_shares(&[3, 3]);
    team.assert_records_are_read();
}

#[test]
fn members_of_an_eager_group_join_leave_and_die() {
    join_leave_and_die("range");
}

#[test]
fn members_of_a_cooperative_group_join_leave_and_die() {
    join_leave_and_die("cooperative-sticky");
}

#[test]
fn members_of_the_consumer_protocol_join_and_leave() {
    // In this protocol, the broker sets session timeout and heartbeat interval.
    let settings = [("group.protocol", "consumer"), MEMBER[0], MEMBER[1], MEMBER[4]];
    join_and_leave(&settings);
}

#[test]
fn a_static_member_that_rejoins_in_time_keeps_its_partitions_without_a_rebalance() {
    for protocol in ["classic", "consumer"] {
        let settings: &[_] = match protocol {
            "classic" => &[MEMBER[0], MEMBER[1], ("session.timeout.ms", "60000"), MEMBER[3], MEMBER[4]],
            _ => &[("group.protocol", "consumer"), MEMBER[0], MEMBER[1], MEMBER[4]],
        };
        let mut team = Group::new(settings);
        team.join(0, &[("group.instance.id", "zero")]);
        team.join(1, &[("group.instance.id", "one")]);
        team.wait_for_shares(&[3, 3]);
        team.assert_records_are_read();
        let (before, changes) = (team.owned.clone(), team.changes[&0]);
        for _ in 0..2 {
            team.leave(1);
            team.send();
            team.join(1, &[("group.instance.id", "one")]);
            team.wait_for_shares(&[3, 3]);
            team.assert_records_are_read();
            assert_eq!(team.owned, before, "{protocol}");
        }
        assert_eq!(team.changes[&0], changes, "{protocol}: the other member was not rebalanced");
    }
}

#[test]
fn a_static_member_is_fenced_when_another_takes_its_instance_id() {
    let broker = TestBroker::start();
    let settings = [&MEMBER[..], &[("group.instance.id", "one")]].concat();
    let start = || {
        let consumer: BaseConsumer = client(&broker, &settings);
        consumer.subscribe(&["t"]).expect("subscribed");
        consumer
    };
    Sender::new(&broker, &[]).deliver("t", &[Row::keyed("k", 0)]);
    let first = start();
    wait_for("a record", || first.poll(POLL_TIMEOUT).transpose().expect("readable").map(|_| ()));
    let second = start();
    let error = wait_for("the fencing", || {
        let _ = second.poll(std::time::Duration::ZERO);
        first.poll(POLL_TIMEOUT).and_then(Result::err)
    });
    assert_eq!(error, KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId));
}
