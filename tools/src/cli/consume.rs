//! The flags of `consume`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::ServerArgs;
use crate::format::{self, Format};
use crate::start_at::StartPosition;
use crate::units::count;

/// `consume`.
#[derive(Args, Debug)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub topic: String,
    /// Where to begin: earliest, latest, an offset, -N (N records before the end of each partition), or a time:
    /// 2025-01-31T08:00:00Z, @MILLISECONDS, @-90m. The default is that of the Rust client, too
    #[arg(long, short, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: StartPosition,
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
