//! The commands of `topic`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::{ServerArgs, setting};
use crate::start_at::StartPosition;

/// `topic`.
#[derive(Subcommand, Debug)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        topic: String,
        /// Number of partitions
        #[arg(long, short, value_name = "N", default_value_t = 1)]
        partitions: u32,
        /// A setting, such as retention.ms=7d or retention.bytes=10GiB; may be given more than once
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Do nothing if there is a topic of that name
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List topics
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show topics: partitions, and the settings that were set
    Describe {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        topic: Vec<String>,
        /// Show the settings that have their default, too
        #[arg(long, short)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a topic's settings or add partitions
    Alter {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        topic: String,
        /// New number of partitions, more than before
        #[arg(long, short, value_name = "N")]
        partitions: Option<u32>,
        /// A setting, such as retention.ms=7d; may be given more than once
        #[arg(long, short, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// A setting to return to its default; may be given more than once
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete the oldest records of a topic. Example: highwater topic trim orders --before 2025-01-31T08:00:00Z --dry-run
    Trim(TrimArgs),
    /// Delete topics and all their records
    Delete {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        topic: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `topic trim`.
#[derive(Args, Debug)]
pub(crate) struct TrimArgs {
    /// The topic
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub topic: String,
    /// Which records to delete, in each partition those before: an offset, a time (2025-01-31T08:00:00Z, @MILLISECONDS, @-90m), -N (all but
    /// the last N), or latest (all). Example: --before @-7d
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub before: StartPosition,
    /// Only in this partition; may be given more than once. Example: -p 3
    #[arg(long, short, value_name = "N")]
    pub partition: Vec<u32>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
