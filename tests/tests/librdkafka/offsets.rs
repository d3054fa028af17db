//! What groups have committed.

use highwater_engine::TestBroker;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};

use crate::support::{PATIENCE, Row, Sender, assert_offsets, client, places, read};

fn member(broker: &TestBroker, protocol: &str) -> BaseConsumer {
    let consumer: BaseConsumer = client(
        broker,
        &[
            ("group.id", "team"),
            ("group.protocol", protocol),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
        ],
    );
    consumer.subscribe(&["t"]).expect("subscribed");
    consumer
}

fn committed(broker: &TestBroker) -> Vec<(Offset, String)> {
    let asker: BaseConsumer = client(broker, &[("group.id", "team")]);
    let asked = places("t", &[(0, Offset::Invalid), (1, Offset::Invalid)]);
    let answer = asker.committed_offsets(asked, PATIENCE).expect("an answer");
    answer.elements().iter().map(|element| (element.offset(), element.metadata().to_owned())).collect()
}

/// Commits in the middle, ends broker and member, and goes on.
fn resumes(protocol: &str) {
    let mut broker = TestBroker::start_with(|config| config.default_partitions = 2);
    let mut sender = Sender::new(&broker, &[]);
    for number in 0..30 {
        sender.send("t", Some(0), &Row::keyed("k", number));
    }
    assert!(sender.finish().iter().all(Result::is_ok));
    let nothing = (Offset::Invalid, String::new());
    assert_eq!(committed(&broker), [nothing.clone(), nothing.clone()]);

    let first = member(&broker, protocol);
    read(&first, 12);
    let half = places("t", &[(0, Offset::Offset(12))]);
    half.find_partition("t", 0).expect("it was added").set_metadata("half way");
    first.commit(&half, CommitMode::Sync).expect("committed");
    drop(first);
    broker.restart();
    assert_eq!(committed(&broker), [(Offset::Offset(12), "half way".to_owned()), nothing.clone()]);

    let second = member(&broker, protocol);
    assert_offsets(&read(&second, 18), 12..30);
    // A member that lives on commits as if nothing had been.
    broker.restart();
    second.commit(&places("t", &[(0, Offset::Offset(30))]), CommitMode::Sync).expect("committed");
    assert_eq!(committed(&broker), [(Offset::Offset(30), String::new()), nothing]);
}

#[test]
fn committed_offsets_and_their_metadata_outlive_the_broker_and_the_member() {
    resumes("classic");
}

#[test]
fn committed_offsets_of_the_consumer_protocol_outlive_the_broker_and_the_member() {
    resumes("consumer");
}
