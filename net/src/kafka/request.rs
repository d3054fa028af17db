//! Decoded requests.

use super::api::ApiKey;
#[allow(clippy::wildcard_imports, reason = "nearly all requests")]
use super::messages::*;
use super::produce::Produce;
use super::replies::Origin;
use super::schema::Message;
use super::wire::{Form, Reader, WireError};

/// The header of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// API key.
    pub api: ApiKey,
    /// Version, which is also that of the response.
    pub version: i16,
    /// Correlation id, which the response repeats.
    pub correlation_id: i32,
    /// Name of the client.
    pub client_id: Option<&'a str>,
}

impl<'a> Header<'a> {
    /// Returns the fields that the response depends on.
    pub const fn origin(&self) -> Origin {
        Origin { api: self.api, version: self.version, correlation_id: self.correlation_id }
    }

    /// Decodes the fields after the correlation id.
    pub(super) fn read_rest(
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        r: &mut Reader<'a>,
    ) -> Result<Self, WireError> {
        // The client id is not compact, even in flexible headers.
        let client_id = r.string(Form { version, flexible: false }, "client_id")?;
        let flexible = api.api().request_header_is_flexible(version);
        r.tagged(Form { version, flexible }, |_, _| Ok(false))?;
        Ok(Self { api, version, correlation_id, client_id })
    }
}

/// A complete request.
#[derive(Debug)]
pub struct Received<'a> {
    /// Its header.
    pub header: Header<'a>,
    /// Its size in bytes, without the length field.
    pub bytes: usize,
    /// Number of entries of all its lists.
    pub entries: usize,
    /// The request.
    pub request: Request<'a>,
}

macro_rules! requests {
    ($($name:ident($type:ty);)+) => {
        /// A request.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "documented at their types")]
        pub enum Request<'a> {
            $($name($type),)+
            /// ApiVersions in a version that is not offered. Its response has version 0, an error, and the table.
            UnknownApiVersions,
        }

        impl<'a> Request<'a> {
            /// Decodes the body of a complete request.
            pub fn decode(api: ApiKey, version: i16, r: &mut Reader<'a>) -> Result<Self, WireError> {
                match api {
                    $(ApiKey::$name => <$type>::decode(version, r).map(Self::$name),)+
                }
            }
        }
    };
}

requests! {
    Produce(Produce<'a>);
    Fetch(FetchRequest<'a>);
    ListOffsets(ListOffsetsRequest<'a>);
    Metadata(MetadataRequest<'a>);
    OffsetCommit(OffsetCommitRequest<'a>);
    OffsetFetch(OffsetFetchRequest<'a>);
    FindCoordinator(FindCoordinatorRequest<'a>);
    JoinGroup(JoinGroupRequest<'a>);
    Heartbeat(HeartbeatRequest<'a>);
    LeaveGroup(LeaveGroupRequest<'a>);
    SyncGroup(SyncGroupRequest<'a>);
    DescribeGroups(DescribeGroupsRequest<'a>);
    ListGroups(ListGroupsRequest<'a>);
    SaslHandshake(SaslHandshakeRequest<'a>);
    ApiVersions(ApiVersionsRequest<'a>);
    CreateTopics(CreateTopicsRequest<'a>);
    DeleteTopics(DeleteTopicsRequest<'a>);
    DeleteRecords(DeleteRecordsRequest<'a>);
    InitProducerId(InitProducerIdRequest<'a>);
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest<'a>);
    AddPartitionsToTxn(AddPartitionsToTxnRequest<'a>);
    AddOffsetsToTxn(AddOffsetsToTxnRequest<'a>);
    EndTxn(EndTxnRequest<'a>);
    TxnOffsetCommit(TxnOffsetCommitRequest<'a>);
    DescribeAcls(DescribeAclsRequest<'a>);
    DescribeConfigs(DescribeConfigsRequest<'a>);
    AlterConfigs(AlterConfigsRequest<'a>);
    DescribeLogDirs(DescribeLogDirsRequest<'a>);
    SaslAuthenticate(SaslAuthenticateRequest<'a>);
    CreatePartitions(CreatePartitionsRequest<'a>);
    DeleteGroups(DeleteGroupsRequest<'a>);
    ElectLeaders(ElectLeadersRequest<'a>);
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest<'a>);
    ListPartitionReassignments(ListPartitionReassignmentsRequest<'a>);
    OffsetDelete(OffsetDeleteRequest<'a>);
    DescribeClientQuotas(DescribeClientQuotasRequest<'a>);
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest<'a>);
    DescribeCluster(DescribeClusterRequest);
    DescribeProducers(DescribeProducersRequest<'a>);
    ListTransactions(ListTransactionsRequest<'a>);
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest<'a>);
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest<'a>);
    DescribeTopicPartitions(DescribeTopicPartitionsRequest<'a>);
}
