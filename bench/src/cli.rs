//! The command line of `highwater bench`, as types that the program puts among its own.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Subcommand;

use crate::BenchError;
use crate::limits::LimitsCommand;
use crate::scenarios;

/// `highwater bench ...`.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// List the scenarios that come with the program
    List,
    /// Measure the machine's own limits: disk, loopback network, memory, cores, and all of them together
    Limits(LimitsCommand),
}

/// Does what was asked for.
pub fn run(command: &BenchCommand) -> Result<(), BenchError> {
    match command {
        BenchCommand::List => list(),
        BenchCommand::Limits(limits) => limits.run(),
    }
}

fn list() -> Result<(), BenchError> {
    let scenarios = scenarios::all();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for scenario in &scenarios {
        let _ = writeln!(text, "{:width$}  {}", scenario.name, scenario.about);
    }
    say(&text)
}

/// Prints to stdout.
pub(crate) fn say(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(BenchError::Stdout)
}
