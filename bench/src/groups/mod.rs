//! Loads on the coordinators of groups: commits of offsets, and many members that join one group.
//!
//! They have no records, so they are commands of their own and not scenarios. Both print the longest turn of each shard, which bounds how long any other
//! client of that shard has waited.

mod commits;
mod join;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use highwater_client::Client;
use tokio::runtime::Runtime;

pub use commits::CommitsCommand;
pub use join::JoinCommand;

use crate::BenchError;
use crate::server::{Server, ServerPlan};

/// The counter of a shard that has its longest turn, in microseconds.
const LONGEST_TURN: &str = "turn.longest.us";

/// The broker.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// Addresses of a running broker, separated by commas [default: start a broker for the run and stop it afterwards]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    server: Vec<String>,
    /// Data directory of the broker started for the run [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Cores of the broker started for the run [default: the broker's default]
    #[arg(long, value_name = "N")]
    broker_cores: Option<u16>,
    /// Program to start as the broker [default: this program]
    #[arg(long, value_name = "FILE")]
    broker_program: Option<PathBuf>,
}

/// A broker, and the runtime of its clients.
struct Setting {
    runtime: Runtime,
    address: Vec<String>,
    server: Option<Server>,
}

impl BrokerArgs {
    /// Starts a broker unless there is one.
    fn begin(&self) -> Result<Setting, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| BenchError::failed(format_args!("cannot start an async runtime: {e}")))?;
        if !self.server.is_empty() {
            return Ok(Setting { runtime, address: self.server.clone(), server: None });
        }
        let server = Server::start(ServerPlan {
            program: self.broker_program.clone(),
            data_dir: self.data_dir.clone(),
            cores: self.broker_cores,
            ..ServerPlan::default()
        })?;
        Ok(Setting { runtime, address: server.addresses(), server: Some(server) })
    }
}

impl Setting {
    fn end(self) -> Result<(), BenchError> {
        self.server.map_or(Ok(()), Server::stop)
    }
}

/// Connects as many clients as are asked for. Each has its own connections.
async fn connect(address: &[String], count: usize) -> Result<Vec<Arc<Client>>, BenchError> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = Client::builder().bootstrap(address).name("highwater-bench").connect();
        clients.push(Arc::new(client.await.map_err(BenchError::failed)?));
    }
    Ok(clients)
}

/// Returns the longest turn of each shard since the start of the broker, in microseconds.
async fn longest_turns(client: &Client) -> Result<Vec<u64>, BenchError> {
    let stats = client.stats().await.map_err(BenchError::failed)?;
    let longest = |counters: &[(String, u64)]| {
        counters.iter().find(|(name, _)| name == LONGEST_TURN).map(|(_, micros)| *micros)
    };
    stats.shards.iter().map(|shard| longest(&shard.counters)).collect::<Option<_>>().ok_or_else(|| {
        BenchError::failed(format_args!("the broker has no counter {LONGEST_TURN}: it is an earlier version"))
    })
}

/// Formats the longest turns before and after a load. A shard whose longest turn was before the load had none as long during it.
fn turns_line(before: &[u64], after: &[u64]) -> String {
    let mut parts = Vec::with_capacity(after.len());
    for (shard, after) in after.iter().enumerate() {
        let before = before.get(shard).copied().unwrap_or(0);
        let millis = *after as f64 / 1e3;
        let at_most = if *after == before { "at most " } else { "" };
        parts.push(format!("shard {shard} {at_most}{millis:.1} ms"));
    }
    format!("longest turn: {}\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_turn_from_before_the_load_is_an_upper_bound() {
        assert_eq!(
            turns_line(&[1500, 400], &[1500, 2345]),
            "longest turn: shard 0 at most 1.5 ms, shard 1 2.3 ms\n"
        );
    }
}
