//! Plots and percentile files of a report, written to a directory.
//!
//! | file | contents |
//! |---|---|
//! | `WORKLOAD-percentiles.svg` | latency by percentile, one line for each broker and rate |
//! | `WORKLOAD-BROKER-latency.svg` | latency over time |
//! | `WORKLOAD-BROKER-rate.svg` | records per second over time |
//! | `WORKLOAD-BROKER-ladder.svg` | latency by rate, if there are several rates |
//! | `WORKLOAD-BROKER.hgrm`, `-end-to-end.hgrm` | percentiles of all runs, for HdrHistogram's tools |
//! | `WORKLOAD-BROKER.hlog` | histograms of the intervals of all runs, for HdrHistogram's tools |

mod svg;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::FileError;
use super::group::{Group, groups, load};
use super::histogram::{hgrm, hlog};
use super::numbers::{count, duration, plural};
use super::{Percentiles, Report, Run};
use crate::outcome::Outcome;
use svg::{Axis, Chart, Series};

/// Number of points for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 10;

/// Writes the plots and files of a report, and the interval logs of its outcomes, which have the full histograms of the intervals. Returns the
/// paths of the files.
pub fn write(folder: &Path, report: &Report, outcomes: &[Outcome]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Files::new(folder)?;
    let all = groups(&report.runs);
    for scenario in firsts(&all, |run| run.scenario.clone()) {
        let of: Vec<(String, &Group<'_>)> = all
            .iter()
            .filter(|group| group.first().scenario == scenario)
            .map(|group| (label(group, &all), group))
            .collect();
        files.add(&format!("{scenario}-percentiles"), "svg", &spectrum(&scenario, &of).svg())?;
    }
    for group in &all {
        let first = group.first();
        let name = match first.rate {
            0 => format!("{}-{}", first.scenario, first.backend),
            rate => format!("{}-{}-{rate}", first.scenario, first.backend),
        };
        files.add(&format!("{name}-latency"), "svg", &latency_over_time(group).svg())?;
        files.add(&format!("{name}-rate"), "svg", &rate_over_time(group).svg())?;
        let latencies = group.latencies();
        for (suffix, latency) in [("", latencies.produce), ("-end-to-end", latencies.end_to_end)] {
            if let Some(histogram) = latency.and_then(|latency| latency.full()) {
                files.add(&format!("{name}{suffix}"), "hgrm", &hgrm(&histogram))?;
            }
        }
    }
    for key in firsts(&all, |run| (run.scenario.clone(), run.backend.clone())) {
        let steps: Vec<&Group<'_>> = all
            .iter()
            .filter(|group| {
                let first = group.first();
                first.rate > 0 && (&first.scenario, &first.backend) == (&key.0, &key.1)
            })
            .collect();
        if steps.len() > 1 {
            files.add(&format!("{}-{}-ladder", key.0, key.1), "svg", &ladder(&steps).svg())?;
        }
    }
    for outcome in outcomes {
        let Outcome { scenario, backend, run, .. } = outcome;
        let tag = format!("{}-{backend}-{run}", scenario.name);
        files.add(&tag, "hlog", &hlog(outcome.started_ms, &tag, &outcome.intervals))?;
    }
    Ok(files.written)
}

/// Writes a plot for each workload that several reports have, with the percentiles of all reports.
pub fn write_comparison(folder: &Path, reports: &[(String, Report)]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Files::new(folder)?;
    let all: Vec<(&str, Vec<Group<'_>>)> =
        reports.iter().map(|(name, report)| (name.as_str(), groups(&report.runs))).collect();
    let scenarios: BTreeSet<&String> =
        reports.iter().flat_map(|(_, r)| &r.runs).map(|run| &run.scenario).collect();
    for scenario in scenarios {
        let of: Vec<(String, &Group<'_>)> = all
            .iter()
            .flat_map(|(name, groups)| {
                groups.iter().map(move |group| (format!("{name}: {}", label(group, groups)), group))
            })
            .filter(|(_, group)| group.first().scenario == *scenario)
            .collect();
        files.add(&format!("{scenario}-percentiles"), "svg", &spectrum(scenario, &of).svg())?;
    }
    Ok(files.written)
}

/// Writer of files with unique names in a directory.
struct Files {
    folder: PathBuf,
    written: Vec<PathBuf>,
}

impl Files {
    fn new(folder: &Path) -> Result<Self, FileError> {
        fs::create_dir_all(folder).map_err(|e| FileError::Write(folder.into(), e))?;
        Ok(Self { folder: folder.into(), written: Vec::new() })
    }

    fn add(&mut self, name: &str, extension: &str, text: &str) -> Result<(), FileError> {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' })
            .collect();
        let mut path = self.folder.join(format!("{name}.{extension}"));
        let mut copies = 1;
        while self.written.contains(&path) {
            copies += 1;
            path = self.folder.join(format!("{name}-{copies}.{extension}"));
        }
        fs::write(&path, text).map_err(|e| FileError::Write(path.clone(), e))?;
        self.written.push(path);
        Ok(())
    }
}

/// Returns the distinct values of a property of the groups' first runs, in order.
fn firsts<T: PartialEq>(groups: &[Group<'_>], of: impl Fn(&Run) -> T) -> Vec<T> {
    let mut found = Vec::new();
    for value in groups.iter().map(|group| of(group.first())) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// Returns a label that distinguishes a group from others of its workload: backend, rate, and the meaning of acknowledgements if it differs.
fn label(group: &Group<'_>, all: &[Group<'_>]) -> String {
    let first = group.first();
    let mut text = first.backend.clone();
    if first.rate > 0 {
        text = format!("{text}, {}/s", short(&count(first.rate as f64)));
    }
    let same = |other: &&Group<'_>| {
        let other = other.first();
        (&other.scenario, &other.backend, other.rate) == (&first.scenario, &first.backend, first.rate)
    };
    if all.iter().filter(same).count() > 1 {
        text = format!("{text}, {}", first.acknowledgement);
    }
    text
}

fn latency_axis(log: bool) -> Axis {
    Axis {
        label: "latency".into(),
        log,
        name: |ns| if ns == 0.0 { "0".into() } else { short(&duration(ns)) },
    }
}

fn rate_axis() -> Axis {
    Axis {
        label: "records per second".into(),
        log: false,
        name: |v| if v == 0.0 { "0".into() } else { short(&count(v)) },
    }
}

fn time_axis() -> Axis {
    Axis { label: "seconds since the start of the measurement".into(), log: false, name: |v| format!("{v}") }
}

/// Removes trailing zeros after the decimal point.
fn short(text: &str) -> String {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits} {unit}").trim_end().to_owned()
}

fn spectrum(scenario: &str, groups: &[(String, &Group<'_>)]) -> Chart {
    let series = groups.iter().filter_map(|(name, group)| {
        let latency = group.latencies().produce?;
        Some(Series { name: name.clone(), lines: vec![percentile_line(&latency)], marked: false })
    });
    Chart {
        title: format!("{scenario}: latency by percentile"),
        subtitle: "from the scheduled time of sending a record to its acknowledgement, over all runs".into(),
        x: Axis { label: "percentile".into(), log: true, name: percentile_name },
        y: latency_axis(true),
        series: series.collect(),
    }
}

/// Formats the percentile at a position on an axis of `1/(1-p)`.
fn percentile_name(odds: f64) -> String {
    let digits = (odds.log10().round() as usize).saturating_sub(2);
    format!("{:.digits$} %", 100.0 * (1.0 - 1.0 / odds))
}

fn percentile_line(latency: &Percentiles) -> Vec<(f64, f64)> {
    let Some(histogram) = latency.full() else {
        let Percentiles { p50, p90, p99, p999, p9999, .. } = *latency;
        let points = [(2.0, p50), (10.0, p90), (100.0, p99), (1e3, p999), (1e4, p9999)];
        return points.into_iter().map(|(odds, ns)| (odds, ns as f64)).collect();
    };
    let most = histogram.len() as f64;
    histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            let left = 1.0 - step.quantile_iterated_to();
            (if left > 0.0 { (1.0 / left).min(most) } else { most }, step.value_iterated_to() as f64)
        })
        .collect()
}

fn subtitle(group: &Group<'_>) -> String {
    let first = group.first();
    format!(
        "{}; {}; acknowledged: {}",
        load(first),
        plural(group.runs.len() as u64, "run"),
        first.acknowledgement
    )
}

fn latency_over_time(group: &Group<'_>) -> Chart {
    let first = group.first();
    let series = |name: &str, of: fn(&super::IntervalRow) -> u64| Series {
        name: name.into(),
        lines: group
            .runs
            .iter()
            .map(|run| {
                let rows = run.intervals.iter().filter(|row| row.records > 0);
                rows.map(|row| (row.at_seconds + row.seconds / 2.0, of(row) as f64)).collect()
            })
            .collect(),
        marked: false,
    };
    Chart {
        title: format!("{} on {}: latency over time", first.scenario, first.backend),
        subtitle: subtitle(group),
        x: time_axis(),
        y: latency_axis(true),
        series: vec![
            series("50 %", |row| row.p50_ns),
            series("99 %", |row| row.p99_ns),
            series("longest", |row| row.max_ns),
        ],
    }
}

fn rate_over_time(group: &Group<'_>) -> Chart {
    let first = group.first();
    let series = group.runs.iter().map(|run| {
        let rows = run.intervals.iter().filter(|row| row.seconds > 0.0);
        let line = rows.map(|row| (row.at_seconds + row.seconds / 2.0, row.records as f64 / row.seconds));
        Series { name: format!("run {}", run.run), lines: vec![line.collect()], marked: false }
    });
    Chart {
        title: format!("{} on {}: rate over time", first.scenario, first.backend),
        subtitle: subtitle(group),
        x: time_axis(),
        y: rate_axis(),
        series: series.collect(),
    }
}

/// Plots the steps of a ladder: latency by achieved rate.
fn ladder(steps: &[&Group<'_>]) -> Chart {
    let first = steps[0].first();
    let latencies: Vec<(f64, Percentiles)> = steps
        .iter()
        .filter_map(|group| Some((group.median(|run| run.records_per_second), group.latencies().produce?)))
        .collect();
    let series = |name: &str, of: fn(&Percentiles) -> u64| {
        let mut line: Vec<(f64, f64)> = latencies.iter().map(|(rate, p)| (*rate, of(p) as f64)).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.into(), lines: vec![line], marked: true }
    };
    Chart {
        title: format!("{} on {}: latency by rate", first.scenario, first.backend),
        subtitle: format!("open loop, one point per step; acknowledged: {}", first.acknowledgement),
        x: rate_axis(),
        y: latency_axis(true),
        series: vec![series("50 %", |p| p.p50), series("99 %", |p| p.p99), series("99.9 %", |p| p.p999)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::tests::outcome;
    use crate::report::{Environment, SCHEMA};

    fn report(runs: Vec<Run>) -> Report {
        Report { schema: SCHEMA, environment: Environment::default(), limits: Vec::new(), runs }
    }

    fn names(files: &[PathBuf]) -> Vec<String> {
        files.iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_report_is_written_as_plots_percentile_files_and_interval_logs() {
        let folder = tempfile::tempdir().expect("a folder");
        let outcomes: Vec<Outcome> = (1..=2).map(outcome).collect();
        let mut runs: Vec<Run> = outcomes.iter().map(Run::of).collect();
        runs.extend([5_000, 10_000].map(|rate| Run { rate, ..Run::of(&outcome(1)) }));
        let files = write(&folder.path().join("plots"), &report(runs), &outcomes).expect("written");
        let names = names(&files);
        for name in [
            "few-big-percentiles.svg",
            "few-big-native-latency.svg",
            "few-big-native-rate.svg",
            "few-big-native-5000-rate.svg",
            "few-big-native-ladder.svg",
            "few-big-native.hgrm",
            "few-big-native-end-to-end.hgrm",
            "few-big-native-1.hlog",
            "few-big-native-2.hlog",
        ] {
            assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
        }
        for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "svg")) {
            let text = fs::read_to_string(path).expect("read");
            let elements = svg::tests::elements(&text);
            assert!(elements.iter().filter(|name| *name == "path").count() > 2, "{path:?} has lines");
        }
        let text = fs::read_to_string(folder.path().join("plots/few-big-percentiles.svg")).expect("read");
        for said in [">native<", ">native, 5 k/s<", "99.9 %", "acknowledgement"] {
            assert!(text.contains(said), "{said}");
        }
    }

    #[test]
    fn two_reports_share_a_plot_and_file_names_are_unique() {
        let folder = tempfile::tempdir().expect("a folder");
        let slow = Run { acknowledgement: "in the page cache".into(), ..Run::of(&outcome(2)) };
        let reports = [
            ("a".to_owned(), report(vec![Run::of(&outcome(1)), slow])),
            ("b".to_owned(), report(vec![Run::of(&outcome(3))])),
        ];
        let files = write_comparison(folder.path(), &reports).expect("written");
        assert_eq!(names(&files), ["few-big-percentiles.svg"]);
        let text = fs::read_to_string(&files[0]).expect("read");
        assert!(text.contains("a: native, in the page cache") && text.contains("b: native"), "{text}");
        let files = write(folder.path(), &reports[0].1, &[]).expect("written");
        assert!(names(&files).contains(&"few-big-native-latency-2.svg".to_owned()), "{files:?}");
    }

    #[test]
    fn percentile_labels_have_as_many_digits_as_needed() {
        let names = [1.0, 10.0, 100.0, 1e3, 1e4, 1e6].map(percentile_name);
        assert_eq!(names, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.9999 %"]);
        assert_eq!([short("2.00 ms"), short("100 µs"), short("1.50 k")], ["2 ms", "100 µs", "1.5 k"]);
    }
}
