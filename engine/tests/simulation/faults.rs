//! A node with a disk that is full or fails.

use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{Body, CreateTopicRequest, DeleteTopicRequest};
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{Fault, NodeEnd};

use crate::node::{World, started};
use crate::run::create;
use crate::wire::Wire;

fn call(world: &mut World, wire: &mut Wire, body: &impl Body) -> Result<Vec<u8>, (ErrorCode, String)> {
    wire.send(body);
    wire.wait(world).expect("an answer").body
}

#[test]
fn a_full_disk_fails_appends_until_there_is_space() {
    let (mut world, node, address) = started(1);
    let (_, partitions) = create(&mut world, address, 1);
    let (to, shard) = partitions[0];
    let mut wire = Wire::connect(&mut world, address, Some(shard));
    wire.produce(to, 1000);
    wire.wait(&mut world).expect("an answer").body.expect("there is space");
    world.disk(node).set_capacity(Some(0));
    let mut taken = 1;
    let (code, text) = loop {
        wire.produce(to, 10_000);
        match wire.wait(&mut world).expect("an answer").body {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "a full disk takes no more");
    };
    assert_eq!(code, ErrorCode::StorageFull, "{text}");
    assert!(text.contains("main/0"), "{text}");
    assert_eq!(world.end(node), None, "it keeps serving");
    // Topics can be deleted, and all reads work.
    let mut admin = Wire::connect(&mut world, address, None);
    let missing = call(&mut world, &mut admin, &DeleteTopicRequest { name: "none".into() });
    assert_eq!(missing.expect_err("refused").0, ErrorCode::UnknownTopic);
    let refused = call(
        &mut world,
        &mut admin,
        &CreateTopicRequest {
            name: "other".into(),
            partitions: 1,
            configs: Vec::new(),
            validate_only: false,
            replicas: None,
        },
    );
    refused.expect("a topic without records needs no space");
    call(&mut world, &mut admin, &DeleteTopicRequest { name: "other".into() })
        .expect("space was kept for it");
    world.disk(node).set_capacity(None);
    world.run_for(Duration::from_secs(2));
    wire.produce(to, 10_000);
    wire.wait(&mut world).expect("an answer").body.expect("there is space again");
}

#[test]
fn batches_that_wait_for_a_slab_fail_when_the_disk_has_no_space_for_it() {
    for seed in 0..4 {
        let (mut world, node, address) = started(seed);
        let (_, partitions) = create(&mut world, address, 2);
        // Nothing has been written: the first slab does not exist yet.
        world.disk(node).set_capacity(Some(0));
        let mut wires: Vec<_> = (0..30)
            .map(|n| {
                let (to, shard) = partitions[n % 2];
                (Wire::connect(&mut world, address, Some(shard)), to)
            })
            .collect();
        for (wire, to) in &mut wires {
            for _ in 0..4 {
                wire.produce(*to, 10_000);
            }
        }
        for (wire, to) in &mut wires {
            for _ in 0..4 {
                let refused = wire.wait(&mut world).expect("an answer").body.expect_err("the disk is full");
                assert_eq!(refused.0, ErrorCode::StorageFull, "seed {seed}, {to}: {}", refused.1);
            }
        }
        world.disk(node).set_capacity(None);
        world.run_for(Duration::from_secs(2));
        let (wire, to) = &mut wires[0];
        wire.produce(*to, 10_000);
        wire.wait(&mut world).expect("an answer").body.expect("there is space again");
    }
}

#[test]
fn batches_that_fail_on_a_full_disk_are_reported_and_their_topic_continues_when_there_is_space() {
    for seed in 0..4 {
        let (mut world, node, address) = started(seed);
        let (_, partitions) = create(&mut world, address, 2);
        let mut wires: Vec<_> = (0..20)
            .map(|n| {
                let (to, shard) = partitions[n % 2];
                (Wire::connect(&mut world, address, Some(shard)), to)
            })
            .collect();
        for (wire, to) in &mut wires {
            wire.produce(*to, 100);
            wire.wait(&mut world).expect("an answer").body.expect("there is space");
        }
        for store in 0..2 {
            for file in ["slab-000000", "journal"] {
                let path = format!("/data/store-{store:03}/{file}");
                world.disk(node).inject(Fault::write_no_space(&path));
                world.disk(node).inject(Fault::sync_no_space(&path));
            }
        }
        for (wire, to) in &mut wires {
            for _ in 0..3 {
                wire.produce(*to, 1000);
            }
        }
        let begun = world.now();
        for (wire, to) in &mut wires {
            for _ in 0..3 {
                let refused = wire.wait(&mut world).expect("an answer").body.expect_err("the disk is full");
                assert_eq!(refused.0, ErrorCode::StorageFull, "seed {seed}, {to}: {}", refused.1);
                assert!(refused.1.contains("main/"), "{}", refused.1);
            }
        }
        assert!(world.now() < begun.after(Duration::from_secs(2)), "seed {seed}: nobody is kept waiting");
        assert_eq!(world.end(node), None, "it keeps serving");
        world.disk(node).clear_faults();
        world.run_for(Duration::from_secs(3));
        for (wire, to) in &mut wires {
            wire.produce(*to, 1000);
            wire.wait(&mut world).expect("an answer").body.expect("there is space again");
        }
        world.shutdown(node);
        world.run_for(Duration::from_secs(20));
        assert!(matches!(world.end(node), Some(NodeEnd::Exited)), "{:?}", world.end(node));
    }
}

#[test]
fn topic_changes_fail_while_the_metadata_log_has_no_space() {
    let (mut world, node, address) = started(3);
    create(&mut world, address, 1);
    // The reserve is used up.
    world.disk(node).remove_file("/data/reserve".as_ref()).expect("it is there");
    world.disk(node).set_capacity(Some(0));
    world.disk(node).inject(Fault::write_no_space("/data/meta.b"));
    let mut admin = Wire::connect(&mut world, address, None);
    let begun = world.now();
    let new = CreateTopicRequest {
        name: "other".into(),
        partitions: 1,
        configs: Vec::new(),
        validate_only: false,
        replicas: None,
    };
    for _ in 0..2 {
        let refused = call(&mut world, &mut admin, &new).expect_err("refused");
        assert_eq!(refused.0, ErrorCode::StorageFull, "{}", refused.1);
        let refused = call(&mut world, &mut admin, &DeleteTopicRequest { name: "main".into() });
        assert_eq!(refused.expect_err("refused").0, ErrorCode::StorageFull);
    }
    assert!(world.now() < begun.after(Duration::from_secs(2)), "nobody is kept waiting");
    assert_eq!(world.end(node), None, "it keeps serving");
    world.disk(node).set_capacity(None);
    world.run_for(Duration::from_secs(3));
    // The first request was in flight, so it may take effect, and did.
    let there = call(&mut world, &mut admin, &new).expect_err("it is there");
    assert_eq!(there.0, ErrorCode::TopicExists, "{}", there.1);
    call(&mut world, &mut admin, &DeleteTopicRequest { name: "main".into() }).expect("there is space again");
    world.run_for(Duration::from_secs(20));
    let files = world.disk(node).list("/data".as_ref()).expect("it is there");
    assert!(files.iter().any(|file| file.name == "reserve"), "it is kept again");
}

#[test]
fn a_broker_on_a_full_disk_stops_in_bounded_time_and_starts_again() {
    let (mut world, node, address) = started(2);
    let (_, partitions) = create(&mut world, address, 2);
    world.disk(node).set_capacity(Some(0));
    let mut wires: Vec<_> = partitions
        .iter()
        .map(|(to, shard)| (Wire::connect(&mut world, address, Some(*shard)), *to))
        .collect();
    for (wire, to) in &mut wires {
        for _ in 0..20 {
            wire.produce(*to, 10_000);
        }
    }
    world.shutdown(node);
    world.run_for(Duration::from_secs(20));
    assert!(matches!(world.end(node), Some(NodeEnd::Exited)), "{:?}", world.end(node));
    world.start(node).expect("a start needs no space");
}

#[test]
fn a_disk_that_fails_to_write_ends_the_process_with_its_own_exit_code() {
    for file in ["/data/meta.a", "/data/store-000/slab-000000"] {
        let (mut world, node, address) = started(0);
        let (topic, partitions) = create(&mut world, address, 2);
        let home = partitions.iter().find(|(_, shard)| *shard == 0).expect("one is on shard 0");
        let mut wire = Wire::connect(&mut world, address, Some(0));
        wire.produce(home.0, 100);
        wire.wait(&mut world).expect("an answer").body.expect("the disk is sound");
        world.disk(node).inject(Fault::write_error(file));
        wire.send(&CreateTopicRequest {
            name: "other".into(),
            partitions: 1,
            configs: Vec::new(),
            validate_only: false,
            replicas: None,
        });
        wire.send(&highwater_protocol::native::CommitOffsetsRequest {
            consumer: "c".into(),
            topic,
            positions: vec![highwater_protocol::native::CommittedOffset {
                partition: home.0.partition,
                offset: highwater_protocol::ids::Offset(1),
                leader_epoch: -1,
                metadata: String::new(),
            }],
        });
        wire.produce(home.0, 100);
        world.run_for(Duration::from_secs(1));
        assert!(
            matches!(world.end(node), Some(NodeEnd::Fatal(74, why)) if why.contains("disk")),
            "{file}: {:?}",
            world.end(node)
        );
        world.disk(node).clear_faults();
        world.start(node).expect("it starts on a sound disk");
    }
}
