//! State shared by the runs of a command: brokers, a client, and the report.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use highwater_runtime::signals::is_ignored;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::LoadArgs;
use super::progress::Progress;
use crate::BenchError;
use crate::backend::{Backend, BrokerInfo};
use crate::environment::{COMMIT, environment};
use crate::load::run::{RunContext, run_once};
use crate::outcome::Outcome;
use crate::report::{Report, Run, SCHEMA, plots};
use crate::scenario::Scenario;
use crate::server::Server;

pub(crate) struct Session {
    backend: Box<dyn Backend>,
    server: Option<Server>,
    broker_pids: Vec<u32>,
    threads: u32,
    interrupted: Arc<AtomicBool>,
    progress: Progress,
    results: Results,
}

/// The report, and the outcomes it is made from.
pub(crate) struct Results {
    pub(crate) report: Report,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Returns a flag that Ctrl-C, SIGTERM and SIGHUP set. SIGHUP is ignored if the parent process ignores it (`nohup`).
fn interrupts() -> Result<Arc<AtomicBool>, BenchError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP))
    {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| BenchError::failed(format_args!("cannot install signal handlers: {e}")))?;
    }
    Ok(flag)
}

impl Session {
    /// Begins a session. Starts brokers unless --server gives one.
    pub(crate) fn begin(args: &LoadArgs, scenario: &Scenario) -> Result<Self, BenchError> {
        let interrupted = interrupts()?;
        let server = args.own_server(scenario.topic.replicas)?.map(Server::start).transpose()?;
        let data = server.as_ref().map_or(Path::new("."), Server::data_dir);
        let report = Report {
            schema: SCHEMA,
            environment: environment(data, COMMIT, env!("CARGO_PKG_VERSION")),
            limits: Vec::new(),
            runs: Vec::new(),
        };
        let addresses = server.as_ref().map_or_else(|| args.server.clone(), Server::addresses);
        let acknowledgement = server.as_ref().map(Server::acknowledgement).or_else(|| args.ack_means.clone());
        let info = BrokerInfo { acknowledgement: acknowledgement.as_deref(), settings: &args.client_setting };
        let backend = args.backend.make(&addresses, info)?;
        Ok(Self {
            backend,
            server,
            broker_pids: args.broker_pid.clone(),
            threads: args.threads,
            interrupted,
            progress: Progress::new(&scenario.name, args.progress),
            results: Results { report, outcomes: Vec::new() },
        })
    }

    pub(crate) fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    pub(crate) fn interrupted(&self) -> &AtomicBool {
        &self.interrupted
    }

    /// Runs a scenario once and adds it to the report. `of` is the total number of runs, if known.
    pub(crate) fn run(
        &mut self,
        scenario: &Scenario,
        run: u32,
        of: Option<u32>,
    ) -> Result<&Outcome, BenchError> {
        self.progress.begin(run, of);
        let mut context = RunContext {
            backend: &*self.backend,
            server: self.server.as_mut(),
            broker_pids: &self.broker_pids,
            threads: self.threads,
            interrupted: &self.interrupted,
            watch: &self.progress,
        };
        let outcome = run_once(&mut context, scenario, run)?;
        self.results.report.runs.push(Run::of(&outcome));
        Ok(self.results.outcomes.push_mut(outcome))
    }

    /// Stops the brokers and returns the results.
    pub(crate) fn end(self) -> Result<Results, BenchError> {
        self.server.map_or(Ok(()), Server::stop)?;
        Ok(self.results)
    }
}

impl Results {
    /// Writes the requested files.
    pub(crate) fn write(&self, json: Option<&Path>, folder: Option<&Path>) -> Result<(), BenchError> {
        if let Some(path) = json {
            self.report.write(path).map_err(BenchError::failed)?;
        }
        if let Some(folder) = folder {
            plots::write(folder, &self.report, &self.outcomes).map_err(BenchError::failed)?;
        }
        Ok(())
    }
}
