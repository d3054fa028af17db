//! The commands of `group`.

use clap::Subcommand;

use super::ServerArgs;

/// `group`.
#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// List groups: of native clients, of Kafka clients, and named consumers
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a group's members, who has which partition, and how far each partition is
    Describe {
        /// Its name
        #[arg(required = true)]
        group: Vec<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete groups that have no members, and their positions
    Delete {
        /// Their names
        #[arg(required = true)]
        group: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}
