//! `highwater bench join`: many members join one group of many topics at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use highwater_client::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{BrokerArgs, connect, longest_turns, turns_line};
use crate::BenchError;
use crate::limits::positive;
use crate::output::print;

/// How often a member looks at its assignment.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The partitions of a member.
type Partitions = Vec<(String, u32)>;

/// Measure how a group begins: members that join it at once, until each partition of its topics has exactly one of them
#[derive(Args, Debug)]
pub struct JoinCommand {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Number of members
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    members: u32,
    /// Number of topics, to all of which each member subscribes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    topics: u32,
    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Number of clients that the members share, each with its own connections
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// How long the group may take
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = positive)]
    timeout: Duration,
}

/// What was measured.
struct Joined {
    /// Until the last member had joined.
    members: Duration,
    /// Until each partition had its member.
    assigned: Duration,
    before: Vec<u64>,
    after: Vec<u64>,
}

impl JoinCommand {
    /// Measures, and prints the result.
    pub fn run(&self) -> Result<(), BenchError> {
        let setting = self.broker.begin()?;
        let joined = setting.runtime.block_on(self.measure(&setting.address));
        setting.end()?;
        print(&self.report(&joined?))
    }

    async fn measure(&self, address: &[String]) -> Result<Joined, BenchError> {
        let clients = connect(address, self.clients as usize).await?;
        let topics: Vec<String> = (0..self.topics).map(|number| format!("bench-join-{number:04}")).collect();
        for topic in &topics {
            let create = clients[0].create_topic(topic).partitions(self.partitions).if_not_exists();
            create.await.map_err(BenchError::failed)?;
        }
        let before = longest_turns(&clients[0]).await?;
        let begun = Instant::now();
        let (reports, mut assignments) = mpsc::unbounded_channel();
        let mut members = JoinSet::new();
        for number in 0..self.members {
            let client = clients[(number % self.clients) as usize].clone();
            members.spawn(member(client, topics.clone(), number, reports.clone()));
        }
        let mut group = Assignments::default();
        let until = begun + self.timeout;
        let mut all_joined = None;
        let all = self.topics as usize * self.partitions as usize;
        while all_joined.is_none() || !group.is_complete(all) {
            tokio::select! {
                Some((member, partitions)) = assignments.recv() => group.set(member, partitions),
                Some(ended) = members.join_next() => {
                    return Err(ended.expect("a task does not panic and is not aborted"));
                }
                () = tokio::time::sleep_until(until.into()) => {
                    return Err(BenchError::failed(format_args!(
                        "after {:?}, {} of {} members had joined, and {} of {all} partitions had a member",
                        self.timeout,
                        group.of_member.len(),
                        self.members,
                        group.members_of.len()
                    )));
                }
            }
            if group.of_member.len() == self.members as usize {
                all_joined.get_or_insert_with(|| begun.elapsed());
            }
        }
        let assigned = begun.elapsed();
        let after = longest_turns(&clients[0]).await?;
        Ok(Joined { members: all_joined.unwrap_or(assigned), assigned, before, after })
    }

    fn report(&self, joined: &Joined) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} members joined a group of {} topics with {} partitions each in {:.2} s; each partition had one of them after {:.2} s",
            self.members,
            self.topics,
            self.partitions,
            joined.members.as_secs_f64(),
            joined.assigned.as_secs_f64()
        );
        text + &turns_line(&joined.before, &joined.after)
    }
}

/// Joins, and reports each new assignment. Returns only if that fails.
async fn member(
    client: Arc<Client>,
    topics: Vec<String>,
    number: u32,
    reports: mpsc::UnboundedSender<(u32, Partitions)>,
) -> BenchError {
    let mut member = client.consumer(&topics[0]).buffer_bytes(64 << 10).group("bench-join").manual_commit();
    for topic in &topics[1..] {
        member = member.topic(topic);
    }
    let mut member = match member.await {
        Ok(member) => member,
        Err(error) => return BenchError::failed(error),
    };
    let mut last = None;
    loop {
        let now = member.assignment();
        if last.as_ref() != Some(&now) {
            last = Some(now.clone());
            // The receiver is dropped at the end.
            let _ = reports.send((number, now));
        }
        // The client releases partitions while its user waits for records. The topics have none.
        match tokio::time::timeout(LOOK_INTERVAL, member.next_batch()).await {
            Ok(Err(error)) => return BenchError::failed(error),
            Ok(Ok(None)) => return BenchError::failed("the consumer is closed"),
            Ok(Ok(Some(_))) | Err(_) => {}
        }
    }
}

/// The assignments of all members, as last reported.
#[derive(Default)]
struct Assignments {
    of_member: BTreeMap<u32, Partitions>,
    /// How many members each partition has. A partition that moves may have two for a moment.
    members_of: BTreeMap<(String, u32), u32>,
    shared: usize,
}

impl Assignments {
    fn set(&mut self, member: u32, partitions: Partitions) {
        for partition in &partitions {
            let members = self.members_of.entry(partition.clone()).or_insert(0);
            *members += 1;
            self.shared += usize::from(*members == 2);
        }
        for partition in self.of_member.insert(member, partitions).unwrap_or_default() {
            let Some(members) = self.members_of.get_mut(&partition) else { continue };
            *members -= 1;
            self.shared -= usize::from(*members == 1);
            if *members == 0 {
                self.members_of.remove(&partition);
            }
        }
    }

    /// Returns whether each of `all` partitions has exactly one member.
    fn is_complete(&self, all: usize) -> bool {
        self.members_of.len() == all && self.shared == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_complete_when_each_partition_has_exactly_one_member() {
        let partition = |number| ("t".to_owned(), number);
        let mut group = Assignments::default();
        group.set(0, vec![partition(0), partition(1)]);
        assert!(group.is_complete(2) && !group.is_complete(3));
        group.set(1, vec![partition(1)]);
        assert!(!group.is_complete(2), "two members have the same partition");
        group.set(0, vec![partition(0)]);
        assert!(group.is_complete(2));
        group.set(1, Vec::new());
        assert!(!group.is_complete(2));
    }
}
