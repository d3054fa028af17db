//! Flags of `demo`.

use std::path::PathBuf;

use clap::Args;

use crate::units::count;

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Number of records. Example: --records 100000
    #[arg(long, value_name = "N", value_parser = count, default_value = "1000000")]
    pub records: u64,
    /// Where to create a temporary directory for the broker's data, removed at the end; must be on a disk
    /// [default: the directory for temporary files, or the current directory]. Example: --data-dir /mnt/nvme
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
