//! `ladder`: measures latency at increasing rates, and finds the highest sustainable rate.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::LoadArgs;
use super::session::Session;
use super::units::seconds;
use crate::BenchError;
use crate::ladder::{Ladder, fails};
use crate::outcome::Outcome;
use crate::output::print;

/// The first rate, if the scenario has none.
const FIRST: u64 = 1000;

/// `ladder`.
#[derive(Args, Debug)]
pub struct LadderArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Highest 99th percentile of latency at which a rate counts as sustained
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = seconds)]
    pub(crate) p99: f64,
    /// Also write the report of all steps as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write plots and percentile files to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
}

pub(crate) fn run(args: &LadderArgs) -> Result<(), BenchError> {
    let mut scenario = args.load.resolve()?;
    let p99_max = Duration::from_secs_f64(args.p99);
    let first = if scenario.load.rate == 0 { FIRST } else { scenario.load.rate };
    let mut session = Session::begin(&args.load, &scenario)?;
    let mut ladder = Ladder::new(first);
    print(&format!(
        "{} on {}: latency by rate; a rate is sustained if 98 % of it is acknowledged in time, with a p99 up to {p99_max:?}\n{:>12} {:>12} {:>10} {:>10} {:>10}\n",
        scenario.name,
        session.backend_name(),
        "rate",
        "records/s",
        "p50",
        "p99",
        "p99.9"
    ))?;
    let mut step = 0;
    let mut at_best = None;
    while let Some(rate) = ladder.next() {
        scenario.load.rate = rate;
        step += 1;
        let outcome = session.run(&scenario, step, None)?;
        let why = fails(outcome, p99_max);
        print(&line(rate, outcome, why.as_deref()))?;
        if why.is_none() {
            at_best = Some((rate, outcome.produce.value_at_quantile(0.99)));
        }
        ladder.tried(why.is_none());
    }
    let report = session.end()?;
    let mut text = String::new();
    let _ = match (ladder.best(), at_best) {
        (Some(best), Some((_, p99))) => {
            writeln!(text, "highest sustainable rate: {best} records/s, p99 {}", micros(p99))
        }
        _ => writeln!(text, "no rate was sustained; `highwater bench run` shows the results of a run"),
    };
    print(&text)?;
    report.write(args.json.as_deref(), args.plots.as_deref())
}

fn line(rate: u64, outcome: &Outcome, why: Option<&str>) -> String {
    let achieved = outcome.records as f64 / outcome.measured.as_secs_f64();
    let at = |share: f64| micros(outcome.produce.value_at_quantile(share));
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let why = why.map_or(String::new(), |why| format!("  {why}"));
    format!("{rate:>12} {achieved:>12.0} {p50:>10} {p99:>10} {p999:>10}{why}\n")
}

fn micros(ns: u64) -> String {
    if ns < 10_000_000 { format!("{} us", ns / 1000) } else { format!("{:.1} ms", ns as f64 / 1e6) }
}
