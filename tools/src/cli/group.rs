//! The commands of `group`.

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use super::ServerArgs;

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
    /// Delete groups that have no members, and their positions
    Delete {
        /// Their names
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        group: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}
