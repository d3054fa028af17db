//! The command line, as types. The doc comments are the text of `--help`.

mod consume;
mod demo;
mod dev_cluster;
mod group;
mod info;
mod log;
mod produce;
mod space;
mod topic;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use highwater_bench::cli::BenchCommand;

use crate::addresses::{ADDRESS_DEFAULT, server_address};
use crate::settings::StartArgs;

pub(crate) use consume::ConsumeArgs;
pub(crate) use demo::DemoArgs;
pub(crate) use dev_cluster::DevClusterArgs;
pub(crate) use group::{GroupCommand, SeekArgs};
pub(crate) use info::{InfoArgs, StatsArgs};
pub(crate) use log::{DataArgs, LogCommand, RepairArgs};
pub(crate) use produce::{CompressionArg, PartitionArg, ProduceArgs};
pub(crate) use space::SpaceCommand;
pub(crate) use topic::{TopicCommand, TrimArgs};

/// Highwater: an event-streaming broker. An acknowledged record is on stable storage.
#[derive(Parser, Debug)]
#[command(name = "highwater", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Log level on stderr: off, error, warn, info, debug, trace, or a filter such as `info,highwater_storage=debug`
    /// [default: warn for `start`, off for other commands]
    #[arg(long, global = true, env = "HIGHWATER_LOG_LEVEL", value_name = "FILTER", hide_env_values = true)]
    pub log_level: Option<String>,

    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted by Ctrl-C, 141 stdout closed by its \
reader, 143 terminated by SIGTERM. `start` also: 70 internal error, 73 data directory in use, 74 disk error, 75 data from a newer version or \
another cluster, 77 permission denied, 78 invalid configuration.";

/// Subcommands of `highwater`.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a broker; prints one line `ready ...` on stdout when clients can connect
    Start(StartArgs),
    /// Run a half-minute demonstration: write and read back a million records, killing the broker twice, in a temporary directory
    Demo(DemoArgs),
    /// Run several nodes of a cluster on this machine until Ctrl-C, for development
    DevCluster(DevClusterArgs),
    /// Create, list, describe, alter, trim and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Send each line of stdin as a record; exits 0 only when all records are acknowledged
    Produce(ProduceArgs),
    /// Print records; stops at the end of the topic as of the start, unless --follow or --limit is given
    Consume(ConsumeArgs),
    /// List, describe, seek and delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show a summary of a cluster: nodes, topics, groups, memory, disk
    Info(InfoArgs),
    /// Show a broker's throughput: records, bytes and requests per second, one line per interval until Ctrl-C
    Stats(StatsArgs),
    /// Show how much of the disk the logs take, and return free space to the file system
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Inspect a stopped broker's data
    #[command(subcommand)]
    Log(LogCommand),
    /// Benchmark a broker: named workloads, open or closed loop, with a check for lost records
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The command line as clap parses it.
///
/// A negative number is parsed as the value of the preceding flag, and rejected there if the flag takes a count. By default, clap would parse it
/// as another flag and suggest `-- -1`.
pub(crate) fn command() -> clap::Command {
    with_negative_numbers(Cli::command())
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg.allow_negative_numbers(true),
        _ => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// Flags that locate the broker.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// Addresses of brokers, separated by commas; one reachable address is enough. The default port is 9191. Example: --server broker-1,[::1]:9191
    #[arg(
        long,
        env = "HIGHWATER_SERVER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = server_address,
        default_value = ADDRESS_DEFAULT,
        hide_env_values = true
    )]
    pub server: Vec<String>,
}

/// Parses `NAME=VALUE`, splitting at the first `=`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_negative_number_is_rejected_as_the_value_of_its_flag() {
        fn flags(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
            let takes_value = |arg: &&clap::Arg| arg.get_action().takes_values();
            for flag in command.get_arguments().filter(takes_value).filter_map(clap::Arg::get_long) {
                found.push([path, &[format!("--{flag}"), "-1".to_owned()]].concat());
            }
            for command in command.get_subcommands() {
                flags(command, &[path, &[command.get_name().to_owned()]].concat(), found);
            }
        }
        let mut lines = Vec::new();
        flags(&command(), &["highwater".to_owned()], &mut lines);
        assert!(lines.len() > 50, "the program has many flags");
        for line in lines {
            let Err(error) = command().try_get_matches_from(&line) else { continue };
            let error = error.to_string();
            assert!(!error.contains("as a value, use"), "{line:?}: {error}");
        }
        let error = command().try_get_matches_from(["highwater", "topic", "create", "t", "-p", "-1"]);
        let error = error.expect_err("no topic has -1 partitions").to_string();
        assert!(error.contains("'-1'") && error.contains("--partitions"), "{error}");
    }

    #[test]
    fn the_commands_in_the_quick_start_parse() {
        for line in [
            "highwater start",
            "highwater topic create orders --partitions 8",
            "highwater produce orders --key-separator :",
            "highwater consume orders --from earliest --limit 1000000 --format %k:%v\\n",
            "highwater consume orders --from latest --follow --json",
            "highwater produce orders --header k=v --json --compression zstd --partition 3",
            "highwater consume orders --from -10 --partition 1 --partition 2 --consumer billing",
            "highwater consume orders --group billing --follow",
            "highwater group describe billing",
            "highwater group reset billing --to -10 --topic orders --partition 3 --dry-run",
            "highwater topic trim orders --before @-7d",
            "highwater stats --every 10s -n 1 --json",
        ] {
            command().try_get_matches_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn a_setting_is_split_at_its_first_equals_sign() {
        assert_eq!(setting("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(setting("a="), Ok(("a".into(), String::new())));
        assert!(setting("a").is_err());
        assert!(setting("=b").is_err());
    }
}
