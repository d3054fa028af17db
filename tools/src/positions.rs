//! Where in each partition something begins or ends, for commands that move a position or a boundary there.

use highwater_client::{Client, ListedOffset, Offset, StartAt};
use highwater_protocol::text::counted;

use crate::failure::Failure;
use crate::start_at::StartPosition;

/// A partition, its bounds, and the offset in it that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Located {
    pub(crate) partition: u32,
    /// The first offset that can be read.
    pub(crate) start: i64,
    /// The offset after the last record.
    pub(crate) end: i64,
    /// Between the two.
    pub(crate) at: i64,
}

/// The partitions of a topic, or those of them that were named.
pub(crate) async fn partitions(client: &Client, topic: &str, named: &[u32]) -> Result<Vec<u32>, Failure> {
    let found = client.describe_topic(topic).await.map_err(Failure::general)?;
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

/// Where `position` is in each of the partitions. A time at which or after which there is no record is at the end; an offset
/// outside of the partition is at its nearer bound.
pub(crate) async fn locate(
    client: &Client,
    topic: &str,
    partitions: &[u32],
    position: StartPosition,
) -> Result<Vec<Located>, Failure> {
    let starts = list(client, topic, partitions, StartAt::Earliest).await?;
    let ends = list(client, topic, partitions, StartAt::Latest).await?;
    let times = match position {
        StartPosition::Time(millis) => {
            list(client, topic, partitions, StartAt::Timestamp(highwater_client::Timestamp(millis))).await?
        }
        _ => vec![None; partitions.len()],
    };
    let bounds = partitions.iter().zip(starts).zip(ends).zip(times);
    Ok(bounds
        .map(|(((partition, start), end), time)| {
            let start = start.unwrap_or(0);
            let end = end.unwrap_or(start).max(start);
            let at = match position {
                StartPosition::Earliest => start,
                StartPosition::Latest => end,
                StartPosition::Offset(offset) => offset,
                StartPosition::BeforeEnd(records) => end.saturating_sub(records),
                StartPosition::Time(_) => time.unwrap_or(end),
            };
            Located { partition: *partition, start, end, at: at.clamp(start, end) }
        })
        .collect())
}

async fn list(
    client: &Client,
    topic: &str,
    partitions: &[u32],
    at: StartAt,
) -> Result<Vec<Option<i64>>, Failure> {
    let asked = partitions.iter().map(|partition| (*partition, at));
    let found = client.list_offsets(topic, asked).await.map_err(Failure::general)?;
    let offset = |listed: ListedOffset| match listed.found {
        Ok(found) => Ok(found.map(|(offset, _): (Offset, _)| offset.get())),
        Err(code) => Err(Failure::general(format_args!(
            "offsets of {topic}/{} cannot be listed: {code}",
            listed.partition
        ))),
    };
    found.into_iter().map(offset).collect()
}
