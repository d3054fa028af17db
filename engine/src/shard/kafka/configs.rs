//! Configurations: shown and changed. Topics have one that can be changed; that of the broker is fixed when it starts.

use std::collections::{BTreeMap, BTreeSet};

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribedConfig,
    DescribedConfigSynonym, DescribedResource,
};

use super::Call;
use super::config_names::{Type, documentation, of_broker};
use super::topics::Refused;
use crate::metadata::configs::{self, CONFIGS};
use crate::shard::Shard;

/// Kinds of resources.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

/// Where a value comes from.
const SET_FOR_TOPIC: i8 = 1;
pub(super) const SET_AT_START: i8 = 4;
pub(super) const DEFAULT: i8 = 5;

/// Where the value of a topic's setting comes from.
pub(super) fn source_of(is_set: bool) -> i8 {
    if is_set { SET_FOR_TOPIC } else { DEFAULT }
}

/// What is to be shown of each entry.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    pub(super) synonyms: bool,
    pub(super) documentation: bool,
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
                if of_all { Vec::new() } else { self.configs_of_broker(call, detail) }
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
        entry(name, Some(value), Type::Int, DEFAULT, detail.documentation.then(|| text.to_owned()))
    });
    entries.collect()
}

pub(super) fn entry(
    name: &'static str,
    value: Option<String>,
    kind: Type,
    source: i8,
    documentation: Option<String>,
) -> DescribedConfig<'static> {
    DescribedConfig {
        name: name.into(),
        value: value.map(Into::into),
        read_only: true,
        config_source: source,
        is_sensitive: false,
        synonyms: Vec::new(),
        config_type: kind as i8,
        documentation: documentation.map(Into::into),
    }
}
