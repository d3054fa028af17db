//! Entries of DescribeConfigs, and Kafka's codes in them.

use highwater_net::kafka::messages::DescribedConfig;

use super::config_names::Type;

/// Kafka's codes for types of resources.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

/// Kafka's codes for the source of a value.
pub(super) const SET_FOR_TOPIC: i8 = 1;
pub(super) const SET_AT_START: i8 = 4;
pub(super) const DEFAULT: i8 = 5;

/// Returns the source of the value of a topic's setting.
pub(super) fn source_of(is_set: bool) -> i8 {
    if is_set { SET_FOR_TOPIC } else { DEFAULT }
}

/// Which fields of each entry to describe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detail {
    pub(super) synonyms: bool,
    pub(super) documentation: bool,
}

/// Returns the entry of a setting that cannot be changed.
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
