//! The report as a table. For each workload on each broker: its settings, a row for each run, and a row for all runs with the spread of the
//! rates and the percentiles of all records.

use std::fmt::Write as _;

use super::group::{Group, batch, groups, load};
use super::numbers::{bytes, count, duration, linger, plural, size, spread};
use super::{Environment, Limit, Percentiles, ProcessUse, Report, Run};

/// Maximum width of a line.
pub const WIDTH: usize = 120;

/// Shown for unknown values.
const NONE: &str = "–";

/// Columns and their widths. In lines that are not about a run, a name takes the space of the first ones.
const COLUMNS: [(&str, usize); 14] = [
    ("run", 3),
    ("records/s", 13),
    ("MB/s", 10),
    ("limit", 7),
    ("p50", 9),
    ("p99", 9),
    ("p99.9", 9),
    ("p99.99", 9),
    ("max", 9),
    ("CPU s/GB", 9),
    ("memory", 8),
    ("disk/B", 7),
    ("syncs/s", 8),
    ("l/d/r", 7),
];

/// Number of columns before the percentiles.
const FRONT: usize = 4;

/// Number of percentiles shown.
const PERCENTILES: usize = 5;

/// Formats the whole report.
pub fn table(report: &Report) -> String {
    let mut text = environment(&report.environment);
    for group in groups(&report.runs) {
        text.push('\n');
        text.push_str(&block(&group));
    }
    if !report.runs.is_empty() {
        text.push_str(LEGEND);
    }
    text.push_str(&limits(&report.limits));
    text
}

/// Explanation of the columns.
const LEGEND: &str = "
Latency is from the scheduled time of sending a record to its acknowledgement. `all` has the percentiles of all
records, and the range of the rates. limit: percentage of the machine's limit. CPU s/GB, memory, disk/B (bytes written
per byte acknowledged) and syncs are the broker's. l/d/r: records lost, duplicated, reordered. MB is 10^6 bytes.
";

fn environment(environment: &Environment) -> String {
    let Environment { cpu, cores, memory_bytes, kernel, disk, filesystem, commit, version, started, notes } =
        environment;
    let memory = bytes(*memory_bytes as f64);
    let mut text = format!("{cpu}, {}, {memory}, Linux {kernel}\n", plural((*cores).into(), "core"));
    _ = writeln!(text, "{filesystem} on {disk}");
    _ = writeln!(text, "highwater {version}, commit {commit}, {started}");
    for (name, value) in notes {
        _ = writeln!(text, "{name}: {value}");
    }
    wrapped(&text)
}

/// Formats one workload on one broker.
fn block(group: &Group<'_>) -> String {
    let first = group.first();
    let mut head =
        format!("{} on {}, acknowledged: {}\n", first.scenario, first.backend, first.acknowledgement);
    head.push_str(&shape(first));
    head.push('\n');
    let mut text = wrapped(&head);
    row(&mut text, &COLUMNS.map(|(name, _)| name.to_owned()));
    for run in &group.runs {
        row(&mut text, &run_cells(run));
    }
    let merged = group.latencies();
    if group.runs.len() > 1 {
        row(&mut text, &all_cells(group, merged.produce.as_ref()));
    }
    for (name, latency) in [
        ("service time", &merged.service),
        ("send delay", &merged.send_delay),
        ("end to end", &merged.end_to_end),
    ] {
        if let Some(latency) = latency {
            named_row(&mut text, name, latency);
        }
    }
    let mut notes = String::new();
    for note in remarks(group) {
        notes.push_str(&note);
        notes.push('\n');
    }
    text + &wrapped(&notes)
}

fn shape(run: &Run) -> String {
    let mut parts = vec![
        plural(run.partitions.into(), "partition"),
        plural(run.producers.into(), "producer"),
        format!("records of {}", size(run.record_bytes)),
        format!("batches of {}", batch(run)),
        format!("linger {}", linger(run.linger_us)),
        format!("{} in flight", run.in_flight),
        load(run),
        format!("{}{} outstanding each", if run.rate > 0 { "at most " } else { "" }, run.outstanding),
    ];
    if run.keys > 0 {
        parts.push(plural(run.keys.into(), "key"));
    }
    if !["", "none"].contains(&run.compression.as_str()) {
        parts.push(run.compression.clone());
    }
    if run.tail_consumers > 0 {
        parts.push(format!("{} at the tail", plural(run.tail_consumers.into(), "consumer")));
    }
    if run.cold_consumers > 0 {
        parts.push(format!("{} of a backlog", plural(run.cold_consumers.into(), "consumer")));
    }
    parts.join(", ")
}

/// Writes a right-aligned row.
fn row(text: &mut String, cells: &[String]) {
    let mut line = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        _ = write!(line, "{cell:>width$}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn named_row(text: &mut String, name: &str, latency: &Percentiles) {
    let front: usize = COLUMNS[..FRONT].iter().map(|(_, width)| width).sum();
    _ = write!(text, "{name:<front$}");
    for (cell, (_, width)) in percentiles(Some(latency)).iter().zip(&COLUMNS[FRONT..]) {
        _ = write!(text, "{cell:>width$}");
    }
    text.push('\n');
}

fn percentiles(latency: Option<&Percentiles>) -> [String; PERCENTILES] {
    let Some(p) = latency else { return [NONE; PERCENTILES].map(str::to_owned) };
    [p.p50, p.p99, p.p999, p.p9999, p.max].map(|ns| duration(ns as f64))
}

fn broker_cells(broker: Option<&ProcessUse>) -> [String; 4] {
    let Some(used) = broker else { return [NONE; 4].map(str::to_owned) };
    [
        format!("{:.2}", used.cpu_seconds_per_gb),
        bytes(used.rss_bytes_max as f64),
        if used.bytes_written == 0 { NONE.to_owned() } else { format!("{:.2}", used.bytes_written_per_byte) },
        used.syncs_per_second.map_or_else(|| NONE.to_owned(), count),
    ]
}

fn cells(
    front: [String; FRONT],
    latency: Option<&Percentiles>,
    broker: Option<&ProcessUse>,
    wrong: String,
) -> Vec<String> {
    front.into_iter().chain(percentiles(latency)).chain(broker_cells(broker)).chain([wrong]).collect()
}

fn run_cells(run: &Run) -> Vec<String> {
    let limit = run.limit_percent.map_or_else(|| NONE.to_owned(), |percent| format!("{percent:.0} %"));
    let number = if run.saturated { format!("{}!", run.run) } else { run.run.to_string() };
    let front = [number, count(run.records_per_second), megabytes(run.bytes_per_second), limit];
    cells(
        front,
        run.latency_ns.produce.as_ref(),
        run.broker.as_ref(),
        wrong(run.lost, run.duplicated, run.reordered),
    )
}

/// Formats `lost/duplicated/reordered`. If that is too wide, the remarks have the numbers.
fn wrong(lost: u64, duplicated: u64, reordered: u64) -> String {
    let text = format!("{lost}/{duplicated}/{reordered}");
    if text.len() < COLUMNS[COLUMNS.len() - 1].1 { text } else { "WRONG".to_owned() }
}

fn all_cells(group: &Group<'_>, produce: Option<&Percentiles>) -> Vec<String> {
    let percents: Vec<f64> = group.runs.iter().filter_map(|run| run.limit_percent).collect();
    let limit = match (percents.iter().copied().reduce(f64::min), percents.iter().copied().reduce(f64::max)) {
        (Some(low), Some(high)) if format!("{low:.0}") != format!("{high:.0}") => {
            format!("{low:.0}–{high:.0}%")
        }
        (_, Some(high)) => format!("{high:.0} %"),
        _ => NONE.to_owned(),
    };
    let front = [
        "all".to_owned(),
        spread(group.each(|run| run.records_per_second)),
        span(group.each(|run| run.bytes_per_second)),
        limit,
    ];
    let sum = |of: fn(&Run) -> u64| group.runs.iter().map(|run| of(run)).sum::<u64>();
    let wrong = wrong(sum(|run| run.lost), sum(|run| run.duplicated), sum(|run| run.reordered));
    cells(front, produce, group.broker().as_ref(), wrong)
}

/// Formats megabytes, with one decimal below 100.
fn megabytes(bytes: f64) -> String {
    let value = bytes / 1e6;
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn span(values: impl Iterator<Item = f64> + Clone) -> String {
    span_of(values, megabytes)
}

fn span_of(values: impl Iterator<Item = f64> + Clone, format: fn(f64) -> String) -> String {
    let low = format(values.clone().fold(f64::INFINITY, f64::min));
    let high = format(values.fold(0.0, f64::max));
    if low == high { high } else { format!("{low}–{high}") }
}

/// Returns remarks about a group, the most serious first.
fn remarks(group: &Group<'_>) -> Vec<String> {
    let mut remarks = Vec::new();
    for run in group.runs.iter().filter(|run| run.saturated) {
        let why = run.saturated_why.as_deref().unwrap_or("it did not keep the schedule");
        remarks.push(format!("GENERATOR SATURATED in run {}: {why}. Its latencies are not valid.", run.run));
    }
    for run in &group.runs {
        if run.lost + run.duplicated + run.reordered > 0 {
            let Run { run: number, lost, duplicated, reordered, .. } = run;
            remarks.push(format!(
                "WRONG in run {number}: {lost} lost, {duplicated} duplicated, {reordered} reordered."
            ));
        }
        for (kind, times) in &run.errors {
            remarks.push(format!("Errors in run {}: {kind}, {}.", run.run, plural(*times, "time")));
        }
    }
    let first = group.first();
    if let Some(name) = &first.limit_name {
        remarks.push(format!("The limit is `{name}`, measured between the runs."));
    }
    let gap = group.each(|run| run.longest_gap_ns as f64).fold(0.0, f64::max);
    if gap > 0.0 {
        remarks.push(format!("The longest time without an acknowledgement was {}.", duration(gap)));
    }
    let cold: Vec<f64> = group.runs.iter().filter_map(|run| run.cold_bytes_per_second).collect();
    if !cold.is_empty() {
        let percent = group.runs.iter().filter_map(|run| run.cold_limit_percent);
        let percent = match percent.clone().next() {
            Some(_) => {
                let percent = span_of(percent, |percent| format!("{percent:.0}"));
                format!(", {percent} % of the disk's sequential reads")
            }
            None => String::new(),
        };
        remarks.push(format!("The backlog was read at {} MB/s{percent}.", span(cold.iter().copied())));
    }
    let generator = group.generator();
    remarks.push(format!(
        "The generator used {:.2} CPU s/GB and {}.",
        generator.cpu_seconds_per_gb,
        bytes(generator.rss_bytes_max as f64)
    ));
    remarks
}

fn limits(limits: &[Limit]) -> String {
    if limits.is_empty() {
        return String::new();
    }
    let name = limits.iter().map(|limit| limit.name.chars().count()).max().unwrap_or(0);
    let mut text = String::from("\nLimits of the machine\n");
    for limit in limits {
        let value = match limit.unit.as_str() {
            "B/s" => format!("{}/s", bytes(limit.value)),
            "ns" => duration(limit.value),
            unit => format!("{} {unit}", count(limit.value)),
        };
        _ = writeln!(text, "{:<name$}  {value}", limit.name);
    }
    text
}

/// Wraps lines to at most [`WIDTH`] where possible. Continuation lines are indented.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut width = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if width > 0 && width + 1 + length > WIDTH {
                out.push_str("\n   ");
                width = 3;
            }
            if width > 0 {
                out.push(' ');
                width += 1;
            }
            out.push_str(word);
            width += length;
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SCHEMA;
    use crate::report::run::tests::outcome;

    fn report() -> Report {
        let limit = Limit { name: "pipeline".into(), value: 2e8, unit: "B/s".into() };
        let runs = (1..=3)
            .map(|run| {
                let mut run = Run::of(&outcome(run));
                run.set_limit(&limit);
                run
            })
            .collect();
        let environment = Environment {
            cpu: "A Processor".into(),
            cores: 2,
            memory_bytes: 24_000_000_000,
            kernel: "6.18".into(),
            disk: "vda".into(),
            filesystem: "ext4".into(),
            commit: "0123456789ab".into(),
            version: "0.1.0".into(),
            started: "2026-11-21T08:00:00Z".into(),
            ..Environment::default()
        };
        Report { schema: SCHEMA, environment, limits: vec![limit], runs }
    }

    const GOLDEN: &str = "\
A Processor, 2 cores, 24.0 GB, Linux 6.18
ext4 on vda
highwater 0.1.0, commit 0123456789ab, 2026-11-21T08:00:00Z

few-big on native, acknowledged: on stable storage of 1 of 1 replicas
1 partition, 2 producers, records of 1000 B, batches of 1 MiB, linger 0, 5 in flight, closed loop, 2000 outstanding
    each, 1 consumer at the tail
run    records/s      MB/s  limit      p50      p99    p99.9   p99.99      max CPU s/GB  memory disk/B syncs/s  l/d/r
  1        101 k       101   50 %  1.00 ms  1.00 ms  10.0 ms  10.0 ms  10.0 ms     0.25  400 MB   1.00     500  0/0/0
  2        102 k       102   51 %  2.00 ms  2.00 ms  20.0 ms  20.0 ms  20.0 ms     0.25  400 MB   0.99     500  0/0/0
  3        103 k       103   52 %  3.00 ms  3.00 ms  30.0 ms  30.0 ms  30.0 ms     0.24  400 MB   0.98     500  0/0/0
all    101–103 k   101–103 50–52%  2.00 ms  3.00 ms  30.0 ms  30.0 ms  30.0 ms     0.25  400 MB   0.99     500  0/0/0
service time                       2.00 ms  3.00 ms  30.0 ms  30.0 ms  30.0 ms
end to end                         2.00 ms  3.00 ms  30.0 ms  30.0 ms  30.0 ms
The limit is `pipeline`, measured between the runs.
The longest time without an acknowledgement was 12.0 ms.
The generator used 0.49 CPU s/GB and 50.0 MB.
";

    #[test]
    fn the_table_matches_the_golden_text() {
        let found = table(&report());
        let expected = format!("{GOLDEN}{LEGEND}\nLimits of the machine\npipeline  200 MB/s\n");
        assert_eq!(found, expected, "\n{found}");
    }

    #[test]
    fn lines_are_wrapped_and_problems_are_reported() {
        let mut report = report();
        let run = &mut report.runs[1];
        (run.saturated, run.saturated_why) = (true, Some("the schedule was missed by 2 s".into()));
        (run.lost, run.reordered) = (123_456, 7);
        run.errors.insert("connection lost".into(), 4);
        for run in &mut report.runs {
            run.acknowledgement = "a sentence that goes on and on ".repeat(8);
            run.records_per_second = 998_765.0 * f64::from(run.run);
            run.bytes_per_second = 998_765_000.0 * f64::from(run.run);
            run.broker = None;
        }
        let text = table(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        for said in [
            "GENERATOR SATURATED in run 2: the schedule was missed by 2 s.",
            "WRONG in run 2: 123456 lost, 0 duplicated, 7 reordered.",
            "Errors in run 2: connection lost, 4 times.",
        ] {
            assert!(text.contains(said), "{said}\n{text}");
        }
    }
}
