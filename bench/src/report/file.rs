//! The JSON file of a report.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Report, SCHEMA};

/// Why a report cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("{0} is not a report of `highwater bench`: {1}")]
    NotAReport(PathBuf, serde_json::Error),
    #[error(
        "{path} has schema {found}, but this program reads schema {SCHEMA}: use a newer `highwater`, or measure again"
    )]
    Schema { path: PathBuf, found: u32 },
}

/// Parsed first, so that a different schema is reported as such and not as a missing field.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

impl Report {
    /// Reads a file written by [`Report::write`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|e| FileError::Read(path.into(), e))?;
        let not_a_report = |e| FileError::NotAReport(path.into(), e);
        let Versioned { schema } = serde_json::from_str(&text).map_err(not_a_report)?;
        if schema != SCHEMA {
            return Err(FileError::Schema { path: path.into(), found: schema });
        }
        serde_json::from_str(&text).map_err(not_a_report)
    }

    /// Writes the report as indented JSON.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let write_failed = |e| FileError::Write(path.into(), e);
        let mut text = serde_json::to_string_pretty(self).expect("reports serialize to JSON");
        text.push('\n');
        fs::write(path, text).map_err(write_failed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::run::tests::outcome;
    use crate::report::{Environment, Limit, Run};

    fn report() -> Report {
        Report {
            schema: SCHEMA,
            environment: Environment { cpu: "a processor".into(), ..Environment::default() },
            limits: vec![Limit { name: "pipeline".into(), value: 2.5e9, unit: "B/s".into() }],
            runs: vec![Run::of(&outcome(1))],
        }
    }

    /// The stable field names of the format, which must all exist.
    const STABLE_FIELDS: &str = r#"{"schema":1,"environment":{},"limits":[{"name":0,"value":0,"unit":0}],
        "runs":[{"scenario":0,"backend":0,"acknowledgement":0,"records_per_second":0,"bytes_per_second":0,"limit_name":0,"limit_percent":0,
        "latency_ns":{"produce":{"p50":0,"p90":0,"p99":0,"p999":0,"p9999":0,"max":0,"count":0},
            "end_to_end":{"p50":0,"p90":0,"p99":0,"p999":0,"p9999":0,"max":0,"count":0}},
        "errors":0,"lost":0,"duplicated":0,"reordered":0,"saturated":0,
        "broker":{"cpu_seconds":0,"rss_bytes_max":0,"bytes_written":0,"syncs":0}}]}"#;

    fn has_all(promised: &Value, found: &Value, path: &str) {
        match promised {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let inner = found.get(name).unwrap_or_else(|| panic!("{path}.{name} is missing"));
                    has_all(value, inner, &format!("{path}.{name}"));
                }
            }
            Value::Array(items) => has_all(&items[0], &found[0], path),
            _ => {}
        }
    }

    #[test]
    fn every_stable_field_is_written_and_the_report_reads_back_unchanged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        let report = report();
        report.write(&path).expect("written");
        let text = fs::read_to_string(&path).expect("read");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        has_all(&serde_json::from_str(STABLE_FIELDS).expect("JSON"), &found, "");
        assert_eq!(found["schema"], 1);
        let again = Report::read(&path).expect("a report");
        assert_eq!(serde_json::to_value(&again).expect("JSON"), found);
    }

    #[test]
    fn a_report_with_only_the_stable_fields_can_be_read() {
        let line = r#"{"schema":1,"environment":{},"limits":[{"name":"memcpy","value":1.0,"unit":"B/s"}],
            "runs":[{"scenario":"few-big","backend":"native","latency_ns":{"produce":{"p50":7,"count":1}},"broker":null}]}"#;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        fs::write(&path, line).expect("written");
        let report = Report::read(&path).expect("a report");
        assert_eq!(report.runs[0].scenario, "few-big");
        assert_eq!(report.runs[0].latency_ns.produce.as_ref().map(|p| p.p50), Some(7));
        assert!(report.runs[0].broker.is_none());
    }

    #[test]
    fn an_invalid_report_is_rejected_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        let said = |text: &str| {
            fs::write(&path, text).expect("written");
            Report::read(&path).expect_err("refused").to_string()
        };
        assert!(
            said(r#"{"schema":2,"runs":"otherwise"}"#)
                .contains("has schema 2, but this program reads schema 1")
        );
        assert!(said("[]").contains("is not a report of `highwater bench`"));
        assert!(said(r#"{"schema":1}"#).contains("missing field"));
        let missing = Report::read(&folder.path().join("b.json")).expect_err("not there").to_string();
        assert!(missing.contains("b.json"), "{missing}");
    }
}
