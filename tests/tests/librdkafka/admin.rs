//! librdkafka's admin client: topics, configurations, groups and deletion of records.

use highwater_engine::TestBroker;
use rdkafka::Offset;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use crate::support::{
    Row, Sender, TIMEOUT, assert_offsets, block_on, client, metadata, offsets_in, partition_list, poll,
    read_all, wait_for,
};

pub(crate) type Admin = AdminClient<DefaultClientContext>;

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// Creates a topic, or returns the error.
fn try_create(
    admin: &Admin,
    name: &str,
    partitions: i32,
    replicas: i32,
    configs: &[(&str, &str)],
) -> Result<(), RDKafkaErrorCode> {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let topic = configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let mut results = block_on(admin.create_topics([&topic], &options())).expect("a response");
    results.remove(0).map(|_| ()).map_err(|(_, code)| code)
}

pub(crate) fn create(admin: &Admin, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    try_create(admin, name, partitions, 1, configs).expect("a new topic");
}

/// Returns the names and numbers of partitions of all topics.
fn topics(broker: &TestBroker) -> Vec<(String, usize)> {
    let metadata = metadata(broker, None);
    let mut topics: Vec<_> =
        metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
    topics.sort();
    topics
}

#[test]
fn topics_are_created_extended_and_deleted() {
    let broker = TestBroker::start();
    let admin: Admin = client(&broker, &[]);
    create(&admin, "one", 1, &[]);
    create(&admin, "three", 3, &[]);
    assert_eq!(topics(&broker), [("one".to_owned(), 1), ("three".to_owned(), 3)]);
    assert_eq!(try_create(&admin, "one", 1, 1, &[]), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(try_create(&admin, "r", 1, 3, &[]), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    assert_eq!(try_create(&admin, "a b", 1, 1, &[]), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(try_create(&admin, "c", 1, 1, &[("no.such", "1")]), Err(RDKafkaErrorCode::InvalidConfig));
    let invalid = [("retention.ms", "few")];
    assert_eq!(try_create(&admin, "c", 1, 1, &invalid), Err(RDKafkaErrorCode::InvalidConfig));

    let more = |name, count| {
        let wanted = NewPartitions::new(name, count);
        let mut results = block_on(admin.create_partitions([&wanted], &options())).expect("a response");
        results.remove(0).map(|_| ()).map_err(|(_, code)| code)
    };
    assert_eq!(more("one", 4), Ok(()));
    assert_eq!(more("three", 2), Err(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(more("none", 2), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(topics(&broker), [("one".to_owned(), 4), ("three".to_owned(), 3)]);

    let results = block_on(admin.delete_topics(&["one", "none"], &options())).expect("a response");
    let gone = Err(("none".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(results, [Ok("one".to_owned()), gone]);
    assert_eq!(topics(&broker), [("three".to_owned(), 3)]);
}

#[test]
fn configurations_are_described_and_changed() {
    let broker = TestBroker::start();
    let admin: Admin = client(&broker, &[]);
    create(&admin, "t", 1, &[("retention.ms", "1000000")]);
    let described = || {
        let mut resources = block_on(admin.describe_configs([&ResourceSpecifier::Topic("t")], &options()))
            .expect("a response");
        resources.remove(0).expect("its configuration")
    };
    let resource = described();
    let value = |name: &str| described().get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("retention.ms").as_deref(), Some("1000000"));
    assert_eq!(value("cleanup.policy").as_deref(), Some("delete"));
    let source = |name: &str| resource.get(name).map(|entry| (&entry.source, entry.is_default));
    assert_eq!(source("retention.ms"), Some((&ConfigSource::DynamicTopic, false)));
    assert_eq!(source("segment.bytes"), Some((&ConfigSource::Default, true)));

    // AlterConfigs replaces all settings: those not given are reset to their defaults.
    let alter = |name: &'static str, value: &'static str| {
        let wanted = AlterConfig::new(ResourceSpecifier::Topic("t")).set(name, value);
        let mut results = block_on(admin.alter_configs([&wanted], &options())).expect("a response");
        results.remove(0).map(|_| ()).map_err(|(_, code)| code)
    };
    assert_eq!(alter("max.message.bytes", "5000"), Ok(()));
    assert_eq!(value("max.message.bytes").as_deref(), Some("5000"));
    assert_eq!(value("retention.ms").as_deref(), Some("604800000"));
    // The rdkafka crate does not report rejected values.
    assert_eq!(alter("max.message.bytes", "few"), Ok(()));
    assert_eq!(value("max.message.bytes").as_deref(), Some("5000"));
    let mut sender = Sender::new(&broker, &[]);
    sender.send("t", None, &Row { value: Some(vec![0; 6000]), ..Row::keyed("k", 0) });
    assert_eq!(sender.finish(), [Err(RDKafkaErrorCode::MessageSizeTooLarge)], "the new limit applies");

    let mut resources = block_on(admin.describe_configs([&ResourceSpecifier::Topic("none")], &options()))
        .expect("a response");
    assert!(resources.remove(0).expect("the rdkafka crate reports no error").entries.is_empty());
    let id = metadata(&broker, None).brokers()[0].id();
    let mut resources =
        block_on(admin.describe_configs([&ResourceSpecifier::Broker(id)], &options())).expect("a response");
    let resource = resources.remove(0).expect("its configuration");
    let partitions = resource.get("num.partitions").expect("a setting that every broker has");
    assert_eq!((partitions.value.as_deref(), partitions.is_read_only), (Some("1"), true));
}

#[test]
fn delete_records_removes_the_records_before_an_offset() {
    let broker = TestBroker::start();
    let admin: Admin = client(&broker, &[]);
    create(&admin, "t", 2, &[]);
    let mut sender = Sender::new(&broker, &[]);
    for number in 0..40 {
        sender.send("t", Some(number % 2), &Row::keyed("k", number as usize));
    }
    assert_eq!(sender.finish().len(), 40);
    let asked = partition_list("t", &[(0, Offset::Offset(7)), (1, Offset::End)]);
    let deleted = block_on(admin.delete_records(&asked, &options())).expect("a response");
    assert_eq!(offsets_in(&deleted), [Offset::Offset(7), Offset::Offset(20)]);
    assert_offsets(&read_all(&broker, "t", 2), 7..20);
    let asked = partition_list("t", &[(0, Offset::Offset(100))]);
    let rejected = block_on(admin.delete_records(&asked, &options())).expect("a response");
    assert!(rejected.elements()[0].error().is_err(), "the offset is out of range");
}

#[test]
fn groups_are_listed_and_empty_groups_are_deleted() {
    let broker = TestBroker::start();
    let admin: Admin = client(&broker, &[]);
    let rows: Vec<Row> = (0..3).map(|number| Row::keyed("k", number)).collect();
    Sender::new(&broker, &[]).deliver("t", &rows);
    let member: BaseConsumer = client(&broker, &[("group.id", "team"), ("auto.offset.reset", "earliest")]);
    member.subscribe(&["t"]).expect("subscribed");
    wait_for("a record", || poll(&member));
    member.commit_consumer_state(CommitMode::Sync).expect("committed");

    let state = || {
        let groups = member.fetch_group_list(Some("team"), TIMEOUT).expect("a response");
        let group = &groups.groups()[0];
        (group.state().to_owned(), group.protocol_type().to_owned(), group.members().len())
    };
    assert_eq!(state(), ("Stable".to_owned(), "consumer".to_owned(), 1));
    let delete = |name: &'static str| {
        let mut results = block_on(admin.delete_groups(&[name], &options())).expect("a response");
        results.remove(0).map(|_| ()).map_err(|(_, code)| code)
    };
    assert_eq!(delete("team"), Err(RDKafkaErrorCode::NonEmptyGroup));
    drop(member);
    assert_eq!(delete("team"), Ok(()));
    assert_eq!(delete("team"), Err(RDKafkaErrorCode::GroupIdNotFound));
    let other: BaseConsumer = client(&broker, &[("group.id", "team")]);
    let committed =
        other.committed_offsets(partition_list("t", &[(0, Offset::Invalid)]), TIMEOUT).expect("a response");
    assert_eq!(committed.elements()[0].offset(), Offset::Invalid, "its offsets are deleted with it");
}
