//! Long responses that are lists of topics with their partitions, encoded in parts.

use std::fmt;

use bytes::BytesMut;

use super::long::{Frame, frame, put_no_tags};
use super::messages::{
    DeleteRecordsResponse, DeleteRecordsTopicResponse, EpochTopicResponse, ListOffsetsResponse,
    ListOffsetsTopicResponse, OffsetForLeaderEpochResponse,
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
}

macro_rules! listed_topics {
    ($($response:ident, throttled from $from:literal: $topic:ident with $name:ident;)+) => {$(
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
                self.partitions.len()
            }

            fn put_front(&self, version: i16, out: &mut BytesMut) {
                let form = $response::form(version);
                self.$name.write(out, form);
                put_length(out, form, Some(self.partitions.len()));
            }

            fn put_partitions(&self, version: i16, from: usize, until: usize, out: &mut BytesMut) {
                let form = $response::form(version);
                let partitions = self.partitions.iter().take(until).skip(from);
                partitions.for_each(|partition| partition.write(out, form));
            }

            fn put_back(version: i16, out: &mut BytesMut) {
                put_no_tags(out, $response::form(version));
            }
        }
    )+};
}

listed_topics! {
    ListOffsetsResponse, throttled from 2: ListOffsetsTopicResponse with name;
    DeleteRecordsResponse, throttled from 0: DeleteRecordsTopicResponse with name;
    OffsetForLeaderEpochResponse, throttled from 0: EpochTopicResponse with topic;
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
                $response { throttle_time_ms: 0, topics }.encode(version, &mut whole);
                assert_eq!(parts, whole, "{} {version}", stringify!($response));
            }
        };
    }

    #[test]
    fn topics_that_are_written_in_parts_are_what_is_written_at_once_in_every_version() {
        check!(ListOffsetsResponse of ListOffsetsTopicResponse);
        check!(DeleteRecordsResponse of DeleteRecordsTopicResponse);
        check!(OffsetForLeaderEpochResponse of EpochTopicResponse);
    }
}
