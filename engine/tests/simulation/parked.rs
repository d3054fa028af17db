//! Fetches of many partitions that wait for records: what they read when a partition has more.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ProduceResponse,
};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::Timestamp;

use crate::bounds::{Bed, create};
use crate::kafka::wire::Wire;
use crate::node::SHARDS;

const PARTITIONS: i32 = 1000;

/// Longer than the test takes: only records end the fetch.
const WAIT_MS: i32 = 600_000;

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(b"value"))).expect("it fits");
    builder.finish(BatchProducer::NONE).expect("there is a record").to_vec()
}

fn fetch(bed: &mut Bed, wire: &mut Wire, offset_of: impl Fn(i32) -> i64, min_bytes: usize) {
    let partition = |partition| FetchPartition {
        partition,
        fetch_offset: offset_of(partition),
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let partitions = (0..PARTITIONS).map(partition).collect();
    let request = FetchRequest {
        max_wait_ms: WAIT_MS,
        min_bytes: min_bytes as i32,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic { topic: "wide", topic_id: [0; 16], partitions }],
        ..Default::default()
    };
    wire.send(ApiKey::Fetch, 12, &request);
    bed.world.run_for(Duration::from_secs(1));
}

fn produce(bed: &mut Bed, wire: &mut Wire, partition: i32, records: &[u8]) {
    wire.produce("wide", partition, -1, records);
    let (answer, _) = bed.wait(wire);
    let response: ProduceResponse<'_> = answer.body();
    assert_eq!(response.responses[0].partition_responses[0].error_code, KafkaError::NONE);
    bed.world.run_for(Duration::from_millis(100));
}

/// Reads of partitions on all shards so far.
fn reads(bed: &Bed) -> u64 {
    (0..SHARDS).map(|shard| bed.world.app(bed.node, shard).expect("it runs").reads_begun()).sum()
}

#[test]
fn a_parked_fetch_of_a_thousand_partitions_reads_only_those_that_have_moved() {
    let mut bed = Bed::new(8);
    let mut writer = bed.kafka();
    create(&mut bed, &mut writer, &[("wide".into(), PARTITIONS)]);
    let mut reader = bed.kafka();
    let records = batch();
    fetch(&mut bed, &mut reader, |_| 0, 3 * records.len());
    assert_eq!(reads(&bed), PARTITIONS as u64, "each was read once before the fetch was parked");
    let written = [3, 500, 998];
    for (at, partition) in written.into_iter().enumerate() {
        let before = reads(&bed);
        produce(&mut bed, &mut writer, partition, &records);
        // The partition that has moved, and those whose records the parked fetch did not keep: once when it is woken, and once when both shards together
        // have enough.
        let reads = reads(&bed) - before;
        let most = 2 * (at as u64 + 1);
        assert!((1..=most).contains(&reads), "{reads} reads when partition {partition} had a record");
    }
    let (answer, _) = bed.wait(&mut reader);
    let response: FetchResponse<'_> = answer.body();
    let partitions = &response.responses[0].partitions;
    assert_eq!(partitions.len(), PARTITIONS as usize);
    for partition in partitions {
        let is_written = written.contains(&partition.partition_index);
        assert_eq!(partition.error_code, KafkaError::NONE);
        assert_eq!(partition.high_watermark, i64::from(is_written));
        assert_eq!(partition.records.map_or(0, <[u8]>::len), if is_written { records.len() } else { 0 });
    }
    bed.check();
}

#[test]
fn a_parked_fetch_is_woken_by_a_partition_that_it_names_twice() {
    let mut bed = Bed::new(9);
    let mut writer = bed.kafka();
    create(&mut bed, &mut writer, &[("wide".into(), PARTITIONS)]);
    let records = batch();
    let partition =
        |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: WAIT_MS,
        min_bytes: 2 * records.len() as i32,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: "wide",
            topic_id: [0; 16],
            partitions: [7, 8, 7].map(partition).to_vec(),
        }],
        ..Default::default()
    };
    let mut reader = bed.kafka();
    reader.send(ApiKey::Fetch, 12, &request);
    bed.world.run_for(Duration::from_secs(1));
    produce(&mut bed, &mut writer, 7, &records);
    let (answer, _) = bed.wait(&mut reader);
    let response: FetchResponse<'_> = answer.body();
    let bytes = response.responses[0].partitions.iter().map(|got| got.records.map_or(0, <[u8]>::len));
    assert_eq!(bytes.collect::<Vec<_>>(), [records.len(), 0, records.len()]);
    bed.check();
}
