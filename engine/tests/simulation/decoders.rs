//! Small batches that expand to many megabytes: the decoders that check them stay within their memory limit.

use highwater_engine::limits::ShardLimits;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::ProduceResponse;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_protocol::limits::DECOMPRESSED_BYTES_ANY_RATIO;
use highwater_protocol::native::{Body as _, FetchRequest, ListOffsetsReply, ListOffsetsRequest, Start};
use highwater_runtime::sim::SimNode;

use crate::kafka::wire::Wire as KafkaWire;
use crate::node::{SESSION_MS, SHARDS, TICK, World, world_with};
use crate::run::create;
use crate::wire::Wire;

/// Virtual time within which everything has to be answered.
const TICKS_MAX: u32 = 20_000;

/// Number of clients of each protocol.
const CLIENTS: usize = 8;

/// Creates a record of this many zeros.
fn batch(codec: Compression, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    let value = vec![0; bytes];
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&value))).expect("it fits");
    builder.finish(BatchProducer::NONE).expect("there is a record").to_vec()
}

fn send(wire: &mut KafkaWire, index: i32, records: &[u8]) {
    wire.produce("main", index, -1, records);
}

/// Returns the error and its text.
fn outcome(world: &mut World, wire: &mut KafkaWire) -> (KafkaError, String) {
    for _ in 0..TICKS_MAX {
        if let Some((_, answer)) = wire.receive(usize::MAX) {
            let response: ProduceResponse<'_> = answer.body();
            let outcome = &response.responses[0].partition_responses[0];
            return (outcome.error_code, outcome.error_message.as_deref().unwrap_or_default().to_owned());
        }
        world.run_for(TICK);
    }
    panic!("no answer");
}

/// Returns the maximum memory of the decoders of a shard.
fn decoder_bytes(world: &World, node: SimNode) -> usize {
    let of_shard = |shard| world.app(node, shard).expect("it runs").decoder_bytes();
    (0..SHARDS).map(of_shard).max().unwrap_or_default()
}

#[test]
fn decoders_stay_within_their_memory_and_all_batches_are_checked() {
    for (seed, codec) in
        (0..).zip([Compression::Zstd, Compression::Gzip, Compression::Lz4, Compression::Snappy])
    {
        let limits = ShardLimits::tiny();
        let (mut world, node) = world_with(seed, &limits, SESSION_MS);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        let (_, partitions) = create(&mut world, native, u32::from(SHARDS));
        // LZ4 and Snappy compress less, and the stored batch has to fit a partition.
        let bytes = if matches!(codec, Compression::Zstd | Compression::Gzip) { 8_000_000 } else { 600_000 };
        assert!(bytes < DECOMPRESSED_BYTES_ANY_RATIO);
        let records = batch(codec, bytes);
        let mut kafka = Vec::new();
        let mut natives = Vec::new();
        for number in 0..CLIENTS {
            let address = world.address(node, 1);
            let mut wire = KafkaWire::connect(&mut world, address);
            send(&mut wire, (number % 2) as i32, &records);
            kafka.push(wire);
            let (to, shard) = partitions[number % 2];
            let mut wire = Wire::connect(&mut world, native, Some(shard));
            wire.send_batch(to, &records);
            natives.push(wire);
        }
        let mut most = 0;
        let mut waiting = kafka;
        for _ in 0..TICKS_MAX {
            world.run_for(TICK);
            most = most.max(decoder_bytes(&world, node));
            waiting.retain_mut(|wire| {
                let Some((_, answer)) = wire.receive(usize::MAX) else { return true };
                let response: ProduceResponse<'_> = answer.body();
                assert_eq!(response.responses[0].partition_responses[0].error_code, KafkaError::NONE);
                false
            });
            if waiting.is_empty() {
                break;
            }
        }
        assert!(waiting.is_empty(), "{codec}: {} are not answered", waiting.len());
        for mut wire in natives {
            wire.wait(&mut world).expect("an answer").body.expect("it is taken");
        }
        println!("{codec}: {most} bytes of decoders");
        assert!(most > 10_000, "{codec}: there were decoders, of {most} bytes");
        assert!(most <= limits.decoder_bytes_max, "{codec}: decoders took {most} bytes");
        assert!(
            decoder_bytes(&world, node) < limits.decoder_bytes_max / 4,
            "{codec}: one is kept, if it is small"
        );
    }
}

/// Creates a batch with a record of this many zeros for each timestamp.
fn timed(codec: Compression, bytes: usize, times: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    let value = vec![0; bytes];
    for at in 0..times {
        builder.append(&NewRecord::new(Timestamp(at), None, Some(&value))).expect("it fits");
    }
    builder.finish(BatchProducer::NONE).expect("there are records").to_vec()
}

#[test]
fn a_search_by_time_is_charged_for_decompression_and_fails_if_there_is_not_enough_memory() {
    for send_bytes_max in [8 << 20, 700_000] {
        let limits = ShardLimits { send_bytes_max, ..ShardLimits::tiny() };
        let (mut world, node) = world_with(1, &limits, SESSION_MS);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        let (_, partitions) = create(&mut world, native, 1);
        let (to, shard) = partitions[0];
        let mut wire = Wire::connect(&mut world, native, Some(shard));
        wire.send_batch(to, &timed(Compression::Zstd, 300_000, 10));
        wire.wait(&mut world).expect("an answer").body.expect("it is taken");
        wire.send(&ListOffsetsRequest {
            topic: to.topic,
            partitions: vec![(to.partition, Start::Timestamp(Timestamp(9)))],
        });
        let mut most = 0;
        let answer = (0..TICKS_MAX).find_map(|_| {
            world.run_for(TICK / 50);
            most = most.max(world.app(node, shard).expect("it runs").send_bytes());
            wire.receive(usize::MAX);
            wire.pop()
        });
        let body = answer.expect("an answer").body.expect("no error of the whole request");
        let found = ListOffsetsReply::decode(&body).expect("a reply").partitions[0].found;
        let start = Start::Timestamp(Timestamp(9));
        let (topic, partition) = (to.topic, to.partition);
        wire.send(&FetchRequest { topic, partition, start, max_bytes: 1, min_bytes: 1, wait_ms: 0 });
        let fetched = wire.wait(&mut world).expect("an answer").body;
        if send_bytes_max > 1 << 20 {
            assert_eq!(found, Ok(Some((Offset(9), Some(Timestamp(9))))));
            assert!(most > 1 << 20 && most <= send_bytes_max, "{most} bytes were charged");
            fetched.expect("it is found");
        } else {
            assert_eq!(found, Err(ErrorCode::TooLarge));
            let (code, text) = fetched.expect_err("it is refused");
            assert!(code == ErrorCode::TooLarge && text.contains("--memory"), "{code}: {text}");
        }
    }
}

#[test]
fn a_batch_whose_decoder_cannot_fit_is_rejected_with_the_limit_and_the_flag() {
    let limits = ShardLimits { decoder_bytes_max: 1 << 20, ..ShardLimits::tiny() };
    let (mut world, node) = world_with(1, &limits, SESSION_MS);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    let (_, partitions) = create(&mut world, native, 1);
    let address = world.address(node, 1);
    let mut kafka = KafkaWire::connect(&mut world, address);
    let (large, small) = (batch(Compression::Zstd, 8_000_000), batch(Compression::Zstd, 100_000));
    send(&mut kafka, 0, &large);
    let (error, text) = outcome(&mut world, &mut kafka);
    assert_eq!(error, KafkaError::MESSAGE_TOO_LARGE, "{text}");
    assert!(text.contains("786433 bytes") && text.contains("--memory"), "{text}");
    send(&mut kafka, 0, &small);
    assert_eq!(outcome(&mut world, &mut kafka).0, KafkaError::NONE);

    let (to, shard) = partitions[0];
    let mut wire = Wire::connect(&mut world, native, Some(shard));
    wire.send_batch(to, &large);
    let (code, text) = wire.wait(&mut world).expect("an answer").body.expect_err("it is too large");
    assert_eq!(code, ErrorCode::TooLarge, "{text}");
    assert!(text.contains("main/0") && text.contains("786433 bytes") && text.contains("--memory"), "{text}");
    wire.send_batch(to, &small);
    wire.wait(&mut world).expect("an answer").body.expect("it is taken");
}
