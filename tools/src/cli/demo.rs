//! The flags of `demo`.

use std::path::PathBuf;

use clap::Args;

use crate::units::count;

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// How many records. Example: --records 100000
    #[arg(long, value_name = "N", value_parser = count, default_value = "1000000")]
    pub records: u64,
    /// Where to make the folder for the broker's data, which is removed at the end; it has to be on a disk
    /// [default: the one for temporary files, or the current one]. Example: --data-dir /mnt/nvme
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
