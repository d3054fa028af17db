//! Three nodes as processes: kills and pauses one after the other, and all of them at once, while producing.
//!
//! 6 disturbances by default; `HIGHWATER_CLUSTER_CYCLES=500` for the long form.

use highwater_client::{Client, Producer};
use rustix::process::{Pid, Signal, kill_process};

use crate::kill::{DELIVERY_TIMEOUT, Load, PARTITIONS, at_different_moments, block_on, read_all};
use crate::support::{Broker, Place, from_environment, start_command};

const NODES: usize = 3;

/// A node of the cluster. Its addresses stay the same.
struct Node {
    name: String,
    listen: String,
    kafka: String,
    peers: String,
    broker: Option<Broker>,
}

/// A cluster. Its nodes have folders of their own in one place.
struct Cluster {
    place: Place,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts a node that founds a cluster, and others that join it.
    fn start() -> Self {
        let mut cluster = Self { place: Place::new(), nodes: Vec::new() };
        for number in 0..NODES {
            let name = format!("node-{number}");
            let mut flags = vec!["--peer-listen", "127.0.0.1:0"];
            if let Some(founder) = cluster.nodes.first() {
                flags.extend(["--seeds", &founder.peers]);
            }
            let broker = started(&cluster.place, &name, &flags);
            let [listen, kafka, peers] = ["native", "kafka", "peers"].map(|field| broker.field(field));
            cluster.nodes.push(Node { name, listen, kafka, peers, broker: Some(broker) });
        }
        cluster
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.listen.clone()).collect()
    }

    fn broker(&self, number: usize) -> &Broker {
        self.nodes[number].broker.as_ref().expect("it runs")
    }

    fn kill(&mut self, number: usize) {
        self.nodes[number].broker.take().expect("it runs").kill();
    }

    /// Starts a killed node again.
    fn start_again(&mut self, number: usize) {
        let Node { name, listen, kafka, peers, .. } = &self.nodes[number];
        let flags = ["--listen", listen, "--kafka-listen", kafka, "--peer-listen", peers];
        let broker = started(&self.place, name, &flags);
        self.nodes[number].broker = Some(broker);
    }

    fn signal(&self, number: usize, signal: Signal) {
        let pid = Pid::from_raw(self.broker(number).pid() as i32).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Stops all of them.
    fn stop(self) {
        for node in self.nodes {
            node.broker.expect("it runs").stop();
        }
    }
}

fn started(place: &Place, name: &str, flags: &[&str]) -> Broker {
    Broker::start(start_command(&place.path(name), flags)).unwrap_or_else(|ended| {
        panic!("{name} did not start: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr))
    })
}

async fn producer(client: &Client) -> Producer {
    client.create_topic("t").partitions(PARTITIONS).replicas(NODES as u8).await.expect("a new topic");
    let producer = client.producer("t").delivery_timeout(DELIVERY_TIMEOUT).buffer_bytes(4 << 20);
    producer.await.expect("a producer")
}

/// Runs a load, disturbs the cluster again and again, and checks that each acknowledged record is there once.
fn survives(disturb: &impl AsyncFn(&mut Cluster, usize, &mut Load)) {
    let cycles = from_environment("HIGHWATER_CLUSTER_CYCLES", 6);
    block_on(async {
        let mut cluster = Cluster::start();
        let client = Client::builder().bootstrap(cluster.addresses()).connect().await.expect("it is ready");
        let mut load = Load::start(producer(&client).await);
        for cycle in 0..cycles {
            load.progress(at_different_moments(cycle)).await;
            disturb(&mut cluster, cycle, &mut load).await;
        }
        load.progress(100).await;
        let checker = load.finish().await;
        let read = read_all(&client, "t").await;
        checker.check(&read).assert_none();
        assert_eq!(read.len(), checker.acknowledgements(), "every record sent was acknowledged");
        cluster.stop();
    });
}

#[test]
fn producers_go_on_without_loss_or_duplicates_while_nodes_are_killed_one_after_the_other() {
    survives(&async |cluster, cycle, load| {
        let victim = cycle % NODES;
        cluster.kill(victim);
        // The other two acknowledge.
        load.progress(at_different_moments(cycle + 1)).await;
        cluster.start_again(victim);
    });
}

#[test]
fn producers_go_on_without_loss_or_duplicates_while_nodes_are_paused_one_after_the_other() {
    survives(&async |cluster, cycle, load| {
        let victim = cycle % NODES;
        cluster.signal(victim, Signal::STOP);
        load.progress(at_different_moments(cycle + 1)).await;
        cluster.signal(victim, Signal::CONT);
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    survives(&async |cluster, _, _| {
        for node in 0..NODES {
            cluster.kill(node);
        }
        for node in 0..NODES {
            cluster.start_again(node);
        }
    });
}

#[test]
fn a_majority_acknowledges_while_a_node_is_down_and_a_minority_does_not() {
    block_on(async {
        let mut cluster = Cluster::start();
        let client = Client::builder().bootstrap(cluster.addresses()).connect().await.expect("it is ready");
        client.create_topic("t").partitions(PARTITIONS).replicas(NODES as u8).await.expect("a new topic");
        cluster.kill(1);
        cluster.broker(0).run(&["produce", "t"], b"one\ntwo\n");
        cluster.kill(2);
        let refused = crate::support::output(
            cluster.broker(0).command(&["produce", "t", "--timeout", "1s"]),
            b"three\n",
        );
        assert!(!refused.status.success(), "one of three is no majority");
        cluster.start_again(1);
        cluster.start_again(2);
        let mut lines: Vec<String> = String::from_utf8(cluster.broker(2).run(&["consume", "t"], b""))
            .expect("text")
            .lines()
            .filter(|line| *line != "three")
            .map(str::to_owned)
            .collect();
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        cluster.stop();
    });
}
