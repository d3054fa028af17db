//! Subcommands and flags of `topic`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::{ServerArgs, setting};
use crate::start_position::StartPosition;

/// `topic`.
#[derive(Subcommand, Debug)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create {
        /// Name of the topic
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        topic: String,
        /// Number of partitions
        #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        partitions: u32,
        /// Number of replicas of each partition, each on another node [default: 3, or one for each node]
        #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
        replicas: Option<u8>,
        /// Set a topic setting, such as retention.ms=7d or retention.bytes=10GiB; may be repeated
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Do nothing if the topic already exists
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List topics
    List {
        /// Leave out topics of the broker itself, such as __consumer_offsets
        #[arg(long)]
        exclude_internal: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show topics: their partitions, and the settings that differ from the defaults
    Describe {
        /// Names of the topics
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        topic: Vec<String>,
        /// Also show settings at their default
        #[arg(long, short)]
        all: bool,
        /// Show only partitions without a leader, or with replicas that are not in sync
        #[arg(long)]
        under_replicated: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a topic's settings or add partitions
    Alter {
        /// Name of the topic
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        topic: String,
        /// New number of partitions, larger than the current one
        #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        partitions: Option<u32>,
        /// Set a topic setting, such as retention.ms=7d; may be repeated
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Reset a topic setting to its default; may be repeated
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete the oldest records of a topic. Example: highwater topic trim orders --before 2025-01-31T08:00:00Z --dry-run
    Trim(TrimArgs),
    /// Delete topics and all their records
    Delete {
        /// Names of the topics
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        topic: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `topic trim`.
#[derive(Args, Debug)]
pub(crate) struct TrimArgs {
    /// Name of the topic
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub topic: String,
    /// Delete the records of each partition before this position: an offset, a time (2025-01-31T08:00:00Z, @MILLISECONDS, @-90m), -N (keep
    /// the last N), or latest (delete all). Example: --before @-7d
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub before: StartPosition,
    /// Trim only this partition; may be repeated. Example: -p 3
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Show what would be deleted without deleting it
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
