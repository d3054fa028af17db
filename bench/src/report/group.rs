//! Groups of runs of one workload on one broker: rates with their spread, and latencies of all their records.

use super::numbers::{linger, plural, size};
use super::{Latencies, Percentiles, ProcessUse, Run};

/// Repeated runs with identical settings.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The runs; at least one.
    pub runs: Vec<&'a Run>,
}

/// Settings that must be equal for two results to be comparable, as `(name, value)`.
pub type Terms = Vec<(&'static str, String)>;

/// Groups the runs of a report, in the order of their first runs.
pub fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let same = |group: &&mut Group<'_>| {
            let first = group.first();
            first.scenario == run.scenario && first.backend == run.backend && terms(first) == terms(run)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { runs: vec![run] }),
        }
    }
    groups
}

/// Returns the terms of a run.
pub fn terms(run: &Run) -> Terms {
    vec![
        ("acknowledgement", run.acknowledgement.clone()),
        ("load", load(run)),
        ("partitions", run.partitions.to_string()),
        ("record", size(run.record_bytes)),
        ("keys", run.keys.to_string()),
        ("connections", plural(run.producers.into(), "producer")),
        ("batch", batch(run)),
        ("linger", linger(run.linger_us)),
        ("in flight", run.in_flight.to_string()),
        ("outstanding", run.outstanding.to_string()),
        ("compression", run.compression.clone()),
        ("consumers", format!("{} at the tail, {} of the backlog", run.tail_consumers, run.cold_consumers)),
    ]
}

/// Formats the batch limit: `1 MiB`, or `1 record`.
pub(super) fn batch(run: &Run) -> String {
    match run.batch_records {
        0 => size(run.batch_bytes),
        records => format!("{} or {}", plural(records.into(), "record"), size(run.batch_bytes)),
    }
}

/// Formats the load: `closed loop`, or `open loop at 4000/s`.
pub(super) fn load(run: &Run) -> String {
    match run.rate {
        0 => "closed loop".to_owned(),
        rate => format!("open loop at {rate}/s"),
    }
}

impl<'a> Group<'a> {
    /// Returns the first run. All runs have the same workload, backend and terms.
    pub fn first(&self) -> &'a Run {
        self.runs[0]
    }

    /// Returns a number of each run.
    pub fn each<'s>(
        &'s self,
        of: impl Fn(&'a Run) -> f64 + Clone + 's,
    ) -> impl Iterator<Item = f64> + Clone + 's {
        self.runs.iter().map(move |run| of(run))
    }

    /// Returns the median of a number over the runs.
    pub fn median(&self, of: impl Fn(&'a Run) -> f64 + Clone) -> f64 {
        let mut all: Vec<f64> = self.each(of).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        if all.len().is_multiple_of(2) { f64::midpoint(all[middle - 1], all[middle]) } else { all[middle] }
    }

    /// Returns the latencies of all records of all runs. A kind that some run lacks is `None`.
    pub fn latencies(&self) -> Latencies {
        let merged = |of: fn(&Latencies) -> Option<&Percentiles>| {
            let parts: Option<Vec<&Percentiles>> = self.runs.iter().map(|run| of(&run.latency_ns)).collect();
            match parts?.as_slice() {
                // Histograms are optional in a report, and not needed for a single run.
                [single] => Some((*single).clone()),
                parts => Percentiles::merged(parts.iter().copied()),
            }
        };
        Latencies {
            produce: merged(|l| l.produce.as_ref()),
            end_to_end: merged(|l| l.end_to_end.as_ref()),
            service: merged(|l| l.service.as_ref()),
            send_delay: merged(|l| l.send_delay.as_ref()),
        }
    }

    /// Returns the broker's usage over all runs, with ratios of the sums. `None` if a run has no usage.
    pub fn broker(&self) -> Option<ProcessUse> {
        let each: Option<Vec<&ProcessUse>> = self.runs.iter().map(|run| run.broker.as_ref()).collect();
        Some(self.together(&each?))
    }

    /// Returns the load generator's usage over all runs.
    pub fn generator(&self) -> ProcessUse {
        self.together(&self.runs.iter().map(|run| &run.generator).collect::<Vec<_>>())
    }

    fn together(&self, each: &[&ProcessUse]) -> ProcessUse {
        let bytes: f64 = self.each(|run| run.bytes_per_second * run.seconds).sum();
        let seconds: f64 = self.each(|run| run.seconds).sum();
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let cpu_seconds = each.iter().map(|used| used.cpu_seconds).sum();
        let bytes_written = each.iter().map(|used| used.bytes_written).sum();
        let syncs: Option<u64> = each.iter().map(|used| used.syncs).sum();
        ProcessUse {
            cpu_seconds,
            cpu_seconds_per_gb: ratio(cpu_seconds, bytes / super::run::BYTES_PER_GB),
            rss_bytes_max: each.iter().map(|used| used.rss_bytes_max).max().unwrap_or(0),
            context_switches: each.iter().map(|used| used.context_switches).sum(),
            bytes_written,
            bytes_written_per_byte: ratio(bytes_written as f64, bytes),
            syncs,
            syncs_per_second: syncs.map(|syncs| ratio(syncs as f64, seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::tests::outcome;

    #[test]
    fn runs_with_identical_settings_are_grouped() {
        let other = |change: fn(&mut Run)| {
            let mut run = Run::of(&outcome(1));
            change(&mut run);
            run
        };
        let runs = [
            Run::of(&outcome(1)),
            other(|run| run.backend = "kafka".into()),
            Run::of(&outcome(2)),
            other(|run| run.rate = 4_000),
            other(|run| run.acknowledgement = "in the page cache".into()),
            other(|run| run.producers = 50),
        ];
        let groups = groups(&runs);
        assert_eq!(groups.len(), 5);
        assert_eq!(groups[0].runs.iter().map(|run| run.run).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(load(groups[2].first()), "open loop at 4000/s");
    }

    #[test]
    fn ratios_of_a_group_are_ratios_of_sums() {
        let runs: Vec<Run> = (1..=3).map(|run| Run::of(&outcome(run))).collect();
        let group = Group { runs: runs.iter().collect() };
        let broker = group.broker().expect("each has one");
        assert!((broker.cpu_seconds - 0.75).abs() < 1e-9);
        assert!((broker.cpu_seconds_per_gb - 0.75 / 3.06).abs() < 1e-9);
        assert_eq!(broker.syncs, Some(15_000));
        assert_eq!(broker.rss_bytes_max, 400_000_000);
        assert!((group.median(|run| run.records_per_second) - 102_000.0).abs() < 1e-6);
        let produce = group.latencies().produce.expect("each has them");
        assert_eq!(produce.count, 3_000_000);
        assert!(produce.max >= 30_000_000);
        assert!(group.latencies().send_delay.is_none());
    }
}
