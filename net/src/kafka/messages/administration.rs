//! Administration that user interfaces use: access control, quotas, credentials, reassignments, elections, log directories.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Lists the access control entries that match a filter.
    pub struct DescribeAclsRequest<'a> in 1..=3, flexible 2 {
        resource_type_filter: i8 => 0..;
        resource_name_filter: Option<&'a str> => 0..;
        pattern_type_filter: i8 = 3 => 1..;
        principal_filter: Option<&'a str> => 0..;
        host_filter: Option<&'a str> => 0..;
        operation: i8 => 0..;
        permission_type: i8 => 0..;
    }

    /// Matching access control entries.
    pub struct DescribeAclsResponse<'a> in 1..=3, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        resources: Vec<DescribeAclsResource<'a>> => 0..;
    }

    /// The entries of one resource.
    pub struct DescribeAclsResource<'a> {
        resource_type: i8 => 0..;
        resource_name: Cow<'a, str> => 0..;
        pattern_type: i8 = 3 => 1..;
        acls: Vec<AclDescription<'a>> => 0..;
    }

    /// An access control entry.
    pub struct AclDescription<'a> {
        principal: Cow<'a, str> => 0..;
        host: Cow<'a, str> => 0..;
        operation: i8 => 0..;
        permission_type: i8 => 0..;
    }

    /// Requests the sizes of partitions, by log directory.
    pub struct DescribeLogDirsRequest<'a> in 1..=4, flexible 2 {
        /// `None` for all.
        topics: Option<Vec<DescribableLogDirTopic<'a>>> => 0..;
    }

    /// Partitions of one topic.
    pub struct DescribableLogDirTopic<'a> {
        topic: &'a str => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// Log directories.
    pub struct DescribeLogDirsResponse<'a> in 1..=4, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 3..;
        results: Vec<DescribeLogDirsResult<'a>> => 0..;
    }

    /// A log directory.
    pub struct DescribeLogDirsResult<'a> {
        error_code: KafkaError => 0..;
        log_dir: Cow<'a, str> => 0..;
        topics: Vec<DescribeLogDirsTopic<'a>> => 0..;
        /// Size of its file system in bytes; -1 if it is unknown.
        total_bytes: i64 = -1 => 4..;
        usable_bytes: i64 = -1 => 4..;
    }

    /// The partitions of one topic in a log directory.
    pub struct DescribeLogDirsTopic<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<DescribeLogDirsPartition> => 0..;
    }

    /// Size of one partition.
    pub struct DescribeLogDirsPartition {
        partition_index: i32 => 0..;
        partition_size: i64 => 0..;
        offset_lag: i64 => 0..;
        is_future_key: bool => 0..;
    }

    /// Elects leaders.
    pub struct ElectLeadersRequest<'a> in 0..=2, flexible 2 {
        /// 0: the preferred leader; 1: any live replica.
        election_type: i8 => 1..;
        /// `None` for all.
        topic_partitions: Option<Vec<TopicPartitions<'a>>> => 0..;
        timeout_ms: i32 = 60000 => 0..;
    }

    /// Partitions of one topic.
    pub struct TopicPartitions<'a> {
        topic: &'a str => 0..;
        partitions: Vec<i32> => 0..;
    }

    /// Results of elections.
    pub struct ElectLeadersResponse<'a> in 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 1..;
        replica_election_results: Vec<ReplicaElectionResult<'a>> => 0..;
    }

    /// Results for one topic.
    pub struct ReplicaElectionResult<'a> {
        topic: Cow<'a, str> => 0..;
        partition_result: Vec<PartitionResult<'a>> => 0..;
    }

    /// Result for one partition.
    pub struct PartitionResult<'a> {
        partition_id: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
    }

    /// Lists ongoing reassignments of partitions.
    pub struct ListPartitionReassignmentsRequest<'a> in 0..=0, flexible 0 {
        timeout_ms: i32 = 60000 => 0..;
        /// `None` for all.
        topics: Option<Vec<ListPartitionReassignmentsTopics<'a>>> => 0..;
    }

    /// Partitions of one topic.
    pub struct ListPartitionReassignmentsTopics<'a> {
        name: &'a str => 0..;
        partition_indexes: Vec<i32> => 0..;
    }

    /// Ongoing reassignments.
    pub struct ListPartitionReassignmentsResponse<'a> in 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        topics: Vec<OngoingTopicReassignment<'a>> => 0..;
    }

    /// Ongoing reassignments of one topic.
    pub struct OngoingTopicReassignment<'a> {
        name: Cow<'a, str> => 0..;
        partitions: Vec<OngoingPartitionReassignment> => 0..;
    }

    /// An ongoing reassignment of one partition.
    pub struct OngoingPartitionReassignment {
        partition_index: i32 => 0..;
        replicas: Vec<i32> => 0..;
        adding_replicas: Vec<i32> => 0..;
        removing_replicas: Vec<i32> => 0..;
    }

    /// Describes client quotas.
    pub struct DescribeClientQuotasRequest<'a> in 0..=1, flexible 1 {
        components: Vec<ComponentData<'a>> => 0..;
        strict: bool => 0..;
    }

    /// Filter for one component of an entity.
    pub struct ComponentData<'a> {
        entity_type: &'a str => 0..;
        match_type: i8 => 0..;
        match_: Option<&'a str> => 0..;
    }

    /// Client quotas.
    pub struct DescribeClientQuotasResponse<'a> in 0..=1, flexible 1 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        entries: Option<Vec<EntryData<'a>>> => 0..;
    }

    /// Quotas of one entity.
    pub struct EntryData<'a> {
        entity: Vec<EntityData<'a>> => 0..;
        values: Vec<ValueData<'a>> => 0..;
    }

    /// One component of an entity.
    pub struct EntityData<'a> {
        entity_type: Cow<'a, str> => 0..;
        entity_name: Option<Cow<'a, str>> => 0..;
    }

    /// A quota.
    pub struct ValueData<'a> {
        key: Cow<'a, str> => 0..;
        value: f64 => 0..;
    }

    /// Describes SCRAM credentials of users.
    pub struct DescribeUserScramCredentialsRequest<'a> in 0..=0, flexible 0 {
        /// `None` or empty for all.
        users: Option<Vec<UserName<'a>>> => 0..;
    }

    /// A user.
    pub struct UserName<'a> {
        name: &'a str => 0..;
    }

    /// SCRAM credentials.
    pub struct DescribeUserScramCredentialsResponse<'a> in 0..=0, flexible 0 {
        throttle_time_ms: i32 => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        results: Vec<DescribeUserScramCredentialsResult<'a>> => 0..;
    }

    /// Credentials of one user.
    pub struct DescribeUserScramCredentialsResult<'a> {
        user: Cow<'a, str> => 0..;
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        credential_infos: Vec<CredentialInfo> => 0..;
    }

    /// A credential, without its secret.
    pub struct CredentialInfo {
        mechanism: i8 => 0..;
        iterations: i32 => 0..;
    }
}
