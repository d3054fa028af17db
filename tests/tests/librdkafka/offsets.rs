//! Committed offsets of groups.

use highwater_engine::TestBroker;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};

use crate::support::{Row, Sender, TIMEOUT, assert_offsets, client, partition_list, read};

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
    let consumer: BaseConsumer = client(broker, &[("group.id", "team")]);
    let asked = partition_list("t", &[(0, Offset::Invalid), (1, Offset::Invalid)]);
    let response = consumer.committed_offsets(asked, TIMEOUT).expect("a response");
    response.elements().iter().map(|element| (element.offset(), element.metadata().to_owned())).collect()
}

/// Commits half of the records, restarts broker and member, and asserts that the next member resumes there.
fn commit_and_resume(protocol: &str) {
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
    let half = partition_list("t", &[(0, Offset::Offset(12))]);
    half.find_partition("t", 0).expect("it was added").set_metadata("half way");
    first.commit(&half, CommitMode::Sync).expect("committed");
    drop(first);
    broker.restart();
    assert_eq!(committed(&broker), [(Offset::Offset(12), "half way".to_owned()), nothing.clone()]);

    let second = member(&broker, protocol);
    assert_offsets(&read(&second, 18), 12..30);
    // A member that survives the restart can still commit.
    broker.restart();
    second.commit(&partition_list("t", &[(0, Offset::Offset(30))]), CommitMode::Sync).expect("committed");
    assert_eq!(committed(&broker), [(Offset::Offset(30), String::new()), nothing]);
}

#[test]
fn committed_offsets_and_metadata_survive_restarts_of_broker_and_member() {
    commit_and_resume("classic");
}

#[test]
fn committed_offsets_of_the_consumer_protocol_survive_restarts_of_broker_and_member() {
    commit_and_resume("consumer");
}
