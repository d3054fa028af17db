//! What the runs of one command share: a broker, a client, and the report that they go into.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use highwater_runtime::signals::is_ignored;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::LoadArgs;
use super::progress::Progress;
use crate::BenchError;
use crate::backend::{Backend, Told};
use crate::environment::{COMMIT, environment};
use crate::load::run::{Stage, run_once};
use crate::outcome::Outcome;
use crate::report::{Report, Run, SCHEMA, plots};
use crate::scenario::Scenario;
use crate::server::Server;

pub(crate) struct Session {
    backend: Box<dyn Backend>,
    server: Option<Server>,
    broker_pid: Option<u32>,
    threads: u32,
    interrupted: Arc<AtomicBool>,
    progress: Progress,
    results: Results,
}

/// The report, and what it was made of.
pub(crate) struct Results {
    pub(crate) report: Report,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Becomes true with Ctrl-C, SIGTERM, or SIGHUP unless the parent process ignores that (`nohup`).
fn interrupts() -> Result<Arc<AtomicBool>, BenchError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP))
    {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| BenchError::failed(format_args!("signals cannot be caught: {e}")))?;
    }
    Ok(flag)
}

impl Session {
    /// Starts a broker if the runs have one of their own.
    pub(crate) fn begin(args: &LoadArgs, scenario: &Scenario) -> Result<Self, BenchError> {
        let interrupted = interrupts()?;
        let server = args.own_server()?.map(Server::start).transpose()?;
        let data = server.as_ref().map_or(Path::new("."), Server::data_dir);
        let report = Report {
            schema: SCHEMA,
            environment: environment(data, COMMIT, env!("CARGO_PKG_VERSION")),
            limits: Vec::new(),
            runs: Vec::new(),
        };
        let address = server.as_ref().map(|server| vec![server.address().to_owned()]);
        let address = address.unwrap_or_else(|| args.server.clone());
        let acknowledgement = server.as_ref().map(Server::acknowledgement).or_else(|| args.ack_means.clone());
        let told = Told { acknowledgement: acknowledgement.as_deref(), settings: &args.client_setting };
        let backend = args.backend.make(&address, told)?;
        Ok(Self {
            backend,
            server,
            broker_pid: args.broker_pid,
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

    /// Runs a scenario once, into the report. `of` is how many runs there are, if that is known.
    pub(crate) fn run(
        &mut self,
        scenario: &Scenario,
        run: u32,
        of: Option<u32>,
    ) -> Result<&Outcome, BenchError> {
        self.progress.begin(run, of);
        let mut stage = Stage {
            backend: &*self.backend,
            server: self.server.as_mut(),
            broker_pid: self.broker_pid,
            threads: self.threads,
            interrupted: &self.interrupted,
            watch: &self.progress,
        };
        let outcome = run_once(&mut stage, scenario, run)?;
        self.results.report.runs.push(Run::of(&outcome));
        Ok(self.results.outcomes.push_mut(outcome))
    }

    /// Stops the broker. What the runs came to.
    pub(crate) fn end(self) -> Result<Results, BenchError> {
        self.server.map_or(Ok(()), Server::stop)?;
        Ok(self.results)
    }
}

impl Results {
    /// Writes the files that were asked for.
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
