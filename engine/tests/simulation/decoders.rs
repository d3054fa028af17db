//! Small batches that expand to many megabytes: the decoders that check them stay within the memory that there is for that.

use highwater_engine::limits::ShardLimits;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::ProduceResponse;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Timestamp;
use highwater_protocol::limits::DECOMPRESSED_BYTES_ANY_RATIO;
use highwater_runtime::sim::SimNode;

use crate::kafka::wire::Wire as KafkaWire;
use crate::node::{SESSION_MS, SHARDS, TICK, World, world_with};
use crate::run::create;
use crate::wire::Wire;

/// Virtual time after which everything has to be answered.
const TICKS_MAX: u32 = 20_000;

/// Clients of each protocol.
const CLIENTS: usize = 8;

/// One record of so many zeros.
fn batch(codec: Compression, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec, 0);
    let value = vec![0; bytes];
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&value))).expect("it fits");
    builder.finish(BatchProducer::NONE).expect("there is a record").to_vec()
}

fn send(wire: &mut KafkaWire, index: i32, records: &[u8]) {
    wire.produce("main", index, -1, records);
}

/// Error and its text.
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

/// The most that the decoders of a shard take.
fn decoder_bytes(world: &World, node: SimNode) -> usize {
    let of_shard = |shard| world.app(node, shard).expect("it runs").decoder_bytes();
    (0..SHARDS).map(of_shard).max().unwrap_or_default()
}

#[test]
fn decoders_take_no_more_memory_than_there_is_for_them_and_all_batches_are_checked() {
    for (seed, codec) in
        (0..).zip([Compression::Zstd, Compression::Gzip, Compression::Lz4, Compression::Snappy])
    {
        let limits = ShardLimits::tiny();
        let (mut world, node) = world_with(seed, limits, SESSION_MS);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        let (_, partitions) = create(&mut world, native, u32::from(SHARDS));
        // LZ4 and Snappy expand less: what is stored has to fit a partition.
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

#[test]
fn a_batch_whose_decoder_cannot_fit_is_rejected_with_the_limit_and_the_flag() {
    let limits = ShardLimits { decoder_bytes_max: 1 << 20, ..ShardLimits::tiny() };
    let (mut world, node) = world_with(1, limits, SESSION_MS);
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
