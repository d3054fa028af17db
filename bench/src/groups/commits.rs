//! `highwater bench commits`: named consumers that commit their positions again and again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use highwater_client::{Client, Consumer, Start};
use tokio::task::JoinSet;

use super::{BrokerArgs, connect, longest_turns, turns_line};
use crate::BenchError;
use crate::limits::positive;
use crate::load::recorder::{histogram, record};
use crate::output::print;
use crate::report::numbers::{count, duration as nanoseconds};

const TOPIC: &str = "bench-commits";

/// Measure commits of offsets: consumers that each commit a position, wait until it is durable, and commit again
#[derive(Args, Debug)]
pub struct CommitsCommand {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Number of named consumers; each has one commit unanswered at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    consumers: u32,
    /// Number of clients that they share, each with its own connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Measured duration, such as 20s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive)]
    duration: Duration,
    /// Warm-up duration before measuring
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive)]
    warmup: Duration,
}

/// What was measured.
struct Commits {
    latency: Histogram<u64>,
    before: Vec<u64>,
    after: Vec<u64>,
    syncs: u64,
}

impl CommitsCommand {
    /// Measures, and prints the result.
    pub fn run(&self) -> Result<(), BenchError> {
        let setting = self.broker.begin()?;
        let commits = setting.runtime.block_on(self.measure(&setting.address));
        setting.end()?;
        print(&self.report(&commits?))
    }

    async fn measure(&self, address: &[String]) -> Result<Commits, BenchError> {
        let clients = connect(address, self.clients as usize).await?;
        let first = &clients[0];
        first.create_topic(TOPIC).partitions(1).if_not_exists().await.map_err(BenchError::failed)?;
        let mut consumers = Vec::with_capacity(self.consumers as usize);
        for number in 0..self.consumers {
            consumers.push(consumer(&clients[(number % self.clients) as usize], number).await?);
        }
        let before = longest_turns(first).await?;
        let syncs_before = syncs(first).await?;
        let from = Instant::now() + self.warmup;
        let to = from + self.duration;
        let mut tasks = JoinSet::new();
        for consumer in consumers {
            tasks.spawn(commit_until(consumer, from, to));
        }
        let mut latency = histogram();
        while let Some(done) = tasks.join_next().await {
            latency += &done.expect("a task does not panic and is not aborted")?;
        }
        let (after, syncs_after) = (longest_turns(first).await?, syncs(first).await?);
        first.delete_topic(TOPIC).await.map_err(BenchError::failed)?;
        Ok(Commits { latency, before, after, syncs: syncs_after - syncs_before })
    }

    fn report(&self, commits: &Commits) -> String {
        let seconds = self.duration.as_secs_f64();
        let whole = (self.duration + self.warmup).as_secs_f64();
        let at = |share: f64| nanoseconds(commits.latency.value_at_quantile(share) as f64);
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}/s offset commits, each durable before it is answered; {} consumers, {} clients, {seconds} s",
            count(commits.latency.len() as f64 / seconds),
            self.consumers,
            self.clients
        );
        let _ = writeln!(
            text,
            "latency: p50 {}, p99 {}, p99.9 {}, max {}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        let _ = writeln!(text, "syncs and durable writes: {}/s", count(commits.syncs as f64 / whole));
        text + &turns_line(&commits.before, &commits.after)
    }
}

/// Creates a named consumer with a position to commit.
async fn consumer(client: &Arc<Client>, number: u32) -> Result<Consumer, BenchError> {
    let consumer = client
        .consumer(TOPIC)
        .name(format!("bench-{number:05}"))
        .start(Start::Latest)
        .buffer_bytes(64 << 10)
        .await
        .map_err(BenchError::failed)?;
    while consumer.status().iter().any(|partition| partition.position.is_none()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(consumer)
}

/// Commits until `to`. Returns the latencies of the commits that began at `from` or later, in nanoseconds.
async fn commit_until(consumer: Consumer, from: Instant, to: Instant) -> Result<Histogram<u64>, BenchError> {
    let mut latency = histogram();
    loop {
        let begun = Instant::now();
        if begun >= to {
            return Ok(latency);
        }
        consumer.commit().await.map_err(BenchError::failed)?;
        if begun >= from {
            record(&mut latency, begun.elapsed().as_nanos() as u64, 1);
        }
    }
}

/// Returns the number of syncs and durable writes of the broker so far.
async fn syncs(client: &Client) -> Result<u64, BenchError> {
    let stats = client.stats().await.map_err(BenchError::failed)?;
    Ok(["disk.syncs", "disk.writes.durable"].iter().filter_map(|name| stats.total(name)).sum())
}
