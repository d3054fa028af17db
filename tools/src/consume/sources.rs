//! The topics that `consume` reads, and where it stops in each partition.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use highwater_client::{Batch, Client, Consumer, FetchError, Offset, PartitionStatus, StartAt};
use regex::RegexSet;

use crate::cli::ConsumeArgs;
use crate::failure::Failure;
use crate::positions::locate;
use crate::start_at::StartPosition;

/// Between two looks for new topics whose names match.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What is read: one consumer for each topic.
pub(super) struct Sources<'a> {
    client: &'a Client,
    args: &'a ConsumeArgs,
    consumers: Vec<Consumer>,
    /// The topics whose consumers have come to their ends.
    ended: BTreeSet<String>,
    /// The consumer that is asked next.
    turn: usize,
    /// With --until: where each partition stops.
    ends: BTreeMap<(String, u32), i64>,
    /// Topics are looked for by their names.
    patterns: Option<RegexSet>,
    next_look: Instant,
}

impl<'a> Sources<'a> {
    pub(super) async fn open(client: &'a Client, args: &'a ConsumeArgs) -> Result<Self, Failure> {
        let mut sources = Self {
            client,
            args,
            consumers: Vec::new(),
            ended: BTreeSet::new(),
            turn: 0,
            ends: BTreeMap::new(),
            patterns: patterns(args)?,
            next_look: Instant::now() + LOOK_INTERVAL,
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
        // A position that was kept, or a beginning that retention removes meanwhile. An offset that was asked for has to be there.
        if args.consumer.is_some() || !matches!(from, StartPosition::Offset(_)) {
            builder = builder.on_out_of_range(StartAt::Earliest);
        }
        let mut consumer = builder.await.map_err(Failure::general)?;
        if let StartPosition::BeforeEnd(records) = from {
            step_back(self.client, args, &mut consumer, records).await?;
        }
        if let Some(until) = args.until {
            let partitions: Vec<u32> = consumer.status().iter().map(|status| status.partition).collect();
            for located in locate(self.client, topic, &partitions, until).await? {
                let end = match until {
                    // One that is still to come is waited for with --follow.
                    StartPosition::Offset(offset) => offset,
                    _ => located.at,
                };
                let start = match from {
                    StartPosition::Offset(offset) => offset,
                    StartPosition::Latest => located.end,
                    _ => located.start,
                };
                if start < end {
                    self.ends.insert((topic.to_owned(), located.partition), end);
                }
            }
        }
        self.consumers.push(consumer);
        Ok(())
    }

    /// The next records of whatever topic has some; none at the end.
    pub(super) fn poll_next_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Batch>, FetchError>> {
        if self.args.until.is_some() && self.ends.is_empty() {
            return Poll::Ready(Ok(None));
        }
        for _ in 0..self.consumers.len() {
            self.turn = (self.turn + 1) % self.consumers.len();
            let consumer = &mut self.consumers[self.turn];
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
        if self.ended.len() == self.consumers.len() && !self.looks_for_topics() {
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    /// The same, waiting for it, and looking for new topics meanwhile.
    pub(super) async fn next_batch(&mut self) -> Result<Result<Option<Batch>, FetchError>, Failure> {
        loop {
            self.look().await?;
            let pause = self.next_look.saturating_duration_since(Instant::now());
            let looks = self.looks_for_topics();
            tokio::select! {
                batch = poll_fn(|cx| self.poll_next_batch(cx)) => return Ok(batch),
                () = tokio::time::sleep(pause), if looks => {}
            }
        }
    }

    fn looks_for_topics(&self) -> bool {
        self.patterns.is_some() && self.args.follow
    }

    /// Adds new topics whose names match, from their first record on, if it is time to look for them.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        if !self.looks_for_topics() || Instant::now() < self.next_look {
            return Ok(());
        }
        self.next_look = Instant::now() + LOOK_INTERVAL;
        let known: BTreeSet<String> = self.consumers.iter().map(|c| c.topic().to_owned()).collect();
        for topic in matching(self.client, self.patterns.as_ref()).await? {
            if !known.contains(&topic) {
                self.add(&topic, StartPosition::Earliest).await?;
            }
        }
        Ok(())
    }

    /// Where the partition stops: before this offset. None: it has stopped.
    pub(super) fn end_of(&self, topic: &str, partition: u32) -> Option<i64> {
        match self.args.until {
            None => Some(i64::MAX),
            Some(_) => self.ends.get(&(topic.to_owned(), partition)).copied(),
        }
    }

    /// A partition was printed up to here.
    pub(super) fn note(&mut self, topic: &str, partition: u32, next_offset: i64) {
        if self.end_of(topic, partition).is_some_and(|end| next_offset >= end) {
            self.ends.remove(&(topic.to_owned(), partition));
        }
    }

    /// Partitions that have not come to the end that was asked for, those that failed among them.
    pub(super) fn unfinished(&self) -> usize {
        let is_finished = |status: &PartitionStatus| status.end.is_some() && status.position >= status.end;
        let of = |consumer: &Consumer| consumer.status().iter().filter(|status| !is_finished(status)).count();
        self.consumers.iter().map(of).sum()
    }
}

fn patterns(args: &ConsumeArgs) -> Result<Option<RegexSet>, Failure> {
    if !args.regex {
        return Ok(None);
    }
    let whole = args.topic.iter().map(|pattern| format!("^(?:{pattern})$"));
    RegexSet::new(whole).map(Some).map_err(|e| Failure::usage(format_args!("not a regular expression: {e}")))
}

async fn matching(client: &Client, patterns: Option<&RegexSet>) -> Result<Vec<String>, Failure> {
    let topics = client.metadata().await.map_err(Failure::general)?.topics;
    let names = topics.into_iter().map(|topic| topic.name);
    Ok(names.filter(|name| patterns.is_some_and(|patterns| patterns.is_match(name))).collect())
}

/// The names of the topics: those given, or those that match the expressions given.
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

/// Moves every partition that has no committed position this many records before its end.
async fn step_back(
    client: &Client,
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    records: i64,
) -> Result<(), Failure> {
    let topic = consumer.topic().to_owned();
    let committed = match &args.consumer {
        Some(name) => client.committed(name, &topic).await.map_err(Failure::general)?,
        None => Vec::new(),
    };
    let partitions: Vec<u32> = consumer
        .status()
        .iter()
        .map(|status| status.partition)
        .filter(|partition| committed.iter().all(|position| position.partition.get() != *partition))
        .collect();
    for located in locate(client, &topic, &partitions, StartPosition::BeforeEnd(records)).await? {
        let to = StartAt::Offset(Offset(located.at));
        consumer.seek(located.partition, to).map_err(Failure::general)?;
    }
    Ok(())
}
