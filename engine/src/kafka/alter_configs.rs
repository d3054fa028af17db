//! AlterConfigs and IncrementalAlterConfigs: replaces or changes the configurations of topics.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    AlterConfigsConfig, AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse,
    AlterConfigsResponse, IncrementalAlterConfigsConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
};

use super::Call;
use super::configs::check_broker;
use super::configs::{BROKER, GROUP, TOPIC};
use super::error::{Refused, refused, told};
use super::names::{check_count, repeated};
use crate::api::ConfigureTopic;
use crate::meta::config_changes::{ConfigChange, ConfigChanges};
use crate::shard::Context;

/// A resource of a request and its changes; `None` for no change, which is all that is possible for resources other than topics.
struct Altered {
    kind: i8,
    name: String,
    changes: Result<Option<ConfigChanges>, Refused>,
}

/// The error for a resource that a request names twice.
const TWICE: &str = "Each resource must appear at most once.";

/// The outcome for a resource: type, name, error code and message.
type Outcome = (i8, String, KafkaError, Option<Cow<'static, str>>);

pub(super) fn alter_configs(context: &mut Context<'_>, call: Call, request: &AlterConfigsRequest<'_>) {
    let resources = request.resources.iter().map(|r| ((r.resource_type, r.resource_name), r));
    let altered = plan(resources, |resource| replaced(context, resource));
    alter(context, call, altered, request.validate_only, |context, call, outcomes| {
        let response =
            |(resource_type, name, error_code, error_message): Outcome| AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name: name.into(),
            };
        let responses = outcomes.into_iter().map(response).collect();
        context.answer(call, &AlterConfigsResponse { throttle_time_ms: 0, responses });
    });
}

pub(super) fn incremental_alter_configs(
    context: &mut Context<'_>,
    call: Call,
    request: &IncrementalAlterConfigsRequest<'_>,
) {
    let resources = request.resources.iter().map(|r| ((r.resource_type, r.resource_name), r));
    let altered = plan(resources, |resource| altered(context, resource));
    alter(context, call, altered, request.validate_only, |context, call, outcomes| {
        let response = |(resource_type, name, error_code, error_message): Outcome| {
            IncrementalAlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name: name.into(),
            }
        };
        let responses = outcomes.into_iter().map(response).collect();
        context.answer(call, &IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses });
    });
}

/// Validates and applies changes. `finish` gets the outcomes, in the order of the resources.
fn alter(
    context: &mut Context<'_>,
    call: Call,
    altered: Vec<Altered>,
    validate_only: bool,
    finish: impl FnOnce(&mut Context<'_>, Call, Vec<Outcome>) + 'static,
) {
    let mut outcomes = Vec::with_capacity(altered.len());
    let mut requests = Vec::new();
    let mut places = Vec::new();
    for Altered { kind, name, changes } in altered {
        let checked = changes.map(|changes| {
            if let Some(changes) = changes {
                places.push(outcomes.len());
                requests.push(ConfigureTopic { name: name.clone(), changes, validate_only });
            }
        });
        outcomes.push((kind, name, checked));
    }
    context.ask_each(call.conn, requests, move |context, replies| {
        for (place, outcome) in places.into_iter().zip(replies) {
            outcomes[place].2 = outcome.map_err(|error| refused(&error));
        }
        let outcomes = outcomes.into_iter().map(|(kind, name, outcome)| {
            let (error, text) = told(outcome);
            (kind, name, error, text.map(Cow::Owned))
        });
        finish(context, call, outcomes.collect());
    });
}

/// Returns the changes that make a topic's configuration equal to the given one.
fn replaced(
    context: &Context<'_>,
    resource: &AlterConfigsResource<'_>,
) -> Result<Option<ConfigChanges>, Refused> {
    let (kind, name) = (resource.resource_type, resource.resource_name);
    changes(context, kind, name, resource.configs.iter().map(set), true)
}

fn altered(
    context: &Context<'_>,
    resource: &IncrementalAlterConfigsResource<'_>,
) -> Result<Option<ConfigChanges>, Refused> {
    let (kind, name) = (resource.resource_type, resource.resource_name);
    changes(context, kind, name, resource.configs.iter().map(changed), false)
}

fn changes<'a>(
    context: &Context<'_>,
    kind: i8,
    name: &str,
    changes: impl ExactSizeIterator<Item = Result<(&'a str, ConfigChange), Refused>>,
    resets_others: bool,
) -> Result<Option<ConfigChanges>, Refused> {
    check_alterable(context, kind, name, changes.len() == 0)?;
    if kind != TOPIC {
        return Ok(None);
    }
    let mut named = BTreeMap::new();
    for change in changes {
        let (name, change) = change?;
        if named.insert(name.to_owned(), change).is_some() {
            let text = format!("Error due to duplicate config keys: {name}");
            return Err((KafkaError::INVALID_REQUEST, text));
        }
    }
    Ok(Some(ConfigChanges { named, resets_others }))
}

/// Checks the changes of a resource that is no topic: only an empty change is allowed.
fn check_alterable(
    context: &Context<'_>,
    kind: i8,
    name: &str,
    changes_nothing: bool,
) -> Result<(), Refused> {
    match kind {
        TOPIC => Ok(()),
        BROKER => {
            check_broker(context, name)?;
            let text = "the configuration of a broker is given when it starts, and cannot be changed then";
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

/// Returns the changes of each resource of a request, by type and name. `changes` is called for valid resources.
fn plan<'a, R>(
    resources: impl ExactSizeIterator<Item = ((i8, &'a str), R)> + Clone,
    changes: impl Fn(R) -> Result<Option<ConfigChanges>, Refused>,
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

fn set<'a>(config: &AlterConfigsConfig<'a>) -> Result<(&'a str, ConfigChange), Refused> {
    Ok((config.name, ConfigChange::Set(given(config.name, config.value)?)))
}

/// Returns the change of an entry.
fn changed<'a>(config: &IncrementalAlterConfigsConfig<'a>) -> Result<(&'a str, ConfigChange), Refused> {
    let name = config.name;
    let change = match config.config_operation {
        0 => ConfigChange::Set(given(name, config.value)?),
        1 => ConfigChange::Reset,
        2 => ConfigChange::Append(given(name, config.value)?),
        3 => ConfigChange::Subtract(given(name, config.value)?),
        other => return Err((KafkaError::INVALID_REQUEST, format!("{name}: there is no operation {other}"))),
    };
    Ok((name, change))
}

fn given(name: &str, value: Option<&str>) -> Result<String, Refused> {
    let null = || (KafkaError::INVALID_REQUEST, format!("Null value not supported for : {name}"));
    let value = value.ok_or_else(null);
    value.map(str::to_owned)
}
