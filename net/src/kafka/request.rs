//! What a Kafka client asked for.

use super::api::ApiKey;
#[allow(clippy::wildcard_imports, reason = "nearly all requests")]
use super::messages::*;
use super::produce::Produce;
use super::replies::Origin;
use super::schema::Message;
use super::wire::{Form, Reader, WireError};

/// What stands in front of every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// The kind of request.
    pub api: ApiKey,
    /// Its version, in which it is answered.
    pub version: i16,
    /// What the answer repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
}

impl<'a> Header<'a> {
    /// What the answer repeats.
    pub const fn origin(&self) -> Origin {
        Origin { api: self.api, version: self.version, correlation_id: self.correlation_id }
    }

    /// Reads what follows the correlation id.
    pub(super) fn read_rest(
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        r: &mut Reader<'a>,
    ) -> Result<Self, WireError> {
        // The client's name keeps its old form in flexible headers too.
        let client_id = r.string(Form { version, flexible: false }, "client_id")?;
        let flexible = api.api().request_header_is_flexible(version);
        r.tagged(Form { version, flexible }, |_, _| Ok(false))?;
        Ok(Self { api, version, correlation_id, client_id })
    }
}

/// A whole request.
#[derive(Debug)]
pub struct Received<'a> {
    /// What its answer needs.
    pub header: Header<'a>,
    /// Its length, without the length itself.
    pub bytes: usize,
    /// Entries of all its lists.
    pub entries: usize,
    /// What it says.
    pub request: Request<'a>,
}

macro_rules! requests {
    ($($name:ident($type:ty);)+) => {
        /// What a client asked for.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "what each is stands with its type")]
        pub enum Request<'a> {
            $($name($type),)+
            /// ApiVersions in a version that is not offered: answered in version 0, with an error and the table.
            UnknownApiVersions,
        }

        impl<'a> Request<'a> {
            /// Reads the body of a request that came whole.
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
