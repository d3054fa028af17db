//! Administration of groups.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Describes groups.
    pub struct DescribeGroupsRequest<'a> in 0..=6, flexible 5 {
        groups: Vec<&'a str> => 0..;
        include_authorized_operations: bool => 3..;
    }

    /// Groups.
    pub struct DescribeGroupsResponse<'a> in 0..=6, flexible 5 {
        throttle_time_ms: i32 => 1..;
        groups: Vec<DescribedGroup<'a>> => 0..;
    }

    /// A group.
    pub struct DescribedGroup<'a> {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 6..;
        group_id: Cow<'a, str> => 0..;
        group_state: Cow<'a, str> => 0..;
        protocol_type: Cow<'a, str> => 0..;
        protocol_data: Cow<'a, str> => 0..;
        members: Vec<DescribedGroupMember<'a>> => 0..;
        authorized_operations: i32 = i32::MIN => 3..;
    }

    /// A member.
    pub struct DescribedGroupMember<'a> {
        member_id: Cow<'a, str> => 0..;
        group_instance_id: Option<Cow<'a, str>> => 4..;
        client_id: Cow<'a, str> => 0..;
        client_host: Cow<'a, str> => 0..;
        member_metadata: Cow<'a, [u8]> => 0..;
        member_assignment: Cow<'a, [u8]> => 0..;
    }

    /// Lists groups.
    pub struct ListGroupsRequest<'a> in 0..=5, flexible 3 {
        states_filter: Vec<&'a str> => 4..;
        types_filter: Vec<&'a str> => 5..;
    }

    /// Groups.
    pub struct ListGroupsResponse<'a> in 0..=5, flexible 3 {
        throttle_time_ms: i32 => 1..;
        error_code: KafkaError => 0..;
        groups: Vec<ListedGroup<'a>> => 0..;
    }

    /// A group.
    pub struct ListedGroup<'a> {
        group_id: Cow<'a, str> => 0..;
        protocol_type: Cow<'a, str> => 0..;
        group_state: Cow<'a, str> => 4..;
        group_type: Cow<'a, str> => 5..;
    }

    /// Deletes groups without members.
    pub struct DeleteGroupsRequest<'a> in 0..=2, flexible 2 {
        groups_names: Vec<&'a str> => 0..;
    }

    /// Results of the deletion.
    pub struct DeleteGroupsResponse<'a> in 0..=2, flexible 2 {
        throttle_time_ms: i32 => 0..;
        results: Vec<DeletedGroup<'a>> => 0..;
    }

    /// Result for one group.
    pub struct DeletedGroup<'a> {
        group_id: Cow<'a, str> => 0..;
        error_code: KafkaError => 0..;
    }
}
