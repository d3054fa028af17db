//! Subcommands and flags of `group`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::ServerArgs;
use crate::start_position::StartPosition;

/// `group`.
#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// List groups. The protocol is `consumer` (native clients, and Kafka clients with group.protocol=consumer), `classic` (Kafka's older
    /// protocol), or `named` (committed positions without members, as used by `consume --consumer`)
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show groups: their members, and each partition's owner, position and lag
    Describe {
        /// Names of the groups
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        group: Vec<String>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change the positions of a group that has no active members. Example: highwater group seek billing --to @-1h --dry-run
    #[command(visible_alias = "reset")]
    Seek(SeekArgs),
    /// Delete groups without members, and their positions
    Delete {
        /// Names of the groups
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        group: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `group seek`.
#[derive(Args, Debug)]
pub(crate) struct SeekArgs {
    /// Name of the group, or of a named consumer
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// New position: earliest, latest, an offset, -N (N records before the end of each partition), or a time (2025-01-31T08:00:00Z,
    /// @MILLISECONDS, @-90m: the first record at or after it). An offset outside a partition is moved to its nearer end. Example: --to @-90m
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: StartPosition,
    /// Seek only in this topic; may be repeated [default: every topic in which the group has a position]. Example: --topic orders
    #[arg(long, short, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub topic: Vec<String>,
    /// Seek only in this partition of the topic; may be repeated. Example: --topic orders -p 3
    #[arg(long, short, value_name = "N", requires = "topic")]
    pub partition: Vec<u32>,
    /// Show current and new positions without changing them
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
