//! Subcommands and flags of `log`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

/// `log`.
#[derive(Subcommand, Debug)]
pub(crate) enum LogCommand {
    /// List the partitions, with their offsets and sizes
    Ls {
        /// List extents instead: their file, position and contents
        #[arg(long)]
        extents: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print the frames of a partition
    Dump {
        /// Name or id of the topic
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        topic: String,
        /// Number of the partition
        #[arg(long, short, value_name = "N", default_value_t = 0)]
        partition: u32,
        /// Start at this offset
        #[arg(long, value_name = "OFFSET", default_value_t = 0)]
        from: i64,
        /// Stop after this many frames
        #[arg(long, short = 'n', value_name = "N")]
        limit: Option<u64>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show what a start would refuse or take out of service, and what is lost; with --apply, put damaged partitions back into service
    ///
    /// A start takes a partition out of service if records are missing that may have been acknowledged: it serves the others, and accepts no
    /// new ones. Restore the damaged files from a backup if there is one. If there is none, `log repair --apply` gives up the lost records: the
    /// offsets of all others stay, and new records follow the end of the log. It first copies what it changes to quarantine/ in the data
    /// directory. Without --apply it prints the same and changes nothing. Exits with 1 if something is left to repair.
    Repair(RepairArgs),
    /// Read all data and verify every checksum; exits 1 if damage is found
    Verify {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// Which partitions to repair, and whether to.
#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Repair only this topic: its name or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub topic: Option<String>,
    /// Repair only this partition of the topic
    #[arg(long, short, value_name = "N", requires = "topic")]
    pub partition: Option<u32>,
    /// Carry out the repair; without this, nothing is changed
    #[arg(long)]
    pub apply: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataArgs,
}

/// Flags that locate a stopped broker's data.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// The broker's data directory
    #[arg(
        long,
        env = "HIGHWATER_DATA_DIR",
        value_name = "DIR",
        default_value = crate::settings::DATA_DIR_DEFAULT,
        hide_env_values = true
    )]
    pub data_dir: PathBuf,
}
