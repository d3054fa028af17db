//! The description of a group: its members, its positions, and what it has not read.

use std::collections::BTreeMap;

use highwater_client::{Client, GroupMember, Offset, Start};
use highwater_protocol::text::{counted, grouped};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

#[derive(Serialize)]
pub(super) struct Described<'a> {
    group: &'a str,
    pub(super) protocol: String,
    state: String,
    epoch: i32,
    assignor: String,
    /// Number of unread records, over all partitions in which the group has a position.
    lag: i64,
    pub(super) members: Vec<DescribedMember>,
    pub(super) partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
pub(super) struct DescribedMember {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    epoch: i32,
    partitions: usize,
}

#[derive(Serialize)]
pub(super) struct DescribedPartition {
    pub(super) topic: String,
    pub(super) partition: u32,
    /// `None` if no position is committed.
    pub(super) position: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
}

/// The member that owns each partition, if any, by topic and partition number.
type Owners = BTreeMap<String, BTreeMap<u32, Option<String>>>;

fn owners(members: &[GroupMember], positions: &BTreeMap<(String, u32), Offset>) -> Owners {
    let mut owners = Owners::new();
    for (topic, partition) in positions.keys() {
        owners.entry(topic.clone()).or_default().insert(*partition, None);
    }
    for member in members {
        for (topic, partitions) in &member.assignment {
            let owner = || Some(member.member_id.clone());
            let topic_owners = owners.entry(topic.clone()).or_default();
            topic_owners.extend(partitions.iter().map(|partition| (*partition, owner())));
        }
    }
    owners
}

pub(super) async fn describe<'a>(client: &Client, group: &'a str) -> Result<Described<'a>, Failure> {
    let described = client.describe_group(group).await.map_err(|e| Failure::group(group, &e))?;
    let positions = client.list_group_offsets(group).await.map_err(Failure::general)?;
    let mut partitions = Vec::new();
    for (topic, topic_owners) in owners(&described.members, &positions) {
        let queries = topic_owners.keys().map(|partition| (*partition, Start::Latest));
        let ends = client.list_offsets(&topic, queries).await.map_err(Failure::general)?;
        for ((partition, member), end) in topic_owners.into_iter().zip(ends) {
            let position = positions.get(&(topic.clone(), partition)).map(|offset| offset.get());
            let end = end.found.ok().flatten().map(|(offset, _)| offset.get());
            let lag = end.zip(position).map(|(end, position)| (end - position).max(0));
            partitions.push(DescribedPartition {
                topic: topic.clone(),
                partition,
                position,
                end,
                lag,
                member,
            });
        }
    }
    let members = described.members.into_iter().map(|member| DescribedMember {
        partitions: member.assignment.values().map(Vec::len).sum(),
        member: member.member_id,
        instance: member.instance_id,
        client: member.client_name,
        host: member.host,
        epoch: member.epoch,
    });
    Ok(Described {
        group,
        protocol: described.protocol,
        state: described.state,
        epoch: described.epoch,
        assignor: described.assignor,
        lag: partitions.iter().filter_map(|p| p.lag).sum(),
        members: members.collect(),
        partitions,
    })
}

impl Described<'_> {
    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "{}  {}  {}  {}  lag {}\n",
            output::printable(self.group),
            output::printable(&self.protocol),
            output::printable(&self.state),
            counted(self.members.len(), "member"),
            grouped(self.lag.unsigned_abs())
        );
        if !self.members.is_empty() {
            let heading = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(self.members.iter().map(|member| {
                vec![
                    member.member.clone(),
                    member.instance.clone().unwrap_or_else(|| "-".to_owned()),
                    member.client.clone(),
                    member.host.clone(),
                    // The broker does not know the assignments of the classic protocol.
                    if self.protocol == "classic" { "-".to_owned() } else { member.partitions.to_string() },
                ]
            }));
            text = format!("{text}\n{}", output::table(&rows));
        }
        if !self.partitions.is_empty() {
            let heading = ["TOPIC", "PARTITION", "POSITION", "END", "LAG", "MEMBER"];
            let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(self.partitions.iter().map(|p| {
                vec![
                    p.topic.clone(),
                    p.partition.to_string(),
                    number(p.position),
                    number(p.end),
                    number(p.lag),
                    p.member.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }));
            text = format!("{text}\n{}", output::table(&rows));
        }
        text
    }
}
