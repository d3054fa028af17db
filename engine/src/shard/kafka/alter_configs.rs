//! Configurations of topics, changed: all at once, or entry by entry.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
    IncrementalAlterConfigsConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use highwater_protocol::native::AlterTopicRequest;
use highwater_runtime::plane::Plane;

use super::Call;
use super::configs::{BROKER, GROUP, TOPIC};
use super::topics::{Refused, TWICE, check_count, outcome, repeated, told};
use crate::message::{Ask, Message};
use crate::metadata::configs::{Kind, TopicConfig, find};
use crate::shard::Shard;

/// Settings, and entries to return to their defaults.
type Changes = BTreeMap<String, Option<String>>;

/// A resource of a request, and what is to become of it.
struct Altered {
    kind: i8,
    name: String,
    changes: Result<Changes, Refused>,
}

/// What became of a resource: its kind and name, and what its answer says.
type Outcome = (i8, String, KafkaError, Option<Cow<'static, str>>);

impl Shard {
    pub(super) fn kafka_alter_configs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &AlterConfigsRequest<'_>,
    ) {
        let resources = request.resources.iter().map(|r| ((r.resource_type, r.resource_name), r));
        let altered = plan(resources, |resource| self.replaced(resource));
        self.alter(plane, call, altered, request.validate_only, |shard, call, outcomes| {
            let response =
                |(resource_type, name, error_code, error_message): Outcome| AlterConfigsResourceResponse {
                    error_code,
                    error_message,
                    resource_type,
                    resource_name: name.into(),
                };
            let responses = outcomes.into_iter().map(response).collect();
            shard.kafka_answer(call, &AlterConfigsResponse { throttle_time_ms: 0, responses });
        });
    }

    pub(super) fn kafka_incremental_alter_configs(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &IncrementalAlterConfigsRequest<'_>,
    ) {
        let resources = request.resources.iter().map(|r| ((r.resource_type, r.resource_name), r));
        let altered = plan(resources, |resource| self.changed(resource));
        self.alter(plane, call, altered, request.validate_only, |shard, call, outcomes| {
            let response = |(resource_type, name, error_code, error_message): Outcome| {
                IncrementalAlterConfigsResourceResponse {
                    error_code,
                    error_message,
                    resource_type,
                    resource_name: name.into(),
                }
            };
            let responses = outcomes.into_iter().map(response).collect();
            shard.kafka_answer(call, &IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses });
        });
    }

    /// Checks changes and makes them. `finish` gets the resources in their order, with what became of each.
    fn alter(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        altered: Vec<Altered>,
        validate_only: bool,
        finish: impl FnOnce(&mut Self, Call, Vec<Outcome>) + 'static,
    ) {
        let mut outcomes = Vec::with_capacity(altered.len());
        let mut asks = Vec::new();
        let mut places = Vec::new();
        for Altered { kind, name, changes } in altered {
            let checked = changes.and_then(|changes| {
                if kind == TOPIC {
                    self.check_changes(&name, &changes)?;
                }
                Ok(changes)
            });
            if let Ok(changes) = &checked
                && !changes.is_empty()
                && !validate_only
            {
                places.push(outcomes.len());
                let configs = changes.clone().into_iter().collect();
                asks.push(Ask::AlterTopic(AlterTopicRequest {
                    name: name.clone(),
                    configs,
                    partitions: None,
                }));
            }
            outcomes.push((kind, name, checked.map(drop)));
        }
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            for (place, answer) in places.into_iter().zip(answers) {
                outcomes[place].2 = outcome(answer).map(drop);
            }
            let outcomes = outcomes.into_iter().map(|(kind, name, outcome)| {
                let (error, text) = told(outcome);
                (kind, name, error, text.map(Cow::Owned))
            });
            finish(shard, call, outcomes.collect());
        });
    }

    /// Whether a topic may have the settings that it would have.
    fn check_changes(&self, topic: &str, changes: &Changes) -> Result<(), Refused> {
        let mut set = self.configs_of(topic)?.clone();
        for (name, value) in changes {
            if find(name).is_none() {
                let text = format!("topic {topic}: {name} is not a topic setting");
                return Err((KafkaError::INVALID_CONFIG, text));
            }
            match value {
                Some(value) => set.insert(name.clone(), value.clone()),
                None => set.remove(name),
            };
        }
        let checked = TopicConfig::resolve(&set);
        checked.map(drop).map_err(|e| (KafkaError::INVALID_CONFIG, format!("topic {topic}: {e}")))
    }

    /// What makes a topic's configuration the one that is given: what is not named returns to its default.
    fn replaced(&self, resource: &AlterConfigsResource<'_>) -> Result<Changes, Refused> {
        self.check_alterable(resource.resource_type, resource.resource_name, resource.configs.is_empty())?;
        if resource.resource_type != TOPIC {
            return Ok(Changes::new());
        }
        let before = self.configs_of(resource.resource_name)?;
        let mut changes: Changes = before.keys().map(|name| (name.clone(), None)).collect();
        for config in &resource.configs {
            let value = given(config.name, config.value)?;
            if changes.insert(config.name.to_owned(), Some(value.to_owned())).flatten().is_some() {
                return Err(given_twice(config.name));
            }
        }
        Ok(changes)
    }

    fn changed(&self, resource: &IncrementalAlterConfigsResource<'_>) -> Result<Changes, Refused> {
        self.check_alterable(resource.resource_type, resource.resource_name, resource.configs.is_empty())?;
        if resource.resource_type != TOPIC {
            return Ok(Changes::new());
        }
        let before = self.configs_of(resource.resource_name)?;
        let mut changes = Changes::new();
        for config in &resource.configs {
            let value = changed(before, config)?;
            if changes.insert(config.name.to_owned(), value).is_some() {
                return Err(given_twice(config.name));
            }
        }
        Ok(changes)
    }

    /// Only topics have settings that can be changed; for others nothing can be, which is not much.
    fn check_alterable(&self, kind: i8, name: &str, changes_nothing: bool) -> Result<(), Refused> {
        match kind {
            TOPIC => Ok(()),
            BROKER => {
                self.check_broker(name)?;
                let text =
                    "the configuration of a broker is given when it starts, and cannot be changed then";
                if changes_nothing { Ok(()) } else { Err((KafkaError::INVALID_REQUEST, text.into())) }
            }
            GROUP if changes_nothing => Ok(()),
            GROUP => Err((KafkaError::INVALID_CONFIG, "groups have no settings of their own here".into())),
            other => {
                let text = format!("resources of type {other} have no configuration in this broker");
                Err((KafkaError::INVALID_REQUEST, text))
            }
        }
    }
}

/// What is to become of each resource of a request, known by kind and name; `changes` works it out for one that is in order.
fn plan<'a, R>(
    resources: impl ExactSizeIterator<Item = ((i8, &'a str), R)> + Clone,
    changes: impl Fn(R) -> Result<Changes, Refused>,
) -> Vec<Altered> {
    let twice = repeated(resources.clone().map(|(id, _)| id));
    let count = check_count(resources.len());
    let altered = resources.map(|(id, resource)| {
        let once =
            if twice.contains(&id) { Err((KafkaError::INVALID_REQUEST, TWICE.into())) } else { Ok(()) };
        let changes = count.clone().and(once).and_then(|()| changes(resource));
        Altered { kind: id.0, name: id.1.to_owned(), changes }
    });
    altered.collect()
}

/// The value that an entry gets, or none for its default.
fn changed(
    before: &BTreeMap<String, String>,
    config: &IncrementalAlterConfigsConfig<'_>,
) -> Result<Option<String>, Refused> {
    let name = config.name;
    match config.config_operation {
        0 => given(name, config.value).map(|value| Some(value.to_owned())),
        1 => Ok(None),
        operation @ (2 | 3) => {
            let known = find(name)
                .ok_or_else(|| (KafkaError::INVALID_CONFIG, format!("{name} is not a topic setting")))?;
            if !matches!(known.kind, Kind::CleanupPolicy | Kind::Text) {
                let text = format!("{name} is not a list: nothing can be added to it or taken from it");
                return Err((KafkaError::INVALID_CONFIG, text));
            }
            let value = before.get(name).map_or(known.default, String::as_str);
            let mut list: Vec<&str> = value.split(',').filter(|entry| !entry.is_empty()).collect();
            for entry in given(name, config.value)?.split(',').map(str::trim) {
                match operation {
                    2 if !list.contains(&entry) => list.push(entry),
                    3 => list.retain(|other| *other != entry),
                    _ => {}
                }
            }
            Ok(Some(list.join(",")))
        }
        other => Err((KafkaError::INVALID_REQUEST, format!("{name}: there is no operation {other}"))),
    }
}

fn given<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, Refused> {
    value.ok_or_else(|| (KafkaError::INVALID_REQUEST, format!("{name}: there is no value")))
}

fn given_twice(name: &str) -> Refused {
    (KafkaError::INVALID_REQUEST, format!("{name} is given twice"))
}
