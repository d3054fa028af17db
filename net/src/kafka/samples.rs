//! Sample values of every message, generated from its declaration, with different values in all fields.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::api::{APIS, ApiKey};
use super::error::KafkaError;
use super::messages;
use super::schema::Message;
use super::wire::Uuid;

/// Shape of the values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Lists and strings are empty, numbers are 0, nullable fields are null.
    Empty,
    /// Lists have one entry.
    One,
    /// Lists have several entries; some nullable fields are null; some strings have lengths of two bytes; numbers include the extremes.
    Many,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 3] = [Self::Empty, Self::One, Self::Many];
}

/// Encodes a sample body of a request.
pub fn request(api: ApiKey, version: i16, shape: Shape) -> Bytes {
    let at = APIS.iter().position(|row| row.key == api).expect("the table has all APIs");
    REQUESTS[at](shape, version)
}

/// Encodes a message.
pub(crate) fn write<'a>(value: &impl Message<'a>, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    value.encode(version, &mut out);
    out.freeze()
}

/// Generates values.
#[derive(Debug)]
pub(crate) struct Samples {
    shape: Shape,
    made: u64,
    /// Whether a list had a length of two bytes.
    long: bool,
}

impl Samples {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, made: 0, long: false }
    }

    /// Generates a new number, as far as its type allows.
    fn number(&mut self, bits: u32) -> i64 {
        self.made += 1;
        let distinct = self.made as i64;
        match self.shape {
            Shape::Empty => 0,
            Shape::One => distinct << (bits / 8),
            Shape::Many => match self.made % 7 {
                0 => i64::MAX >> (64 - bits),
                1 => i64::MIN >> (64 - bits),
                2 => -distinct,
                _ => distinct,
            },
        }
    }

    fn text(&mut self) -> String {
        self.made += 1;
        match (self.shape, self.made % 5) {
            (Shape::Empty, _) => String::new(),
            (Shape::Many, 0) => "ü€".repeat(40) + &self.made.to_string(),
            _ => format!("text {}", self.made),
        }
    }
}

/// A type of which values can be made. What they borrow is never given back; tests are short.
pub(crate) trait Sample {
    fn sample(s: &mut Samples) -> Self;
}

macro_rules! numbers {
    ($($t:ty),+) => {
        $(impl Sample for $t {
            fn sample(s: &mut Samples) -> Self {
                s.number(<$t>::BITS) as $t
            }
        })+
    };
}

numbers!(i8, i16, i32, i64);

impl Sample for f64 {
    fn sample(s: &mut Samples) -> Self {
        f64::from(s.number(32) as i32) / 4.0
    }
}

impl Sample for bool {
    fn sample(s: &mut Samples) -> Self {
        s.number(64) & 1 != 0
    }
}

impl Sample for KafkaError {
    fn sample(s: &mut Samples) -> Self {
        Self(i16::sample(s))
    }
}

impl Sample for Uuid {
    fn sample(s: &mut Samples) -> Self {
        (s.number(64) as u128).wrapping_mul(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).to_be_bytes()
    }
}

impl Sample for &str {
    fn sample(s: &mut Samples) -> Self {
        s.text().leak()
    }
}

impl Sample for &[u8] {
    fn sample(s: &mut Samples) -> Self {
        s.text().into_bytes().leak()
    }
}

impl Sample for Cow<'_, str> {
    fn sample(s: &mut Samples) -> Self {
        s.text().into()
    }
}

impl Sample for Cow<'_, [u8]> {
    fn sample(s: &mut Samples) -> Self {
        s.text().into_bytes().into()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(s: &mut Samples) -> Self {
        s.made += 1;
        let null = match s.shape {
            Shape::Empty => true,
            Shape::One => false,
            Shape::Many => s.made.is_multiple_of(3),
        };
        (!null).then(|| T::sample(s))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(s: &mut Samples) -> Self {
        let len = match s.shape {
            Shape::Empty => 0,
            Shape::One => 1,
            Shape::Many if !std::mem::replace(&mut s.long, true) => 130,
            Shape::Many => 2,
        };
        (0..len).map(|_| T::sample(s)).collect()
    }
}

/// Calls a macro with the names of all messages: requests and responses in turn, in the order of the table of what is served.
macro_rules! for_every_message {
    ($callback:ident) => {
        $callback! {
            ProduceRequest ProduceResponse
            FetchRequest FetchResponse
            ListOffsetsRequest ListOffsetsResponse
            MetadataRequest MetadataResponse
            OffsetCommitRequest OffsetCommitResponse
            OffsetFetchRequest OffsetFetchResponse
            FindCoordinatorRequest FindCoordinatorResponse
            JoinGroupRequest JoinGroupResponse
            HeartbeatRequest HeartbeatResponse
            LeaveGroupRequest LeaveGroupResponse
            SyncGroupRequest SyncGroupResponse
            DescribeGroupsRequest DescribeGroupsResponse
            ListGroupsRequest ListGroupsResponse
            SaslHandshakeRequest SaslHandshakeResponse
            ApiVersionsRequest ApiVersionsResponse
            CreateTopicsRequest CreateTopicsResponse
            DeleteTopicsRequest DeleteTopicsResponse
            DeleteRecordsRequest DeleteRecordsResponse
            InitProducerIdRequest InitProducerIdResponse
            OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse
            AddPartitionsToTxnRequest AddPartitionsToTxnResponse
            AddOffsetsToTxnRequest AddOffsetsToTxnResponse
            EndTxnRequest EndTxnResponse
            TxnOffsetCommitRequest TxnOffsetCommitResponse
            DescribeAclsRequest DescribeAclsResponse
            DescribeConfigsRequest DescribeConfigsResponse
            AlterConfigsRequest AlterConfigsResponse
            DescribeLogDirsRequest DescribeLogDirsResponse
            SaslAuthenticateRequest SaslAuthenticateResponse
            CreatePartitionsRequest CreatePartitionsResponse
            DeleteGroupsRequest DeleteGroupsResponse
            ElectLeadersRequest ElectLeadersResponse
            IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
            ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
            OffsetDeleteRequest OffsetDeleteResponse
            DescribeClientQuotasRequest DescribeClientQuotasResponse
            DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse
            DescribeClusterRequest DescribeClusterResponse
            DescribeProducersRequest DescribeProducersResponse
            ListTransactionsRequest ListTransactionsResponse
            ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
            ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse
            DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
        }
    };
}
#[cfg(test)]
pub(crate) use for_every_message;

macro_rules! requests {
    ($($request:ident $response:ident)+) => {
        /// Writes a sample of each request, in the order of the table of what is served.
        const REQUESTS: &[fn(Shape, i16) -> Bytes] =
            &[$(|shape, version| write(&messages::$request::sample(&mut Samples::new(shape)), version),)+];
    };
}

for_every_message!(requests);
