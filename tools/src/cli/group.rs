//! The commands of `group`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::ServerArgs;
use crate::start_at::StartPosition;

/// `group`.
#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// List groups. The protocol is `consumer` (members of native clients, and of Kafka's with group.protocol=consumer), `classic` (Kafka's
    /// older protocol), or `named` (positions without members, as of `consume --consumer`)
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show groups: their members, who has which partition, how far each partition is, and how much is left to read
    Describe {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        group: Vec<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Move the positions of a group whose members are stopped. Example: highwater group seek billing --to @-1h --dry-run
    #[command(visible_alias = "reset")]
    Seek(SeekArgs),
    /// Delete groups that have no members, and their positions
    Delete {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        group: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `group seek`.
#[derive(Args, Debug)]
pub(crate) struct SeekArgs {
    /// The group, or the name of a consumer
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// Where to: earliest, latest, an offset, -N (N records before the end of each partition), or a time (2025-01-31T08:00:00Z,
    /// @MILLISECONDS, @-90m: the first record of it or later). Outside of a partition is its nearer end. Example: --to @-90m
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: StartPosition,
    /// Only in this topic; may be given more than once [default: every topic in which the group has a position]. Example: --topic orders
    #[arg(long, short, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub topic: Vec<String>,
    /// Only in this partition of the topic; may be given more than once. Example: --topic orders -p 3
    #[arg(long, short, value_name = "N", requires = "topic")]
    pub partition: Vec<u32>,
    /// Show where the group is and would be, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
