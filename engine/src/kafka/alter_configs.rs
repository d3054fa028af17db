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
use super::config_entry::{BROKER, GROUP, TOPIC};
use super::configs::check_broker;
use super::error::{RequestError, error_fields, request_error};
use super::names::{check_count, repeated};
use crate::api::{ConfigChange, ConfigChanges, ConfigureTopic};
use crate::context::Context;

/// The changes to one resource of a request. `None` for no change: only topics can be changed.
struct ResourceChange {
    kind: i8,
    name: String,
    changes: Result<Option<ConfigChanges>, RequestError>,
}

/// The error for a resource that a request names twice.
const DUPLICATE_RESOURCE: &str = "Each resource must appear at most once.";

/// The outcome for a resource: type, name, error code and message.
type Outcome = (i8, String, KafkaError, Option<Cow<'static, str>>);

pub(super) fn alter_configs(context: &mut Context<'_>, call: Call, request: &AlterConfigsRequest<'_>) {
    let resources = request.resources.iter().map(|r| ((r.resource_type, r.resource_name), r));
    let changes_by_resource = plan_changes(resources, |resource| replacement(context, resource));
    alter(context, call, changes_by_resource, request.validate_only, |context, call, outcomes| {
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
    let changes_by_resource = plan_changes(resources, |resource| changes_by_resource(context, resource));
    alter(context, call, changes_by_resource, request.validate_only, |context, call, outcomes| {
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
    changes_by_resource: Vec<ResourceChange>,
    validate_only: bool,
    finish: impl FnOnce(&mut Context<'_>, Call, Vec<Outcome>) + 'static,
) {
    let mut outcomes = Vec::with_capacity(changes_by_resource.len());
    let mut requests = Vec::new();
    let mut places = Vec::new();
    for ResourceChange { kind, name, changes } in changes_by_resource {
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
            outcomes[place].2 = outcome.map_err(|error| request_error(&error));
        }
        let outcomes = outcomes.into_iter().map(|(kind, name, outcome)| {
            let (error, text) = error_fields(outcome);
            (kind, name, error, text.map(Cow::Owned))
        });
        finish(context, call, outcomes.collect());
    });
}

/// Returns the changes that make a topic's configuration equal to the given one.
fn replacement(
    context: &Context<'_>,
    resource: &AlterConfigsResource<'_>,
) -> Result<Option<ConfigChanges>, RequestError> {
    let (kind, name) = (resource.resource_type, resource.resource_name);
    changes(context, kind, name, resource.configs.iter().map(set), true)
}

fn changes_by_resource(
    context: &Context<'_>,
    resource: &IncrementalAlterConfigsResource<'_>,
) -> Result<Option<ConfigChanges>, RequestError> {
    let (kind, name) = (resource.resource_type, resource.resource_name);
    changes(context, kind, name, resource.configs.iter().map(alteration), false)
}

fn changes<'a>(
    context: &Context<'_>,
    kind: i8,
    name: &str,
    changes: impl ExactSizeIterator<Item = Result<(&'a str, ConfigChange), RequestError>>,
    resets_others: bool,
) -> Result<Option<ConfigChanges>, RequestError> {
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

/// Checks that a resource may be changed. Of those that are not topics, only an empty change is allowed.
fn check_alterable(
    context: &Context<'_>,
    kind: i8,
    name: &str,
    changes_nothing: bool,
) -> Result<(), RequestError> {
    match kind {
        TOPIC => Ok(()),
        BROKER => {
            check_broker(context, name)?;
            let text = "a broker's configuration is set when it starts and cannot be changed while it runs";
            if changes_nothing { Ok(()) } else { Err((KafkaError::INVALID_REQUEST, text.into())) }
        }
        GROUP if changes_nothing => Ok(()),
        GROUP => Err((KafkaError::INVALID_CONFIG, "per-group settings are not supported".into())),
        other => {
            let text = format!("configuration of resource type {other} is not supported");
            Err((KafkaError::INVALID_REQUEST, text))
        }
    }
}

/// Returns the changes to each resource of a request. Calls `changes` for valid resources only.
fn plan_changes<'a, R>(
    resources: impl ExactSizeIterator<Item = ((i8, &'a str), R)> + Clone,
    changes: impl Fn(R) -> Result<Option<ConfigChanges>, RequestError>,
) -> Vec<ResourceChange> {
    let duplicates = repeated(resources.clone().map(|(id, _)| id));
    let count = check_count(resources.len());
    let changes_by_resource = resources.map(|(id, resource)| {
        let once = if duplicates.contains(&id) {
            Err((KafkaError::INVALID_REQUEST, DUPLICATE_RESOURCE.into()))
        } else {
            Ok(())
        };
        let changes = count.clone().and(once).and_then(|()| changes(resource));
        ResourceChange { kind: id.0, name: id.1.to_owned(), changes }
    });
    changes_by_resource.collect()
}

fn set<'a>(config: &AlterConfigsConfig<'a>) -> Result<(&'a str, ConfigChange), RequestError> {
    Ok((config.name, ConfigChange::Set(require_value(config.name, config.value)?)))
}

/// Returns the change that an entry requests.
fn alteration<'a>(
    config: &IncrementalAlterConfigsConfig<'a>,
) -> Result<(&'a str, ConfigChange), RequestError> {
    let name = config.name;
    let change = match config.config_operation {
        0 => ConfigChange::Set(require_value(name, config.value)?),
        1 => ConfigChange::Reset,
        2 => ConfigChange::Append(require_value(name, config.value)?),
        3 => ConfigChange::Subtract(require_value(name, config.value)?),
        other => return Err((KafkaError::INVALID_REQUEST, format!("{name}: unknown operation {other}"))),
    };
    Ok((name, change))
}

/// Returns the value of an entry, which must not be null.
fn require_value(name: &str, value: Option<&str>) -> Result<String, RequestError> {
    let null = || (KafkaError::INVALID_REQUEST, format!("Null value not supported for : {name}"));
    let value = value.ok_or_else(null);
    value.map(str::to_owned)
}
