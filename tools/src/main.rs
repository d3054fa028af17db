//! The `highwater` program: runs a broker, and is a command-line client for one.
#![forbid(unsafe_code)]

mod addresses;
mod bench;
mod cli;
mod connection;
mod consume;
mod consume_group;
mod demo;
mod dev_cluster;
mod encoding;
mod environment;
mod escape;
mod failure;
mod format;
mod group;
mod info;
mod json_input;
mod lines;
mod log;
mod names;
mod output;
mod positions;
mod produce;
mod progress;
mod record;
mod session;
mod settings;
mod space;
mod start;
mod start_position;
mod stats;
mod topic;
mod topic_trim;
mod units;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches as _};
use highwater_runtime::QUIET_LOG_FILTER;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::settings::Settings;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in environment::warnings(&cli::command(), variables) {
        output::print_stderr(&warning);
    }
    match run(cli, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Quiet(code)) => ExitCode::from(code),
        Err(Failure::Message { code, message }) => {
            output::print_stderr(&message);
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(filter) = &cli.log_level
        && !matches!(cli.command, Command::Start(_))
    {
        log_to_stderr(filter)?;
    }
    match cli.command {
        Command::Start(args) => {
            let (_, start_matches) = matches.subcommand().expect("a command was given");
            let settings = Settings::resolve(&args, cli.log_level.as_ref(), start_matches)?;
            if args.print_config {
                return output::print(&settings.to_toml());
            }
            log_to_stderr(&settings.log_level.value)?;
            start::run(&settings)
        }
        Command::Topic(command) => topic::run(command),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => match &args.group {
            Some(group) => consume_group::run(&args, group),
            None => consume::run(&args),
        },
        Command::Group(command) => group::run(command),
        Command::Info(args) => info::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Space(command) => space::run(command),
        Command::Log(command) => log::run(command),
        Command::Demo(args) => demo::run(&args),
        Command::DevCluster(args) => dev_cluster::run(&args),
        Command::Bench(command) => bench::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "highwater", &mut script);
            output::print_bytes(&script)
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(format!("{QUIET_LOG_FILTER},{filter}"))
        .map_err(|e| Failure::configuration(format_args!("log level `{filter}`: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Without this, the subscriber panics when stderr is closed.
        .log_internal_errors(false)
        .init();
    Ok(())
}
