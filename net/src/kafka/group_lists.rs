//! Long responses about groups, encoded in parts: groups, and their members one by one.

use bytes::BytesMut;

use super::long::{Frame, frame, put_no_tags};
use super::messages::{
    ConsumerGroupDescribeResponse, DescribeGroupsResponse, DescribedConsumerGroup,
    DescribedConsumerGroupMember, DescribedGroup, DescribedGroupMember, JoinGroupMember, JoinGroupResponse,
    LeaveGroupMemberResponse, LeaveGroupResponse,
};
use super::schema::Message;
use super::wire::{Wire, put_length};

impl DescribeGroupsResponse<'_> {
    /// Encodes the message around `groups` groups, which are encoded one by one.
    pub fn frame(&self, version: i16, groups: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 1 {
                self.throttle_time_ms.write(out, form);
            }
        };
        frame(form, groups, front, |_| {})
    }
}

impl DescribedGroup<'_> {
    /// Encodes the group up to its members, and their number.
    pub fn put_front(&self, version: i16, members: usize, out: &mut BytesMut) {
        let form = DescribeGroupsResponse::form(version);
        self.error_code.write(out, form);
        if version >= 6 {
            self.error_message.write(out, form);
        }
        self.group_id.write(out, form);
        self.group_state.write(out, form);
        self.protocol_type.write(out, form);
        self.protocol_data.write(out, form);
        put_length(out, form, Some(members));
    }

    /// Encodes the fields after its members.
    pub fn put_back(&self, version: i16, out: &mut BytesMut) {
        let form = DescribeGroupsResponse::form(version);
        if version >= 3 {
            self.authorized_operations.write(out, form);
        }
        put_no_tags(out, form);
    }
}

impl DescribedGroupMember<'_> {
    /// Encodes the member.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, DescribeGroupsResponse::form(version));
    }
}

impl ConsumerGroupDescribeResponse<'_> {
    /// Encodes the message around `groups` groups, which are encoded one by one.
    pub fn frame(&self, version: i16, groups: usize) -> Frame {
        let form = Self::form(version);
        frame(form, groups, |out| self.throttle_time_ms.write(out, form), |_| {})
    }
}

impl DescribedConsumerGroup<'_> {
    /// Encodes the group up to its members, and their number.
    pub fn put_front(&self, version: i16, members: usize, out: &mut BytesMut) {
        let form = ConsumerGroupDescribeResponse::form(version);
        self.error_code.write(out, form);
        self.error_message.write(out, form);
        self.group_id.write(out, form);
        self.group_state.write(out, form);
        self.group_epoch.write(out, form);
        self.assignment_epoch.write(out, form);
        self.assignor_name.write(out, form);
        put_length(out, form, Some(members));
    }

    /// Encodes the fields after its members.
    pub fn put_back(&self, version: i16, out: &mut BytesMut) {
        let form = ConsumerGroupDescribeResponse::form(version);
        self.authorized_operations.write(out, form);
        put_no_tags(out, form);
    }
}

impl DescribedConsumerGroupMember<'_> {
    /// Encodes the member.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, ConsumerGroupDescribeResponse::form(version));
    }
}

impl JoinGroupResponse<'_> {
    /// Encodes the message around `members` members, which are encoded one by one.
    pub fn frame(&self, version: i16, members: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 2 {
                self.throttle_time_ms.write(out, form);
            }
            self.error_code.write(out, form);
            self.generation_id.write(out, form);
            if version >= 7 {
                self.protocol_type.write(out, form);
            }
            self.protocol_name.write(out, form);
            self.leader.write(out, form);
            if version >= 9 {
                self.skip_assignment.write(out, form);
            }
            self.member_id.write(out, form);
        };
        frame(form, members, front, |_| {})
    }
}

impl JoinGroupMember<'_> {
    /// Encodes the member.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, JoinGroupResponse::form(version));
    }
}

impl LeaveGroupResponse<'_> {
    /// Encodes the message around `members` members, which are encoded one by one, in versions that have several.
    pub fn frame(&self, version: i16, members: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            self.throttle_time_ms.write(out, form);
            self.error_code.write(out, form);
        };
        frame(form, members, front, |_| {})
    }
}

impl LeaveGroupMemberResponse<'_> {
    /// Encodes the result.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, LeaveGroupResponse::form(version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::error::KafkaError;
    use crate::kafka::samples::{Sample, Samples, Shape};

    fn whole<'a>(message: &impl Message<'a>, version: i16) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(version, &mut out);
        out
    }

    #[test]
    fn described_groups_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in DescribeGroupsResponse::VERSION_MIN..=DescribeGroupsResponse::VERSION_MAX {
            let mut groups = vec![DescribedGroup::sample(&mut samples); 3];
            groups[1].members.clear();
            let described = DescribeGroupsResponse { throttle_time_ms: 7, groups };
            let Frame { front, back } = described.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for group in &described.groups {
                group.put_front(version, group.members.len(), &mut parts);
                group.members.iter().for_each(|member| member.put(version, &mut parts));
                group.put_back(version, &mut parts);
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&described, version), "DescribeGroups {version}");
        }
        for version in ConsumerGroupDescribeResponse::VERSION_MIN..=ConsumerGroupDescribeResponse::VERSION_MAX
        {
            let mut groups = vec![DescribedConsumerGroup::sample(&mut samples); 3];
            groups[1].members.clear();
            let described = ConsumerGroupDescribeResponse { throttle_time_ms: 7, groups };
            let Frame { front, back } = described.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for group in &described.groups {
                group.put_front(version, group.members.len(), &mut parts);
                group.members.iter().for_each(|member| member.put(version, &mut parts));
                group.put_back(version, &mut parts);
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&described, version), "ConsumerGroupDescribe {version}");
        }
    }

    #[test]
    fn members_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in JoinGroupResponse::VERSION_MIN..=JoinGroupResponse::VERSION_MAX {
            let joined = JoinGroupResponse {
                throttle_time_ms: 7,
                protocol_name: Some("range".into()),
                members: vec![JoinGroupMember::sample(&mut samples); 3],
                ..JoinGroupResponse::sample(&mut samples)
            };
            let Frame { front, back } = joined.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            joined.members.iter().for_each(|member| member.put(version, &mut parts));
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&joined, version), "JoinGroup {version}");
        }
        for version in 3..=LeaveGroupResponse::VERSION_MAX {
            let left = LeaveGroupResponse {
                throttle_time_ms: 7,
                error_code: KafkaError(9),
                members: vec![LeaveGroupMemberResponse::sample(&mut samples); 3],
            };
            let Frame { front, back } = left.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            left.members.iter().for_each(|member| member.put(version, &mut parts));
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&left, version), "LeaveGroup {version}");
        }
    }
}
