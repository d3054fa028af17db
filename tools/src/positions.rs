//! Resolves positions such as "latest" or a time to offsets in each partition.

use highwater_client::{Client, ListedOffset, Offset, Start};
use highwater_protocol::text::counted;

use crate::failure::Failure;
use crate::start_position::StartPosition;

/// A position resolved to an offset in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ResolvedPosition {
    pub(crate) partition: u32,
    /// The first readable offset.
    pub(crate) start: i64,
    /// The offset after the last record.
    pub(crate) end: i64,
    /// The resolved offset; `start <= offset <= end`.
    pub(crate) offset: i64,
}

/// Returns the partitions in `named`, or all partitions of the topic if it is empty, sorted. Fails if one does not exist.
pub(crate) async fn partitions(client: &Client, topic: &str, named: &[u32]) -> Result<Vec<u32>, Failure> {
    let found = client.describe_topic(topic).await.map_err(|e| Failure::topic(topic, &e))?;
    let count = found.partitions.len() as u32;
    if let Some(unknown) = named.iter().find(|partition| **partition >= count) {
        return Err(Failure::general(format_args!(
            "topic {topic} has {}, numbered from 0, and no partition {unknown}",
            counted(count as usize, "partition")
        )));
    }
    let mut partitions: Vec<u32> = if named.is_empty() { (0..count).collect() } else { named.to_vec() };
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

/// Resolves `position` in each of the partitions. A time after the last record resolves to the end, and an offset outside the partition to
/// its nearer bound.
pub(crate) async fn resolve(
    client: &Client,
    topic: &str,
    partitions: &[u32],
    position: StartPosition,
) -> Result<Vec<ResolvedPosition>, Failure> {
    let starts = list(client, topic, partitions, Start::Earliest).await?;
    let ends = list(client, topic, partitions, Start::Latest).await?;
    let times = match position {
        StartPosition::Time(millis) => {
            list(client, topic, partitions, Start::Timestamp(highwater_client::Timestamp(millis))).await?
        }
        _ => vec![None; partitions.len()],
    };
    let bounds = partitions.iter().zip(starts).zip(ends).zip(times);
    Ok(bounds
        .map(|(((partition, start), end), time)| {
            let start = start.unwrap_or(0);
            let end = end.unwrap_or(start).max(start);
            let offset = match position {
                StartPosition::Earliest => start,
                StartPosition::Latest => end,
                StartPosition::Offset(offset) => offset,
                StartPosition::BeforeEnd(records) => end.saturating_sub(records),
                StartPosition::Time(_) => time.unwrap_or(end),
            };
            ResolvedPosition { partition: *partition, start, end, offset: offset.clamp(start, end) }
        })
        .collect())
}

async fn list(
    client: &Client,
    topic: &str,
    partitions: &[u32],
    at: Start,
) -> Result<Vec<Option<i64>>, Failure> {
    let queries = partitions.iter().map(|partition| (*partition, at));
    let found = client.list_offsets(topic, queries).await.map_err(|e| Failure::topic(topic, &e))?;
    let offset = |listed: ListedOffset| match listed.found {
        Ok(found) => Ok(found.map(|(offset, _): (Offset, _)| offset.get())),
        Err(code) => Err(Failure::general(format_args!(
            "cannot list the offsets of {topic}/{}: {code}",
            listed.partition
        ))),
    };
    found.into_iter().map(offset).collect()
}
