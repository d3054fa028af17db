//! The built-in scenarios, and scenarios in files.

use std::path::Path;

use crate::BenchError;
use crate::scenario::{Scenario, VALUE_BYTES_MIN};

const BUILT_IN: [&str; 20] = [
    include_str!("../scenarios/few-big.toml"),
    include_str!("../scenarios/small-batches.toml"),
    include_str!("../scenarios/many-partitions-100.toml"),
    include_str!("../scenarios/many-partitions-1000.toml"),
    include_str!("../scenarios/many-partitions-10000.toml"),
    include_str!("../scenarios/equal-batches-1.toml"),
    include_str!("../scenarios/equal-batches-1000.toml"),
    include_str!("../scenarios/equal-batches-10000.toml"),
    include_str!("../scenarios/many-producers-4.toml"),
    include_str!("../scenarios/many-producers-50.toml"),
    include_str!("../scenarios/many-producers-400.toml"),
    include_str!("../scenarios/tail-and-cold.toml"),
    include_str!("../scenarios/retention-on.toml"),
    include_str!("../scenarios/compaction-on.toml"),
    include_str!("../scenarios/restart-under-load.toml"),
    include_str!("../scenarios/idle-10k-partitions.toml"),
    include_str!("../scenarios/long-run.toml"),
    include_str!("../scenarios/replicated-big.toml"),
    include_str!("../scenarios/replicated-small.toml"),
    include_str!("../scenarios/leader-killed.toml"),
];

/// Maximum duration of the warm-up and of a run, in seconds.
const SECONDS_MAX: f64 = 1e6;

/// Maximum number of brokers that are started for a run.
const REPLICAS_MAX: u8 = 7;

/// Returns the built-in scenarios.
pub fn all() -> Vec<Scenario> {
    BUILT_IN.iter().map(|text| toml::from_str(text).expect("a valid scenario, as tested")).collect()
}

/// Returns the built-in scenario with this name, or the one in this file if the name ends in `.toml`.
pub fn find(name: &str) -> Result<Scenario, BenchError> {
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        let text = std::fs::read_to_string(name)
            .map_err(|e| BenchError::failed(format_args!("cannot read the scenario {name}: {e}")))?;
        let scenario: Scenario = toml::from_str(&text)
            .map_err(|e| BenchError::failed(format_args!("the scenario {name} is invalid: {e}")))?;
        return Ok(scenario);
    }
    all().into_iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        BenchError::failed(format_args!(
            "no scenario {name}; `highwater bench list` lists the built-in ones, and the name of a file ends in .toml"
        ))
    })
}

/// Checks that a scenario can be run.
pub fn check(scenario: &Scenario) -> Result<(), BenchError> {
    let Scenario { topic, record, producers, load, consumers, disturbance, .. } = scenario;
    let wrong = |what: &str| Err(BenchError::failed(format_args!("scenario {}: {what}", scenario.name)));
    if record.bytes < VALUE_BYTES_MIN {
        return wrong(&format!("the record size must be at least {VALUE_BYTES_MIN} bytes"));
    }
    if !(1..=REPLICAS_MAX).contains(&topic.replicas) {
        return wrong(&format!("the number of replicas must be from 1 to {REPLICAS_MAX}"));
    }
    if topic.partitions == 0 || producers.count == 0 || load.outstanding == 0 || load.runs == 0 {
        return wrong("partitions, producers, outstanding and runs must be at least 1");
    }
    let seconds = 0.0..=SECONDS_MAX;
    if !seconds.contains(&load.duration_s) || load.duration_s == 0.0 || !seconds.contains(&load.warmup_s) {
        return wrong("the duration must be above zero, and the warm-up not negative");
    }
    if disturbance.is_some_and(|disturbance| !seconds.contains(&disturbance.down_s)) {
        return wrong("the time until a killed broker is restarted must not be negative");
    }
    if load.rate == 0 && load.arrival != crate::scenario::Arrival::Constant {
        return wrong("an arrival other than constant requires a rate");
    }
    if consumers.cold > 0 && consumers.backlog_bytes == 0 {
        return wrong("consumers of a backlog require backlog_bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenarios_are_valid_and_have_unique_names() {
        let mut names: Vec<_> = all()
            .into_iter()
            .map(|scenario| {
                check(&scenario).unwrap_or_else(|e| panic!("{e}"));
                assert!(!scenario.about.is_empty());
                scenario.name
            })
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_scenario_file_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_owned())
            .collect();
        files.sort();
        let mut names: Vec<std::ffi::OsString> =
            all().into_iter().map(|scenario| scenario.name.into()).collect();
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn unknown_unreadable_and_invalid_scenarios_are_errors() {
        assert!(find("few-bigger").expect_err("unknown").to_string().contains("bench list"));
        assert!(find("/no/such.toml").expect_err("missing").to_string().contains("cannot read"));
        let mut small = find("few-big").expect("built in");
        small.record.bytes = 8;
        assert!(check(&small).expect_err("too small").to_string().contains("32 bytes"));
    }
}
