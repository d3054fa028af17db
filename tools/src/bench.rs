//! `bench`: runs the load generator and maps its errors to exit codes.

use highwater_bench::BenchError;
use highwater_bench::cli::BenchCommand;

use crate::failure::Failure;

/// Exit code after Ctrl-C, as a shell reports SIGINT.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(command: &BenchCommand) -> Result<(), Failure> {
    highwater_bench::cli::run(command).map_err(|error| match error {
        BenchError::Interrupted => Failure::Quiet(INTERRUPTED),
        BenchError::Stdout(error) => Failure::stdout(&error),
        BenchError::Failed(message) => Failure::general(message),
    })
}
