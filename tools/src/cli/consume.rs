//! The flags of `consume`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::ServerArgs;
use crate::format::{self, Format};
use crate::start_at::StartPosition;
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  highwater consume orders                                     everything there is, then end
  highwater consume orders --follow --from latest --json       what comes from now on
  highwater consume orders --from -10 -p 3                     the last ten records of a partition
  highwater consume orders --from @-2h --until @-1h            an hour of records
  highwater consume orders payments --format '%t %p/%o %k=%v\\n'
  highwater consume orders --format '%k{hex} %v{base64}\\n'
  highwater consume orders --group billing --follow            share the partitions with others";

/// `consume`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// Topics to read. Example: highwater consume orders payments
    #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
    pub topic: Vec<String>,
    /// Take TOPIC as regular expressions that match the whole name. With --follow, topics that are created later are read, too, except in a
    /// group. Example: highwater consume -r 'orders-.*'
    #[arg(long, short)]
    pub regex: bool,
    /// Where to begin: earliest, latest, an offset, -N (N records before the end of each partition), or a time:
    /// 2025-01-31T08:00:00Z, @MILLISECONDS, @-90m. The default is that of the Rust client, too
    #[arg(long, short, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: StartPosition,
    /// Stop in each partition before this: latest (what is the end now), an offset, -N (N records before the end), or a time. What is not
    /// there yet is waited for only with --follow and an offset. Example: --from @-2h --until @-1h
    #[arg(long, short, value_name = "WHERE", allow_hyphen_values = true, conflicts_with = "group")]
    pub until: Option<StartPosition>,
    /// Stop after this many records, waiting for them if they are not there yet
    #[arg(long, short = 'n', value_name = "N", value_parser = count)]
    pub limit: Option<u64>,
    /// Wait for new records at the end
    #[arg(long, short = 'F')]
    pub follow: bool,
    /// How to print a record [default: %v\n]
    #[arg(long, value_name = "TEXT", value_parser = Format::parse, conflicts_with = "json", long_help = format_help())]
    pub format: Option<Format>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only this partition; may be given more than once
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Continue where this consumer stopped, and remember how far it came; --from counts where it has no position yet
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub consumer: Option<String>,
    /// Share the partitions with the other members of this group, Kafka's among them, and continue where the group stopped; --from counts
    /// where it has no position yet
    #[arg(
        long,
        short,
        value_name = "NAME",
        value_parser = NonEmptyStringValueParser::new(),
        conflicts_with_all = ["consumer", "partition"]
    )]
    pub group: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

fn format_help() -> String {
    format!("How to print a record [default: %v\\n]: {}", format::LETTERS_HELP)
}
