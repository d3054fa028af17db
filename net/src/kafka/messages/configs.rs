//! Configurations of topics, brokers and groups.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Describes configurations.
    pub struct DescribeConfigsRequest<'a> in 1..=4, flexible 4 {
        resources: Vec<DescribeConfigsResource<'a>> => 0..;
        include_synonyms: bool => 0..;
        include_documentation: bool => 3..;
    }

    /// A resource.
    pub struct DescribeConfigsResource<'a> {
        resource_type: i8 => 0..;
        resource_name: &'a str => 0..;
        /// `None` for all.
        configuration_keys: Option<Vec<&'a str>> => 0..;
    }

    /// Configurations.
    pub struct DescribeConfigsResponse<'a> in 1..=4, flexible 4 {
        throttle_time_ms: i32 => 0..;
        results: Vec<DescribedResource<'a>> => 0..;
    }

    /// The configuration of one resource.
    pub struct DescribedResource<'a> {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        resource_type: i8 => 0..;
        resource_name: Cow<'a, str> => 0..;
        configs: Vec<DescribedConfig<'a>> => 0..;
    }

    /// A configuration entry.
    pub struct DescribedConfig<'a> {
        name: Cow<'a, str> => 0..;
        value: Option<Cow<'a, str>> => 0..;
        read_only: bool => 0..;
        config_source: i8 = -1 => 0..;
        is_sensitive: bool => 0..;
        synonyms: Vec<DescribedConfigSynonym<'a>> => 0..;
        config_type: i8 => 3..;
        documentation: Option<Cow<'a, str>> => 3..;
    }

    /// A possible source of a value.
    pub struct DescribedConfigSynonym<'a> {
        name: Cow<'a, str> => 0..;
        value: Option<Cow<'a, str>> => 0..;
        source: i8 => 0..;
    }

    /// Replaces configurations: entries that are not named are reset.
    pub struct AlterConfigsRequest<'a> in 0..=2, flexible 2 {
        resources: Vec<AlterConfigsResource<'a>> => 0..;
        validate_only: bool => 0..;
    }

    /// The new configuration of one resource.
    pub struct AlterConfigsResource<'a> {
        resource_type: i8 => 0..;
        resource_name: &'a str => 0..;
        configs: Vec<AlterConfigsConfig<'a>> => 0..;
    }

    /// A configuration entry.
    pub struct AlterConfigsConfig<'a> {
        name: &'a str => 0..;
        value: Option<&'a str> => 0..;
    }

    /// Results of the changes.
    pub struct AlterConfigsResponse<'a> in 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse<'a>> => 0..;
    }

    /// Result for one resource.
    pub struct AlterConfigsResourceResponse<'a> {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        resource_type: i8 => 0..;
        resource_name: Cow<'a, str> => 0..;
    }

    /// Changes configuration entries.
    pub struct IncrementalAlterConfigsRequest<'a> in 0..=1, flexible 1 {
        resources: Vec<IncrementalAlterConfigsResource<'a>> => 0..;
        validate_only: bool => 0..;
    }

    /// Changes of one resource.
    pub struct IncrementalAlterConfigsResource<'a> {
        resource_type: i8 => 0..;
        resource_name: &'a str => 0..;
        configs: Vec<IncrementalAlterConfigsConfig<'a>> => 0..;
    }

    /// A change of one entry.
    pub struct IncrementalAlterConfigsConfig<'a> {
        name: &'a str => 0..;
        /// 0: set; 1: delete; 2: append to a list; 3: remove from a list.
        config_operation: i8 => 0..;
        value: Option<&'a str> => 0..;
    }

    /// Results of the changes.
    pub struct IncrementalAlterConfigsResponse<'a> in 0..=1, flexible 1 {
        throttle_time_ms: i32 => 0..;
        responses: Vec<IncrementalAlterConfigsResourceResponse<'a>> => 0..;
    }

    /// Result for one resource.
    pub struct IncrementalAlterConfigsResourceResponse<'a> {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        resource_type: i8 => 0..;
        resource_name: Cow<'a, str> => 0..;
    }
}
