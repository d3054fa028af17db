//! The commands of `topic`.

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use super::{ServerArgs, setting};

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
    /// Delete topics and all their records
    Delete {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        topic: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}
