//! Long responses that are lists of topics with their partitions, encoded in parts.

use std::fmt;

use bytes::BytesMut;

use super::long::{Frame, frame, put_no_tags};
use super::messages::{
    AddPartitionsToTxnResponse, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    DeleteRecordsResponse, DeleteRecordsTopicResponse, DescribeLogDirsPartition, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic, DescribeProducersResponse, EpochTopicResponse,
    ListOffsetsResponse, ListOffsetsTopicResponse, OffsetCommitResponse, OffsetCommitTopicResponse,
    OffsetDeleteResponse, OffsetDeleteTopicResponse, OffsetForLeaderEpochResponse, PartitionResponse,
    ProducerState, TopicResponse, TxnOffsetCommitResponse, TxnOffsetCommitResponseTopic,
};
use super::schema::Message;
use super::wire::{Wire, put_length};

/// A topic of a response that has nothing but such topics.
pub trait ListedTopic: fmt::Debug + Send {
    /// Encodes the response around `topics` topics, which are encoded one by one.
    fn frame(version: i16, topics: usize) -> Frame;

    /// Returns the number of partitions.
    fn partitions(&self) -> usize;

    /// Encodes the topic up to its partitions, and their number.
    fn put_front(&self, version: i16, out: &mut BytesMut);

    /// Encodes partitions, those from `from` to `until`, as far as they exist.
    fn put_partitions(&self, version: i16, from: usize, until: usize, out: &mut BytesMut);

    /// Encodes the fields after its partitions.
    fn put_back(version: i16, out: &mut BytesMut);

    /// Returns about how many bytes of memory it takes.
    fn memory_bytes(&self) -> usize;
}

macro_rules! listed_topics {
    ($($response:ident, throttled from $from:literal: $topic:ident with $name:ident and $partitions:ident;)+) => {$(
        impl ListedTopic for $topic<'_> {
            fn frame(version: i16, topics: usize) -> Frame {
                let form = $response::form(version);
                let front = |out: &mut BytesMut| {
                    if version >= $from {
                        0_i32.write(out, form);
                    }
                };
                frame(form, topics, front, |_| {})
            }

            fn partitions(&self) -> usize {
                self.$partitions.len()
            }

            fn put_front(&self, version: i16, out: &mut BytesMut) {
                let form = $response::form(version);
                self.$name.write(out, form);
                put_length(out, form, Some(self.$partitions.len()));
            }

            fn put_partitions(&self, version: i16, from: usize, until: usize, out: &mut BytesMut) {
                let form = $response::form(version);
                let partitions = self.$partitions.iter().take(until).skip(from);
                partitions.for_each(|partition| partition.write(out, form));
            }

            fn put_back(version: i16, out: &mut BytesMut) {
                put_no_tags(out, $response::form(version));
            }

            fn memory_bytes(&self) -> usize {
                let name_bytes = self.$name.len();
                size_of::<Self>() + name_bytes + size_of_val(&self.$partitions[..])
            }
        }
    )+};
}

listed_topics! {
    ListOffsetsResponse, throttled from 2: ListOffsetsTopicResponse with name and partitions;
    DeleteRecordsResponse, throttled from 0: DeleteRecordsTopicResponse with name and partitions;
    OffsetForLeaderEpochResponse, throttled from 0: EpochTopicResponse with topic and partitions;
    TxnOffsetCommitResponse, throttled from 0: TxnOffsetCommitResponseTopic with name and partitions;
    // Up to version 3 the topics are the response, later they are those of a transaction.
    AddPartitionsToTxnResponse, throttled from 0: AddPartitionsToTxnTopicResult with name and results_by_partition;
}

/// The same for responses with more than that before the topics, or with another name for them.
macro_rules! topics_of {
    ($response:ident) => {
        fn partitions(&self) -> usize {
            self.partitions.len()
        }

        fn put_partitions(&self, version: i16, from: usize, until: usize, out: &mut BytesMut) {
            let form = $response::form(version);
            let partitions = self.partitions.iter().take(until).skip(from);
            partitions.for_each(|partition| partition.write(out, form));
        }

        fn put_back(version: i16, out: &mut BytesMut) {
            put_no_tags(out, $response::form(version));
        }

        fn memory_bytes(&self) -> usize {
            size_of::<Self>() + self.name.len() + size_of_val(&self.partitions[..])
        }
    };
}

impl ListedTopic for OffsetCommitTopicResponse<'_> {
    topics_of!(OffsetCommitResponse);

    fn frame(version: i16, topics: usize) -> Frame {
        let form = OffsetCommitResponse::form(version);
        let front = |out: &mut BytesMut| {
            if version >= 3 {
                0_i32.write(out, form);
            }
        };
        frame(form, topics, front, |_| {})
    }

    fn put_front(&self, version: i16, out: &mut BytesMut) {
        let form = OffsetCommitResponse::form(version);
        if version >= 10 {
            self.topic_id.write(out, form);
        } else {
            self.name.write(out, form);
        }
        put_length(out, form, Some(self.partitions.len()));
    }
}

impl ListedTopic for OffsetDeleteTopicResponse<'_> {
    topics_of!(OffsetDeleteResponse);

    /// The response of a request that does not fail as a whole.
    fn frame(version: i16, topics: usize) -> Frame {
        let form = OffsetDeleteResponse::form(version);
        let front = |out: &mut BytesMut| {
            let OffsetDeleteResponse { error_code, throttle_time_ms, .. } = OffsetDeleteResponse::default();
            error_code.write(out, form);
            throttle_time_ms.write(out, form);
        };
        frame(form, topics, front, |_| {})
    }

    fn put_front(&self, version: i16, out: &mut BytesMut) {
        let form = OffsetDeleteResponse::form(version);
        self.name.write(out, form);
        put_length(out, form, Some(self.partitions.len()));
    }
}

impl DescribeLogDirsResult<'_> {
    /// Encodes the response with this directory as its only one, around `topics` topics, which are encoded one by one.
    pub fn frame(&self, version: i16, topics: usize) -> Frame {
        let form = DescribeLogDirsResponse::form(version);
        let front = |out: &mut BytesMut| {
            0_i32.write(out, form);
            if version >= 3 {
                self.error_code.write(out, form);
            }
            put_length(out, form, Some(1));
            self.error_code.write(out, form);
            self.log_dir.write(out, form);
        };
        let back = |out: &mut BytesMut| {
            if version >= 4 {
                self.total_bytes.write(out, form);
                self.usable_bytes.write(out, form);
            }
            put_no_tags(out, form);
        };
        frame(form, topics, front, back)
    }
}

impl DescribeLogDirsTopic<'_> {
    /// Encodes the topic up to its partitions, and their number.
    pub fn put_front(name: &str, version: i16, partitions: usize, out: &mut BytesMut) {
        let form = DescribeLogDirsResponse::form(version);
        name.write(out, form);
        put_length(out, form, Some(partitions));
    }

    /// Encodes a partition.
    pub fn put_partition(version: i16, partition: &DescribeLogDirsPartition, out: &mut BytesMut) {
        partition.write(out, DescribeLogDirsResponse::form(version));
    }

    /// Encodes the fields after its partitions.
    pub fn put_back(version: i16, out: &mut BytesMut) {
        put_no_tags(out, DescribeLogDirsResponse::form(version));
    }
}

impl DescribeProducersResponse<'_> {
    /// Encodes the message around `topics` topics, which are encoded one by one.
    pub fn frame(&self, version: i16, topics: usize) -> Frame {
        let form = Self::form(version);
        frame(form, topics, |out| self.throttle_time_ms.write(out, form), |_| {})
    }

    /// Encodes the fields after the partitions of a topic, or after the producers of a partition.
    pub fn put_back(version: i16, out: &mut BytesMut) {
        put_no_tags(out, Self::form(version));
    }
}

impl TopicResponse<'_> {
    /// Encodes the topic up to its partitions, and their number.
    pub fn put_front(&self, version: i16, partitions: usize, out: &mut BytesMut) {
        let form = DescribeProducersResponse::form(version);
        self.name.write(out, form);
        put_length(out, form, Some(partitions));
    }
}

impl PartitionResponse<'_> {
    /// Encodes the partition up to its producers, and their number.
    pub fn put_front(&self, version: i16, producers: usize, out: &mut BytesMut) {
        let form = DescribeProducersResponse::form(version);
        self.partition_index.write(out, form);
        self.error_code.write(out, form);
        self.error_message.write(out, form);
        put_length(out, form, Some(producers));
    }
}

impl ProducerState {
    /// Encodes the producer.
    pub fn put(&self, version: i16, out: &mut BytesMut) {
        self.write(out, DescribeProducersResponse::form(version));
    }
}

impl AddPartitionsToTxnResponse<'_> {
    /// Encodes the message around `results` transactions, which are encoded one by one, in versions that have several.
    pub fn frame(&self, version: i16, results: usize) -> Frame {
        let form = Self::form(version);
        let front = |out: &mut BytesMut| {
            self.throttle_time_ms.write(out, form);
            self.error_code.write(out, form);
        };
        frame(form, results, front, |_| {})
    }
}

impl AddPartitionsToTxnResult<'_> {
    /// Encodes the transaction up to its topics, and their number.
    pub fn put_front(&self, version: i16, topics: usize, out: &mut BytesMut) {
        let form = AddPartitionsToTxnResponse::form(version);
        self.transactional_id.write(out, form);
        put_length(out, form, Some(topics));
    }

    /// Encodes the fields after its topics.
    pub fn put_back(version: i16, out: &mut BytesMut) {
        put_no_tags(out, AddPartitionsToTxnResponse::form(version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::samples::{Sample, Samples, Shape};

    macro_rules! check {
        ($response:ident of $topic:ident) => {
            let mut samples = Samples::new(Shape::One);
            for version in $response::VERSION_MIN..=$response::VERSION_MAX {
                let mut topics = vec![$topic::sample(&mut samples); 3];
                let partition = topics[0].partitions[0].clone();
                topics[1].partitions.extend([partition.clone(), partition]);
                topics[2].partitions.clear();
                let Frame { front, back } = $topic::frame(version, topics.len());
                let mut parts = BytesMut::from(&front[..]);
                for topic in &topics {
                    topic.put_front(version, &mut parts);
                    topic.put_partitions(version, 0, 2, &mut parts);
                    topic.put_partitions(version, 2, 4, &mut parts);
                    $topic::put_back(version, &mut parts);
                }
                parts.extend_from_slice(&back);
                let mut whole = BytesMut::new();
                $response { topics, ..Default::default() }.encode(version, &mut whole);
                assert_eq!(parts, whole, "{} {version}", stringify!($response));
            }
        };
    }

    #[test]
    fn topics_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        check!(ListOffsetsResponse of ListOffsetsTopicResponse);
        check!(DeleteRecordsResponse of DeleteRecordsTopicResponse);
        check!(OffsetForLeaderEpochResponse of EpochTopicResponse);
        check!(OffsetCommitResponse of OffsetCommitTopicResponse);
        check!(TxnOffsetCommitResponse of TxnOffsetCommitResponseTopic);
        check!(OffsetDeleteResponse of OffsetDeleteTopicResponse);
    }

    fn whole<'a>(message: &impl Message<'a>, version: i16) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(version, &mut out);
        out
    }

    #[test]
    fn partitions_of_transactions_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in AddPartitionsToTxnResponse::VERSION_MIN..=AddPartitionsToTxnResponse::VERSION_MAX {
            let topics = vec![AddPartitionsToTxnTopicResult::sample(&mut samples); 3];
            let put = |topics: &[AddPartitionsToTxnTopicResult<'_>], out: &mut BytesMut| {
                for topic in topics {
                    topic.put_front(version, out);
                    topic.put_partitions(version, 0, 9, out);
                    AddPartitionsToTxnTopicResult::put_back(version, out);
                }
            };
            let mut response = AddPartitionsToTxnResponse { throttle_time_ms: 0, ..Default::default() };
            let parts = if version >= 4 {
                let result = AddPartitionsToTxnResult::sample(&mut samples);
                response.results_by_transaction =
                    vec![AddPartitionsToTxnResult { topic_results: topics, ..result }; 2];
                let Frame { front, back } = response.frame(version, 2);
                let mut parts = BytesMut::from(&front[..]);
                for result in &response.results_by_transaction {
                    result.put_front(version, result.topic_results.len(), &mut parts);
                    put(&result.topic_results, &mut parts);
                    AddPartitionsToTxnResult::put_back(version, &mut parts);
                }
                parts.extend_from_slice(&back);
                parts
            } else {
                let Frame { front, back } =
                    <AddPartitionsToTxnTopicResult<'_> as ListedTopic>::frame(version, 3);
                let mut parts = BytesMut::from(&front[..]);
                put(&topics, &mut parts);
                parts.extend_from_slice(&back);
                response.results_by_topic_v3_and_below = topics;
                parts
            };
            assert_eq!(parts, whole(&response, version), "AddPartitionsToTxn {version}");
        }
    }

    #[test]
    fn sizes_and_producers_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        let mut samples = Samples::new(Shape::One);
        for version in DescribeLogDirsResponse::VERSION_MIN..=DescribeLogDirsResponse::VERSION_MAX {
            let mut result = DescribeLogDirsResult::sample(&mut samples);
            let topic = result.topics[0].clone();
            result.topics.push(topic);
            let Frame { front, back } = result.frame(version, 2);
            let mut parts = BytesMut::from(&front[..]);
            for topic in &result.topics {
                DescribeLogDirsTopic::put_front(&topic.name, version, topic.partitions.len(), &mut parts);
                for partition in &topic.partitions {
                    DescribeLogDirsTopic::put_partition(version, partition, &mut parts);
                }
                DescribeLogDirsTopic::put_back(version, &mut parts);
            }
            parts.extend_from_slice(&back);
            let response = DescribeLogDirsResponse {
                throttle_time_ms: 0,
                error_code: result.error_code,
                results: vec![result],
            };
            assert_eq!(parts, whole(&response, version), "DescribeLogDirs {version}");
        }
        for version in DescribeProducersResponse::VERSION_MIN..=DescribeProducersResponse::VERSION_MAX {
            let topics = vec![TopicResponse::sample(&mut samples); 3];
            let response = DescribeProducersResponse { throttle_time_ms: 7, topics };
            let Frame { front, back } = response.frame(version, 3);
            let mut parts = BytesMut::from(&front[..]);
            for topic in &response.topics {
                topic.put_front(version, topic.partitions.len(), &mut parts);
                for partition in &topic.partitions {
                    partition.put_front(version, partition.active_producers.len(), &mut parts);
                    partition.active_producers.iter().for_each(|producer| producer.put(version, &mut parts));
                    DescribeProducersResponse::put_back(version, &mut parts);
                }
                DescribeProducersResponse::put_back(version, &mut parts);
            }
            parts.extend_from_slice(&back);
            assert_eq!(parts, whole(&response, version), "DescribeProducers {version}");
        }
    }
}
