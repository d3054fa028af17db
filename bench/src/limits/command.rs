//! `highwater bench limits`: measures and prints the machine's limits.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use highwater_runtime::baseline::{Measured, Unit};

use super::{Machine, named};
use crate::BenchError;
use crate::environment;
use crate::output::print;
use crate::report::numbers::{bytes, count, duration};
use crate::report::{Report, SCHEMA};

/// Measure the limits of the machine, with the simplest code that reaches them
#[derive(Args, Debug)]
pub struct LimitsCommand {
    /// Directory on the disk to measure; needs 2.5 GiB temporarily and leaves no files [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Duration of each measurement of a limit that workloads are compared with; other limits take a fifth of it
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = positive)]
    duration: Duration,
    /// Measure only these limits; each is a name or the beginning of names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Parses a duration above zero, such as `500ms`.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration above zero; examples: 500ms, 1s");
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

/// Column width of a value with its unit.
const VALUE_WIDTH: usize = 12;

impl LimitsCommand {
    /// Measures and prints the limits one by one.
    pub fn run(&self) -> Result<(), BenchError> {
        let limits = named(&self.only)?;
        let dir = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut machine = Machine::new(&dir);
        let mut report = Report {
            schema: SCHEMA,
            environment: environment::environment(&dir, environment::COMMIT, env!("CARGO_PKG_VERSION")),
            limits: Vec::with_capacity(limits.len()),
            runs: Vec::new(),
        };
        let width = limits.iter().map(|limit| limit.name.len()).max().unwrap_or(0);
        print(&format!("{:width$}  {:>VALUE_WIDTH$}  processor time: broker + client\n", "limit", "value"))?;
        for limit in &limits {
            let measured = machine.measure(limit, self.duration)?;
            print(&format!(
                "{:width$}  {:>VALUE_WIDTH$}  {}\n",
                limit.name,
                value(&measured),
                processor(&measured)
            ))?;
            report.limits.push(limit.reported(&measured));
        }
        if let Some(path) = &self.json {
            report.write(path).map_err(BenchError::failed)?;
        }
        Ok(())
    }
}

fn value(measured: &Measured) -> String {
    match measured.unit {
        Unit::BytesPerSecond => bytes(measured.value) + "/s",
        Unit::PerSecond => count(measured.value) + "/s",
        Unit::Nanoseconds => duration(measured.value),
    }
}

/// Formats processor time, such as `0.16 + 0.18 s/GB`. Seconds per million operations are microseconds per operation.
fn processor(measured: &Measured) -> String {
    let Some(cpu) = measured.cpu else { return String::new() };
    let unit = if measured.unit == Unit::BytesPerSecond { "s/GB" } else { "µs each" };
    let mut text = format!("{:.2}", cpu.broker);
    if let Some(client) = cpu.client {
        let _ = write!(text, " + {client:.2}");
    }
    text + " " + unit
}

#[cfg(test)]
mod tests {
    use highwater_runtime::baseline::{Cpu, FRESH_BYTES_MAX, WRITTEN_BYTES};

    use super::*;

    #[test]
    fn values_and_processor_time_are_shown_with_their_units() {
        let mut measured = Measured {
            value: 2.5e9,
            unit: Unit::BytesPerSecond,
            cpu: Some(Cpu { broker: 0.162, client: Some(0.2) }),
        };
        assert_eq!(
            (value(&measured).as_str(), processor(&measured).as_str()),
            ("2.50 GB/s", "0.16 + 0.20 s/GB")
        );
        measured.unit = Unit::PerSecond;
        measured.value = 152_000.0;
        assert_eq!(
            (value(&measured).as_str(), processor(&measured).as_str()),
            ("152 k/s", "0.16 + 0.20 µs each")
        );
        measured = Measured { value: 41_000.0, unit: Unit::Nanoseconds, cpu: None };
        assert_eq!((value(&measured).as_str(), processor(&measured).as_str()), ("41.0 µs", ""));
    }

    #[test]
    fn a_duration_is_above_zero() {
        assert_eq!(positive("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["0s", "-1s", "soon"] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_limits_given_by_only_are_measured_and_written_to_the_report() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let json = dir.path().join("limits.json");
        let command = LimitsCommand {
            dir: Some(dir.path().into()),
            duration: Duration::from_millis(10),
            only: vec!["crc32c-128B".into(), "wake".into()],
            json: Some(json.clone()),
        };
        command.run().expect("measured");
        let names: Vec<String> =
            Report::read(&json).expect("a report").limits.into_iter().map(|limit| limit.name).collect();
        assert_eq!(names, ["crc32c-128B", "wake-eventfd"]);
    }

    #[test]
    fn the_help_states_the_disk_space_needed() {
        assert_eq!(WRITTEN_BYTES + FRESH_BYTES_MAX, 5 << 29);
    }
}
