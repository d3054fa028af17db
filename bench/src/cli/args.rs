//! Flags common to the commands that run a scenario.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::units::{bytes, seconds};
use crate::BenchError;
use crate::backend::BackendKind;
use crate::scenario::Scenario;
use crate::scenarios;
use crate::server::ServerPlan;

/// The scenario, the broker, and overrides of the scenario's settings.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Name of a scenario, or path of a TOML file with one
    pub scenario: String,
    /// Addresses of a running broker, separated by commas [default: start a broker for the run and stop it afterwards]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub server: Vec<String>,
    /// The client to use
    #[arg(long, value_name = "NAME", default_value = "native")]
    pub backend: BackendKind,
    /// Durability of acknowledgements of the broker at --server, for the report; a client cannot see that configuration
    #[arg(long, value_name = "TEXT", requires = "server")]
    pub ack_means: Option<String>,
    /// Process ids of the brokers at --server that are on this machine, separated by commas, to report their processor time and memory
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "server")]
    pub broker_pid: Vec<u32>,
    /// Set a librdkafka setting of the Kafka client; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub client_setting: Vec<(String, String)>,
    /// Measured duration, such as 20s
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Warm-up duration before measuring
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub warmup: Option<f64>,
    /// Number of runs
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Records per second, over all producers; 0: as many as --outstanding allows
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// Maximum number of unacknowledged records of each producer
    #[arg(long, value_name = "N")]
    pub outstanding: Option<u32>,
    /// Number of partitions of the topic
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// Number of replicas of each partition, and of brokers that are started for the run
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Number of producers, each with its own connections
    #[arg(long, value_name = "N")]
    pub producers: Option<u32>,
    /// Size of a record's value
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub record_bytes: Option<usize>,
    /// Maximum size of a batch
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub batch_bytes: Option<usize>,
    /// Set a setting of the topic; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub topic_config: Vec<(String, String)>,
    /// Number of generator threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u32,
    /// Directory for the data of brokers started for the run [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Cores of each broker started for the run [default: the broker's default]
    #[arg(long, value_name = "N")]
    pub broker_cores: Option<u16>,
    /// Memory of each broker started for the run [default: the broker's default]. A backlog is read from the disk only if it is larger
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub broker_memory: Option<usize>,
    /// Program to start as the broker [default: this program]
    #[arg(long, value_name = "FILE")]
    pub broker_program: Option<PathBuf>,
    /// Show progress even if stderr is not a terminal
    #[arg(long)]
    pub progress: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl LoadArgs {
    /// Returns the scenario with the overrides applied.
    pub(crate) fn resolve(&self) -> Result<Scenario, BenchError> {
        let mut scenario = scenarios::find(&self.scenario)?;
        let set = |to: &mut f64, value: Option<f64>| *to = value.unwrap_or(*to);
        set(&mut scenario.load.duration_s, self.duration);
        set(&mut scenario.load.warmup_s, self.warmup);
        let set = |to: &mut u32, value: Option<u32>| *to = value.unwrap_or(*to);
        set(&mut scenario.load.runs, self.runs);
        set(&mut scenario.load.outstanding, self.outstanding);
        set(&mut scenario.topic.partitions, self.partitions);
        set(&mut scenario.producers.count, self.producers);
        let set = |to: &mut usize, value: Option<usize>| *to = value.unwrap_or(*to);
        set(&mut scenario.record.bytes, self.record_bytes);
        set(&mut scenario.producers.batch_bytes, self.batch_bytes);
        scenario.topic.replicas = self.replicas.unwrap_or(scenario.topic.replicas);
        scenario.load.rate = self.rate.unwrap_or(scenario.load.rate);
        scenario.topic.config.extend(self.topic_config.iter().cloned());
        scenarios::check(&scenario)?;
        Ok(scenario)
    }

    /// Returns the plan for so many brokers to start. `None` if --server gives one, or none is needed.
    pub(crate) fn own_server(&self, nodes: u8) -> Result<Option<ServerPlan>, BenchError> {
        if !self.server.is_empty() || !self.backend.needs_broker() {
            return Ok(None);
        }
        let Some(protocol) = self.backend.protocol() else {
            return Err(BenchError::failed(format_args!(
                "--backend {} requires --server HOST:PORT: only Highwater brokers are started automatically",
                clap::ValueEnum::to_possible_value(&self.backend)
                    .expect("every backend has a name")
                    .get_name()
            )));
        };
        Ok(Some(ServerPlan {
            program: self.broker_program.clone(),
            data_dir: self.data_dir.clone(),
            nodes,
            cores: self.broker_cores,
            memory_bytes: self.broker_memory,
            protocol,
        }))
    }
}
