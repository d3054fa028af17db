//! The commands of `log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `log`.
#[derive(Subcommand, Debug)]
pub(crate) enum LogCommand {
    /// List the partitions and how much each holds
    Ls {
        /// List the extents instead: where in which file lies what
        #[arg(long)]
        extents: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print the frames of a partition
    Dump {
        /// Topic, by name or id
        topic: String,
        /// Its partition
        #[arg(long, short, value_name = "N", default_value_t = 0)]
        partition: u32,
        /// Begin at this offset
        #[arg(long, value_name = "OFFSET", default_value_t = 0)]
        from: i64,
        /// Stop after this many frames
        #[arg(long, short = 'n', value_name = "N")]
        limit: Option<u64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Read everything and check every checksum; exits 1 if damage is found
    Verify {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// A stopped broker's data.
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
