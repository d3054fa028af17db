//! The scenarios that come with the program, and those in files.

use std::path::Path;

use crate::BenchError;
use crate::scenario::{Scenario, VALUE_BYTES_MIN};

const BUILT_IN: [&str; 13] = [
    include_str!("../scenarios/few-big.toml"),
    include_str!("../scenarios/small-batches.toml"),
    include_str!("../scenarios/many-partitions-100.toml"),
    include_str!("../scenarios/many-partitions-1000.toml"),
    include_str!("../scenarios/many-partitions-10000.toml"),
    include_str!("../scenarios/many-producers-4.toml"),
    include_str!("../scenarios/many-producers-50.toml"),
    include_str!("../scenarios/many-producers-400.toml"),
    include_str!("../scenarios/tail-and-cold.toml"),
    include_str!("../scenarios/retention-on.toml"),
    include_str!("../scenarios/restart-under-load.toml"),
    include_str!("../scenarios/idle-10k-partitions.toml"),
    include_str!("../scenarios/long-run.toml"),
];

/// The longest warm-up and the longest run.
const SECONDS_MAX: f64 = 1e6;

/// All that come with the program.
pub fn all() -> Vec<Scenario> {
    BUILT_IN.iter().map(|text| toml::from_str(text).expect("a scenario that a test has read")).collect()
}

/// The one of this name, or the one in this file if the name ends in `.toml`.
pub fn find(name: &str) -> Result<Scenario, BenchError> {
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        let text = std::fs::read_to_string(name)
            .map_err(|e| BenchError::failed(format_args!("the scenario {name} cannot be read: {e}")))?;
        let scenario: Scenario = toml::from_str(&text)
            .map_err(|e| BenchError::failed(format_args!("the scenario {name} is not understood: {e}")))?;
        return Ok(scenario);
    }
    all().into_iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        BenchError::failed(format_args!(
            "there is no scenario {name}; `highwater bench list` shows them, and a file's name ends in .toml"
        ))
    })
}

/// Says what of a scenario cannot be carried out.
pub fn check(scenario: &Scenario) -> Result<(), BenchError> {
    let Scenario { topic, record, producers, load, consumers, .. } = scenario;
    let wrong = |what: &str| Err(BenchError::failed(format_args!("scenario {}: {what}", scenario.name)));
    if record.bytes < VALUE_BYTES_MIN {
        return wrong(&format!("records have at least {VALUE_BYTES_MIN} bytes, which checking needs"));
    }
    if topic.partitions == 0 || producers.count == 0 || load.outstanding == 0 || load.runs == 0 {
        return wrong("partitions, producers, outstanding and runs are at least 1");
    }
    let seconds = 0.0..=SECONDS_MAX;
    if !seconds.contains(&load.duration_s) || load.duration_s == 0.0 || !seconds.contains(&load.warmup_s) {
        return wrong("the duration is more than nothing, the warm-up not negative");
    }
    if load.rate == 0 && load.arrival != crate::scenario::Arrival::Constant {
        return wrong("an arrival other than constant needs a rate");
    }
    if consumers.cold > 0 && consumers.backlog_bytes == 0 {
        return wrong("consumers of a backlog need backlog_bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_understood_can_be_carried_out_and_has_a_name_of_its_own() {
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
    fn every_scenario_file_comes_with_the_program() {
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
    fn a_scenario_that_is_not_there_or_cannot_be_is_told() {
        assert!(find("few-bigger").expect_err("unknown").to_string().contains("bench list"));
        assert!(find("/no/such.toml").expect_err("missing").to_string().contains("cannot be read"));
        let mut small = find("few-big").expect("built in");
        small.record.bytes = 8;
        assert!(check(&small).expect_err("too small").to_string().contains("32 bytes"));
    }
}
