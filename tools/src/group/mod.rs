//! `group`: lists, describes and deletes groups.

use std::collections::BTreeMap;

use highwater_client::{Client, GroupMember, Offset, Start};
use highwater_protocol::text::{counted, grouped};
use serde::Serialize;

use crate::cli::GroupCommand;
use crate::failure::Failure;
use crate::group_seek;
use crate::names;
use crate::output::{self, Descriptions};
use crate::session::with_client;

/// Runs a subcommand of `group`.
pub(crate) fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List { json, server } => {
            with_client(&server, |client| async move { list(&client, json).await })
        }
        GroupCommand::Describe { group, json, server } => with_client(&server, |client| async move {
            let mut descriptions = Descriptions::new(json);
            names::for_each(&group, async |group| {
                let described = describe(&client, group).await?;
                descriptions.print(&described, || described.to_text())
            })
            .await
        }),
        GroupCommand::Seek(args) => group_seek::run(&args),
        GroupCommand::Delete { group, server } => with_client(&server, |client| async move {
            names::for_each(&group, async |group| {
                client.delete_group(group).await.map_err(Failure::general)?;
                output::print(&format!("deleted {group}\n"))
            })
            .await
        }),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    group: &'a str,
    protocol: &'a str,
    state: &'a str,
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let groups = client.list_groups().await.map_err(Failure::general)?;
    if json {
        for group in &groups {
            output::print_json(&Listed {
                group: &group.name,
                protocol: &group.protocol,
                state: &group.state,
            })?;
        }
        return Ok(());
    }
    let mut rows = vec![["GROUP", "PROTOCOL", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(groups.into_iter().map(|group| vec![group.name, group.protocol, group.state]));
    output::print(&output::table(&rows))
}

#[derive(Serialize)]
pub(crate) struct Described<'a> {
    group: &'a str,
    pub(crate) protocol: String,
    state: String,
    epoch: i32,
    assignor: String,
    /// Number of unread records, over all partitions in which the group has a position.
    lag: i64,
    pub(crate) members: Vec<DescribedMember>,
    pub(crate) partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
pub(crate) struct DescribedMember {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    epoch: i32,
    partitions: usize,
}

#[derive(Serialize)]
pub(crate) struct DescribedPartition {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// `None` if no position is committed.
    pub(crate) position: Option<i64>,
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

pub(crate) async fn describe<'a>(client: &Client, group: &'a str) -> Result<Described<'a>, Failure> {
    let described = client.describe_group(group).await.map_err(Failure::general)?;
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
    fn to_text(&self) -> String {
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
