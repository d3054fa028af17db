//! Starts and stops while a log has no space on the disk: neither waits for it.

use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body, CommitOffsetsRequest, CommittedOffset, CreateTopicRequest, DeleteTopicRequest, MetadataReply,
    MetadataRequest, ReadOffsetsReply, ReadOffsetsRequest,
};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, Fault, NodeEnd, SimNode};

use crate::node::{World, started};
use crate::run::create;
use crate::wire::Wire;

/// Virtual time within which a broker is ready, or has stopped.
const TIME_MAX: Duration = Duration::from_secs(1);

fn call(world: &mut World, wire: &mut Wire, body: &impl Body) -> Result<Vec<u8>, (ErrorCode, String)> {
    wire.send(body);
    wire.wait(world).expect("an answer").body
}

fn new_topic(name: &str) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions: 1,
        configs: Vec::new(),
        validate_only: false,
        replicas: None,
    }
}

/// Makes writes to this file and the creation of files fail.
fn fill_disk(world: &World, node: SimNode, file: &str) {
    let mut disk = world.disk(node);
    disk.remove_file("/data/reserve".as_ref()).expect("it is there");
    disk.set_capacity(Some(0));
    disk.inject(Fault::write_no_space(file));
}

#[test]
fn a_start_does_not_wait_for_space_to_record_the_end_of_a_deletion() {
    let mut pending = 0;
    for seed in 0..8 {
        let (mut world, node, address) = started(seed);
        let (_, partitions) = create(&mut world, address, 1);
        let (to, shard) = partitions[0];
        let mut wire = Wire::connect(&mut world, address, Some(shard));
        wire.produce(to, 100);
        wire.wait(&mut world).expect("an answer").body.expect("there is space");
        let mut admin = Wire::connect(&mut world, address, None);
        call(&mut world, &mut admin, &new_topic("other")).expect("made");
        call(&mut world, &mut admin, &DeleteTopicRequest { name: "other".into() }).expect("deleted");
        // The deletion is durable; its completion is not recorded yet.
        world.crash(node, CrashPolicy::LOSE_ALL);
        fill_disk(&world, node, "/data/meta.b");
        world.start(node).expect("a start needs no space");
        let begun = world.now();
        let mut wire = Wire::connect(&mut world, address, Some(shard));
        wire.produce(to, 100);
        let answer = wire.wait(&mut world).expect("an answer");
        assert!(world.now() < begun.after(TIME_MAX), "seed {seed}: it was not ready");
        answer.body.expect("there is a file for records");
        let mut admin = Wire::connect(&mut world, address, None);
        let created = call(&mut world, &mut admin, &new_topic("third"));
        pending += usize::from(created.is_err_and(|(code, _)| code == ErrorCode::StorageFull));
    }
    assert!(pending > 0, "a start had something to record");
}

#[test]
fn a_change_is_not_published_before_it_is_durable() {
    for is_deleted in [false, true] {
        let (mut world, node, address) = started(2);
        let (_, partitions) = create(&mut world, address, 1);
        let (to, shard) = partitions[0];
        let mut wire = Wire::connect(&mut world, address, Some(shard));
        wire.produce(to, 100);
        wire.wait(&mut world).expect("an answer").body.expect("there is space");
        // Only one of the two copies of the log gets the record.
        fill_disk(&world, node, "/data/meta.b");
        let mut admin = Wire::connect(&mut world, address, None);
        let refused = if is_deleted {
            call(&mut world, &mut admin, &DeleteTopicRequest { name: "main".into() })
        } else {
            call(&mut world, &mut admin, &new_topic("late"))
        };
        assert_eq!(refused.expect_err("the disk is full").0, ErrorCode::StorageFull);
        let crash = |world: &mut World| {
            world.crash(node, CrashPolicy::KEEP_ALL);
            world.start(node).expect("a start needs no space");
            world.run_for(TIME_MAX);
        };
        let names = |world: &mut World| -> Vec<String> {
            let mut wire = Wire::connect(world, address, None);
            let told = call(world, &mut wire, &MetadataRequest { topics: None }).expect("no error");
            MetadataReply::decode(&told)
                .expect("a reply")
                .topics
                .into_iter()
                .map(|topic| topic.name)
                .collect()
        };
        crash(&mut world);
        assert_eq!(names(&mut world), ["main"], "deleted: {is_deleted}");
        world.disk(node).clear_faults();
        world.disk(node).set_capacity(None);
        world.run_for(3 * TIME_MAX);
        let expected: &[&str] = if is_deleted { &[] } else { &["late", "main"] };
        assert_eq!(names(&mut world), expected, "deleted: {is_deleted}");
        crash(&mut world);
        assert_eq!(names(&mut world), expected, "deleted: {is_deleted}");
    }
}

#[test]
fn a_stop_does_not_wait_for_space_on_the_disk() {
    for file in ["/data/meta.b", "/data/store-000/state.b", "/data/store-001/state.b"] {
        let (mut world, node, address) = started(2);
        let (topic, partitions) = create(&mut world, address, 2);
        for store in 0..2 {
            let reserve = format!("/data/store-{store:03}/reserve");
            world.disk(node).remove_file(reserve.as_ref()).expect("it is there");
        }
        fill_disk(&world, node, file);
        let mut admin = Wire::connect(&mut world, address, None);
        admin.send(&new_topic("other"));
        admin.send(&commit("c", topic, 1));
        for (to, shard) in &partitions {
            let mut wire = Wire::connect(&mut world, address, Some(*shard));
            wire.produce(*to, 100);
            wire.wait(&mut world).expect("an answer").body.expect_err("the disk is full");
        }
        for _ in 0..2 {
            admin.wait(&mut world).expect("an answer");
        }
        world.shutdown(node);
        world.run_for(TIME_MAX);
        assert!(matches!(world.end(node), Some(NodeEnd::Exited)), "{file}: {:?}", world.end(node));
        world.disk(node).clear_faults();
        world.start(node).expect("a start needs no space");
    }
}

#[test]
fn a_start_without_space_for_all_records_never_returns_an_offset_older_than_the_last_acknowledged_one() {
    let consumers = ["a", "b", "c", "d", "e", "f"];
    let mut rejected = 0;
    for seed in 0..4 {
        let (mut world, node, address) = started(seed);
        let (topic, _) = create(&mut world, address, 1);
        let mut wire = Wire::connect(&mut world, address, None);
        for offset in 1..=4 {
            for consumer in consumers {
                call(&mut world, &mut wire, &commit(consumer, topic, offset)).expect("there is space");
            }
        }
        world.crash(node, CrashPolicy::LOSE_ALL);
        for store in 0..2 {
            let slab = format!("/data/store-{store:03}/slab-000000");
            world.disk(node).inject(Fault::write_no_space(slab));
        }
        world.start(node).expect("a start needs no space");
        let mut wire = Wire::connect(&mut world, address, None);
        for consumer in consumers {
            match committed(&mut world, &mut wire, consumer, topic) {
                Ok(offset) => assert_eq!(offset, Some(4), "seed {seed}, {consumer}"),
                Err((code, text)) => {
                    assert_eq!(code, ErrorCode::Unavailable, "{text}");
                    assert!(text.contains("__consumer_offsets/"), "{text}");
                    rejected += 1;
                }
            }
        }
        world.crash(node, CrashPolicy::LOSE_ALL);
        world.disk(node).clear_faults();
        world.start(node).expect("there is space");
        let mut wire = Wire::connect(&mut world, address, None);
        for consumer in consumers {
            let offset = committed(&mut world, &mut wire, consumer, topic);
            assert_eq!(offset.expect("it is in service again"), Some(4), "seed {seed}, {consumer}");
        }
    }
    assert!(rejected > 0, "some partitions lacked records");
}

#[test]
fn offsets_that_a_start_has_no_space_to_write_again_are_not_served_before_there_is_space() {
    let mut rejected = 0;
    for seed in 0..8 {
        let (mut world, node, address) = started(seed);
        let (topic, _) = create(&mut world, address, 1);
        let mut wire = Wire::connect(&mut world, address, None);
        for offset in 1..=4 {
            call(&mut world, &mut wire, &commit("a", topic, offset)).expect("there is space");
        }
        for store in 0..2 {
            for file in ["slab-000000", "journal"] {
                let path = format!("/data/store-{store:03}/{file}");
                world.disk(node).inject(Fault::write_no_space(&path));
                world.disk(node).inject(Fault::sync_no_space(&path));
            }
        }
        // The next start may find it.
        call(&mut world, &mut wire, &commit("a", topic, 5)).expect_err("the disk is full");
        world.kill(node);
        world.start(node).expect("a start needs no space");
        let mut wire = Wire::connect(&mut world, address, None);
        match committed(&mut world, &mut wire, "a", topic) {
            Ok(offset) => assert!(offset >= Some(4), "seed {seed}: {offset:?}"),
            Err((code, text)) => {
                assert_eq!(code, ErrorCode::Unavailable, "{text}");
                rejected += 1;
            }
        }
        world.disk(node).clear_faults();
        world.run_for(3 * TIME_MAX);
        let mut offset = committed(&mut world, &mut wire, "a", topic);
        if offset.is_err() {
            // What the journal has takes the next start.
            world.crash(node, CrashPolicy::LOSE_ALL);
            world.start(node).expect("there is space");
            let mut wire = Wire::connect(&mut world, address, None);
            offset = committed(&mut world, &mut wire, "a", topic);
        }
        assert!(offset.expect("it is served again") >= Some(4), "seed {seed}");
    }
    assert!(rejected > 0, "some offsets had no space");
}

/// Returns the offset of a consumer in the first partition of a topic.
fn committed(
    world: &mut World,
    wire: &mut Wire,
    consumer: &str,
    topic: TopicId,
) -> Result<Option<i64>, (ErrorCode, String)> {
    let read = call(world, wire, &ReadOffsetsRequest { consumer: consumer.into(), topic })?;
    let positions = ReadOffsetsReply::decode(&read).expect("a reply").positions;
    Ok(positions.first().map(|position| position.offset.0))
}

fn commit(consumer: &str, topic: TopicId, offset: i64) -> CommitOffsetsRequest {
    CommitOffsetsRequest {
        consumer: consumer.into(),
        topic,
        positions: vec![CommittedOffset {
            partition: PartitionIndex(0),
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: String::new(),
        }],
    }
}
