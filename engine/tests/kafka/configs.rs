//! Configurations, through Kafka's protocol, on a simulated broker.

use crate::admin::{both, start};
use crate::client::{Answer, Kafka};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    AlterConfigsConfig, AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribedConfig,
    IncrementalAlterConfigsConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResponse,
};

const NONE: KafkaError = KafkaError::NONE;
const BROKER: i8 = 4;
const TOPIC: i8 = 2;

fn described(client: &mut Kafka, version: i16, resource: DescribeConfigsResource<'_>) -> Answer {
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    client.call(ApiKey::DescribeConfigs, version, &request)
}

fn resource(kind: i8, name: &str) -> DescribeConfigsResource<'_> {
    DescribeConfigsResource { resource_type: kind, resource_name: name, configuration_keys: None }
}

fn entry<'a>(answer: &'a DescribeConfigsResponse<'_>, name: &str) -> &'a DescribedConfig<'a> {
    let entry = answer.results[0].configs.iter().find(|c| c.name == name);
    entry.unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn configurations_are_described_with_defaults_sources_and_types() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000")]);
    for version in 1..=4 {
        let reply = described(&mut client, version, resource(TOPIC, "orders"));
        let answer: DescribeConfigsResponse<'_> = reply.body();
        assert_eq!(answer.results[0].error_code, NONE);
        assert_eq!(answer.results[0].configs.len(), 38, "all of them");
        let retention = entry(&answer, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5000"), 1));
        let synonyms: Vec<_> =
            retention.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
        let default = ("log.retention.ms", Some("604800000"), 5);
        assert_eq!(synonyms, [("retention.ms", Some("5000"), 1), default]);
        let policy = entry(&answer, "cleanup.policy");
        assert_eq!(
            (policy.value.as_deref(), policy.config_source, policy.read_only),
            (Some("delete"), 5, false)
        );
        if version >= 3 {
            assert_eq!((retention.config_type, policy.config_type), (5, 7));
            assert!(policy.documentation.as_ref().is_some_and(|text| text.contains("deleted")));
        }
    }
    let some = DescribeConfigsResource {
        configuration_keys: Some(vec!["retention.ms", "no.such"]),
        ..resource(TOPIC, "orders")
    };
    let reply = described(&mut client, 4, some);
    let answer: DescribeConfigsResponse<'_> = reply.body();
    assert_eq!(answer.results[0].configs.len(), 1);

    let none = DescribeConfigsResource { configuration_keys: Some(vec![]), ..resource(TOPIC, "orders") };
    let reply = described(&mut client, 4, none);
    let answer: DescribeConfigsResponse<'_> = reply.body();
    assert_eq!(answer.results[0].configs.len(), 38, "to Kafka an empty list means all of them");

    let reply = described(&mut client, 4, resource(BROKER, "0"));
    let answer: DescribeConfigsResponse<'_> = reply.body();
    for (name, value) in [
        ("default.replication.factor", "1"),
        ("num.partitions", "3"),
        ("auto.create.topics.enable", "true"),
        ("log.retention.ms", "604800000"),
        ("log.cleanup.policy", "delete"),
        ("offsets.retention.minutes", "10080"),
        ("group.initial.rebalance.delay.ms", "3000"),
        ("message.max.bytes", "1048588"),
        ("log.retention.hours", "168"),
        ("log.cleaner.enable", "true"),
        ("num.io.threads", "2"),
        ("socket.request.max.bytes", "105906176"),
        ("group.consumer.assignors", "uniform,range"),
        ("replica.fetch.max.bytes", "1048576"),
    ] {
        let entry = entry(&answer, name);
        assert_eq!((entry.value.as_deref(), entry.read_only), (Some(value), true), "{name}");
    }
    let names: Vec<_> = answer.results[0].configs.iter().map(|config| &config.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "each name once: {names:?}");
    assert!(names.len() >= 140, "{}", names.len());
    assert_eq!(entry(&answer, "broker.rack").value, None);
    for (kind, name, error) in [
        (TOPIC, "nowhere", KafkaError::UNKNOWN_TOPIC_OR_PARTITION),
        (BROKER, "7", KafkaError::INVALID_REQUEST),
        (BROKER, "", NONE),
        (8, "0", KafkaError::INVALID_REQUEST),
        (32, "any", NONE),
    ] {
        let reply = described(&mut client, 4, resource(kind, name));
        let answer: DescribeConfigsResponse<'_> = reply.body();
        assert_eq!(answer.results[0].error_code, error, "{kind} {name}");
    }
    broker.stop();
}

fn values(client: &mut Kafka, names: &[&str]) -> Vec<String> {
    let reply = described(client, 4, resource(TOPIC, "orders"));
    let answer: DescribeConfigsResponse<'_> = reply.body();
    names.iter().map(|name| entry(&answer, name).value.clone().expect("a value").into_owned()).collect()
}

fn changed(
    client: &mut Kafka,
    resources: Vec<IncrementalAlterConfigsResource<'_>>,
    validate_only: bool,
) -> Vec<KafkaError> {
    send_change(client, resources, validate_only);
    read_changed(client)
}

fn send_change(client: &mut Kafka, resources: Vec<IncrementalAlterConfigsResource<'_>>, validate_only: bool) {
    let request = IncrementalAlterConfigsRequest { resources, validate_only };
    client.send(ApiKey::IncrementalAlterConfigs, 1, &request);
}

fn read_changed(client: &mut Kafka) -> Vec<KafkaError> {
    let reply = client.read(ApiKey::IncrementalAlterConfigs, 1).expect("the connection stays");
    let answer: IncrementalAlterConfigsResponse<'_> = reply.body();
    answer.responses.iter().map(|r| r.error_code).collect()
}

fn change<'a>(
    kind: i8,
    resource: &'a str,
    entries: &[(i8, &'a str, Option<&'a str>)],
) -> IncrementalAlterConfigsResource<'a> {
    let configs = entries
        .iter()
        .map(|(config_operation, name, value)| IncrementalAlterConfigsConfig {
            name,
            config_operation: *config_operation,
            value: *value,
        })
        .collect();
    IncrementalAlterConfigsResource { resource_type: kind, resource_name: resource, configs }
}

#[test]
fn configurations_are_changed_entry_by_entry() {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000")]);
    let replicas = "leader.replication.throttled.replicas";
    let names = ["retention.ms", "segment.ms", replicas];
    let of_orders = |entries: &[_]| vec![change(TOPIC, "orders", entries)];

    let set = [(SET, "segment.ms", Some("1000")), (APPEND, replicas, Some("0:1,0:2"))];
    assert_eq!(changed(&mut client, of_orders(&set), true), [NONE]);
    assert_eq!(values(&mut client, &names), ["5000", "604800000", ""]);
    assert_eq!(changed(&mut client, of_orders(&set), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["5000", "1000", "0:1,0:2"]);
    let more = [
        (DELETE, "retention.ms", None),
        (DELETE, "segment.bytes", None),
        (APPEND, replicas, Some("0:2,0:3")),
    ];
    assert_eq!(changed(&mut client, of_orders(&more), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["604800000", "1000", "0:1,0:2,0:3"]);
    let less = [(SUBTRACT, replicas, Some("0:1,0:3,0:9"))];
    assert_eq!(changed(&mut client, of_orders(&less), false), [NONE]);
    assert_eq!(values(&mut client, &names), ["604800000", "1000", "0:2"]);

    let (config, request) = (KafkaError::INVALID_CONFIG, KafkaError::INVALID_REQUEST);
    for (entries, error) in [
        (vec![(SET, "retenton.ms", Some("1"))], config),
        (vec![(DELETE, "retenton.ms", None)], NONE),
        (vec![(SET, "retention.ms", Some("soon"))], config),
        (vec![(APPEND, "retention.ms", Some("1"))], config),
        (vec![(SET, "retention.ms", None)], request),
        (vec![(9, "retention.ms", Some("1"))], request),
        (vec![(SET, "retention.ms", Some("1")), (DELETE, "retention.ms", None)], request),
    ] {
        assert_eq!(changed(&mut client, of_orders(&entries), false), [error], "{entries:?}");
    }
    // An invalid entry does not prevent the others.
    let one = [(SET, "retention.ms", Some("7000"))];
    let resources = vec![
        change(TOPIC, "nowhere", &one),
        change(TOPIC, "orders", &one),
        change(BROKER, "0", &[(SET, "num.partitions", Some("5"))]),
        change(BROKER, "0", &[(SET, "num.partitions", Some("6"))]),
        change(32, "readers", &[(SET, "consumer.session.timeout.ms", Some("6000"))]),
    ];
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(changed(&mut client, resources, false), [unknown, NONE, request, request, config]);
    assert_eq!(values(&mut client, &names)[0], "7000");
    broker.stop();
}

#[test]
fn a_configuration_is_replaced_as_a_whole() {
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[("retention.ms", "5000"), ("preallocate", "true")]);
    let mut replace = |kind, name, entries: &[(&'static str, Option<&'static str>)], validate_only| {
        let configs =
            entries.iter().map(|(name, value)| AlterConfigsConfig { name, value: *value }).collect();
        let resource = AlterConfigsResource { resource_type: kind, resource_name: name, configs };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only };
        let reply = client.call(ApiKey::AlterConfigs, 2, &request);
        let error = reply.body::<AlterConfigsResponse<'_>>().responses[0].error_code;
        (error, values(&mut client, &["retention.ms", "segment.ms", "preallocate"]))
    };
    let before = ["5000", "604800000", "true"].map(str::to_owned).to_vec();
    let after = ["604800000", "1000", "false"].map(str::to_owned).to_vec();
    let requested = [("segment.ms", Some("1000"))];
    assert_eq!(replace(TOPIC, "orders", &requested, true), (NONE, before.clone()));
    let wrong = [("segment.ms", Some("0"))];
    assert_eq!(replace(TOPIC, "orders", &wrong, false), (KafkaError::INVALID_CONFIG, before.clone()));
    let nothing = [("segment.ms", None)];
    assert_eq!(replace(TOPIC, "orders", &nothing, false), (KafkaError::INVALID_REQUEST, before.clone()));
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(replace(TOPIC, "nowhere", &requested, false), (unknown, before));
    assert_eq!(replace(TOPIC, "orders", &requested, false), (NONE, after.clone()));
    assert_eq!(replace(BROKER, "0", &requested, false), (KafkaError::INVALID_REQUEST, after));
    broker.stop();
}

#[test]
fn concurrent_changes_of_one_list_are_all_applied() {
    const APPEND: i8 = 2;
    const CLIENTS: usize = 4;
    const EACH: usize = 25;
    let broker = start();
    let (mut client, mut native) = both(&broker);
    native.created("orders", 1, &[]);
    let replicas = "leader.replication.throttled.replicas";
    // Connections are assigned to both shards. Each always has a request in flight.
    let mut clients: Vec<Kafka> = (0..CLIENTS).map(|_| broker.kafka()).collect();
    for at in 0..EACH {
        for (number, client) in clients.iter_mut().enumerate() {
            let entry = format!("{number}:{at}");
            let more = [(APPEND, replicas, Some(&*entry))];
            send_change(client, vec![change(TOPIC, "orders", &more)], false);
        }
        for client in &mut clients {
            assert_eq!(read_changed(client), [NONE]);
        }
    }
    let value = values(&mut client, &[replicas]).remove(0);
    assert_eq!(value.split(',').count(), CLIENTS * EACH, "{value}");
    broker.stop();
}
