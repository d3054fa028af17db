//! `run`: a scenario as often as it says, and the report.

use std::path::PathBuf;

use clap::Args;

use super::args::LoadArgs;
use super::limit::Beside;
use super::say;
use super::session::Session;
use crate::BenchError;
use crate::load::floor;
use crate::outcome::Outcome;
use crate::report::text::table;

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
    /// Do not measure the machine's limit between the runs
    #[arg(long)]
    pub(crate) no_limit: bool,
    /// Also draw plots and write percentile files into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
}

pub(crate) fn run(args: &RunArgs) -> Result<(), BenchError> {
    let scenario = args.load.resolve()?;
    let mut session = Session::begin(&args.load, &scenario)?;
    let floor = args.load.backend.needs_broker();
    let floor =
        floor.then(|| floor::floor(&scenario, args.load.threads, session.interrupted())).transpose()?;
    let dir = args.load.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let with_limit = args.load.backend.needs_broker() && !args.no_limit;
    let mut limit = with_limit.then(|| Beside::new(&scenario, &dir));
    limit.as_mut().map_or(Ok(()), Beside::measure)?;
    for run in 1..=scenario.load.runs {
        session.run(&scenario, run, Some(scenario.load.runs))?;
        limit.as_mut().map_or(Ok(()), Beside::measure)?;
    }
    let mut results = session.end()?;
    if let Some(limit) = limit {
        limit.note(&mut results.report);
    }
    let mut text = table(&results.report);
    let best = results.report.runs.iter().map(|run| run.records_per_second).fold(0.0, f64::max);
    let mut remarks: Vec<String> = results.outcomes.iter().flat_map(remark).collect();
    remarks.extend(floor.map(|floor| about_floor(floor, best)));
    for remark in remarks {
        text.push_str(&remark);
        text.push('\n');
    }
    say(&text)?;
    results.write(args.json.as_deref(), args.plots.as_deref())
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
