//! Flags of `consume`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::ServerArgs;
use crate::format::{self, Format};
use crate::start_position::StartPosition;
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  highwater consume orders                                     all records, then exit
  highwater consume orders --follow --from latest --json       new records as they arrive
  highwater consume orders --from -10 -p 3                     the last ten records of a partition
  highwater consume orders --from @-2h --until @-1h            one hour of records
  highwater consume orders payments --format '%t %p/%o %k=%v\\n'
  highwater consume orders --format '%k{hex} %v{base64}\\n'
  highwater consume orders --group billing --follow            share the partitions with other members";

/// `consume`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// Topics to read. Example: highwater consume orders payments
    #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
    pub topic: Vec<String>,
    /// Treat each TOPIC as a regular expression that must match the whole name. With --follow, topics created later are read too, except with
    /// --group. Example: highwater consume -r 'orders-.*'
    #[arg(long, short)]
    pub regex: bool,
    /// Where to start: earliest, latest, an offset, -N (N records before the end of each partition), or a time:
    /// 2025-01-31T08:00:00Z, @MILLISECONDS, @-90m. The Rust client has the same default
    #[arg(long, short, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: StartPosition,
    /// Stop each partition before this position: latest (the current end), an offset, -N (N records before the end), or a time. Waits for
    /// records that do not exist yet only if it is an offset and --follow is given. Example: --from @-2h --until @-1h
    #[arg(long, short, value_name = "WHERE", allow_hyphen_values = true, conflicts_with = "group")]
    pub until: Option<StartPosition>,
    /// Stop after this many records, waiting for new ones if there are fewer
    #[arg(long, short = 'n', value_name = "N", value_parser = count)]
    pub limit: Option<u64>,
    /// Wait for new records at the end of the topic
    #[arg(long, short = 'F')]
    pub follow: bool,
    /// Output format of a record [default: %v\n]
    #[arg(long, value_name = "TEXT", value_parser = Format::parse, conflicts_with = "json", long_help = format_help())]
    pub format: Option<Format>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Read only this partition; may be repeated
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Resume at the committed positions of this named consumer, and commit new ones; --from applies to partitions without a position
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub consumer: Option<String>,
    /// Join this consumer group, share its partitions with the other members (Kafka clients included), and resume at the group's committed
    /// positions; --from applies to partitions without a position
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
    format!("Output format of a record [default: %v\\n]: {}", format::LETTERS_HELP)
}
