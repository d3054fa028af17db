//! The broker's read-only configuration under Kafka's names. Settings that do not exist here are listed with Kafka's defaults, because clients
//! and tools look settings up by name and do not expect one to be missing.

use std::fmt;

use highwater_net::kafka::messages::{DescribedConfig, DescribedConfigSynonym};
use highwater_net::limits::KAFKA_PRODUCE_BYTES_MAX;

use super::Call;
use super::cluster::{PARTITIONS_PER_ANSWER_MAX, node};
use super::config_entry::{DEFAULT, Detail, SET_AT_START, entry};
use super::config_names::{Type, broker_name, documentation};
use crate::context::Context;
use crate::coord::groups::limits::OFFSET_METADATA_UNITS_MAX;
use crate::limits::{CONNECTIONS_MAX, KAFKA_FETCH_BYTES_MAX};
use crate::meta::configs::CONFIGS;

/// The documentation of a name in [`UNUSED`].
const UNUSED_DOC: &str = "Not used by this broker; the value is Kafka's default.";

/// Entries that are the same for every broker: name, value, type and documentation.
const FIXED: &[(&str, &str, Type, &str)] = &[
    (
        "auto.leader.rebalance.enable",
        "false",
        Type::Boolean,
        "Whether partition leaders are moved back to their preferred nodes; there is one node.",
    ),
    (
        "connections.max.idle.ms",
        "-1",
        Type::Long,
        "Idle time after which connections are closed; -1 for never.",
    ),
    ("controlled.shutdown.enable", "true", Type::Boolean, "Whether the broker shuts down gracefully."),
    ("default.replication.factor", "1", Type::Int, "Replication factor of topics created without one."),
    ("delete.topic.enable", "true", Type::Boolean, "Whether topics can be deleted."),
    (
        "group.consumer.assignors",
        "uniform,range",
        Type::List,
        "Server-side assignors of the consumer protocol.",
    ),
    (
        "group.consumer.migration.policy",
        "disabled",
        Type::String,
        "Whether groups can be migrated between the classic and the consumer protocol.",
    ),
    (
        "group.coordinator.rebalance.protocols",
        "classic,consumer",
        Type::List,
        "Group protocols that are supported.",
    ),
    (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT",
        Type::String,
        "The security protocol of each listener.",
    ),
    (
        "log.cleaner.enable",
        "true",
        Type::Boolean,
        "Whether topics with cleanup.policy=compact are compacted.",
    ),
    (
        "max.incremental.fetch.session.cache.slots",
        "0",
        Type::Int,
        "Maximum number of incremental fetch sessions; they are not supported.",
    ),
    ("offsets.topic.replication.factor", "1", Type::Short, "Replication factor of committed offsets."),
    ("process.roles", "broker,controller", Type::List, "The roles of this node."),
    ("sasl.enabled.mechanisms", "", Type::List, "SASL mechanisms that are enabled; none is supported."),
    (
        "security.inter.broker.protocol",
        "PLAINTEXT",
        Type::String,
        "The security protocol between brokers; there is one broker.",
    ),
];

/// Settings of a Kafka 4.3 broker that this broker does not have, with Kafka's defaults.
#[rustfmt::skip]
const UNUSED: &[(&str, Option<&str>, Type)] = &[
    ("add.partitions.to.txn.retry.backoff.max.ms", Some("100"), Type::Int),
    ("add.partitions.to.txn.retry.backoff.ms", Some("20"), Type::Int),
    ("alter.config.policy.class.name", None, Type::Class),
    ("alter.log.dirs.replication.quota.window.num", Some("11"), Type::Int),
    ("alter.log.dirs.replication.quota.window.size.seconds", Some("1"), Type::Int),
    ("authorizer.class.name", Some(""), Type::String),
    ("background.threads", Some("10"), Type::Int),
    ("broker.heartbeat.interval.ms", Some("2000"), Type::Int),
    ("broker.session.timeout.ms", Some("9000"), Type::Int),
    ("client.quota.callback.class", None, Type::Class),
    ("connection.failed.authentication.delay.ms", Some("100"), Type::Int),
    ("controller.quota.window.num", Some("11"), Type::Int),
    ("controller.quota.window.size.seconds", Some("1"), Type::Int),
    ("controller.socket.timeout.ms", Some("30000"), Type::Int),
    ("create.topic.policy.class.name", None, Type::Class),
    ("delete.records.purgatory.purge.interval.requests", Some("1"), Type::Int),
    ("fetch.purgatory.purge.interval.requests", Some("1000"), Type::Int),
    ("group.coordinator.append.linger.ms", Some("-1"), Type::Int),
    ("group.coordinator.threads", Some("4"), Type::Int),
    ("initial.broker.registration.timeout.ms", Some("60000"), Type::Int),
    ("inter.broker.listener.name", None, Type::String),
    ("kafka.metrics.polling.interval.secs", Some("10"), Type::Int),
    ("leader.imbalance.check.interval.seconds", Some("300"), Type::Long),
    ("log.cleaner.dedupe.buffer.size", Some("134217728"), Type::Long),
    ("log.cleaner.io.buffer.load.factor", Some("0.9"), Type::Double),
    ("log.cleaner.io.buffer.size", Some("524288"), Type::Int),
    ("log.cleaner.threads", Some("1"), Type::Int),
    ("log.dir.failure.timeout.ms", Some("30000"), Type::Long),
    ("log.flush.offset.checkpoint.interval.ms", Some("60000"), Type::Int),
    ("log.flush.scheduler.interval.ms", Some("9223372036854775807"), Type::Long),
    ("log.flush.start.offset.checkpoint.interval.ms", Some("60000"), Type::Int),
    ("log.roll.jitter.hours", Some("0"), Type::Int),
    ("max.connection.creation.rate", Some("2147483647"), Type::Int),
    ("max.connections.per.ip.overrides", Some(""), Type::String),
    ("metadata.log.dir", None, Type::String),
    ("metrics.num.samples", Some("2"), Type::Int),
    ("metrics.sample.window.ms", Some("30000"), Type::Long),
    ("num.recovery.threads.per.data.dir", Some("2"), Type::Int),
    ("num.replica.alter.log.dirs.threads", None, Type::Int),
    ("num.replica.fetchers", Some("1"), Type::Int),
    ("offsets.commit.timeout.ms", Some("5000"), Type::Int),
    ("offsets.load.buffer.size", Some("5242880"), Type::Int),
    ("offsets.topic.segment.bytes", Some("104857600"), Type::Int),
    ("producer.purgatory.purge.interval.requests", Some("1000"), Type::Int),
    ("queued.max.request.bytes", Some("-1"), Type::Long),
    ("queued.max.requests", Some("500"), Type::Int),
    ("quota.window.num", Some("11"), Type::Int),
    ("quota.window.size.seconds", Some("1"), Type::Int),
    ("replica.fetch.backoff.ms", Some("1000"), Type::Int),
    ("replica.fetch.max.bytes", Some("1048576"), Type::Int),
    ("replica.fetch.min.bytes", Some("1"), Type::Int),
    ("replica.fetch.response.max.bytes", Some("10485760"), Type::Int),
    ("replica.fetch.wait.max.ms", Some("500"), Type::Int),
    ("replica.high.watermark.checkpoint.interval.ms", Some("5000"), Type::Long),
    ("replica.lag.time.max.ms", Some("30000"), Type::Long),
    ("replica.selector.class", None, Type::String),
    ("replica.socket.receive.buffer.bytes", Some("65536"), Type::Int),
    ("replica.socket.timeout.ms", Some("30000"), Type::Int),
    ("replication.quota.window.num", Some("11"), Type::Int),
    ("replication.quota.window.size.seconds", Some("1"), Type::Int),
    ("request.timeout.ms", Some("30000"), Type::Int),
    ("socket.connection.setup.timeout.max.ms", Some("30000"), Type::Long),
    ("socket.connection.setup.timeout.ms", Some("10000"), Type::Long),
    ("socket.listen.backlog.size", Some("50"), Type::Int),
    ("socket.receive.buffer.bytes", Some("102400"), Type::Int),
    ("socket.send.buffer.bytes", Some("102400"), Type::Int),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", Some("10000"), Type::Int),
    ("transaction.max.timeout.ms", Some("900000"), Type::Int),
    ("transaction.partition.verification.enable", Some("true"), Type::Boolean),
    ("transaction.remove.expired.transaction.cleanup.interval.ms", Some("3600000"), Type::Int),
    ("transaction.state.log.load.buffer.size", Some("5242880"), Type::Int),
    ("transaction.state.log.min.isr", Some("2"), Type::Int),
    ("transaction.state.log.num.partitions", Some("50"), Type::Int),
    ("transaction.state.log.replication.factor", Some("3"), Type::Short),
    ("transaction.state.log.segment.bytes", Some("104857600"), Type::Int),
    ("transactional.id.expiration.ms", Some("604800000"), Type::Int),
];

/// An entry with an actual value.
struct BrokerConfig {
    name: &'static str,
    value: String,
    kind: Type,
    source: i8,
    text: &'static str,
}

pub(super) fn broker_configs(
    context: &Context<'_>,
    call: Call,
    detail: Detail,
) -> Vec<DescribedConfig<'static>> {
    let documented = |text: &str| detail.documentation.then(|| text.to_owned());
    let set = startup_settings(context, call).into_iter();
    let set =
        set.map(|(name, value, kind, text)| BrokerConfig { name, value, kind, source: SET_AT_START, text });
    let fixed = broker_limits(context).into_iter();
    let fixed =
        fixed.map(|(name, value, kind, text)| BrokerConfig { name, value, kind, source: DEFAULT, text });
    let same = FIXED.iter().map(|(name, value, kind, text)| BrokerConfig {
        name,
        value: (*value).to_owned(),
        kind: *kind,
        source: DEFAULT,
        text,
    });
    let actual = set.chain(fixed).chain(same).map(|actual| {
        entry(actual.name, Some(actual.value), actual.kind, actual.source, documented(actual.text))
    });
    let rack = context.setup.registration.rack.clone();
    let source = if rack.is_some() { SET_AT_START } else { DEFAULT };
    let rack = entry("broker.rack", rack, Type::String, source, documented("The rack of the node."));
    let unused = UNUSED.iter().map(|(name, value, kind)| {
        entry(name, value.map(str::to_owned), *kind, DEFAULT, documented(UNUSED_DOC))
    });
    let topic_defaults = CONFIGS.iter().filter_map(|config| {
        let text = detail.documentation.then(|| documentation(config));
        Some(entry(broker_name(config)?, Some(config.default.to_owned()), Type::of(config), DEFAULT, text))
    });
    let mut entries: Vec<_> = actual.chain([rack]).chain(unused).chain(topic_defaults).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if detail.synonyms {
        for entry in entries.iter_mut().filter(|entry| entry.value.is_some()) {
            let synonym = DescribedConfigSynonym {
                name: entry.name.clone(),
                value: entry.value.clone(),
                source: entry.config_source,
            };
            entry.synonyms.push(synonym);
        }
    }
    entries
}

/// Returns the entries from the broker's own configuration.
fn startup_settings(context: &Context<'_>, call: Call) -> Vec<(&'static str, String, Type, &'static str)> {
    let (node, kafka, groups) = (node(context), &context.setup.kafka, &context.setup.groups);
    let url = |address: &dyn fmt::Display| format!("PLAINTEXT://{address}");
    let advertised = context.advertised_to(call.conn).map_or_else(String::new, |address| url(&address));
    let listeners = kafka.listeners.iter().map(|address| url(address)).collect::<Vec<_>>().join(",");
    let data_dir = context.setup.data_dir.display().to_string();
    let minutes = groups.offsets_retention_ms / 60_000;
    vec![
        ("advertised.listeners", advertised, Type::List, "The address that clients connect to."),
        (
            "auto.create.topics.enable",
            kafka.auto_create_topics.to_string(),
            Type::Boolean,
            "Whether topics are created when a client requests their metadata.",
        ),
        ("broker.id", node.to_string(), Type::Int, "The node's id."),
        (
            "group.consumer.heartbeat.interval.ms",
            groups.consumer_heartbeat_interval_ms.to_string(),
            Type::Int,
            "Heartbeat interval for members of the consumer protocol.",
        ),
        (
            "group.consumer.session.timeout.ms",
            groups.consumer_session_timeout_ms.to_string(),
            Type::Int,
            "Time after which a silent member of the consumer protocol is removed.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            groups.initial_rebalance_delay_ms.to_string(),
            Type::Int,
            "Time that an empty group waits for more members before its first rebalance.",
        ),
        ("listeners", listeners, Type::List, "The addresses that the broker listens on."),
        ("log.dir", data_dir.clone(), Type::List, "The data directory."),
        ("log.dirs", data_dir, Type::List, "The data directory."),
        ("node.id", node.to_string(), Type::Int, "The node's id."),
        (
            "num.io.threads",
            context.setup.shards.to_string(),
            Type::Int,
            "Threads that process requests, one per core.",
        ),
        (
            "num.network.threads",
            context.setup.shards.to_string(),
            Type::Int,
            "Threads that serve connections: the same ones.",
        ),
        (
            "num.partitions",
            kafka.default_partitions.to_string(),
            Type::Int,
            "Number of partitions of topics created without one.",
        ),
        (
            "offsets.retention.minutes",
            minutes.to_string(),
            Type::Int,
            "Time after which the committed offsets of a group without members expire.",
        ),
        (
            "offsets.topic.num.partitions",
            context.setup.groups_partitions.to_string(),
            Type::Int,
            "Partitions of the topic that keeps groups, when it is created.",
        ),
    ]
}

/// Returns the entries for limits and for defaults of topics.
fn broker_limits(context: &Context<'_>) -> Vec<(&'static str, String, Type, &'static str)> {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    let groups = &context.setup.groups;
    let hours = |name: &str| {
        let config = crate::meta::configs::find(name).expect("a name of the table");
        (config.default.parse::<i64>().expect("a number") / HOUR_MS).to_string()
    };
    vec![
        (
            "fetch.max.bytes",
            KAFKA_FETCH_BYTES_MAX.to_string(),
            Type::Int,
            "Maximum bytes of records in a fetch response, unless a single batch is larger.",
        ),
        (
            "group.consumer.max.size",
            groups.group_members_max.to_string(),
            Type::Int,
            "Maximum number of members of a group of the consumer protocol.",
        ),
        (
            "group.max.session.timeout.ms",
            groups.session_timeout_max_ms.to_string(),
            Type::Int,
            "The longest session timeout.",
        ),
        (
            "group.max.size",
            groups.group_members_max.to_string(),
            Type::Int,
            "Maximum number of members of a group.",
        ),
        (
            "group.min.session.timeout.ms",
            groups.session_timeout_min_ms.to_string(),
            Type::Int,
            "The shortest session timeout.",
        ),
        (
            "log.cleaner.backoff.ms",
            context.setup.limits.cleanup_interval.as_millis().to_string(),
            Type::Long,
            "How often partitions are checked for whether compaction is due.",
        ),
        (
            "log.retention.check.interval.ms",
            context.setup.limits.cleanup_interval.as_millis().to_string(),
            Type::Long,
            "How often retention is enforced.",
        ),
        ("log.retention.hours", hours("retention.ms"), Type::Int, "How long records are retained, in hours."),
        ("log.roll.hours", hours("segment.ms"), Type::Int, "The granularity of retention by time, in hours."),
        ("max.connections", CONNECTIONS_MAX.to_string(), Type::Int, "Maximum number of client connections."),
        (
            "max.request.partition.size.limit",
            PARTITIONS_PER_ANSWER_MAX.to_string(),
            Type::Int,
            "Maximum number of partitions in one response to DescribeTopicPartitions.",
        ),
        (
            "offset.metadata.max.bytes",
            OFFSET_METADATA_UNITS_MAX.to_string(),
            Type::Int,
            "Maximum size of the metadata stored with an offset.",
        ),
        (
            "producer.id.expiration.ms",
            context.setup.limits.store.producer_expiry_ms.to_string(),
            Type::Int,
            "Time after which a partition forgets an idle producer.",
        ),
        (
            "socket.request.max.bytes",
            KAFKA_PRODUCE_BYTES_MAX.to_string(),
            Type::Int,
            "Maximum size of a Produce request.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_names_are_sorted_and_not_among_the_defaults_of_topics() {
        assert!(UNUSED.is_sorted_by(|a, b| a.0 < b.0));
        let topic_defaults: Vec<_> = CONFIGS.iter().filter_map(broker_name).collect();
        for (name, ..) in UNUSED {
            assert!(!topic_defaults.contains(name), "{name} is the default of a topic's setting");
        }
    }
}
