//! Three brokers with replicated partitions: every node tells clients the same about who leads what.

use std::time::Duration;

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::{
    Body as _, CreateTopicRequest, DescribeTopicReply, DescribeTopicRequest, MetadataReply, MetadataRequest,
    PartitionInfo,
};

use crate::cluster::Cluster;

const PARTITIONS: u32 = 6;
const ALL: [usize; 3] = [0, 1, 2];
/// Virtual time within which all nodes know the leaders.
const KNOWN_TIME_MAX: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns where a node says that the partitions are.
fn places(cluster: &mut Cluster, number: usize) -> Vec<PartitionInfo> {
    let body = cluster.call(number, &MetadataRequest { topics: Some(vec!["t".into()]) }).expect("it replies");
    MetadataReply::decode(&body).expect("a reply").topics.remove(0).partitions
}

/// Waits until these nodes say the same of all partitions, and all of these are led by one of them.
fn agreed(cluster: &mut Cluster, numbers: &[usize]) -> Vec<PartitionInfo> {
    let until = cluster.world.now().after(KNOWN_TIME_MAX);
    let is_one_of_them =
        |leader: Option<NodeId>| leader.is_some_and(|node| numbers.contains(&(node.0 as usize)));
    loop {
        let all: Vec<_> = numbers.iter().map(|number| places(cluster, *number)).collect();
        let first = all[0].clone();
        let is_known = first.len() == PARTITIONS as usize && first.iter().all(|of| is_one_of_them(of.leader));
        if is_known && all.iter().all(|of| *of == first) {
            return first;
        }
        assert!(cluster.world.now() < until, "nodes differ: {all:?}");
        cluster.world.run_for(POLL_INTERVAL);
    }
}

/// Checks what a node says of the replicas of all partitions, and that it describes the logs of those that it leads.
fn check_description(cluster: &mut Cluster, number: usize, in_sync: usize) {
    let until = cluster.world.now().after(KNOWN_TIME_MAX);
    loop {
        let body = cluster.call(number, &DescribeTopicRequest { name: "t".into() }).expect("it replies");
        let described = DescribeTopicReply::decode(&body).expect("a reply").partitions;
        let me = Some(NodeId(number as u32));
        let is_right = described.iter().all(|partition| {
            partition.replicas.len() == ALL.len()
                && partition.in_sync.len() == in_sync
                && partition.log.is_some() == (partition.info.leader == me)
        });
        if is_right {
            return;
        }
        assert!(cluster.world.now() < until, "node {number} describes {described:?}");
        cluster.world.run_for(POLL_INTERVAL);
    }
}

#[test]
fn every_node_names_the_leader_of_each_partition_and_another_one_when_that_is_killed() {
    let mut cluster = Cluster::start(2);
    let request = CreateTopicRequest {
        name: "t".into(),
        partitions: PARTITIONS,
        configs: Vec::new(),
        validate_only: false,
        replicas: Some(ALL.len() as u8),
    };
    cluster.call(1, &request).expect("it is created");
    let before = agreed(&mut cluster, &ALL);
    for number in ALL {
        check_description(&mut cluster, number, ALL.len());
    }
    let killed = before[0].leader.expect("it has one");
    cluster.world.kill(cluster.nodes[killed.0 as usize]);
    let others: Vec<usize> = ALL.into_iter().filter(|number| *number != killed.0 as usize).collect();
    let after = agreed(&mut cluster, &others);
    for (before, after) in before.iter().zip(&after) {
        let has_moved = before.leader == Some(killed);
        assert!(after.leader_epoch > before.leader_epoch || !has_moved, "{before:?} {after:?}");
    }
    for number in others {
        check_description(&mut cluster, number, ALL.len() - 1);
    }
    cluster.world.start(cluster.nodes[killed.0 as usize]).expect("it starts again");
    agreed(&mut cluster, &ALL);
    for number in ALL {
        check_description(&mut cluster, number, ALL.len());
    }
}
