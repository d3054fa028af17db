//! Flags of `dev-cluster`.

use std::path::PathBuf;

use clap::Args;

/// `dev-cluster`.
#[derive(Args, Debug)]
pub(crate) struct DevClusterArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Directory for the nodes' data, which is kept [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// First port: it is that of the first node for native clients, the next one that for Kafka clients, and the one after it that for other nodes; the
    /// next node has those 10 higher [default: 19190 with --data-dir, free ports without]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Number of cores of each node
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cores: u16,
}
