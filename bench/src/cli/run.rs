//! `run`: a scenario as often as it says, and the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use super::args::LoadArgs;
use super::progress::Progress;
use super::say;
use crate::BenchError;
use crate::environment::{COMMIT, environment};
use crate::load::floor::floor;
use crate::load::run::{Stage, run_once};
use crate::outcome::Outcome;
use crate::report::text::table;
use crate::report::{Report, Run, SCHEMA, plots};
use crate::server::Server;

/// How far the generator's own floor has to be above what it measures.
const FLOOR_FACTOR: f64 = 3.0;

/// `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw plots and write percentile files into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
}

/// Becomes true with Ctrl-C or SIGTERM.
pub(crate) fn interrupts() -> Result<Arc<AtomicBool>, BenchError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| BenchError::failed(format_args!("signals cannot be caught: {e}")))?;
    }
    Ok(flag)
}

pub(crate) fn run(args: &RunArgs) -> Result<(), BenchError> {
    let scenario = args.load.resolve()?;
    let interrupted = interrupts()?;
    let plan = args.load.own_server()?;
    let mut server = plan.map(Server::start).transpose()?;
    let data = server.as_ref().map_or(Path::new("."), Server::data_dir);
    let mut report = Report {
        schema: SCHEMA,
        environment: environment(data, COMMIT, env!("CARGO_PKG_VERSION")),
        limits: Vec::new(),
        runs: Vec::new(),
    };
    let address =
        server.as_ref().map_or(args.load.server.clone(), |server| vec![server.address().to_owned()]);
    let backend =
        args.load.backend.make(&address, server.as_ref().map(Server::durability), args.load.foreign())?;
    let progress = Progress::new(&scenario.name, args.load.progress);
    let mut remarks = Vec::new();
    let floor = args.load.backend.needs_broker().then(|| floor(&scenario, args.load.threads, &interrupted));
    let floor = floor.transpose()?;
    let mut outcomes = Vec::new();
    for run in 1..=scenario.load.runs {
        progress.begin(run, scenario.load.runs);
        let mut stage = Stage {
            backend: &*backend,
            server: server.as_mut(),
            broker_pid: args.load.broker_pid,
            threads: args.load.threads,
            interrupted: &interrupted,
            watch: &progress,
        };
        let outcome = run_once(&mut stage, &scenario, run)?;
        remarks.extend(remark(&outcome));
        report.runs.push(Run::of(&outcome));
        outcomes.push(outcome);
    }
    if let Some(server) = server {
        server.stop()?;
    }
    let mut text = table(&report);
    let best = report.runs.iter().map(|run| run.records_per_second).fold(0.0, f64::max);
    remarks.extend(floor.map(|floor| about_floor(floor, best)));
    for remark in remarks {
        text.push_str(&remark);
        text.push('\n');
    }
    say(&text)?;
    if let Some(path) = &args.json {
        report.write(path).map_err(BenchError::failed)?;
    }
    if let Some(folder) = &args.plots {
        plots::write(folder, &report, &outcomes).map_err(BenchError::failed)?;
    }
    Ok(())
}

/// What has to be said of a run beside its numbers.
fn remark(outcome: &Outcome) -> Vec<String> {
    let run = outcome.run;
    let mut remarks = Vec::new();
    if let Some(why) = &outcome.saturated {
        remarks.push(format!("run {run}: GENERATOR SATURATED: {why}. Its latencies mean nothing."));
    }
    if let Some(why) = &outcome.overloaded {
        remarks.push(format!("run {run}: the broker did not keep up with the rate: {why}."));
    }
    if let Some(why) = &outcome.unchecked {
        remarks.push(format!("run {run}: not all was checked: {why}."));
    }
    if outcome.lost + outcome.duplicated + outcome.reordered > 0 {
        remarks.push(format!(
            "run {run}: {} LOST, {} DUPLICATED, {} REORDERED",
            outcome.lost, outcome.duplicated, outcome.reordered
        ));
    }
    for (kind, count) in &outcome.errors {
        remarks.push(format!("run {run}: {count} records: {kind}"));
    }
    if outcome.scenario.disturbance.is_some() {
        remarks.push(format!(
            "run {run}: the longest time without an acknowledgement was {:.3} s",
            outcome.longest_gap.as_secs_f64()
        ));
    }
    remarks
}

/// What the generator alone can do, and whether that is enough to measure with.
fn about_floor(floor: f64, best: f64) -> String {
    let times = floor / best.max(1.0);
    let verdict = if times >= FLOOR_FACTOR {
        "it is not what limits these runs".to_owned()
    } else {
        format!("less than {FLOOR_FACTOR} times: THE GENERATOR LIMITS THESE RUNS")
    };
    format!(
        "The generator by itself makes {:.2} M records/s, {times:.1} times the best run; {verdict}.",
        floor / 1e6
    )
}
