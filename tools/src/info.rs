//! `info`: a summary of a cluster.

use highwater_client::{BrokerStats, Client, ClusterMetadata};
use highwater_protocol::text::{counted, grouped};
use serde::Serialize;

use crate::cli::InfoArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::with_client;
use crate::units::readable_bytes;

#[derive(Serialize)]
struct Info {
    cluster: String,
    nodes: Vec<Broker>,
    topics: usize,
    partitions: usize,
    groups: usize,
    connections: u64,
    memory_bytes: u64,
    disk_bytes: u64,
    disk_free_bytes: u64,
    /// Since the broker started.
    records_appended: u64,
    bytes_received: u64,
    bytes_sent: u64,
}

#[derive(Serialize)]
struct Broker {
    node: u32,
    address: String,
    cores: u16,
}

/// Prints the summary.
pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move {
        let info = fetch_info(&client).await?;
        if args.json { output::print_json(&info) } else { output::print(&info.to_text()) }
    })
}

async fn fetch_info(client: &Client) -> Result<Info, Failure> {
    let metadata: ClusterMetadata = client.metadata().await.map_err(Failure::general)?;
    let groups = client.list_groups().await.map_err(Failure::general)?;
    let stats: BrokerStats = client.stats().await.map_err(Failure::general)?;
    let total = |name: &str| stats.total(name).unwrap_or(0);
    let nodes = metadata.nodes.into_iter();
    Ok(Info {
        cluster: metadata.cluster.to_string(),
        nodes: nodes
            .map(|node| Broker { node: node.node.get(), address: node.address, cores: node.shards })
            .collect(),
        topics: metadata.topics.len(),
        partitions: metadata.topics.iter().map(|topic| topic.partitions.len()).sum(),
        groups: groups.len(),
        connections: total("connections.now"),
        memory_bytes: total("memory.requests.now") + total("memory.logs.now"),
        disk_bytes: total("disk.slabs.now"),
        disk_free_bytes: total("disk.slabs.free.now"),
        records_appended: total("records.appended"),
        bytes_received: total("bytes.received"),
        bytes_sent: total("bytes.sent"),
    })
}

impl Info {
    fn to_text(&self) -> String {
        let row = |what: &str, value: String| vec![what.to_owned(), value];
        let mut rows = vec![row("cluster", self.cluster.clone())];
        rows.extend(self.nodes.iter().map(|node| {
            let cores = counted(node.cores.into(), "core");
            row(&format!("node {}", node.node), format!("{}, {cores}", node.address))
        }));
        let topics = counted(self.topics, "topic");
        rows.push(row("topics", format!("{topics}, {}", counted(self.partitions, "partition"))));
        rows.push(row("groups", grouped(self.groups as u64)));
        rows.push(row("connections", grouped(self.connections)));
        rows.push(row("memory", format!("{} for requests and cache", readable_bytes(self.memory_bytes))));
        let (disk, free) = (readable_bytes(self.disk_bytes), readable_bytes(self.disk_free_bytes));
        rows.push(row("disk", format!("{disk} allocated for logs, {free} of it free")));
        let records = counted(self.records_appended as usize, "record");
        let (received, sent) = (readable_bytes(self.bytes_received), readable_bytes(self.bytes_sent));
        rows.push(row("since start", format!("{records} appended, {received} received, {sent} sent")));
        output::table(&rows)
    }
}
