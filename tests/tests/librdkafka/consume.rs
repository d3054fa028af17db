//! Start, seek, pause and resume of consumers.

use highwater_engine::TestBroker;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::admin::create;
use crate::support::{
    POLL_TIMEOUT, Placed, Row, Sender, TIMEOUT, assert_offsets, client, offsets_in, partition_list, poll,
    read, reader, wait_for,
};

/// Sends rows to the partitions of a topic, round-robin.
fn send(sender: &mut Sender, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) {
    for number in numbers {
        sender.send(topic, Some(number as i32 % partitions), &Row::keyed("k", number));
    }
    assert!(sender.finish().iter().all(Result::is_ok));
}

#[test]
fn offsets_for_times_returns_the_first_offset_at_or_after_a_time() {
    let broker = TestBroker::start();
    create(&client(&broker, &[]), "t", 2, &[]);
    let mut sender = Sender::new(&broker, &[("batch.num.messages", "10")]);
    send(&mut sender, "t", 2, 0..200);
    let consumer = reader(&broker, "t", &[(0, Offset::Beginning)]);
    let first = Row::keyed("k", 0).timestamp;
    for (since, expected) in [
        (-5, [Offset::Offset(0), Offset::Offset(0)]),
        (0, [Offset::Offset(0), Offset::Offset(0)]),
        (1, [Offset::Offset(1), Offset::Offset(0)]),
        (77, [Offset::Offset(39), Offset::Offset(38)]),
        (199, [Offset::End, Offset::Offset(99)]),
        (200, [Offset::End, Offset::End]),
    ] {
        let times =
            partition_list("t", &[(0, Offset::Offset(first + since)), (1, Offset::Offset(first + since))]);
        let found = consumer.offsets_for_times(times, TIMEOUT).expect("a response");
        assert_eq!(offsets_in(&found), expected, "{since} ms after the first");
    }
}

#[test]
fn a_consumer_without_a_committed_offset_follows_auto_offset_reset() {
    let broker = TestBroker::start();
    let mut sender = Sender::new(&broker, &[]);
    send(&mut sender, "t", 1, 0..10);
    let start = |group: &str, reset: &str| {
        let consumer: BaseConsumer = client(&broker, &[("group.id", group), ("auto.offset.reset", reset)]);
        consumer.subscribe(&["t"]).expect("subscribed");
        consumer
    };
    assert_offsets(&read(&start("early", "earliest"), 10), 0..10);
    let failing = start("strict", "error");
    let error =
        wait_for("an error", || failing.poll(POLL_TIMEOUT)).map(|_| ()).expect_err("no committed offset");
    assert_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));
    // The moment at which it resolves the end is unknown, so write records until it reads one.
    let late = start("late", "latest");
    let first = wait_for("a new record", || {
        send(&mut sender, "t", 1, 10..11);
        poll(&late)
    });
    assert!(first.offset >= 10, "{first:?}");
}

#[test]
fn a_consumer_with_an_offset_out_of_range_follows_auto_offset_reset() {
    let broker = TestBroker::start();
    let mut sender = Sender::new(&broker, &[]);
    send(&mut sender, "t", 1, 0..10);
    let at = |reset: &str| {
        let consumer: BaseConsumer = client(&broker, &[("group.id", "none"), ("auto.offset.reset", reset)]);
        consumer.assign(&partition_list("t", &[(0, Offset::Offset(1000))])).expect("assigned");
        consumer
    };
    assert_offsets(&read(&at("earliest"), 10), 0..10);
    let failing = at("error");
    let error = wait_for("an error", || failing.poll(POLL_TIMEOUT))
        .map(|_| ())
        .expect_err("the offset is out of range");
    assert_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));
}

#[test]
fn partitions_can_be_paused_resumed_and_sought() {
    let broker = TestBroker::start();
    create(&client(&broker, &[]), "t", 2, &[]);
    let mut sender = Sender::new(&broker, &[]);
    send(&mut sender, "t", 2, 0..20);
    let consumer = reader(&broker, "t", &[(0, Offset::Beginning), (1, Offset::Beginning)]);
    read(&consumer, 20);
    let paused = partition_list("t", &[(0, Offset::Invalid)]);
    consumer.pause(&paused).expect("paused");
    send(&mut sender, "t", 2, 20..60);
    let of_partition = |rows: &[Placed], partition| rows.iter().all(|placed| placed.partition == partition);
    let others = read(&consumer, 20);
    assert!(of_partition(&others, 1));
    assert_offsets(&others, 10..30);
    consumer.resume(&paused).expect("resumed");
    let resumed = read(&consumer, 20);
    assert!(of_partition(&resumed, 0));
    assert_offsets(&resumed, 10..30);

    consumer.seek("t", 1, Offset::Offset(25), TIMEOUT).expect("a successful seek");
    let again = read(&consumer, 5);
    assert!(of_partition(&again, 1));
    assert_offsets(&again, 25..30);
    consumer.seek("t", 0, Offset::Beginning, TIMEOUT).expect("a successful seek");
    assert_offsets(&read(&consumer, 30), 0..30);
    consumer.seek("t", 0, Offset::OffsetTail(4), TIMEOUT).expect("a successful seek");
    assert_offsets(&read(&consumer, 4), 26..30);
}

#[test]
fn clients_continue_after_a_restart_of_the_broker() {
    let mut broker = TestBroker::start();
    let mut sender = Sender::new(&broker, &[("enable.idempotence", "true")]);
    send(&mut sender, "t", 1, 0..10);
    let alone = reader(&broker, "t", &[(0, Offset::Beginning)]);
    let member: BaseConsumer = client(
        &broker,
        &[("group.id", "team"), ("auto.offset.reset", "earliest"), ("heartbeat.interval.ms", "300")],
    );
    member.subscribe(&["t"]).expect("subscribed");
    for round in 0..3 {
        let next = 10 * round..10 * (round + 1);
        assert_offsets(&read(&alone, 10), next.clone());
        assert_offsets(&read(&member, 10), next);
        // Records sent while the broker is down arrive after the restart, once and in order.
        broker.stop();
        for number in 10..20 {
            sender.send("t", Some(0), &Row::keyed("k", number));
        }
        broker.restart();
        assert!(sender.finish().iter().all(Result::is_ok));
    }
}
