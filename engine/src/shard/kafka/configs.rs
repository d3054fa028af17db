//! Configurations: shown and changed. Topics have one that can be changed; that of the broker is fixed when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribedConfig,
    DescribedConfigSynonym, DescribedResource,
};

use super::Call;
use super::config_names::{OF_EVERY_BROKER, Type, documentation, of_broker};
use super::topics::Refused;
use crate::metadata::configs::{self, CONFIGS};
use crate::shard::Shard;

/// Kinds of resources.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

/// Where a value comes from.
const SET_FOR_TOPIC: i8 = 1;
const SET_AT_START: i8 = 4;
const DEFAULT: i8 = 5;

/// Where the value of a topic's setting comes from.
pub(super) fn source_of(is_set: bool) -> i8 {
    if is_set { SET_FOR_TOPIC } else { DEFAULT }
}

/// What is to be shown of each entry.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

impl Shard {
    pub(super) fn kafka_describe_configs(&mut self, call: Call, request: &DescribeConfigsRequest<'_>) {
        let detail =
            Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
        // Once each: a resource's entries are hundreds of times as long as its name.
        let mut seen = BTreeSet::new();
        let resources = request.resources.iter();
        let resources = resources.filter(|named| seen.insert((named.resource_type, named.resource_name)));
        let results = resources.map(|resource| {
            let (configs, error_code, text) = match self.described_configs(call, resource, detail) {
                Ok(configs) => (configs, KafkaError::NONE, None),
                Err((error, text)) => (Vec::new(), error, Some(text)),
            };
            DescribedResource {
                error_code,
                error_message: text.map(Into::into),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.to_owned().into(),
                configs,
            }
        });
        let results = results.collect();
        self.kafka_answer(call, &DescribeConfigsResponse { throttle_time_ms: 0, results });
    }

    fn described_configs(
        &self,
        call: Call,
        resource: &DescribeConfigsResource<'_>,
        detail: Detail,
    ) -> Result<Vec<DescribedConfig<'static>>, Refused> {
        let mut entries = match resource.resource_type {
            TOPIC => of_topic(self.configs_of(resource.resource_name)?, detail),
            BROKER => {
                let of_all = resource.resource_name.is_empty();
                self.check_broker(resource.resource_name)?;
                // What was changed for all brokers while they run, which is nothing.
                if of_all { Vec::new() } else { self.of_broker(call, detail) }
            }
            GROUP => of_group(self, detail),
            other => {
                let text = format!("resources of type {other} have no configuration in this broker");
                return Err((KafkaError::INVALID_REQUEST, text));
            }
        };
        // To Kafka no names and none at all are the same: everything.
        if let Some(names) = resource.configuration_keys.as_ref().filter(|names| !names.is_empty()) {
            let names: BTreeSet<&str> = names.iter().copied().collect();
            entries.retain(|entry| names.contains(&*entry.name));
        }
        Ok(entries)
    }

    /// What is set for a topic.
    pub(super) fn configs_of(&self, topic: &str) -> Result<&BTreeMap<String, String>, Refused> {
        let found = self.metadata.as_ref().and_then(|m| m.topic(topic));
        let unknown = || (KafkaError::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic {topic}"));
        found.map(|topic| &topic.configs).ok_or_else(unknown)
    }

    /// Whether a name is that of this broker, or the empty one that means all brokers.
    pub(super) fn check_broker(&self, name: &str) -> Result<(), Refused> {
        let node = self.kafka_node();
        if name.is_empty() || name.parse() == Ok(node) {
            return Ok(());
        }
        let text = format!("broker {name:?}: the only broker is {node}");
        Err((KafkaError::INVALID_REQUEST, text))
    }

    fn of_broker(&self, call: Call, detail: Detail) -> Vec<DescribedConfig<'static>> {
        let (node, kafka) = (self.kafka_node(), &self.setup.kafka);
        let groups = &self.setup.groups;
        let minutes = groups.offsets_retention_ms / 60_000;
        let url = |address: &dyn fmt::Display| format!("PLAINTEXT://{address}");
        let advertised = self.advertised_to(call.conn).map_or_else(String::new, |address| url(&address));
        let listeners = kafka.listeners.iter().map(|address| url(address)).collect::<Vec<_>>().join(",");
        let own = [
            ("advertised.listeners", advertised, Type::String, SET_AT_START, "Where clients connect."),
            (
                "auto.create.topics.enable",
                kafka.auto_create_topics.to_string(),
                Type::Boolean,
                SET_AT_START,
                "Whether topics are created when a client asks for them.",
            ),
            ("broker.id", node.to_string(), Type::Int, SET_AT_START, "The broker's number."),
            (
                "group.consumer.heartbeat.interval.ms",
                groups.consumer_heartbeat_interval_ms.to_string(),
                Type::Int,
                SET_AT_START,
                "How often members of the consumer protocol shall send heartbeats.",
            ),
            (
                "group.consumer.session.timeout.ms",
                groups.consumer_session_timeout_ms.to_string(),
                Type::Int,
                SET_AT_START,
                "When members of the consumer protocol that are silent are gone.",
            ),
            (
                "group.initial.rebalance.delay.ms",
                groups.initial_rebalance_delay_ms.to_string(),
                Type::Int,
                SET_AT_START,
                "How long an empty group waits for more members before its first generation.",
            ),
            (
                "group.max.session.timeout.ms",
                groups.session_timeout_max_ms.to_string(),
                Type::Int,
                DEFAULT,
                "The longest session timeout.",
            ),
            (
                "group.max.size",
                groups.group_members_max.to_string(),
                Type::Int,
                DEFAULT,
                "Members of a group.",
            ),
            (
                "group.min.session.timeout.ms",
                groups.session_timeout_min_ms.to_string(),
                Type::Int,
                DEFAULT,
                "The shortest session timeout.",
            ),
            ("listeners", listeners, Type::String, SET_AT_START, "Where the broker listens."),
            (
                "log.dirs",
                self.setup.data_dir.display().to_string(),
                Type::String,
                SET_AT_START,
                "Where the data rests.",
            ),
            ("node.id", node.to_string(), Type::Int, SET_AT_START, "The broker's number."),
            (
                "num.partitions",
                kafka.default_partitions.to_string(),
                Type::Int,
                SET_AT_START,
                "Partitions of a topic that does not say how many.",
            ),
            (
                "offset.metadata.max.bytes",
                crate::groups::limits::OFFSET_METADATA_UNITS_MAX.to_string(),
                Type::Int,
                DEFAULT,
                "What may be kept with an offset.",
            ),
            (
                "offsets.retention.minutes",
                minutes.to_string(),
                Type::Int,
                SET_AT_START,
                "How long offsets are kept that nobody uses.",
            ),
        ];
        let own = own.into_iter().map(|(name, value, kind, source, text)| {
            entry(name, value, kind, source, detail.documentation.then(|| text.to_owned()))
        });
        let fixed = OF_EVERY_BROKER.iter().map(|(name, value, kind, text)| {
            entry(name, (*value).to_owned(), *kind, DEFAULT, detail.documentation.then(|| (*text).to_owned()))
        });
        let of_topics = CONFIGS.iter().filter_map(|config| {
            let text = detail.documentation.then(|| documentation(config));
            Some(entry(of_broker(config)?, config.default.to_owned(), Type::of(config), DEFAULT, text))
        });
        let mut entries: Vec<_> = own.chain(fixed).chain(of_topics).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if detail.synonyms {
            for entry in &mut entries {
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
}

fn of_topic(set: &BTreeMap<String, String>, detail: Detail) -> Vec<DescribedConfig<'static>> {
    let described = configs::describe(set).into_iter().zip(CONFIGS);
    let entries = described.map(|((_, value, is_set), config)| {
        let mut synonyms = Vec::new();
        let synonym = |name: &'static str, value: String, source| DescribedConfigSynonym {
            name: name.into(),
            value: Some(value.into()),
            source,
        };
        if detail.synonyms {
            if is_set {
                synonyms.push(synonym(config.name, value.clone(), SET_FOR_TOPIC));
            }
            if let Some(name) = of_broker(config) {
                synonyms.push(synonym(name, config.default.to_owned(), DEFAULT));
            }
        }
        DescribedConfig {
            name: config.name.into(),
            value: Some(value.into()),
            read_only: false,
            config_source: source_of(is_set),
            is_sensitive: false,
            synonyms,
            config_type: Type::of(config) as i8,
            documentation: detail.documentation.then(|| documentation(config).into()),
        }
    });
    entries.collect()
}

/// What all groups have in common; none has anything of its own.
fn of_group(shard: &Shard, detail: Detail) -> Vec<DescribedConfig<'static>> {
    let groups = &shard.setup.groups;
    let entries = [
        (
            "consumer.heartbeat.interval.ms",
            groups.consumer_heartbeat_interval_ms.to_string(),
            "How often members shall send heartbeats.",
        ),
        (
            "consumer.session.timeout.ms",
            groups.consumer_session_timeout_ms.to_string(),
            "When members that are silent are gone.",
        ),
    ];
    let entries = entries.into_iter().map(|(name, value, text)| {
        entry(name, value, Type::Int, DEFAULT, detail.documentation.then(|| text.to_owned()))
    });
    entries.collect()
}

fn entry(
    name: &'static str,
    value: String,
    kind: Type,
    source: i8,
    documentation: Option<String>,
) -> DescribedConfig<'static> {
    DescribedConfig {
        name: name.into(),
        value: Some(value.into()),
        read_only: true,
        config_source: source,
        is_sensitive: false,
        synonyms: Vec::new(),
        config_type: kind as i8,
        documentation: documentation.map(Into::into),
    }
}
