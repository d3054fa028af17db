//! `group seek`: changes the positions of a group that has no active members.

use std::collections::BTreeMap;

use highwater_client::{AdminErrorKind, Client, Offset};
use highwater_protocol::text::counted;
use serde::Serialize;

use super::describe::{Described, DescribedPartition, describe};
use crate::cli::SeekArgs;
use crate::failure::Failure;
use crate::output;
use crate::positions::{partitions, resolve};
use crate::session::with_client;

#[derive(Serialize)]
struct Move<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    /// `None` if no position is committed.
    from: Option<i64>,
    to: i64,
    /// Number of records from the new position to the end.
    lag: i64,
}

/// Prints the current and new positions, and commits the new ones unless `--dry-run`.
pub(super) fn run(args: &SeekArgs) -> Result<(), Failure> {
    with_client(&args.server, |client| async move { seek(&client, args).await })
}

async fn seek(client: &Client, args: &SeekArgs) -> Result<(), Failure> {
    let group = args.group.as_str();
    let known = match client.describe_group(group).await {
        Ok(_) => Some(describe(client, group).await?),
        Err(e) if e.kind() == AdminErrorKind::NotFound => None,
        Err(e) => return Err(Failure::general(e)),
    };
    if let Some(active) = known.as_ref().filter(|known| !known.members.is_empty()) {
        return Err(Failure::general(format_args!(
            "group {group} has {}, which would overwrite the new positions; stop all members first",
            counted(active.members.len(), "member")
        )));
    }
    let moves = moves(client, args, known.as_ref()).await?;
    print_moves(args, &moves)?;
    if args.dry_run {
        return Ok(());
    }
    let is_named = known.as_ref().is_some_and(|known| known.protocol == "named");
    let mut by_topic: BTreeMap<&str, Vec<(u32, Offset)>> = BTreeMap::new();
    for to in &moves {
        by_topic.entry(to.topic).or_default().push((to.partition, Offset(to.to)));
    }
    for (topic, positions) in by_topic {
        // Positions of a named consumer never expire; those of a group do.
        let done = if is_named {
            client.commit_offsets(group, topic, positions).await
        } else {
            client.alter_group_offsets(group, topic, positions).await
        };
        done.map_err(Failure::general)?;
    }
    Ok(())
}

async fn moves<'a>(
    client: &Client,
    args: &'a SeekArgs,
    known: Option<&'a Described<'_>>,
) -> Result<Vec<Move<'a>>, Failure> {
    let group = args.group.as_str();
    let positions = known.map_or(&[][..], |known| &known.partitions);
    let mut topics: Vec<&str> = match &args.topic[..] {
        [] => positions.iter().map(|p| p.topic.as_str()).collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() {
        let is = if known.is_some() { "has no positions" } else { "does not exist" };
        return Err(Failure::general(format_args!(
            "group {group} {is}; name the topics whose positions to set with --topic"
        )));
    }
    let mut moves = Vec::new();
    for topic in topics {
        let partitions = partitions(client, topic, &args.partition).await?;
        for new in resolve(client, topic, &partitions, args.to).await? {
            let is_this = |p: &&DescribedPartition| p.topic == topic && p.partition == new.partition;
            let from = positions.iter().find(is_this).and_then(|p| p.position);
            let (partition, to, lag) = (new.partition, new.offset, new.end - new.offset);
            moves.push(Move { group, topic, partition, from, to, lag });
        }
    }
    Ok(moves)
}

fn print_moves(args: &SeekArgs, moves: &[Move<'_>]) -> Result<(), Failure> {
    if args.json {
        return moves.iter().try_for_each(output::print_json);
    }
    let mut rows = vec![["TOPIC", "PARTITION", "FROM", "TO", "LAG"].map(str::to_owned).to_vec()];
    rows.extend(moves.iter().map(|to| {
        vec![
            to.topic.to_owned(),
            to.partition.to_string(),
            to.from.map_or_else(|| "-".to_owned(), |from| from.to_string()),
            to.to.to_string(),
            to.lag.to_string(),
        ]
    }));
    let remark = if args.dry_run { "\ndry run: nothing was changed\n" } else { "" };
    output::print(&(output::table(&rows) + remark))
}
