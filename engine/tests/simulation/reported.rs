//! A reply about a change of the metadata says that the change is durable: a power cut right after it loses nothing.

use std::time::Duration;

use highwater_protocol::native::{
    Body, CreateTopicRequest, DeleteTopicRequest, MetadataReply, MetadataRequest,
};
use highwater_runtime::sim::CrashPolicy;

use crate::node::{World, slow_rounds, started};
use crate::run::create_named;
use crate::wire::Wire;

/// Maximum number of requests until a broker that starts has its metadata.
const REQUESTS_MAX: usize = 1000;

/// Sends a request and waits for its reply.
fn call(world: &mut World, wire: &mut Wire, request: &impl Body) {
    wire.send(request);
    wire.wait(world).expect("an answer").body.expect("it is done");
}

/// Returns the topics, by name, each with its number of partitions.
fn topics(world: &mut World, wire: &mut Wire) -> Vec<(String, usize)> {
    for _ in 0..REQUESTS_MAX {
        wire.send(&MetadataRequest { topics: None });
        match wire.wait(world).expect("an answer").body {
            Ok(body) => {
                let reply = MetadataReply::decode(&body).expect("a reply");
                let topics = reply.topics.into_iter().map(|topic| (topic.name, topic.partitions.len()));
                return topics.collect();
            }
            Err((code, text)) => assert!(code.is_retryable(), "{text}"),
        }
    }
    panic!("it does not serve");
}

pub(crate) fn changes_are_durable() {
    for seed in 0..4 {
        println!("seed {seed}");
        let (mut world, node, address) = started(seed);
        create_named(&mut world, address, "old", 2, &[]);
        slow_rounds(&world, node, Duration::from_millis(20)..=Duration::from_millis(30));
        for (number, name) in ["a", "b"].into_iter().enumerate() {
            let mut wire = Wire::connect(&mut world, address, None);
            // The first time, the topic is created last, and the second time another is deleted last.
            let request = CreateTopicRequest {
                name: name.into(),
                partitions: 3,
                configs: Vec::new(),
                validate_only: false,
                replicas: None,
            };
            call(&mut world, &mut wire, &request);
            let mut expected = vec![("a".to_owned(), 3), ("old".to_owned(), 2)];
            if number == 1 {
                call(&mut world, &mut wire, &DeleteTopicRequest { name: "old".into() });
                expected = vec![("a".to_owned(), 3), ("b".to_owned(), 3)];
            }
            world.crash(node, CrashPolicy::LOSE_ALL);
            world.start(node).expect("it starts again");
            let mut wire = Wire::connect(&mut world, address, None);
            assert_eq!(topics(&mut world, &mut wire), expected, "seed {seed}");
        }
    }
}

#[test]
fn a_change_of_topics_that_was_reported_survives_a_power_cut_right_after_the_reply() {
    changes_are_durable();
}
