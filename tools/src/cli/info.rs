//! Flags of `info` and `stats`.

use std::time::Duration;

use clap::Args;

use super::ServerArgs;
use crate::units::count;

/// `info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `stats`.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Interval covered by each line. Example: --every 10s
    #[arg(long, short, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub every: Duration,
    /// Stop after this many lines. Example: -n 1
    #[arg(long, short = 'n', value_name = "N", value_parser = count)]
    pub limit: Option<u64>,
    /// Print one JSON object per line: `seconds`, and every counter of the broker, as its increase over the interval or, if its name ends in
    /// .now, as its current value
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = Duration::try_from(crate::units::duration(text)?).unwrap_or_default();
    if interval < Duration::from_millis(10) {
        return Err(format!("`{text}` is too short; the minimum is 10ms"));
    }
    Ok(interval)
}
