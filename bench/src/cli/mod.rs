//! The command line of `highwater bench`, as types for the program's own command line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;

mod args;
mod ladder;
mod limit;
mod progress;
mod run;
mod session;
mod units;

use crate::groups::{CommitsCommand, JoinCommand};
use crate::limits::LimitsCommand;
use crate::output::print;
use crate::{BenchError, report, scenarios};

pub use args::LoadArgs;
pub use ladder::LadderArgs;
pub use run::RunArgs;

/// `highwater bench ...`.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// List the built-in scenarios
    List,
    /// Measure the limits of the machine: disk, loopback network, memory, cores, and their combination
    Limits(LimitsCommand),
    /// Compare reports written by `--json`; the first is the base
    Compare {
        /// The report files
        #[arg(required = true, num_args = 2.., value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Also plot the percentiles of all reports to this directory
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
    },
    /// Run a scenario and report the results
    Run(Box<RunArgs>),
    /// Measure commits of offsets: how many of them are durable per second
    Commits(CommitsCommand),
    /// Measure how a group of many members begins, and the longest turns of the shards meanwhile
    Join(JoinCommand),
    /// Raise the rate until the broker cannot keep up; reports the latency at each rate, and the highest sustainable rate
    Ladder(Box<LadderArgs>),
}

/// Runs a command.
pub fn run(command: &BenchCommand) -> Result<(), BenchError> {
    match command {
        BenchCommand::List => list(),
        BenchCommand::Limits(limits) => limits.run(),
        BenchCommand::Compare { files, plots } => compare(files, plots.as_deref()),
        BenchCommand::Commits(commits) => commits.run(),
        BenchCommand::Join(join) => join.run(),
        BenchCommand::Run(args) => run::run(args),
        BenchCommand::Ladder(args) => ladder::run(args),
    }
}

fn list() -> Result<(), BenchError> {
    let scenarios = scenarios::all();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for scenario in &scenarios {
        let _ = writeln!(text, "{:width$}  {}", scenario.name, scenario.about);
    }
    print(&text)
}

fn compare(files: &[PathBuf], plots: Option<&Path>) -> Result<(), BenchError> {
    let reports = report::compare::read(files).map_err(BenchError::failed)?;
    if let Some(folder) = plots {
        report::plots::write_comparison(folder, &reports).map_err(BenchError::failed)?;
    }
    print(&report::compare::compare(&reports))
}
