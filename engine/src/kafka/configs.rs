//! DescribeConfigs. Topic settings can be changed; the broker's are fixed when it starts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, DescribedConfig, DescribedConfigSynonym,
    DescribedResource,
};
use highwater_net::kafka::schema::Message as _;
use highwater_net::kafka::wire::Wire as _;
use highwater_net::{Entries, Pieces};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::broker_configs::broker_configs;
use super::cluster::node;
use super::config_entry::{BROKER, DEFAULT, Detail, GROUP, SET_FOR_TOPIC, TOPIC, entry, source_of};
use super::config_names::{CONFIG_DESCRIPTIONS, Type};
use super::error::RequestError;
use crate::context::{AnswerTo, ClientJob, Context};
use crate::coord::groups::GroupConfig;
use crate::counters::Work;
use crate::meta::Topic;
use crate::meta::configs;
use crate::names::{Distinct, Names};
use crate::setup::ShardSetup;

pub(super) fn describe_configs(context: &mut Context<'_>, call: Call, request: &DescribeConfigsRequest<'_>) {
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut keys = Names::default();
    let requested = request.resources.iter().map(|resource| {
        let first = keys.len();
        resource.configuration_keys.iter().flatten().for_each(|key| keys.push(key));
        (resource.resource_type, first..keys.len())
    });
    let job = DescribeJob {
        call,
        detail,
        requested: requested.collect::<Vec<_>>().into_iter(),
        names: request.resources.iter().map(|resource| resource.resource_name).collect(),
        keys,
        seen: Distinct::new(request.resources.len(), || context.plane.random_u64()),
        next: 0,
        current: None,
        list: Vec::new(),
    };
    context.begin_job(job);
}

/// Looks up the resources of a request, as many as a turn allows.
struct DescribeJob {
    call: Call,
    detail: Detail,
    /// The type of each resource, and the range of its entries in `keys`.
    requested: IntoIter<(i8, Range<usize>)>,
    names: Names,
    /// The names of requested settings, of all resources.
    keys: Names,
    /// Each resource is described once: its description is hundreds of times as long as its name.
    seen: Distinct,
    /// The index of the next resource.
    next: usize,
    /// The last resource and its remaining keys, while these are being copied.
    current: Option<(Resource, Range<usize>)>,
    list: Vec<Resource>,
}

impl ClientJob for DescribeJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over() {
            if let Some((mut resource, mut keys)) = self.current.take() {
                let some = keys.start..keys.end.min(keys.start + work.left());
                work.spend(some.len());
                keys.start = some.end;
                resource.names.get_or_insert_default().extend(some.map(|key| self.keys.get(key).to_owned()));
                if keys.is_empty() {
                    self.list.push(resource);
                } else {
                    self.current = Some((resource, keys));
                }
                continue;
            }
            let Some((kind, keys)) = self.requested.next() else { return true };
            work.spend(2);
            let (n, list, names) = (self.next, &self.list, &self.names);
            self.next += 1;
            let name = names.get(n);
            let is_same = |other: usize| {
                let other = &list[other];
                (other.kind, names.get(other.name as usize)) == (kind, name)
            };
            if !self.seen.is_new(list.len(), &(kind, name), is_same) {
                continue;
            }
            let resource = find_resource(context, kind, n, name);
            // As in Kafka, an empty list and no list both mean everything.
            if keys.is_empty() {
                self.list.push(resource);
            } else {
                self.current = Some((resource, keys));
            }
        }
        self.requested.len() == 0 && self.current.is_none()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { call, detail, names, list, .. } = *self;
        let version = call.version();
        let is_broker = |resource: &Resource| matches!(resource.found, Ok(FoundResource::Broker));
        let of_broker =
            if list.iter().any(is_broker) { broker_configs(context, call, detail) } else { Vec::new() };
        let Frame { front, back } = DescribeConfigsResponse::default().frame(version, list.len());
        let setup = Arc::clone(context.setup);
        let entries = Resources { version, setup, of_broker, detail, names, list };
        context.answer_in_pieces(AnswerTo::Kafka(call), Pieces::new(front, entries, back));
    }
}

fn find_resource(context: &Context<'_>, kind: i8, number: usize, name: &str) -> Resource {
    let found = match kind {
        TOPIC => {
            let found = context.metadata.and_then(|m| m.topic(name));
            Ok(found.map_or(FoundResource::NoTopic, |topic| FoundResource::Topic(Arc::clone(topic))))
        }
        // The dynamic configuration of all brokers is empty.
        BROKER => check_broker(context, name)
            .map(|()| if name.is_empty() { FoundResource::AllBrokers } else { FoundResource::Broker }),
        GROUP => Ok(FoundResource::Group),
        other => {
            let text = format!("configuration of resource type {other} is not supported");
            Err((KafkaError::INVALID_REQUEST, text))
        }
    };
    Resource { kind, name: number as u32, found, names: None }
}

/// Checks that a name is this broker's id, or empty for all brokers.
pub(super) fn check_broker(context: &Context<'_>, name: &str) -> Result<(), RequestError> {
    let node = node(context);
    // Leading zeros are rejected: otherwise a request could name the broker many times and get a description for each.
    if name.is_empty() || name == node.to_string() {
        return Ok(());
    }
    let text = format!("unknown broker {name:?}: the only broker is {node}");
    Err((KafkaError::INVALID_REQUEST, text))
}

/// A resource to describe.
#[derive(Debug)]
struct Resource {
    kind: i8,
    /// The index of its name.
    name: u32,
    found: Result<FoundResource, RequestError>,
    /// The requested settings; `None` for all.
    names: Option<BTreeSet<String>>,
}

#[derive(Debug)]
enum FoundResource {
    Topic(Arc<Topic>),
    NoTopic,
    Broker,
    AllBrokers,
    Group,
}

/// The resources of a response.
#[derive(Debug)]
struct Resources {
    version: i16,
    setup: Arc<ShardSetup>,
    /// The broker's configuration for this client, if it is requested.
    of_broker: Vec<DescribedConfig<'static>>,
    detail: Detail,
    names: Names,
    list: Vec<Resource>,
}

impl Entries for Resources {
    fn count(&self) -> usize {
        self.list.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let Resource { kind, name, found, names } = &self.list[entry];
        let name = self.names.get(*name as usize);
        let mut described = DescribedResource {
            resource_type: *kind,
            resource_name: Cow::Borrowed(name),
            ..Default::default()
        };
        match found {
            Ok(FoundResource::NoTopic) => {
                described.error_code = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
                described.error_message = Some(format!("there is no topic {name}").into());
            }
            Ok(found) => described.configs = self.configs(found),
            Err((error, text)) => {
                described.error_code = *error;
                described.error_message = Some(Cow::Borrowed(text));
            }
        }
        if let Some(names) = names {
            described.configs.retain(|entry| names.contains(&*entry.name));
        }
        described.write(out, DescribeConfigsResponse::form(self.version));
        false
    }

    fn memory_bytes(&self) -> usize {
        let wanted = |resource: &Resource| {
            let names = resource.names.iter().flatten();
            names.map(|name| name.len() + size_of::<String>()).sum::<usize>()
        };
        let resources = size_of_val(&self.list[..]) + self.list.iter().map(wanted).sum::<usize>();
        self.names.memory_bytes() + size_of_val(&self.of_broker[..]) + resources
    }
}

impl Resources {
    fn configs<'a>(&self, described: &'a FoundResource) -> Vec<DescribedConfig<'a>> {
        match described {
            FoundResource::Topic(topic) => topic_configs(&topic.configs, self.detail),
            FoundResource::Broker => self.of_broker.clone(),
            FoundResource::AllBrokers | FoundResource::NoTopic => Vec::new(),
            FoundResource::Group => group_configs(&self.setup.groups, self.detail),
        }
    }
}

fn topic_configs(set: &BTreeMap<String, String>, detail: Detail) -> Vec<DescribedConfig<'_>> {
    let settings = configs::settings(set).zip(CONFIG_DESCRIPTIONS.iter());
    let entries = settings.map(|(setting, description)| {
        let synonym = |name, value, source| DescribedConfigSynonym {
            name: Cow::Borrowed(name),
            value: Some(Cow::Borrowed(value)),
            source,
        };
        let config = setting.config;
        let mut synonyms = Vec::new();
        if detail.synonyms {
            synonyms.extend(setting.set.map(|value| synonym(config.name, value, SET_FOR_TOPIC)));
            synonyms.extend(description.broker_name.map(|name| synonym(name, config.default, DEFAULT)));
        }
        DescribedConfig {
            name: Cow::Borrowed(config.name),
            value: Some(Cow::Borrowed(setting.value())),
            read_only: false,
            config_source: source_of(setting.set.is_some()),
            is_sensitive: false,
            synonyms,
            config_type: Type::of(config) as i8,
            documentation: detail.documentation.then_some(Cow::Borrowed(&description.documentation[..])),
        }
    });
    entries.collect()
}

/// Returns the configuration of groups, which is the same for every group.
fn group_configs(groups: &GroupConfig, detail: Detail) -> Vec<DescribedConfig<'static>> {
    let entries = [
        (
            "consumer.heartbeat.interval.ms",
            groups.consumer_heartbeat_interval_ms.to_string(),
            "Heartbeat interval for members.",
        ),
        (
            "consumer.session.timeout.ms",
            groups.consumer_session_timeout_ms.to_string(),
            "Time after which a silent member is removed.",
        ),
    ];
    let entries = entries.into_iter().map(|(name, value, text)| {
        entry(name, Some(value), Type::Int, DEFAULT, detail.documentation.then(|| text.to_owned()))
    });
    entries.collect()
}
