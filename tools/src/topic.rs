//! `topic`: creates, lists, describes, alters and deletes topics.

use std::collections::BTreeMap;

use highwater_client::{AdminErrorKind, AlterTopic, Client, CompactionDetail, NodeId, TopicDescription};
use highwater_protocol::text::counted;
use highwater_protocol::topic::is_reserved_topic_name;
use serde::Serialize;

use crate::cli::{ServerArgs, TopicCommand};
use crate::failure::Failure;
use crate::names;
use crate::output::{self, Descriptions};
use crate::session::with_client;
use crate::topic_trim;
use crate::units::{ByteSize, duration, readable_bytes};

/// Runs a subcommand of `topic`.
pub(crate) fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create { topic, partitions, replicas, config, if_not_exists, server } => {
            let config = config_values(config)?;
            create(&server, &topic, (partitions, replicas), config, if_not_exists)
        }
        TopicCommand::List { exclude_internal, json, server } => {
            with_client(&server, |client| async move { list(&client, exclude_internal, json).await })
        }
        TopicCommand::Describe { topic, all, under_replicated, json, server } => {
            with_client(&server, |client| async move {
                let mut descriptions = Descriptions::new(json);
                names::for_each(&topic, async |topic| {
                    let reply = client.describe_topic(topic).await.map_err(|e| Failure::topic(topic, &e))?;
                    let mut described = Described::new(topic, &reply);
                    if under_replicated {
                        described.partitions.retain(DescribedPartition::is_under_replicated);
                    }
                    descriptions.print(&described, || described.to_text(all))
                })
                .await
            })
        }
        TopicCommand::Alter { topic, partitions, config, unset, server } => {
            if partitions.is_none() && config.is_empty() && unset.is_empty() {
                return Err(Failure::usage("nothing to change: give --partitions, --config or --unset"));
            }
            let config = config_values(config)?;
            with_client(&server, |client| async move {
                let mut alter = client.alter_topic(&topic);
                if let Some(partitions) = partitions {
                    alter = alter.partitions(partitions);
                }
                for (name, value) in config {
                    alter = alter.config(name, value);
                }
                for name in unset {
                    alter = alter.reset_config(name);
                }
                let has_changed = alter_topic(&client, &topic, alter).await?;
                let outcome = if has_changed { "changed" } else { "nothing to change in" };
                output::print(&format!("{outcome} {topic}\n"))
            })
        }
        TopicCommand::Trim(args) => topic_trim::run(&args),
        TopicCommand::Delete { topic, server } => with_client(&server, |client| async move {
            names::for_each(&topic, async |topic| {
                client.delete_topic(topic).await.map_err(|e| Failure::topic(topic, &e))?;
                output::print(&format!("deleted {topic}\n"))
            })
            .await
        }),
    }
}

/// Changes a topic. Returns `false` if it was as requested before.
async fn alter_topic(client: &Client, topic: &str, alter: AlterTopic) -> Result<bool, Failure> {
    let describe = async || client.describe_topic(topic).await.map_err(|e| Failure::topic(topic, &e));
    let before = describe().await?;
    alter.await.map_err(|e| Failure::topic(topic, &e))?;
    let after = describe().await?;
    Ok(before.configs != after.configs || before.partitions.len() != after.partitions.len())
}

fn create(
    server: &ServerArgs,
    topic: &str,
    (partitions, replicas): (u32, Option<u8>),
    config: Vec<(String, String)>,
    if_not_exists: bool,
) -> Result<(), Failure> {
    with_client(server, |client| async move {
        let mut create = client.create_topic(topic).partitions(partitions);
        if let Some(replicas) = replicas {
            create = create.replicas(replicas);
        }
        for (name, value) in config {
            create = create.config(name, value);
        }
        match create.await {
            Ok(_) => output::print(&format!(
                "created {topic} with {}\n",
                counted(partitions as usize, "partition")
            )),
            Err(e) if if_not_exists && e.kind() == AdminErrorKind::Exists => Ok(()),
            Err(e) => Err(Failure::general(e)),
        }
    })
}

/// Converts values with units, such as `7d` and `10GiB`, to the milliseconds and bytes of Kafka's settings.
fn config_values(config: Vec<(String, String)>) -> Result<Vec<(String, String)>, Failure> {
    config
        .into_iter()
        .map(|(name, value)| {
            let value =
                config_value(&name, value).map_err(|e| Failure::general(format_args!("{name}: {e}")))?;
            Ok((name, value))
        })
        .collect()
}

fn config_value(name: &str, value: String) -> Result<String, String> {
    if value.parse::<i64>().is_ok() {
        return Ok(value);
    }
    match name.rsplit('.').next() {
        Some("ms") => Ok(duration(&value)?.as_millis().to_string()),
        Some("bytes") => Ok(value.parse::<ByteSize>()?.0.to_string()),
        _ => Ok(value),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    topic: &'a str,
    id: String,
    partitions: usize,
    /// Whether it belongs to the broker itself.
    internal: bool,
}

async fn list(client: &Client, exclude_internal: bool, json: bool) -> Result<(), Failure> {
    let mut topics = client.metadata().await.map_err(Failure::general)?.topics;
    topics.retain(|topic| !exclude_internal || !is_reserved_topic_name(&topic.name));
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        for topic in &topics {
            let listed = Listed {
                topic: &topic.name,
                id: topic.id.to_string(),
                partitions: topic.partitions.len(),
                internal: is_reserved_topic_name(&topic.name),
            };
            output::print_json(&listed)?;
        }
        return Ok(());
    }
    let mut rows = vec![vec!["TOPIC".to_owned(), "PARTITIONS".to_owned()]];
    rows.extend(topics.into_iter().map(|topic| vec![topic.name, topic.partitions.len().to_string()]));
    output::print(&output::table(&rows))
}

#[derive(Serialize)]
struct Described<'a> {
    topic: &'a str,
    id: String,
    configs: BTreeMap<&'a str, DescribedConfig<'a>>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
struct DescribedConfig<'a> {
    value: &'a str,
    /// Whether it was set for this topic; otherwise it has its default.
    set: bool,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: u32,
    /// `None`: no leader is known at the moment.
    leader: Option<u32>,
    shard: u16,
    leader_epoch: i32,
    replicas: Vec<u32>,
    in_sync: Vec<u32>,
    /// From the leader; `None` if it did not answer.
    #[serde(flatten)]
    log: Option<DescribedLog>,
}

#[derive(Serialize)]
struct DescribedLog {
    log_start: i64,
    high_watermark: i64,
    bytes: u64,
    faulty: bool,
    /// Only in compacted topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    compaction: Option<DescribedCompaction>,
}

impl DescribedPartition {
    /// Returns whether it has no leader, or a replica that is not in sync.
    fn is_under_replicated(&self) -> bool {
        self.leader.is_none() || self.replicas.iter().any(|node| !self.in_sync.contains(node))
    }

    fn row(&self) -> Vec<String> {
        let list = |nodes: &[u32]| nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let leader = self.leader.map_or_else(|| "none".to_owned(), |node| node.to_string());
        let of_log = |of: fn(&DescribedLog) -> String| self.log.as_ref().map_or_else(|| "-".to_owned(), of);
        let state = match &self.log {
            _ if self.leader.is_none() => "no leader",
            None => "unknown",
            Some(log) if log.faulty => "damaged",
            Some(_) if self.is_under_replicated() => "under-replicated",
            Some(_) => "ok",
        };
        vec![
            self.partition.to_string(),
            leader,
            self.shard.to_string(),
            self.leader_epoch.to_string(),
            list(&self.replicas),
            list(&self.in_sync),
            of_log(|log| log.log_start.to_string()),
            of_log(|log| log.high_watermark.to_string()),
            of_log(|log| log.bytes.to_string()),
            state.to_owned(),
        ]
    }
}

/// How far a partition is compacted. Passes are those since the start of the broker.
#[derive(Serialize)]
struct DescribedCompaction {
    clean_bytes: u64,
    dirty_bytes: u64,
    compacted_to: i64,
    passes: u64,
    /// In milliseconds since 1970.
    last_pass_ms: Option<i64>,
    bytes_before: u64,
    bytes_after: u64,
}

impl From<CompactionDetail> for DescribedCompaction {
    fn from(detail: CompactionDetail) -> Self {
        Self {
            clean_bytes: detail.clean_bytes,
            dirty_bytes: detail.dirty_bytes,
            compacted_to: detail.compacted_to.get(),
            passes: detail.passes,
            last_pass_ms: detail.last_pass.map(|at| at.0),
            bytes_before: detail.bytes_before,
            bytes_after: detail.bytes_after,
        }
    }
}

impl DescribedCompaction {
    fn row(&self, partition: u32) -> Vec<String> {
        let all = (self.clean_bytes + self.dirty_bytes).max(1);
        vec![
            partition.to_string(),
            self.dirty_bytes.to_string(),
            format!("{:.2}", self.dirty_bytes as f64 / all as f64),
            self.compacted_to.to_string(),
            self.passes.to_string(),
            self.last_pass_ms
                .and_then(|at| jiff::Timestamp::from_millisecond(at).ok())
                .map_or_else(|| "-".to_owned(), |at| at.to_string()),
            self.bytes_before.to_string(),
            self.bytes_after.to_string(),
        ]
    }
}

impl<'a> Described<'a> {
    fn new(topic: &'a str, reply: &'a TopicDescription) -> Self {
        let configs = reply
            .configs
            .iter()
            .map(|(name, value, set)| (name.as_str(), DescribedConfig { value, set: *set }));
        let partitions = reply.partitions.iter().map(|partition| DescribedPartition {
            partition: partition.info.index.get(),
            leader: partition.info.leader.map(NodeId::get),
            shard: partition.info.shard.get(),
            leader_epoch: partition.info.leader_epoch.get(),
            replicas: partition.replicas.iter().map(|node| node.get()).collect(),
            in_sync: partition.in_sync.iter().map(|node| node.get()).collect(),
            log: partition.log.map(|log| DescribedLog {
                log_start: log.log_start.get(),
                high_watermark: log.high_watermark.get(),
                bytes: log.bytes,
                faulty: log.faulty,
                compaction: log.compaction.map(Into::into),
            }),
        });
        Self { topic, id: reply.id.to_string(), configs: configs.collect(), partitions: partitions.collect() }
    }

    /// Formats the description for a terminal. Partitions come last, because they matter most and a terminal shows the end.
    fn to_text(&self, all: bool) -> String {
        let logs = || self.partitions.iter().filter_map(|partition| partition.log.as_ref());
        let records: u64 = logs().map(|log| (log.high_watermark - log.log_start).max(0) as u64).sum();
        let bytes = logs().map(|log| log.bytes).sum();
        // Compaction leaves fewer records than there are offsets.
        let is_compacted =
            self.configs.get("cleanup.policy").is_some_and(|policy| policy.value.contains("compact"));
        let summary = format!(
            "{}  id {}  {}  {}{}  {}\n",
            self.topic,
            self.id,
            counted(self.partitions.len(), "partition"),
            if is_compacted { "up to " } else { "" },
            counted(records as usize, "record"),
            readable_bytes(bytes)
        );
        let heading = [
            "PARTITION",
            "LEADER",
            "SHARD",
            "EPOCH",
            "REPLICAS",
            "IN SYNC",
            "START",
            "END",
            "BYTES",
            "STATE",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(self.partitions.iter().map(DescribedPartition::row));
        format!("{summary}\n{}\n{}{}", self.settings(all), self.compaction(), output::table(&rows))
    }

    /// Formats how far the partitions of a compacted topic are compacted.
    fn compaction(&self) -> String {
        let heading =
            ["PARTITION", "DIRTY", "RATIO", "COMPACTED TO", "PASSES", "LAST PASS", "BEFORE", "AFTER"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        let of = |p: &DescribedPartition| Some(p.log.as_ref()?.compaction.as_ref()?.row(p.partition));
        rows.extend(self.partitions.iter().filter_map(of));
        if rows.len() > 1 { format!("{}\n", output::table(&rows)) } else { String::new() }
    }

    /// Formats the settings of this topic, including those at their defaults if `all`.
    fn settings(&self, all: bool) -> String {
        let mut rows = vec![["SETTING", "VALUE", "FROM"].map(str::to_owned).to_vec()];
        rows.extend(self.configs.iter().filter(|(_, config)| all || config.set).map(|(name, config)| {
            let from = if config.set { "topic" } else { "default" };
            vec![(*name).to_owned(), config.value.to_owned(), from.to_owned()]
        }));
        match rows.len() {
            1 => "all settings are at their defaults; --all shows them\n".to_owned(),
            _ => output::table(&rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_settings_in_milliseconds_and_bytes_may_have_units() {
        let value = |name: &str, value: &str| config_value(name, value.to_owned());
        assert_eq!(value("retention.ms", "7d"), Ok("604800000".into()));
        assert_eq!(value("retention.ms", "-1"), Ok("-1".into()));
        assert_eq!(value("retention.bytes", "1GiB"), Ok("1073741824".into()));
        assert_eq!(value("cleanup.policy", "delete"), Ok("delete".into()));
        assert!(value("retention.ms", "soon").is_err());
    }
}
