//! Long responses that are lists, encoded in parts: the fields before and after the entries, and the entries one by one.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::messages::{
    CreateTopicsResponse, DeleteGroupsResponse, DescribeConfigsResponse, FindCoordinatorResponse,
    ListGroupsResponse, MetadataPartition, MetadataResponse, MetadataTopic,
    OffsetFetchGroupPartitionResponse, OffsetFetchGroupResponse, OffsetFetchGroupTopicResponse,
    OffsetFetchPartitionResponse, OffsetFetchResponse,
};
use super::schema::Message;
use super::wire::{Form, Wire, put_length, put_string, put_uvarint};

/// The encoded fields before and after the entries of a list.
pub struct Frame {
    /// The fields before the entries, and the number of entries.
    pub front: Bytes,
    /// The fields after the entries.
    pub back: Bytes,
}

pub(super) fn frame(
    form: Form,
    entries: usize,
    front: impl FnOnce(&mut BytesMut),
    back: impl FnOnce(&mut BytesMut),
) -> Frame {
    let (mut before, mut behind) = (BytesMut::new(), BytesMut::new());
    front(&mut before);
    put_length(&mut before, form, Some(entries));
    back(&mut behind);
    put_no_tags(&mut behind, form);
    Frame { front: before.freeze(), back: behind.freeze() }
}

pub(super) fn put_no_tags(out: &mut BytesMut, form: Form) {
    if form.flexible {
        put_uvarint(out, 0);
    }
}

impl MetadataResponse<'_> {
    /// Encodes the message around `topics` topics, which are encoded one by one.
    pub fn frame(&self, version: i16, topics: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 3 {
                self.throttle_time_ms.write(out, form);
            }
            self.brokers.write(out, form);
            if version >= 2 {
                self.cluster_id.write(out, form);
            }
            if version >= 1 {
                self.controller_id.write(out, form);
            }
        };
        let back = |out: &mut BytesMut| {
            if (8..=10).contains(&version) {
                self.cluster_authorized_operations.write(out, form);
            }
            if version >= 13 {
                self.error_code.write(out, form);
            }
        };
        frame(form, topics, front, back)
    }
}

impl MetadataTopic<'_> {
    /// Encodes the topic up to its partitions, and their number.
    pub fn put_front(&self, version: i16, partitions: usize, out: &mut BytesMut) {
        let form = MetadataResponse::form(version);
        self.error_code.write(out, form);
        match &self.name {
            None if version < 12 => super::wire::put_string(out, form, Some("")),
            name => name.write(out, form),
        }
        if version >= 10 {
            self.topic_id.write(out, form);
        }
        if version >= 1 {
            self.is_internal.write(out, form);
        }
        put_length(out, form, Some(partitions));
    }

    /// Encodes the fields after its partitions.
    pub fn put_back(&self, version: i16, out: &mut BytesMut) {
        let form = MetadataResponse::form(version);
        if version >= 8 {
            self.topic_authorized_operations.write(out, form);
        }
        put_no_tags(out, form);
    }
}

impl MetadataPartition {
    /// Encodes the partition.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, MetadataResponse::form(version));
    }
}

impl DescribeConfigsResponse<'_> {
    /// Encodes the message around `results` resources, which are encoded one by one.
    pub fn frame(&self, version: i16, results: usize) -> Frame {
        let form = Self::form(version);
        frame(form, results, |out| self.throttle_time_ms.write(out, form), |_| {})
    }
}

impl CreateTopicsResponse<'_> {
    /// Encodes the message around `topics` topics, which are encoded one by one.
    pub fn frame(&self, version: i16, topics: usize) -> Frame {
        let form = Self::form(version);
        frame(form, topics, |out| self.throttle_time_ms.write(out, form), |_| {})
    }
}

impl FindCoordinatorResponse<'_> {
    /// The message around `coordinators` entries that are written one by one, in versions with several.
    pub fn frame(&self, version: i16, coordinators: usize) -> Frame {
        let form = Self::form(version);
        frame(form, coordinators, |out| self.throttle_time_ms.write(out, form), |_| {})
    }
}

impl ListGroupsResponse<'_> {
    /// Encodes the message around `groups` groups, which are encoded one by one.
    pub fn frame(&self, version: i16, groups: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 1 {
                self.throttle_time_ms.write(out, form);
            }
            self.error_code.write(out, form);
        };
        frame(form, groups, front, |_| {})
    }
}

impl DeleteGroupsResponse<'_> {
    /// Encodes the message around `results` groups, which are encoded one by one.
    pub fn frame(&self, version: i16, results: usize) -> Frame {
        let form = Self::form(version);
        frame(form, results, |out| self.throttle_time_ms.write(out, form), |_| {})
    }
}

/// First version of OffsetFetch with several groups.
const GROUPS_FROM: i16 = 8;

impl OffsetFetchResponse<'_> {
    /// Encodes the message around `entries` groups or, in versions with a single group, topics, which are encoded one by one.
    pub fn frame(&self, version: i16, entries: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 3 {
                self.throttle_time_ms.write(out, form);
            }
        };
        let back = |out: &mut BytesMut| {
            if (2..GROUPS_FROM).contains(&version) {
                self.error_code.write(out, form);
            }
        };
        frame(form, entries, front, back)
    }
}

impl OffsetFetchGroupResponse<'_> {
    /// Encodes the group up to its topics, and their number. Versions with a single group do not name it.
    pub fn put_front(&self, version: i16, topics: usize, out: &mut BytesMut) {
        if version >= GROUPS_FROM {
            let form = OffsetFetchResponse::form(version);
            self.group_id.write(out, form);
            put_length(out, form, Some(topics));
        }
    }

    /// Encodes the fields after its topics.
    pub fn put_back(&self, version: i16, out: &mut BytesMut) {
        if version >= GROUPS_FROM {
            let form = OffsetFetchResponse::form(version);
            self.error_code.write(out, form);
            put_no_tags(out, form);
        }
    }
}

impl OffsetFetchGroupTopicResponse<'_> {
    /// Encodes the topic up to its partitions, in any version.
    pub fn put_front(&self, version: i16, out: &mut BytesMut) {
        let form = OffsetFetchResponse::form(version);
        if version >= 10 {
            self.topic_id.write(out, form);
        } else {
            put_string(out, form, Some(&self.name));
        }
        put_length(out, form, Some(self.partitions.len()));
    }

    /// Encodes the fields after its partitions.
    pub fn put_back(version: i16, out: &mut BytesMut) {
        put_no_tags(out, OffsetFetchResponse::form(version));
    }
}

impl OffsetFetchGroupPartitionResponse<'_> {
    /// Encodes the partition, in any version.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        let form = OffsetFetchResponse::form(version);
        if version >= GROUPS_FROM {
            return self.write(out, form);
        }
        let partition = OffsetFetchPartitionResponse {
            partition_index: self.partition_index,
            committed_offset: self.committed_offset,
            committed_leader_epoch: self.committed_leader_epoch,
            metadata: self.metadata.as_deref().map(Cow::Borrowed),
            error_code: self.error_code,
        };
        partition.write(out, form);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::error::KafkaError;
    use crate::kafka::messages::{
        CreatedTopic, DeletedGroup, DescribedResource, ListedGroup, OffsetFetchTopicResponse,
    };
    use crate::kafka::samples::{Sample, Samples, Shape};

    fn whole<'a>(message: &impl Message<'a>, version: i16) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(version, &mut out);
        out
    }

    #[test]
    fn what_is_written_in_parts_is_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in 0..=13 {
            let mut metadata = MetadataResponse::sample(&mut samples);
            metadata.topics.push(MetadataTopic { name: None, ..MetadataTopic::sample(&mut samples) });
            let Frame { front, back } = metadata.frame(version, metadata.topics.len());
            let mut parts = BytesMut::from(&front[..]);
            for topic in &metadata.topics {
                topic.put_front(version, topic.partitions.len(), &mut parts);
                topic.partitions.iter().for_each(|partition| partition.put(version, &mut parts));
                topic.put_back(version, &mut parts);
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&metadata, version), "Metadata {version}");
        }
        for version in DescribeConfigsResponse::VERSION_MIN..=DescribeConfigsResponse::VERSION_MAX {
            let described = DescribeConfigsResponse {
                throttle_time_ms: 7,
                results: vec![DescribedResource::sample(&mut samples); 3],
            };
            let Frame { front, back } = described.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for result in &described.results {
                result.write(&mut parts, DescribeConfigsResponse::form(version));
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&described, version), "DescribeConfigs {version}");
        }
        for version in CreateTopicsResponse::VERSION_MIN..=CreateTopicsResponse::VERSION_MAX {
            let created = CreateTopicsResponse {
                throttle_time_ms: 7,
                topics: vec![CreatedTopic::sample(&mut samples); 3],
            };
            let Frame { front, back } = created.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for topic in &created.topics {
                topic.write(&mut parts, CreateTopicsResponse::form(version));
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&created, version), "CreateTopics {version}");
        }
    }

    #[test]
    fn offsets_and_groups_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in OffsetFetchResponse::VERSION_MIN..=OffsetFetchResponse::VERSION_MAX {
            let group = OffsetFetchGroupResponse::sample(&mut samples);
            let topics = group.topics.iter().map(|topic| OffsetFetchTopicResponse {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|p| OffsetFetchPartitionResponse {
                        partition_index: p.partition_index,
                        committed_offset: p.committed_offset,
                        committed_leader_epoch: p.committed_leader_epoch,
                        metadata: p.metadata.clone(),
                        error_code: p.error_code,
                    })
                    .collect(),
            });
            let response = OffsetFetchResponse {
                throttle_time_ms: 7,
                topics: topics.collect(),
                error_code: KafkaError(9),
                groups: vec![group.clone()],
            };
            let entries = if version >= GROUPS_FROM { 1 } else { group.topics.len() };
            let Frame { front, back } = response.frame(version, entries);
            let mut parts = BytesMut::from(&front[..]);
            group.put_front(version, group.topics.len(), &mut parts);
            for topic in &group.topics {
                topic.put_front(version, &mut parts);
                topic.partitions.iter().for_each(|partition| partition.put(version, &mut parts));
                OffsetFetchGroupTopicResponse::put_back(version, &mut parts);
            }
            group.put_back(version, &mut parts);
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&response, version), "OffsetFetch {version}");
        }
        for version in ListGroupsResponse::VERSION_MIN..=ListGroupsResponse::VERSION_MAX {
            let listed = ListGroupsResponse {
                throttle_time_ms: 7,
                error_code: KafkaError(9),
                groups: vec![ListedGroup::sample(&mut samples); 3],
            };
            let Frame { front, back } = listed.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for group in &listed.groups {
                group.write(&mut parts, ListGroupsResponse::form(version));
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&listed, version), "ListGroups {version}");
        }
        for version in DeleteGroupsResponse::VERSION_MIN..=DeleteGroupsResponse::VERSION_MAX {
            let deleted = DeleteGroupsResponse {
                throttle_time_ms: 7,
                results: vec![DeletedGroup::sample(&mut samples); 3],
            };
            let Frame { front, back } = deleted.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for group in &deleted.results {
                group.write(&mut parts, DeleteGroupsResponse::form(version));
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&deleted, version), "DeleteGroups {version}");
        }
    }
}
