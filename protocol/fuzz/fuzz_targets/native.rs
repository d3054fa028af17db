//! Decodes a native message and checks that encoding it again and decoding the result yields the same message.
#![no_main]

use highwater_protocol::native::*;
use libfuzzer_sys::fuzz_target;

fn check<B: Body + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(body) = B::decode(bytes) else { return };
    let mut encoded = Vec::new();
    body.encode(&mut encoded);
    assert!(encoded.len() <= bytes.len());
    assert_eq!(B::decode(&encoded).as_ref(), Ok(&body));
}

fuzz_target!(|input: &[u8]| {
    let Some((selector, bytes)) = input.split_first() else { return };
    match selector % 36 {
        0 => check::<Hello>(bytes),
        1 => check::<HelloReply>(bytes),
        2 => check::<MetadataRequest>(bytes),
        3 => check::<MetadataReply>(bytes),
        4 => check::<CreateTopicRequest>(bytes),
        5 => check::<CreateTopicReply>(bytes),
        6 => check::<DeleteTopicRequest>(bytes),
        7 => check::<AlterTopicRequest>(bytes),
        8 => check::<DescribeTopicRequest>(bytes),
        9 => check::<DescribeTopicReply>(bytes),
        10 => check::<InitProducerReply>(bytes),
        11 => check::<ProduceReply>(bytes),
        12 => check::<SubscribeRequest>(bytes),
        13 => check::<SubscribeReply>(bytes),
        14 => check::<Credit>(bytes),
        15 => check::<FetchRequest>(bytes),
        16 => check::<ListOffsetsRequest>(bytes),
        17 => check::<ListOffsetsReply>(bytes),
        18 => check::<CommitOffsetsRequest>(bytes),
        19 => check::<ReadOffsetsRequest>(bytes),
        20 => check::<ReadOffsetsReply>(bytes),
        21 => check::<DeleteRecordsRequest>(bytes),
        22 => check::<StatsReply>(bytes),
        23 => {
            if let Ok((prefix, batch)) = ProducePrefix::split(bytes) {
                assert_eq!(batch.len() + PRODUCE_PREFIX_BYTES, bytes.len());
                if let Ok((to, acks)) = prefix.target() {
                    assert_eq!(*prefix, ProducePrefix::new(to, acks));
                }
            }
            let _ = DataPrefix::split(bytes);
        }
        24 => check::<GroupHeartbeatRequest>(bytes),
        25 => check::<GroupHeartbeatReply>(bytes),
        26 => check::<CommitGroupOffsetsRequest>(bytes),
        27 => check::<CommitGroupOffsetsReply>(bytes),
        28 => check::<ReadGroupOffsetsRequest>(bytes),
        29 => check::<ReadGroupOffsetsReply>(bytes),
        30 => check::<ListGroupsRequest>(bytes),
        31 => check::<ListGroupsReply>(bytes),
        32 => check::<DescribeGroupRequest>(bytes),
        33 => check::<DescribeGroupReply>(bytes),
        34 => check::<ReleaseSpaceRequest>(bytes),
        _ => {
            let _ = error_text(bytes);
            if let Some(header) = WireHeader::parse(bytes) {
                let _ = (header.kind(), header.error());
            }
        }
    }
});
