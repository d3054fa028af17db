//! What a scenario is run with.

use std::path::PathBuf;

use clap::Args;

use super::units::{bytes, seconds};
use crate::BenchError;
use crate::backend::BackendKind;
use crate::scenario::Scenario;
use crate::scenarios;
use crate::server::ServerPlan;

/// Which scenario, on which broker, and what of the scenario is changed.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Name of a scenario, or a TOML file with one
    pub scenario: String,
    /// Addresses of a broker that runs, separated by commas [default: one is started for the run and stopped after it]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub server: Vec<String>,
    /// The client that carries the scenario out
    #[arg(long, value_name = "NAME", default_value = "native")]
    pub backend: BackendKind,
    /// What an acknowledgement of the broker at --server means, which its configuration says and no client can see
    #[arg(long, value_name = "TEXT", requires = "server")]
    pub ack_means: Option<String>,
    /// Process of the broker at --server, if it is on this machine: its processor time and memory go into the report
    #[arg(long, value_name = "PID", requires = "server")]
    pub broker_pid: Option<u32>,
    /// A setting of the client for Kafka, by librdkafka's name; can be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub client_setting: Vec<(String, String)>,
    /// How long to measure, such as 20s
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub duration: Option<f64>,
    /// How long to run before measuring
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub warmup: Option<f64>,
    /// How often to run
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Records a second, all producers together; 0: as many as the number outstanding allows
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// Records not yet acknowledged, of each producer
    #[arg(long, value_name = "N")]
    pub outstanding: Option<u32>,
    /// Partitions of the topic
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// Producers, each with connections of its own
    #[arg(long, value_name = "N")]
    pub producers: Option<u32>,
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub record_bytes: Option<usize>,
    /// Bytes that a batch is filled to
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub batch_bytes: Option<usize>,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u32,
    /// Directory for the data of a broker of the run's own [default: a new one in that for temporary files, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Cores of a broker of the run's own [default: what it takes by itself]
    #[arg(long, value_name = "N")]
    pub broker_cores: Option<u16>,
    /// Program to start as a broker of the run's own [default: this one]
    #[arg(long, value_name = "FILE")]
    pub broker_program: Option<PathBuf>,
    /// Show progress although stderr is no terminal
    #[arg(long)]
    pub progress: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is what it has to be")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl LoadArgs {
    /// The scenario with what was changed of it.
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
        scenario.load.rate = self.rate.unwrap_or(scenario.load.rate);
        scenarios::check(&scenario)?;
        Ok(scenario)
    }

    /// How a broker of the run's own is started; none: there is one at an address, or none is needed.
    pub(crate) fn own_server(&self) -> Result<Option<ServerPlan>, BenchError> {
        if !self.server.is_empty() || !self.backend.needs_broker() {
            return Ok(None);
        }
        let Some(protocol) = self.backend.protocol() else {
            return Err(BenchError::failed(format_args!(
                "--backend {} needs --server HOST:PORT: only this project's broker can be started by itself",
                clap::ValueEnum::to_possible_value(&self.backend).expect("all have a name").get_name()
            )));
        };
        Ok(Some(ServerPlan {
            program: self.broker_program.clone(),
            data_dir: self.data_dir.clone(),
            cores: self.broker_cores,
            protocol,
        }))
    }
}
