//! Groups and offsets of an earlier build, which had a state log for them.

use std::path::Path;
use std::time::Duration;

use highwater_protocol::ids::{ClusterId, Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body, CommitOffsetsRequest, CommittedOffset, MetadataRequest, ReadOffsetsReply, ReadOffsetsRequest,
};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, NodeEnd, SimNode};
use highwater_storage::state_log::StateLog;

use crate::node::{World, started};
use crate::run::create;
use crate::sim_node::DATA_DIR;
use crate::wire::Wire;

/// The crashes while a directory is carried over.
const POLICIES: [CrashPolicy; 4] =
    [CrashPolicy::MIXED, CrashPolicy::LOSE_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::KEEP_ALL];

/// A payload that an earlier build wrote: named consumer "c" is at 9 of partition 2 and at 70,000 of partition 3, of a topic whose id is
/// sixteen times 1.
const OLD_COMMIT: &[u8] = &[
    1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 97, 116, 32, 57, 255, 255, 255,
    255, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 112, 17, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 97, 116, 32, 55,
    48, 48, 48, 48, 0, 0, 0, 0, 99, 255, 255, 255, 255, 255, 255, 255, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 168, 255, 255, 255, 2, 0, 0, 0, 0, 0, 0, 0, 220, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0,
];

/// Writes the log of an earlier build to a node's disk.
fn write_old_log(world: &World, node: SimNode, topic: TopicId) {
    let at = OLD_COMMIT.windows(16).position(|bytes| bytes == [1; 16]).expect("the topic's id");
    let mut payload = OLD_COMMIT.to_vec();
    payload[at..at + 16].copy_from_slice(&topic.0);
    let mut disk = DiskHarness::on(world.disk(node));
    let stem = Path::new(DATA_DIR).join("offsets");
    let cluster = ClusterId([7; 16]);
    let (mut log, _) = StateLog::open(&mut disk, &stem, *b"OFFS", cluster, 2).expect("there is none");
    log.append(&payload);
    log.flush(&mut disk);
    while let Some((token, completion)) = disk.step() {
        log.on_disk(&mut disk, token, completion).expect("this disk fails no write");
    }
    assert!(log.is_idle(), "it is durable");
    log.close(&mut disk);
}

fn old_files(world: &World, node: SimNode) -> usize {
    let entries = world.disk(node).list(Path::new(DATA_DIR)).expect("a directory");
    entries.iter().filter(|entry| entry.name.starts_with("offsets.")).count()
}

/// The offsets of the consumer, by partition.
fn positions(world: &mut World, node: SimNode, topic: TopicId) -> Vec<(u32, i64)> {
    let address = world.address(node, 0);
    let mut wire = Wire::connect(world, address, None);
    wire.send(&ReadOffsetsRequest { consumer: "c".into(), topic });
    let read = wire.wait(world).expect("an answer").body.expect("they are read");
    let reply = ReadOffsetsReply::decode(&read).expect("a reply");
    reply.positions.into_iter().map(|of| (of.partition.0, of.offset.0)).collect()
}

#[test]
fn groups_of_an_earlier_build_are_carried_over_whenever_the_broker_crashes() {
    for seed in 0..12 {
        let (mut world, node, address) = started(seed);
        let (topic, _) = create(&mut world, address, 4);
        world.shutdown(node);
        world.run_for(Duration::from_secs(20));
        assert!(matches!(world.end(node), Some(NodeEnd::Exited)), "{:?}", world.end(node));
        write_old_log(&world, node, topic);
        assert_eq!(old_files(&world, node), 3);

        for (nth, policy) in (1..).zip(POLICIES) {
            world.start(node).expect("it starts");
            world.run_for(Duration::from_micros((seed * 7919 + nth * 3571) % 20_000));
            world.crash(node, policy);
        }
        world.start(node).expect("it starts");
        assert_eq!(positions(&mut world, node, topic), [(2, 9), (3, 70_000)], "seed {seed}");
        assert_eq!(old_files(&world, node), 0, "seed {seed}: nobody is answered before they are gone");

        let mut wire = Wire::connect(&mut world, address, None);
        let at = CommittedOffset {
            partition: PartitionIndex(2),
            offset: Offset(10),
            leader_epoch: -1,
            metadata: String::new(),
        };
        wire.send(&CommitOffsetsRequest { consumer: "c".into(), topic, positions: vec![at] });
        wire.wait(&mut world).expect("an answer").body.expect("committed");
        world.crash(node, CrashPolicy::LOSE_ALL);
        world.start(node).expect("it starts");
        assert_eq!(positions(&mut world, node, topic), [(2, 10), (3, 70_000)], "seed {seed}");
        let mut wire = Wire::connect(&mut world, address, None);
        wire.send(&MetadataRequest { topics: None });
        wire.wait(&mut world).expect("an answer").body.expect("it serves");
    }
}
