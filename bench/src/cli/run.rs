//! `run`: runs a scenario the given number of times, and prints the report.

use std::path::PathBuf;

use clap::Args;

use super::args::LoadArgs;
use super::limit::ScenarioLimit;
use super::session::Session;
use crate::BenchError;
use crate::load::floor;
use crate::outcome::Outcome;
use crate::output::print;
use crate::report::text::table;

/// Minimum ratio of the generator's maximum rate to the measured rate.
const FLOOR_FACTOR: f64 = 3.0;

/// `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Do not measure the machine's limit between runs
    #[arg(long)]
    pub(crate) no_limit: bool,
    /// Also write plots and percentile files to this directory
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
    let mut limit = with_limit.then(|| ScenarioLimit::new(&scenario, &dir));
    limit.as_mut().map_or(Ok(()), ScenarioLimit::measure)?;
    for run in 1..=scenario.load.runs {
        session.run(&scenario, run, Some(scenario.load.runs))?;
        limit.as_mut().map_or(Ok(()), ScenarioLimit::measure)?;
    }
    let mut results = session.end()?;
    if let Some(limit) = limit {
        limit.add_to(&mut results.report);
    }
    let mut text = table(&results.report);
    let best = results.report.runs.iter().map(|run| run.records_per_second).fold(0.0, f64::max);
    let mut remarks: Vec<String> = results.outcomes.iter().flat_map(remark).collect();
    remarks.extend(floor.map(|floor| about_floor(floor, best)));
    for remark in remarks {
        text.push_str(&remark);
        text.push('\n');
    }
    print(&text)?;
    results.write(args.json.as_deref(), args.plots.as_deref())
}

/// Returns remarks about a run that its numbers do not show.
fn remark(outcome: &Outcome) -> Vec<String> {
    let run = outcome.run;
    let mut remarks = Vec::new();
    if let Some(why) = &outcome.saturated {
        remarks.push(format!("run {run}: GENERATOR SATURATED: {why}. Its latencies are not valid."));
    }
    if let Some(why) = &outcome.overloaded {
        remarks.push(format!("run {run}: the broker did not keep up with the rate: {why}."));
    }
    if let Some(why) = &outcome.unchecked {
        remarks.push(format!("run {run}: the check is incomplete: {why}."));
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

/// Describes the generator's maximum rate, and whether it is high enough to measure the broker.
fn about_floor(floor: f64, best: f64) -> String {
    let times = floor / best.max(1.0);
    let verdict = if times >= FLOOR_FACTOR {
        "it does not limit these runs".to_owned()
    } else {
        format!("less than {FLOOR_FACTOR} times: THE GENERATOR LIMITS THESE RUNS")
    };
    format!(
        "The generator alone reaches {:.2} M records/s, {times:.1} times the best run; {verdict}.",
        floor / 1e6
    )
}
