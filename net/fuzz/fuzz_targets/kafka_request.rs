//! A Kafka message: whatever is read is written and read again the same, and reading takes no more memory than is promised.
#![no_main]

use bytes::BytesMut;
use highwater_net::kafka::api::{APIS, ApiKey};
use highwater_net::kafka::messages::*;
use highwater_net::kafka::produce::{Produce, Records};
use highwater_net::kafka::schema::Message;
use highwater_net::kafka::Request;
use highwater_net::kafka::wire::{Reader, WireError};
use highwater_net::limits::{KAFKA_DECODED_BYTES_FREE, KAFKA_DECODED_BYTES_PER_BYTE};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fn check<'a, M: Message<'a> + PartialEq + std::fmt::Debug>(
    version: i16,
    bytes: &'a [u8],
    again: &'a mut BytesMut,
) {
    let Ok(message) = M::decode(version, &mut Reader::new(bytes)) else { return };
    message.encode(version, again);
    let mut r = Reader::within(again, bytes.len().max(again.len()));
    assert_eq!(M::decode(version, &mut r).as_ref(), Ok(&message));
    assert_eq!(r.finish(), Ok(()));
}

/// What a broker keeps of a request is bounded by the bytes it came in.
fn check_memory(key: ApiKey, version: i16, bytes: &[u8]) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let request = Request::decode(key, version, &mut Reader::new(bytes));
    let peak = MEMORY.peak_usage() - before;
    drop(request);
    let bound = KAFKA_DECODED_BYTES_PER_BYTE * bytes.len() + KAFKA_DECODED_BYTES_FREE;
    assert!(peak <= bound, "{key:?} {version}: {peak} bytes for {} of input", bytes.len());
}

/// Produce is read by hand as it is declared.
fn check_produce(version: i16, bytes: &[u8]) {
    let by_hand = Produce::decode(version, &mut Reader::new(bytes));
    if matches!(by_hand, Err(WireError::Memory { .. })) {
        return;
    }
    let declared = ProduceRequest::decode(version, &mut Reader::new(bytes));
    assert_eq!(by_hand.is_ok(), declared.is_ok(), "{by_hand:?}, {declared:?}");
    if let (Ok(by_hand), Ok(declared)) = (by_hand, declared) {
        let partitions = declared.topic_data.iter().flat_map(|topic| &topic.partition_data);
        for (to, partition) in by_hand.partitions.iter().zip(partitions.clone()) {
            assert_eq!(to.index, partition.index);
            assert_eq!(matches!(to.records, Records::Null), partition.records.is_none());
        }
        assert_eq!(by_hand.partitions.len(), partitions.count());
    }
}

macro_rules! check_any {
    ($key:expr, $version:expr, $is_request:expr, $bytes:expr; $($name:ident: $request:ident, $response:ident;)+) => {
        match ($key, $is_request) {
            $(
                (ApiKey::$name, true) => check::<$request>($version, $bytes, &mut BytesMut::new()),
                (ApiKey::$name, false) => check::<$response>($version, $bytes, &mut BytesMut::new()),
            )+
        }
    };
}

fuzz_target!(|input: &[u8]| {
    let [kind, version, bytes @ ..] = input else { return };
    let api = APIS[usize::from(kind >> 1) % APIS.len()];
    let version = i16::from(*version % 20);
    if kind & 1 == 0 && (api.accepted_min..=api.max).contains(&version) {
        check_memory(api.key, version, bytes);
    }
    if api.key == ApiKey::Produce && kind & 1 == 0 {
        check_produce(version.clamp(3, 13), bytes);
    }
    check_any! { api.key, version, kind & 1 == 0, bytes;
            Produce: ProduceRequest, ProduceResponse;
            Fetch: FetchRequest, FetchResponse;
            ListOffsets: ListOffsetsRequest, ListOffsetsResponse;
            Metadata: MetadataRequest, MetadataResponse;
            OffsetCommit: OffsetCommitRequest, OffsetCommitResponse;
            OffsetFetch: OffsetFetchRequest, OffsetFetchResponse;
            FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse;
            JoinGroup: JoinGroupRequest, JoinGroupResponse;
            Heartbeat: HeartbeatRequest, HeartbeatResponse;
            LeaveGroup: LeaveGroupRequest, LeaveGroupResponse;
            SyncGroup: SyncGroupRequest, SyncGroupResponse;
            DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse;
            ListGroups: ListGroupsRequest, ListGroupsResponse;
            SaslHandshake: SaslHandshakeRequest, SaslHandshakeResponse;
            ApiVersions: ApiVersionsRequest, ApiVersionsResponse;
            CreateTopics: CreateTopicsRequest, CreateTopicsResponse;
            DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse;
            DeleteRecords: DeleteRecordsRequest, DeleteRecordsResponse;
            InitProducerId: InitProducerIdRequest, InitProducerIdResponse;
            OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
            AddPartitionsToTxn: AddPartitionsToTxnRequest, AddPartitionsToTxnResponse;
            AddOffsetsToTxn: AddOffsetsToTxnRequest, AddOffsetsToTxnResponse;
            EndTxn: EndTxnRequest, EndTxnResponse;
            TxnOffsetCommit: TxnOffsetCommitRequest, TxnOffsetCommitResponse;
            DescribeAcls: DescribeAclsRequest, DescribeAclsResponse;
            DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse;
            AlterConfigs: AlterConfigsRequest, AlterConfigsResponse;
            DescribeLogDirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
            SaslAuthenticate: SaslAuthenticateRequest, SaslAuthenticateResponse;
            CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse;
            DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse;
            ElectLeaders: ElectLeadersRequest, ElectLeadersResponse;
            IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
            ListPartitionReassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
            OffsetDelete: OffsetDeleteRequest, OffsetDeleteResponse;
            DescribeClientQuotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse;
            DescribeUserScramCredentials: DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse;
            DescribeCluster: DescribeClusterRequest, DescribeClusterResponse;
            DescribeProducers: DescribeProducersRequest, DescribeProducersResponse;
            ListTransactions: ListTransactionsRequest, ListTransactionsResponse;
            ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse;
            ConsumerGroupDescribe: ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse;
            DescribeTopicPartitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
    }
});
