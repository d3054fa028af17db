//! Comparison of reports: `highwater bench compare a.json b.json`.
//!
//! For each workload, the first report that has it is the base. A result with a different meaning of acknowledgements, or any other
//! different setting, is shown as not comparable, with the reason. A difference that is not larger than the spread of the runs is marked as
//! noise.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::file::FileError;
use super::group::{Group, groups, terms};
use super::numbers::{count, duration, plural};
use super::text::WIDTH;
use super::{Environment, Percentiles, Report, Run};

/// Shown for unknown values.
const NONE: &str = "–";

/// Width of the label before the numbers.
const LABEL: usize = 36;
const COLUMN: usize = 12;

/// A measure that is compared.
struct Measure {
    name: &'static str,
    of_run: fn(&Run) -> Option<f64>,
    of_group: fn(&Group<'_>) -> Option<f64>,
    show: fn(f64) -> String,
    is_latency: bool,
}

const fn latency(
    name: &'static str,
    of_run: fn(&Run) -> Option<f64>,
    of_group: fn(&Group<'_>) -> Option<f64>,
) -> Measure {
    Measure { name, of_run, of_group, show: duration, is_latency: true }
}

fn of_run(run: &Run, of: fn(&Percentiles) -> u64) -> Option<f64> {
    run.latency_ns.produce.as_ref().map(|p| of(p) as f64)
}

fn of_group(group: &Group<'_>, of: fn(&Percentiles) -> u64) -> Option<f64> {
    group.latencies().produce.as_ref().map(|p| of(p) as f64)
}

const MEASURES: [Measure; 7] = [
    Measure {
        name: "records/s",
        of_run: |run| Some(run.records_per_second),
        of_group: |group| Some(group.median(|run| run.records_per_second)),
        show: count,
        is_latency: false,
    },
    Measure {
        name: "MB/s",
        of_run: |run| Some(run.bytes_per_second / 1e6),
        of_group: |group| Some(group.median(|run| run.bytes_per_second / 1e6)),
        show: count,
        is_latency: false,
    },
    latency("p50", |run| of_run(run, |p| p.p50), |group| of_group(group, |p| p.p50)),
    latency("p99", |run| of_run(run, |p| p.p99), |group| of_group(group, |p| p.p99)),
    latency("p99.9", |run| of_run(run, |p| p.p999), |group| of_group(group, |p| p.p999)),
    latency("max", |run| of_run(run, |p| p.max), |group| of_group(group, |p| p.max)),
    Measure {
        name: "CPU s/GB",
        of_run: |run| run.broker.as_ref().map(|used| used.cpu_seconds_per_gb),
        of_group: |group| group.broker().map(|used| used.cpu_seconds_per_gb),
        show: |value| format!("{value:.2}"),
        is_latency: false,
    },
];

/// Reads reports. The name of a report is that of its file without `.json`.
pub fn read(paths: &[PathBuf]) -> Result<Vec<(String, Report)>, FileError> {
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            Ok((name, Report::read(path)?))
        })
        .collect()
}

/// Formats the comparison. The first report is the base of the others.
pub fn compare(reports: &[(String, Report)]) -> String {
    let mut text = String::new();
    for (name, report) in reports {
        let Environment { commit, started, cpu, cores, .. } = &report.environment;
        _ = writeln!(text, "{name}: commit {commit}, {started}, {cpu}, {}", plural((*cores).into(), "core"));
    }
    if let Some((first, others)) = reports.split_first() {
        for other in others {
            for (what, here, there) in other_machine(&first.1.environment, &other.1.environment) {
                _ = writeln!(text, "NOT THE SAME {what}: {here} for {}, {there} for {}", first.0, other.0);
            }
        }
    }
    let rows: Vec<(&str, Group<'_>)> = reports
        .iter()
        .flat_map(|(name, report)| groups(&report.runs).into_iter().map(move |group| (name.as_str(), group)))
        .collect();
    let mut shown: Vec<&str> = Vec::new();
    for (_, group) in &rows {
        let scenario = group.first().scenario.as_str();
        if !shown.contains(&scenario) {
            shown.push(scenario);
            let of: Vec<_> = rows.iter().filter(|(_, group)| group.first().scenario == scenario).collect();
            text.push('\n');
            block(&mut text, scenario, &of);
        }
    }
    text.push_str(LEGEND);
    text
}

const LEGEND: &str = "
Ratios are relative to the first comparable row of the workload. Rates are medians of the runs, latencies are over all
records. ~: within noise, as the runs of one side differ by as much as the sides. (…): not comparable, for the reason
below.
";

/// Returns the differences between two machines, as `(what, here, there)`.
fn other_machine<'a>(a: &'a Environment, b: &'a Environment) -> Vec<(&'static str, String, String)> {
    [
        ("processor", a.cpu.clone(), b.cpu.clone()),
        ("number of cores", a.cores.to_string(), b.cores.to_string()),
        ("memory", a.memory_bytes.to_string(), b.memory_bytes.to_string()),
        ("kernel", a.kernel.clone(), b.kernel.clone()),
        ("disk", a.disk.clone(), b.disk.clone()),
        ("file system", a.filesystem.clone(), b.filesystem.clone()),
    ]
    .into_iter()
    .filter(|(_, a, b)| a != b)
    .collect()
}

/// Formats a workload: the absolute numbers of each row, and their ratios to its base.
fn block(text: &mut String, scenario: &str, rows: &[&(&str, Group<'_>)]) {
    line(text, scenario, MEASURES.iter().map(|measure| measure.name.to_owned()));
    for (nth, (file, group)) in rows.iter().enumerate() {
        let first = group.first();
        let mut label = format!("{file}: {}", first.backend);
        if first.rate > 0 {
            label = format!("{label} at {}/s", first.rate);
        }
        line(
            text,
            &label,
            MEASURES.iter().map(|m| (m.of_group)(group).map_or_else(|| NONE.to_owned(), m.show)),
        );
        if let Some(why) = group.runs.iter().find(|run| run.saturated) {
            let why = why.saturated_why.as_deref().unwrap_or("it did not keep the schedule");
            remark(text, &format!("GENERATOR SATURATED: {why}. Its latencies are not valid."));
        }
        let wrong: u64 = group.runs.iter().map(|run| run.lost + run.duplicated + run.reordered).sum();
        if wrong > 0 {
            remark(text, &format!("WRONG: {} lost, duplicated or reordered.", plural(wrong, "record")));
        }
        if nth > 0 {
            ratios(text, base_of(group, &rows[..nth]), group);
        }
    }
}

/// Returns the first earlier row with the same terms. If there is none, returns the first with the same rate, or else the first row.
fn base_of<'r, 'a>(group: &Group<'a>, before: &'r [&'r (&str, Group<'a>)]) -> &'r Group<'a> {
    let find = |wanted: &dyn Fn(&Group<'a>) -> bool| before.iter().map(|(_, g)| g).find(|g| wanted(g));
    let first = group.first();
    find(&|base| base.first().backend == first.backend && differences(base, group).is_empty())
        .or_else(|| find(&|base| differences(base, group).is_empty()))
        .or_else(|| find(&|base| base.first().rate == first.rate))
        .unwrap_or(&before[0].1)
}

/// Returns the terms that differ, as `(what, there, here)`.
fn differences(base: &Group<'_>, group: &Group<'_>) -> Vec<(&'static str, String, String)> {
    terms(base.first())
        .into_iter()
        .zip(terms(group.first()))
        .filter(|(a, b)| a.1 != b.1)
        .map(|(a, b)| (a.0, a.1, b.1))
        .collect()
}

fn ratios(text: &mut String, base: &Group<'_>, group: &Group<'_>) {
    let different = differences(base, group);
    let saturated = |group: &Group<'_>| group.runs.iter().any(|run| run.saturated);
    let no_latencies = saturated(base) || saturated(group);
    let cells = MEASURES.iter().map(|measure| {
        let (Some(there), Some(here)) = ((measure.of_group)(base), (measure.of_group)(group)) else {
            return NONE.to_owned();
        };
        if there <= 0.0 || (measure.is_latency && no_latencies) {
            return NONE.to_owned();
        }
        let noise = spread(base, measure).max(spread(group, measure));
        let mark = if noise > 0.0 && (here - there).abs() <= noise { "~" } else { "" };
        let ratio = format!("{mark}{:.2}×", here / there);
        if different.is_empty() { ratio } else { format!("({ratio})") }
    });
    line(text, "", cells);
    if !different.is_empty() {
        let reasons: Vec<String> =
            different.iter().map(|(what, there, here)| format!("{what}: {there} against {here}")).collect();
        remark(text, &format!("not comparable: {}", reasons.join("; ")));
    }
    if base.runs.len() == 1 || group.runs.len() == 1 {
        remark(text, "one side has a single run, so its spread is unknown");
    }
}

/// Returns the spread of the runs of a row.
fn spread(group: &Group<'_>, measure: &Measure) -> f64 {
    let values = || group.runs.iter().filter_map(|run| (measure.of_run)(run));
    let (low, high) = values().fold((f64::INFINITY, 0.0), |(l, h), v| (f64::min(l, v), f64::max(h, v)));
    (high - low).max(0.0)
}

fn line(text: &mut String, label: &str, cells: impl Iterator<Item = String>) {
    let label: String = label.chars().take(LABEL - 1).collect();
    let mut line = format!("{label:<LABEL$}");
    for cell in cells {
        _ = write!(line, "{cell:>COLUMN$}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Formats a remark on the row above, indented, in lines of at most [`WIDTH`].
fn remark(text: &mut String, remark: &str) {
    let mut width = 0;
    for word in remark.split(' ') {
        let length = word.chars().count();
        if width == 0 || width + 1 + length > WIDTH {
            text.push_str(if width == 0 { "   " } else { "\n   " });
            width = 3;
        }
        text.push(' ');
        text.push_str(word);
        width += 1 + length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SCHEMA;
    use crate::report::run::tests::outcome;

    fn report(commit: &str, runs: Vec<Run>) -> Report {
        let environment = Environment {
            cpu: "A Processor".into(),
            cores: 2,
            commit: commit.into(),
            started: "2026-11-21T08:00:00Z".into(),
            ..Environment::default()
        };
        Report { schema: SCHEMA, environment, limits: Vec::new(), runs }
    }

    /// Returns three runs with rates 1 % apart, multiplied by `factor`.
    fn runs(factor: f64) -> Vec<Run> {
        (1..=3)
            .map(|number| {
                let mut run = Run::of(&outcome(number));
                run.records_per_second *= factor;
                run.bytes_per_second *= factor;
                run.latency_ns = Run::of(&outcome(2)).latency_ns;
                run
            })
            .collect()
    }

    const GOLDEN: &str = "\
a: commit aaaaaaaaaaaa, 2026-11-21T08:00:00Z, A Processor, 2 cores
b: commit bbbbbbbbbbbb, 2026-11-21T08:00:00Z, A Processor, 2 cores
c: commit cccccccccccc, 2026-11-21T08:00:00Z, A Processor, 2 cores
d: commit dddddddddddd, 2026-11-21T08:00:00Z, A Processor, 2 cores

few-big                                records/s        MB/s         p50         p99       p99.9         max    CPU s/GB
a: native                                  102 k         102     2.00 ms     2.00 ms     20.0 ms     20.0 ms        0.25
b: native                                  204 k         204     2.00 ms     2.00 ms     20.0 ms     20.0 ms        0.12
                                           2.00×       2.00×       1.00×       1.00×       1.00×       1.00×       0.50×
c: native                                  103 k         103     2.00 ms     2.00 ms     20.0 ms     20.0 ms        0.24
                                          ~1.00×      ~1.00×       1.00×       1.00×       1.00×       1.00×      ~1.00×
d: kafka                                   306 k         306     2.00 ms     2.00 ms     20.0 ms     20.0 ms        0.08
                                         (3.00×)     (3.00×)     (1.00×)     (1.00×)     (1.00×)     (1.00×)     (0.33×)
    not comparable: acknowledgement: on stable storage of 1 of 1 replicas against in the page cache of 1 of 1 replicas;
    linger: 0 against 5 ms
";

    #[test]
    fn the_comparison_matches_the_golden_text() {
        let mut page_cache = runs(3.0);
        for run in &mut page_cache {
            run.backend = "kafka".into();
            run.acknowledgement = "in the page cache of 1 of 1 replicas".into();
            run.linger_us = 5_000;
        }
        let reports = [
            ("a".to_owned(), report("aaaaaaaaaaaa", runs(1.0))),
            ("b".to_owned(), report("bbbbbbbbbbbb", runs(2.0))),
            ("c".to_owned(), report("cccccccccccc", runs(1.005))),
            ("d".to_owned(), report("dddddddddddd", page_cache)),
        ];
        let found = compare(&reports);
        assert_eq!(found, format!("{GOLDEN}{LEGEND}"), "\n{found}");
        assert!(found.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn different_machines_saturation_and_lost_records_are_reported() {
        let mut saturated = runs(1.0);
        saturated[1].saturated = true;
        saturated[1].saturated_why = Some("the schedule was missed by 2 s".into());
        saturated[2].lost = 3;
        let mut b = report("b", saturated);
        b.environment.cores = 64;
        let found = compare(&[("a".to_owned(), report("a", runs(1.0))), ("b".to_owned(), b)]);
        assert!(found.contains("NOT THE SAME number of cores: 2 for a, 64 for b"), "{found}");
        assert!(found.contains("GENERATOR SATURATED: the schedule was missed by 2 s."), "{found}");
        assert!(found.contains("WRONG: 3 records lost, duplicated or reordered."), "{found}");
        let ratios = found.lines().find(|line| line.contains('×') && line.starts_with(' ')).expect("ratios");
        assert_eq!(ratios.matches(NONE).count(), 4, "no latencies: {ratios}");
    }

    #[test]
    fn a_single_run_has_no_spread_and_workloads_are_separate() {
        let mut other = Run::of(&outcome(1));
        other.scenario = "small-batches".into();
        let a = report("a", vec![Run::of(&outcome(1)), other.clone()]);
        let b = report("b", vec![other, Run::of(&outcome(2))]);
        let found = compare(&[("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(found.matches("one side has a single run").count(), 2, "{found}");
        let (few_big, small) =
            (found.find("few-big").expect("there"), found.find("small-batches").expect("there"));
        assert!(few_big < small);
        assert!(found.contains("1.00×") && found.contains("2.00×"), "{found}");
    }

    #[test]
    fn rows_are_compared_with_rows_of_the_same_terms() {
        let at = |rate| Run { rate, ..Run::of(&outcome(1)) };
        let runs = [at(1_000), at(2_000), at(2_000), at(3_000)];
        let rows: Vec<Group<'_>> = runs.iter().map(|run| Group { runs: vec![run] }).collect();
        let before: Vec<(&str, Group<'_>)> = rows[..2].iter().map(|group| ("a", group.clone())).collect();
        let before: Vec<&(&str, Group<'_>)> = before.iter().collect();
        assert_eq!(base_of(&rows[2], &before).first().rate, 2_000);
        assert_eq!(base_of(&rows[3], &before).first().rate, 1_000);
        assert_eq!(differences(&rows[0], &rows[3])[0].0, "load");
    }
}
