//! Topics that `consume` reads, and the offset at which it stops in each partition.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use highwater_client::{Batch, Client, Consumer, FetchError, Offset, PartitionStatus, Start};
use regex::RegexSet;

use crate::cli::ConsumeArgs;
use crate::failure::Failure;
use crate::positions::resolve;
use crate::start_position::StartPosition;

/// Interval between searches for new topics with matching names.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// The consumers of all topics, one for each.
pub(super) struct Sources<'a> {
    client: &'a Client,
    args: &'a ConsumeArgs,
    consumers: Vec<Consumer>,
    /// Topics whose consumers have reached the end.
    ended: BTreeSet<String>,
    /// Index of the consumer polled last, for round-robin polling.
    cursor: usize,
    /// With --until: the end offsets of unfinished partitions.
    ends: BTreeMap<(String, u32), i64>,
    /// With --regex: the patterns of topic names.
    patterns: Option<RegexSet>,
    next_discovery: Instant,
}

impl<'a> Sources<'a> {
    pub(super) async fn open(client: &'a Client, args: &'a ConsumeArgs) -> Result<Self, Failure> {
        let mut sources = Self {
            client,
            args,
            consumers: Vec::new(),
            ended: BTreeSet::new(),
            cursor: 0,
            ends: BTreeMap::new(),
            patterns: patterns(args)?,
            next_discovery: Instant::now() + DISCOVERY_INTERVAL,
        };
        let topics = topics(client, args).await?;
        for topic in &topics {
            sources.add(topic, args.from).await?;
        }
        Ok(sources)
    }

    async fn add(&mut self, topic: &str, from: StartPosition) -> Result<(), Failure> {
        let args = self.args;
        let mut builder = self.client.consumer(topic).start(from.or_latest());
        if !args.partition.is_empty() {
            builder = builder.partitions(args.partition.iter().copied());
        }
        if let Some(name) = &args.consumer {
            builder = builder.name(name);
        }
        if args.limit.is_none() && !args.follow {
            builder = builder.until_end();
        }
        // A committed position, or a start that retention removes meanwhile, may be out of range; an offset given by the user must exist.
        if args.consumer.is_some() || !matches!(from, StartPosition::Offset(_)) {
            builder = builder.on_out_of_range(Start::Earliest);
        }
        let mut consumer = builder.await.map_err(|e| Failure::topic(topic, &e))?;
        if let StartPosition::BeforeEnd(records) = from {
            seek_before_end(self.client, args, &mut consumer, records).await?;
        }
        if let Some(until) = args.until {
            let partitions: Vec<u32> = consumer.status().iter().map(|status| status.partition).collect();
            for resolved in resolve(self.client, topic, &partitions, until).await? {
                let end = match until {
                    // Not clamped to the current end: with --follow, records up to it are waited for.
                    StartPosition::Offset(offset) => offset,
                    _ => resolved.offset,
                };
                let start = match from {
                    StartPosition::Offset(offset) => offset,
                    StartPosition::Latest => resolved.end,
                    _ => resolved.start,
                };
                if start < end {
                    self.ends.insert((topic.to_owned(), resolved.partition), end);
                }
            }
        }
        self.consumers.push(consumer);
        Ok(())
    }

    /// Polls the consumers for the next batch of any topic. Returns `None` when all have ended.
    pub(super) fn poll_next_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Batch>, FetchError>> {
        if self.args.until.is_some() && self.ends.is_empty() {
            return Poll::Ready(Ok(None));
        }
        for _ in 0..self.consumers.len() {
            self.cursor = (self.cursor + 1) % self.consumers.len();
            let consumer = &mut self.consumers[self.cursor];
            if self.ended.contains(consumer.topic()) {
                continue;
            }
            match consumer.poll_next_batch(cx) {
                Poll::Ready(Ok(None)) => {
                    self.ended.insert(consumer.topic().to_owned());
                }
                Poll::Ready(found) => return Poll::Ready(found),
                Poll::Pending => {}
            }
        }
        if self.ended.len() == self.consumers.len() && !self.discovers_topics() {
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    /// Waits for the next batch, and discovers new topics meanwhile.
    pub(super) async fn next_batch(&mut self) -> Result<Result<Option<Batch>, FetchError>, Failure> {
        loop {
            self.discover_topics().await?;
            let pause = self.next_discovery.saturating_duration_since(Instant::now());
            let discovers = self.discovers_topics();
            tokio::select! {
                batch = poll_fn(|cx| self.poll_next_batch(cx)) => return Ok(batch),
                () = tokio::time::sleep(pause), if discovers => {}
            }
        }
    }

    fn discovers_topics(&self) -> bool {
        self.patterns.is_some() && self.args.follow
    }

    /// Adds new topics with matching names, from their first record, once per interval. Does nothing without --regex and --follow.
    pub(super) async fn discover_topics(&mut self) -> Result<(), Failure> {
        if !self.discovers_topics() || Instant::now() < self.next_discovery {
            return Ok(());
        }
        self.next_discovery = Instant::now() + DISCOVERY_INTERVAL;
        let known: BTreeSet<String> = self.consumers.iter().map(|c| c.topic().to_owned()).collect();
        for topic in matching(self.client, self.patterns.as_ref()).await? {
            if !known.contains(&topic) {
                self.add(&topic, StartPosition::Earliest).await?;
            }
        }
        Ok(())
    }

    /// Returns the offset before which the partition stops, or `None` if it has reached it.
    pub(super) fn end_of(&self, topic: &str, partition: u32) -> Option<i64> {
        match self.args.until {
            None => Some(i64::MAX),
            Some(_) => self.ends.get(&(topic.to_owned(), partition)).copied(),
        }
    }

    /// Records that a partition was printed up to `next_offset`.
    pub(super) fn advance(&mut self, topic: &str, partition: u32, next_offset: i64) {
        if self.end_of(topic, partition).is_some_and(|end| next_offset >= end) {
            self.ends.remove(&(topic.to_owned(), partition));
        }
    }

    /// Returns the number of partitions that have not reached their ends, including failed ones.
    pub(super) fn unfinished(&self) -> usize {
        let is_finished = |status: &PartitionStatus| status.end.is_some() && status.position >= status.end;
        let unfinished =
            |consumer: &Consumer| consumer.status().iter().filter(|status| !is_finished(status)).count();
        self.consumers.iter().map(unfinished).sum()
    }
}

fn patterns(args: &ConsumeArgs) -> Result<Option<RegexSet>, Failure> {
    if !args.regex {
        return Ok(None);
    }
    let whole = args.topic.iter().map(|pattern| format!("^(?:{pattern})$"));
    RegexSet::new(whole)
        .map(Some)
        .map_err(|e| Failure::usage(format_args!("invalid regular expression: {e}")))
}

async fn matching(client: &Client, patterns: Option<&RegexSet>) -> Result<Vec<String>, Failure> {
    let topics = client.metadata().await.map_err(Failure::general)?.topics;
    let names = topics.into_iter().map(|topic| topic.name);
    Ok(names.filter(|name| patterns.is_some_and(|patterns| patterns.is_match(name))).collect())
}

/// Returns the names of the topics to read: the arguments, or with --regex the topics that match them. Fails if there is none and none can
/// appear later.
pub(crate) async fn topics(client: &Client, args: &ConsumeArgs) -> Result<Vec<String>, Failure> {
    let mut topics = match patterns(args)? {
        Some(patterns) => matching(client, Some(&patterns)).await?,
        None => args.topic.clone(),
    };
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() && (!args.follow || args.group.is_some()) {
        return Err(Failure::general(format_args!(
            "no topic has a name that matches {}",
            args.topic.join(" or ")
        )));
    }
    Ok(topics)
}

/// Moves each partition without a committed position to `records` records before its end.
async fn seek_before_end(
    client: &Client,
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    records: i64,
) -> Result<(), Failure> {
    let topic = consumer.topic().to_owned();
    let committed = match &args.consumer {
        Some(name) => client.committed_offsets(name, &topic).await.map_err(|e| Failure::topic(&topic, &e))?,
        None => Vec::new(),
    };
    let partitions: Vec<u32> = consumer
        .status()
        .iter()
        .map(|status| status.partition)
        .filter(|partition| committed.iter().all(|position| position.partition.get() != *partition))
        .collect();
    for resolved in resolve(client, &topic, &partitions, StartPosition::BeforeEnd(records)).await? {
        let to = Start::Offset(Offset(resolved.offset));
        consumer.seek(resolved.partition, to).map_err(Failure::general)?;
    }
    Ok(())
}
