//! Nodes with empty disks that found a cluster together, or join one: the same processes as the program runs, over a network that fails.

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use highwater_engine::data_dir::Identity;
use highwater_engine::join::JoinEnd;
use highwater_engine::limits::NODE_MISSED_AFTER;
use highwater_protocol::ids::NodeId;
use highwater_replication::join::{DiskId, JoinReply, JoinRequest, SeedList};
use highwater_runtime::sim::{CrashPolicy, Latency};
use rand::RngExt as _;

use world::{Cluster, STEP, registration};

#[test]
fn three_nodes_with_the_same_seeds_become_one_cluster_whatever_the_order_in_which_they_start() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut cluster = Cluster::new(1, 3, 3);
        for node in order {
            cluster.start(node);
            cluster.run_for(Duration::from_secs(2));
            assert!(
                node == order[2] || cluster.ends().iter().all(Option::is_none),
                "a seed has never been up"
            );
        }
        let members = cluster.join_all(&[0, 1, 2]);
        assert!(members.iter().all(|member| member.cluster == members[0].cluster), "{members:?}");
        assert!(members.iter().all(|member| member.founder == NodeId(0)), "{members:?}");
        assert_eq!(members[0].node, NodeId(0), "the first seed founds the cluster");
        cluster.wait_for_channels(0, 2);
        assert_eq!(cluster.registered(0), [(0, 0), (1, 0), (2, 0)]);
    }
}

#[test]
fn a_node_joins_a_cluster_of_one_later_with_the_id_that_it_wants() {
    let mut cluster = Cluster::new(2, 2, 1);
    cluster.state(1).wanted = Some(NodeId(7));
    cluster.start(0);
    let founder = cluster.join_all(&[0])[0];
    cluster.start(1);
    let joined = cluster.join_all(&[1])[0];
    assert_eq!((joined.cluster, joined.founder), (founder.cluster, founder.node));
    assert_eq!((joined.node, joined.incarnation), (NodeId(7), 0));
    cluster.wait_for_channels(0, 1);
    cluster.wait_for_channels(1, 1);
}

#[test]
fn a_member_that_starts_again_does_not_ask() {
    let mut cluster = Cluster::new(3, 2, 2);
    cluster.start(0);
    cluster.start(1);
    let before = cluster.join_all(&[0, 1]);
    cluster.kill(0);
    cluster.kill(1);
    cluster.state(1).seeds = vec!["10.9.9.9:1".to_owned()];
    cluster.start(1);
    cluster.start(0);
    assert_eq!(cluster.join_all(&[0, 1]), before);
    cluster.wait_for_channels(0, 1);
    assert_eq!(cluster.registered(0), [(0, 0), (1, 0)]);
}

#[test]
fn a_node_that_loses_the_reply_asks_again_and_is_the_same_member() {
    let mut repeated = 0;
    for delay in 0..40 {
        let mut cluster = Cluster::new(4, 2, 1);
        cluster.start(0);
        cluster.join_all(&[0]);
        cluster.start(1);
        // It dies at some time between the first connection and its first start as a member.
        cluster.world.run_for(Duration::from_micros(100 * delay));
        cluster.kill(1);
        cluster.run_for(Duration::from_secs(1));
        cluster.state(1).end = None;
        repeated += usize::from(cluster.registered(0).len() == 2);
        cluster.start(1);
        let joined = cluster.join_all(&[1])[0];
        assert_eq!((joined.node, joined.incarnation), (NodeId(1), 0), "after {delay}");
        assert_eq!(cluster.registered(0), [(0, 0), (1, 0)], "after {delay}");
    }
    assert!((1..40).contains(&repeated), "{repeated} of 40 nodes were registered when they died");
}

#[test]
fn a_node_with_an_emptied_disk_is_the_same_node_with_the_next_incarnation() {
    let mut cluster = Cluster::new(5, 3, 3);
    (0..3).for_each(|node| cluster.start(node));
    let before = cluster.join_all(&[0, 1, 2]);
    cluster.settle(&[0, 1, 2]);
    cluster.replace_disk(1);
    let died = cluster.world.now();
    cluster.start(1);
    let after = cluster.join_all(&[1])[0];
    assert!(cluster.world.now().since(died) >= NODE_MISSED_AFTER, "the old disk is missed first");
    assert_eq!((after.node, after.incarnation, after.cluster), (before[1].node, 1, before[0].cluster));
    assert_ne!(after.disk, before[1].disk);
    cluster.settle(&[0, 1, 2]);
    assert!(cluster.registered(0).contains(&(after.node.0, 1)));
}

#[test]
fn the_id_of_a_running_node_is_not_given_to_another_one() {
    let mut cluster = Cluster::new(6, 3, 1);
    cluster.state(1).wanted = Some(NodeId(5));
    cluster.state(2).wanted = Some(NodeId(5));
    cluster.start(0);
    cluster.join_all(&[0]);
    // Together: the second one is decided when the first is registered and maybe not connected yet.
    cluster.start(1);
    cluster.start(2);
    cluster.run_for(Duration::from_secs(20));
    let ends = cluster.ends();
    let refused: Vec<&String> = ends
        .iter()
        .filter_map(|end| match end {
            Some(JoinEnd::Refused(why)) => Some(why),
            _ => None,
        })
        .collect();
    assert_eq!(refused.len(), 1, "{ends:?}");
    assert!(refused[0].contains("node 5 is running at 10.0.0."), "{}", refused[0]);
    assert_eq!(cluster.registered(0), [(0, 0), (5, 0)]);
}

#[test]
fn nodes_with_different_seeds_found_nothing_until_they_agree() {
    let mut cluster = Cluster::new(7, 2, 2);
    let right = cluster.state(0).seeds.clone();
    cluster.state(1).seeds.reverse();
    cluster.start(0);
    cluster.start(1);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.ends(), [None, None]);
    cluster.kill(1);
    cluster.state(1).seeds = right;
    cluster.start(1);
    cluster.join_all(&[0, 1]);
}

#[test]
fn a_process_that_is_asked_to_stop_while_it_waits_stops() {
    let mut cluster = Cluster::new(8, 2, 2);
    cluster.start(0);
    cluster.run_for(Duration::from_secs(1));
    cluster.world.shutdown(cluster.nodes[0]);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.ends()[0], Some(JoinEnd::Stopped));
    assert!(!cluster.is_up(0));
}

/// A node has the same id and incarnation for ever once it was told, whatever the founder loses in a power cut right after the reply.
pub(crate) fn welcomes_are_durable() {
    let mut cluster = Cluster::new(9, 1, 1);
    cluster.start(0);
    cluster.join_all(&[0]);
    let slow = Duration::from_millis(20)..=Duration::from_millis(30);
    cluster.world.disk(cluster.nodes[0]).set_latency(Latency {
        sync: slow.clone(),
        write: slow,
        ..Latency::default()
    });
    let to = cluster.address(0);
    let mut given = Vec::new();
    for disk in 1..=4 {
        let registration = registration(SocketAddr::from(([10, 0, 0, 100 + disk], 9002)));
        let disk = DiskId([disk; 16]);
        let request = JoinRequest { disk, seeds: SeedList(0), node: None, member_of: None, registration };
        let membership = loop {
            let mut client = cluster.world.connect(to);
            client.send(request.encode());
            let mut received = Vec::new();
            let reply = loop {
                received.extend(client.receive());
                match JoinReply::take(&received) {
                    Ok(Some(reply)) => break Some(reply),
                    Ok(None) if client.end().is_none() => {}
                    other => panic!("{other:?}, {:?}", client.end()),
                }
                assert!(cluster.world.step(), "it replies");
            };
            match reply {
                Some(JoinReply::Welcome(membership, _)) => break membership,
                Some(JoinReply::NotNow(_)) => cluster.world.run_for(STEP),
                other => panic!("{other:?}"),
            }
        };
        assert!(!given.contains(&membership.node), "two disks are node {}", membership.node);
        given.push(membership.node);
        cluster.world.crash(cluster.nodes[0], CrashPolicy::LOSE_ALL);
        cluster.start(0);
    }
}

#[test]
fn a_welcome_survives_a_power_cut_of_the_founder_right_after_it() {
    welcomes_are_durable();
}

#[test]
fn whatever_fails_while_nodes_join_there_is_one_cluster_and_each_disk_is_one_incarnation() {
    for seed in highwater_runtime::sim::seeds("HIGHWATER_JOIN_SIM_SEEDS", 6) {
        println!("seed {seed}");
        let mut cluster = Cluster::new(seed, 4, 3);
        for _ in 0..60 {
            let (node, other) =
                (cluster.world.workload().random_range(0..4), cluster.world.workload().random_range(0..4));
            let (one, two) = (cluster.nodes[node], cluster.nodes[other]);
            match cluster.world.workload().random_range(0..9) {
                0..4 if !cluster.is_up(node) => cluster.start(node),
                4 => cluster.kill(node),
                5 if cluster.is_up(node) => {
                    let policy = CrashPolicy::LOSE_ALL;
                    cluster.world.crash(one, policy);
                }
                6 if node != other => cluster.world.cut(one, two),
                7 if node != other => cluster.world.reset_connections(one, two),
                8 => cluster.world.heal_network(),
                _ => {}
            }
            let time = cluster.world.workload().random_range(1..700);
            cluster.run_for(Duration::from_millis(time));
        }
        cluster.world.heal_network();
        (0..4)
            .filter(|node| !cluster.is_up(*node))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| cluster.start(node));
        let members = cluster.join_all(&[0, 1, 2, 3]);
        cluster.settle(&[0, 1, 2, 3]);
        assert!(members.iter().all(|member| member.cluster == members[0].cluster), "{members:?}");
        let ids = |members: &[Identity]| {
            let mut ids: Vec<(u32, u32)> =
                members.iter().map(|member| (member.node.0, member.incarnation)).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&members), cluster.registered(0), "seed {seed}");
        let replaced = (seed % 3) as usize + 1;
        cluster.replace_disk(replaced);
        cluster.start(replaced);
        let members = cluster.join_all(&[0, 1, 2, 3]);
        cluster.settle(&[0, 1, 2, 3]);
        assert_eq!(ids(&members), cluster.registered(0), "seed {seed}");
    }
}
