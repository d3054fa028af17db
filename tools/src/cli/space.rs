//! Subcommands and flags of `space`.

use clap::Subcommand;

use super::ServerArgs;
use crate::units::ByteSize;

/// `space`.
#[derive(Subcommand, Debug)]
pub(crate) enum SpaceCommand {
    /// Show the files for logs: their size, and how much of it is used, free, and returned to the file system
    Show {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Return free space to the file system now, at most 64MiB a second for each store; `space show` shows the progress
    Release {
        /// Free space that the broker keeps for new records; each store keeps a quarter of the size of its newest file, whatever is given
        #[arg(long, value_name = "SIZE", default_value_t = ByteSize(0))]
        keep: ByteSize,
        #[command(flatten)]
        server: ServerArgs,
    },
}
